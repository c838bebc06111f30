"""Inputs that the page offers as examples; the first of each task is one as in `tasks.examples`.

No training data holds them: the recordings are spoken on the spot, the clips are rendered, and the
genes are made up.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.serving.served import Served

BASES = str.maketrans("ACGT", "TGCA")
SIDE = 192  # pixels of a rendered frame
RATE = 12.5  # frames per second of a clip
PERSON = 1001  # those from 1000 on are in no data set


class Sample(NamedTuple):
    """An example: what a person reads of it, and the values of the tab's inputs."""

    label: str
    inputs: tuple[Any, ...]


def _texts(*texts: str) -> list[Sample]:
    return [Sample(text, (text,)) for text in texts]


def sentiment(model: Served, folder: Path) -> list[Sample]:
    """Return reviews."""
    del model, folder
    return _texts(
        "There is nothing to like in this movie.",
        "A warm and funny film.",
        "The second half drags a little, yet the pictures are a joy.",
        "The battery died after two days.",
    )


def ner(model: Served, folder: Path) -> list[Sample]:
    """Return sentences with names."""
    del model, folder
    return _texts(
        "Yesterday, Harry Potter met Hermione Granger.",
        "Ada Lovelace lived in London.",
        "Lena Brandt flew from Oslo to Lisbon with Nordwind Airlines.",
    )


def translation(model: Served, folder: Path) -> list[Sample]:
    """Return sentences in the language of the model."""
    del folder
    texts = {
        "fr": ("Voulez-vous chanter avec moi?", "Où est la gare ?", "Il pleut depuis ce matin."),
        "en": ("Do you want to sing with me?", "Where is the station?", "My sister is a doctor."),
    }
    return _texts(*texts.get(model.settings["languages"][0], ()))


def dna(model: Served, folder: Path) -> list[Sample]:
    """Return a short sequence, and FASTA of three genes with and without introns."""
    del folder
    short = Sample("AGCCCCTGTGAGGAACTAG", ("AGCCCCTGTGAGGAACTAG",))
    spliced = model.settings["config"]["spliced"]
    genes = Sample("FASTA of three genes", (three_genes(spliced=spliced),))
    return [genes, short] if spliced else [short, genes]


def three_genes(*, spliced: bool = False) -> str:
    """Return a made-up record of FASTA with three genes, the second on the reverse strand.

    Args:
      spliced: whether each gene has an intron, instead of a site that binds the ribosome.
    """
    bodies = (
        "AAACTGGCGGAAGATCTGACCGTGAAAGGCATTCCGCTGGAACGTGCGATTGAACTGGGCAAACGTATTGCG" * 3,
        "AGCGATATCCTGAACAAAGCGGTTGAACAGCTGCGTGAAGCGGGCTATACCGTGGATCTGATTAAACCGCAG" * 4,
        "ACCGAAATTCAGCGTCTGGTTGATGCGCTGAAAGCGGGTGAAGACCTGCCGCGTTTTAACGTGGGCAGCATT" * 2,
    )
    gap, end = "TTTATTATCAATT", "ATAATTATTTAATAAT"
    parts = []
    for number, body in enumerate(bodies):
        if spliced:
            third = len(body) // 9 * 3
            intron = "GTAAGTATTTTAATTTTGAATATTTTTCATTAACTTTTTATTTATTTTTCTTTTCAG"
            gene = f"{gap}CAAAATG{body[:third]}{intron}{body[third:]}TAA"
        else:
            gene = f"{gap}AGGAGGTATTATCATG{body}TAA"
        parts.append(gene[::-1].translate(BASES) if number == 1 else gene)
    sequence = end.join(parts) + end
    lines = textwrap.wrap(sequence, 50)
    return "\n".join([">three_genes made up", *lines])


def speech(model: Served, folder: Path) -> list[Sample]:
    """Return recordings, spoken on the spot by a voice outside the training data.

    Raises:
      InputError: the extra [voices] is not installed.
    """
    from tasks.examples import VOICE
    from tasks.speech import audio
    from tasks.speech.voices import Voice, speak

    del model
    texts = {
        "fox": "the quick brown fox jumped over the lazy dog",
        "light": "turn on the light in the kitchen",
    }
    family, _, name = VOICE.partition(":")
    sounds = speak([(text, Voice(family, name)) for text in texts.values()])
    samples = []
    for word, sound in zip(texts, sounds, strict=True):
        path = folder / f"{word}.wav"
        audio.write(path, sound)
        samples.append(Sample(path.name, (str(path),)))
    return samples


def video(model: Served, folder: Path) -> list[Sample]:
    """Return clips of a person who is in no data set; none for a model of joints."""
    from tasks.video import gaits

    if "joints" in model.settings:
        return []
    samples = []
    for activity, take in {"running": 1, "waving": 1, "jumping jacks": 0}.items():
        path = folder / f"{activity.replace(' ', '_')}.mp4"
        path.write_bytes(gaits.encode_clip((activity, PERSON, take), rate=RATE, size=SIDE))
        samples.append(Sample(path.name, (str(path),)))
    return samples


def music(model: Served, folder: Path) -> list[Sample]:
    """Return settings for music from nothing."""
    del folder
    bar = 4 * model.settings["steps_per_quarter"]
    return [
        Sample("eight bars from nothing", (None, 8 * bar, 1.0, 0.95, 0)),
        Sample("calmer", (None, 8 * bar, 0.7, 0.9, 1)),
        Sample("wilder, sixteen bars", (None, 16 * bar, 1.4, 1.0, 2)),
    ]


SAMPLES: Mapping[str, Callable[[Served, Path], list[Sample]]] = {
    make.__name__: make for make in (sentiment, ner, translation, dna, speech, video, music)
}
