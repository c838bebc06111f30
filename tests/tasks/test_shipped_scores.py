"""The models in `saved_models/` on 200 rows of ours each.

The floors stand a little below what the models of the repository reach; nothing is chosen by them.
They find a model or a reader that has become worse, where the golden answers change as a whole.
"""

import itertools
from pathlib import Path

from common.errors import InputError
from common.files import read_lines
from common.serving.served import load_export
from common.serving.versions import SHIPPED
from tasks.dna import evaluate as dna
from tasks.music import evaluate as music
from tasks.music.formats import Piece
from tasks.ner import evaluate as ner
from tasks.ner.formats import entity_types, read_conll
from tasks.sentiment import load as load_sentiment
from tasks.speech import audio, synthesis
from tasks.speech import evaluate as speech
from tasks.translation import evaluate as translation
from tasks.translation import load as load_translation
from tasks.video import clips, gaits
from tests.tasks.own.bacteria import bacterium
from tests.tasks.own.dna import fly_record

import numpy as np
import pytest

pytestmark = pytest.mark.commands

ROOT = Path(__file__).parents[2]
ROWS = 200
SUBJECTS = "film hotel phone dinner concert book service room game trip".split()  # noqa: SIM905
GOOD = "great wonderful excellent superb lovely charming fantastic brilliant delightful perfect"
BAD = "terrible awful boring horrible disappointing dreadful useless ugly tedious stupid"


def test_sentiment_tells_praise_from_blame():
    rows = [
        (f"The {subject} was {word}.", polarity)
        for polarity, words in ((1, GOOD), (-1, BAD))
        for word in words.split()
        for subject in SUBJECTS
    ]
    ratings = load_sentiment(SHIPPED / "sentiment" / "1")([text for text, _ in rows])
    right = [
        np.sign(r.stars - 3) == polarity for r, (_, polarity) in zip(ratings, rows, strict=True)
    ]
    assert len(rows) == ROWS and np.mean(right) >= 0.97


def test_ner_finds_the_names_of_everyday_sentences():
    rows = read_conll(ROOT / "tasks" / "ner" / "sentences" / "test.conll")[:ROWS]
    served = load_export(SHIPPED / "ner" / "1")
    scored = ner.score(served, rows, entity_types(served.settings["labels"]))
    assert scored.examples == ROWS and scored.metrics["f1"] >= 0.7


def test_translation_translates_everyday_sentences():
    files = ["tests/tasks/translation/everyday.tsv", "tasks/translation/phrases/validation.tsv"]
    files.append("tasks/translation/phrases/test.tsv")
    lines = [line for name in files for _, line in read_lines(ROOT / name)][:ROWS]
    rows = [line.split("\t")[:2] for line in lines if line.strip()]
    results = load_translation(SHIPPED / "translation" / "1")([source for source, _ in rows])
    references = [target.split(" / ") for _, target in rows]
    scores, _ = translation.metrics([result.text for result in results], references)
    assert len(rows) == ROWS and scores["bleu"] >= 40


def test_dna_finds_the_genes_of_a_made_up_bacterium():
    record = bacterium(np.random.default_rng(29), genes_wanted=ROWS)
    scored = dna.score(load_export(SHIPPED / "dna" / "1"), [record])
    assert len(record.genes) == ROWS and scored.metrics["stop_f1"] >= 0.6  # its codons are random


def test_dna_finds_the_exons_of_made_up_flies():
    random = np.random.default_rng(29)
    records = [fly_record(random, str(n), genes_wanted=2) for n in range(ROWS // 6)]
    scored = dna.score(load_export(SHIPPED / "dna-drosophila" / "1"), records).metrics
    assert scored["exon_f1"] >= 0.85 and scored["gene_f1"] >= 0.65


MAJOR = (0, 2, 4, 5, 7, 9, 11)
# The usual successors of a triad, by the degree of its root; a phrase ends with a cadence.
FOLLOWING = {0: (1, 3, 4, 5), 1: (4,), 3: (0, 1, 4), 4: (0, 5), 5: (1, 3, 4)}
VOICES = ((60, 79), (55, 74), (48, 67), (40, 60))  # soprano, alto, tenor, bass: MIDI notes


def voiced(chord, before):
    """Return four notes of a triad, given as root, third and fifth, with the root in the bass.

    They are those nearest to the four notes before, each from the soprano to the bass.
    """
    choices = [[n for n in range(a, b) if n % 12 in chord] for a, b in VOICES]
    choices[3] = [note for note in choices[3] if note % 12 == chord[0]]
    whole = (
        notes
        for notes in itertools.product(*choices)
        if {n % 12 for n in notes} == {*chord} and all(np.diff(notes) < 0)
    )
    return min(whole, key=lambda notes: np.abs(np.subtract(notes, before)).sum())


def phrase(random):
    """Return a phrase of eight chords, a quarter note each, as a piano roll of 16 frames."""
    degrees = [0]
    while len(degrees) < 6:
        degrees.append(random.choice(FOLLOWING[degrees[-1]]))
    tonic, frames, notes = random.integers(12), np.zeros((16, 88)), (70, 65, 57, 48)
    for number, degree in enumerate([*degrees, 4, 0]):
        before = notes if number else ()
        notes = voiced([(tonic + MAJOR[(degree + n) % 7]) % 12 for n in (0, 2, 4)], notes)
        for note in notes:
            frames[2 * number : 2 * number + 2, note - 21] = 1
            frames[2 * number, note - 21] += note in before  # struck again
    return frames


def test_music_expects_the_chords_of_a_chorale():
    random = np.random.default_rng(29)
    phrases = [phrase(random) for _ in range(ROWS)]
    mixed = [random.permutation(row.reshape(8, 2, 88)).reshape(16, 88) for row in phrases]
    served = load_export(SHIPPED / "music" / "1")
    nll, of_mixed = (
        music.score(served, [Piece("", row) for row in rows], batch_size=50).metrics["nll"]
        for rows in (phrases, mixed)
    )
    assert nll <= 2.8 and of_mixed >= nll + 0.5  # the same chords in any order


def test_speech_hears_speakers_and_sentences_that_it_was_not_trained_on():
    try:
        synthesis.check_installed()
    except InputError as error:
        pytest.skip(str(error))
    spoken = [
        (sentence.text, sound)
        for sentence, _, sound in synthesis.recordings("validation", ROWS, seed=29)
    ]
    served = load_export(SHIPPED / "speech" / "1")
    sounds = [sound for _, sound in spoken]
    heard = served.predict("serving_default", sounds, audio.request, batch_size=20)
    texts = [outputs["text"].decode() for _, outputs in heard]
    wer = speech.metrics([text for text, _ in spoken], texts)["wer"]
    assert len(texts) == ROWS and wer <= 0.25


def test_video_recognises_the_gaits_of_new_people():
    served = load_export(SHIPPED / "video" / "1")
    labels = [*itertools.islice(itertools.cycle(gaits.ACTIVITIES), ROWS)]
    frames = [
        gaits.clip(activity, 1000 + n, 7, rate=12.5, size=64) for n, activity in enumerate(labels)
    ]

    def request(rows):
        return clips.clip_request(rows, [12.5] * len(rows))

    outputs = served.predict("serving_default", frames, request, batch_size=20)
    right = [row["activity"].decode() == a for (_, row), a in zip(outputs, labels, strict=True)]
    assert len(right) == ROWS and np.mean(right) >= 0.8
