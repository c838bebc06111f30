"""Answers of the models for the page: raw input -> HTML, with `views`.

Each function is called with an export, a folder for files that the page shows, and the inputs of
its tab. It raises `InputError` for input that the user must change.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import InputError
from common.serving.served import Served
from tasks.demo import views

import numpy as np

PIECES = 60  # of a review that are left out one at a time
DRAWN_BASES = 20_000  # of a record
DRAWN_RECORDS = 10
SHORT_BASES = 60  # of a sequence whose labels are shown at once
DRAWN_ACTIVITIES = 4
STRIP = 96  # pixels, the height of a frame in a film strip
KEPT_FILES = 60  # that the page wrote for answers


class Answer(NamedTuple):
    """An answer: in one line and as HTML, and a player of what goes in or comes out, as HTML."""

    summary: str
    view: str
    player: str = ""


def require_text(text: str | None, noun: str) -> str:
    """Return the text without surrounding whitespace; `noun` names it in the message.

    Raises:
      InputError: the text is empty.
    """
    if not text or not text.strip():
        raise InputError(f"Type {noun} first.")
    return text.strip()


def keep(folder: Path, content: bytes, name: str) -> Path:
    """Write a file of an answer, and delete the oldest ones."""
    own = folder / f"answer-{hashlib.sha1(content).hexdigest()[:12]}"
    own.mkdir(exist_ok=True)
    path = own / name
    path.write_bytes(content)
    earlier = sorted(folder.glob("answer-*/*"), key=lambda file: file.stat().st_mtime)
    for file in earlier[:-KEPT_FILES]:
        file.unlink()
    return path


# --- Texts ----------------------------------------------------------------------------------------


def sentiment(model: Served, folder: Path, text: str | None) -> Answer:
    """Rate a review, and rate it again without each of its words."""
    from tasks.sentiment import predict

    del folder
    text = require_text(text, "a review")
    words = text.split()
    count = min(len(words), PIECES)
    ends = [round(n * len(words) / count) for n in range(count + 1)]
    pieces = [" ".join(words[a:b]) for a, b in itertools.pairwise(ends)]
    shorter = [" ".join([*pieces[:n], *pieces[n + 1 :]]) for n in range(count)]
    rating, *others = predict.predict(model, [text, *shorter], batch_size=64)
    if not rating.stars:
        raise InputError("There is no word in this text.")
    label = str(rating.label)
    summary = f"{rating.stars} star{'s' * (rating.stars > 1)}"
    expected = mean_stars(rating.probabilities)
    weights = [
        None if other.probabilities == {} else expected - mean_stars(other.probabilities)
        for other in others
    ]
    cut = ["Only the beginning of this long text was read."] if rating.truncated else []
    view = views.stars(rating.stars)
    view += "".join(views.paragraph(note, "note") for note in cut)
    view += views.titled("Probability of each class", views.bars(rating.probabilities, label))
    view += views.titled(
        "What the words do",
        views.contributions(zip(pieces, weights, strict=True)),
        "Stars that a word adds (+) or takes away (−): the rating is computed again without it. "
        f"The mean rating is {expected:.1f} stars.",
    )
    return Answer(f"{summary} ({views.percent(rating.probabilities[label])})", view)


def mean_stars(probabilities: Mapping[str, float]) -> float:
    """Return the expected stars, from 1 for the first class to 5 for the last one.

    Example:
      >>> mean_stars({"bad": 0.25, "good": 0.75})
      4.0
    """
    places = np.linspace(1.0, 5.0, len(probabilities))
    return float(places @ np.array([*probabilities.values()]))


def ner(model: Served, folder: Path, text: str | None) -> Answer:
    """Find the names in a text, and the probability of each type for each word."""
    from tasks.ner import predict

    del folder
    text = require_text(text, "a sentence")
    (tagged,) = predict.predict(model, [text], batch_size=1)
    if not tagged.tokens:
        raise InputError("There is no word in this text.")
    part, types, probabilities = predict.explain(model, text)
    found = tagged.entities
    marks = [
        views.Mark(e.start, e.end, e.label, e.probability, types.index(e.label)) for e in found
    ]
    view = views.marked_text(text, marks)
    view += "" if found else views.paragraph("No name was found.", "note")
    names = ", ".join(f"{e.text} ({e.label})" for e in found) or "no name"
    view += views.titled(
        "Probability of each type",
        views.matrix(part.tokens, types, probabilities, label="words and types"),
        "A row for each word; what is missing from 1 is the probability that it is no name.",
    )
    return Answer(names, view)


def translation(model: Served, folder: Path, text: str | None) -> Answer:
    """Translate a text, and show the attention weights of its first sentence."""
    from tasks.translation import predict

    del folder
    text = require_text(text, "a sentence")
    n_best = max(2, model.settings["config"]["beam"])
    (prediction,) = predict.predict(model, [text], n_best=n_best, batch_size=1)
    if "message" in prediction:
        raise InputError(f"There is {prediction['message']}.")
    best = prediction["translation"]
    view = views.paragraph(best, "translated")
    if prediction.get("truncated"):
        view += views.paragraph("The end is missing: the text is too long.", "note")
    listed = [
        (one["translation"], views.percent(math.exp(one["score"]))) for one in prediction["n_best"]
    ]
    view += views.titled(
        "Best translations",
        views.table(("translation", "probability"), listed),
        "The probability is that of a subword, the geometric mean over the translation.",
    )
    source, target, weights = predict.explain(model, text)
    first = " of the first sentence" if "sentences" in prediction else ""
    view += views.titled(
        f"Attention{first}",
        views.matrix(_names(target), _names(source), weights, label="attention weights"),
        "A row for each subword of the translation: where the model looks in the sentence.",
    )
    return Answer(f"{best} ({listed[0][1]})", view)


def _names(subwords: list[str]) -> list[str]:
    return ["(end)" if subword == "</s>" else subword for subword in subwords]


# --- DNA ------------------------------------------------------------------------------------------


def read_dna(text: str | None, longest: int) -> list[Any]:
    """Return the records of a pasted text: FASTA, or one sequence, also with numbered lines.

    Raises:
      InputError: it is empty, malformed or too long.
    """
    from tasks.dna import formats, genes, predict

    text = require_text(text, "or paste a sequence")
    if text.startswith((">", ";")):
        records = [genes.Record(*row) for row in formats.read_fasta(text.splitlines(), "The text")]
    else:
        letters = re.sub(r"\s|\b\d+\b", "", text)
        records = [genes.Record("sequence", predict.checked(letters, "The sequence"))]
    total = sum(len(record.sequence) for record in records)
    if total > longest:
        raise InputError(
            f"{total:,} bases are more than {longest:,}; "
            "python -m tasks.dna.predict accepts records of any length."
        )
    return records


def dna(model: Served, folder: Path, text: str | None) -> Answer:
    """Find the genes in the records of a FASTA text, and draw them as arrows."""
    from tasks.dna import outputs, predictions
    from tasks.dna.genes import to_text

    del folder
    records = read_dna(text, model.settings["max_bases"])
    predicted = predictions.predict(model, [record.sequence for record in records], batch_size=8)
    found = [prediction for _, prediction in predicted]
    drawn, number = "", 1
    listed: list[dict[str, str]] = []
    gff, proteins, labels = ["##gff-version 3"], list[str](), list[str]()
    for record, prediction in zip(records, found, strict=True):
        if len(labels) < DRAWN_RECORDS:
            drawn += _draw_record(model, record, prediction, number)
        for n, one in enumerate(prediction.genes, start=number):
            of = {"record": record.name} if len(records) > 1 else {}
            listed.append({"gene": f"gene{n}", **of, **_describe_gene(one)})
        gff += outputs.gff_lines(record, prediction.genes, number)
        code = prediction.genetic_code
        proteins += outputs.fasta_lines(record, prediction, number, protein=True, code=code)
        labels.append(f">{record.name}\n{to_text(prediction.labels)}")
        number += len(prediction.genes)
    if len(records) > DRAWN_RECORDS:
        drawn += views.paragraph(f"The first {DRAWN_RECORDS} records are drawn.", "note")
    count = f"{len(listed)} gene{'s' * (len(listed) != 1)}" if listed else "No gene"
    within = f" in {len(records)} records" if len(records) > 1 else ""
    is_short = len(records) == 1 and len(records[0].sequence) <= SHORT_BASES
    view = views.paragraph(f"{count}{within} found", "translated") + drawn
    if listed:
        view += views.titled(
            "Genes", views.table([*listed[0]], [[*row.values()] for row in listed])
        )
        view += views.listing("Proteins (FASTA)", "\n".join(proteins), "proteins.faa")
    view += views.listing("Genes (GFF3)", "\n".join(gff), "genes.gff3")
    legend = "Labels (. none, C coding, I intron; lower case: reverse strand)"
    view += views.listing(legend, "\n".join(labels), "labels.txt", is_open=is_short)
    of_bases = f"{to_text(found[0].labels)} " if is_short else ""
    return Answer(f"{of_bases}{count.lower()}{within}", view)


def _describe_gene(found: Any) -> dict[str, str]:
    """Return the place of a gene, and its probability if the model has one."""
    row = {"bases": f"{found.start + 1:,} to {found.end:,}"}
    row["strand"] = "+" if found.strand == 1 else "−"
    if found.confidence is not None:
        row["probability"] = views.percent(found.confidence)
    return row


def _draw_record(model: Served, record: Any, prediction: Any, number: int) -> str:
    """Return the tracks of a record, or of its first bases."""
    size = min(len(record.sequence), DRAWN_BASES)
    part = np.array([record.sequence[:size]], object)
    probabilities = model.call("explain", sequence=part)["probabilities"][0]
    arrows = [
        views.Arrow(f"gene{n}", [(a, min(b, size)) for a, b in g.exons if a < size], g.strand)
        for n, g in enumerate(prediction.plain, start=number)
        if g.start < size
    ]
    places = (
        f"{name} from base {exons[0][0] + 1} to {exons[-1][1]} on the "
        f"{'forward' if strand == 1 else 'reverse'} strand"
        for name, exons, strand in arrows
    )
    alt = f"Genes of {record.name}, {size:,} bases: {'; '.join(places) or 'none'}"
    note = f"The first {size:,} bases." if size < len(record.sequence) else ""
    drawn = views.tracks(size, arrows, probabilities[:, 1:3].T, alt=alt)
    return views.titled(f"{record.name}, {len(record.sequence):,} bases", drawn, note)


# --- Sound, clips, music --------------------------------------------------------------------------


def speech(model: Served, folder: Path, path: str | None) -> Answer:
    """Transcribe a recording, and show its words below its spectrogram."""
    from tasks.speech import audio, predict

    del folder
    if path is None:
        raise InputError("Record or upload some sound first.")
    rate = model.settings["sample_rate"]
    (transcript,) = predict.predict(model, [Path(path)], batch_size=4, with_words=True)
    prediction = predict.describe(transcript, rate)
    if "message" in prediction:
        raise InputError(f"{Path(path).name}: {prediction['message']}.".replace("..", "."))
    _, sound = next(audio.split_at_silences(path, model.settings["max_samples"]))
    seconds = len(sound) / rate
    words = [views.Spoken(*word) for word in transcript.words if word.start < seconds]
    log_mel = model.call("explain", **audio.request([sound]))["log_mel"][0].T
    confidence = views.percent(transcript.confidence)
    view = views.paragraph(transcript.text, "translated")
    view += views.paragraph(f"{confidence} per letter, {prediction['seconds']:.1f} s of sound")
    part = f" of the first {seconds:.1f} s" if len(transcript.pieces) > 1 else ""
    alt = f"Log-mel spectrogram{part}, with the words: " + " ".join(word.text for word in words)
    drawn = views.spectrogram(_to_png(log_mel[::-1]), words, seconds, alt=alt)
    strength = "The line above a word is as strong as its probability."
    view += views.titled(f"Log-mel spectrogram{part}", drawn, strength)
    listed = [(w.text, f"{w.start:.2f} s", views.percent(w.confidence)) for w in transcript.words]
    view += views.titled("Words", views.table(("word", "begins", "probability"), listed))
    player = views.player("audio", Path(path), "the recording")
    return Answer(f"{transcript.text} ({confidence})", view, player)


def _to_png(values: np.ndarray) -> bytes:
    """Return an image of values, dark where they are small."""
    import PIL.Image
    from matplotlib import colormaps

    low, high = np.percentile(values, [2, 99.5])
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return _encode(PIL.Image.fromarray(colormaps["magma"](scaled, bytes=True)[..., :3]))


def _encode(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def video(model: Served, folder: Path, path: str | None) -> Answer:
    """Recognise the activity in a clip, and draw the probabilities over time below its player."""
    from tasks.video import predict

    del folder
    if path is None:
        raise InputError("Upload a clip first.")
    labels, rate = model.settings["labels"], model.settings["frame_rate"]
    parts = predict.predict(model, Path(path))
    thresholds = model.settings.get("thresholds")
    prediction = predict.describe(Path(path), parts, labels, rate, thresholds)
    course = predict.explain(model, prediction)
    ranked = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
    best = [name for name, _ in ranked[:DRAWN_ACTIVITIES]]
    over_time = {name: course.probabilities[:, labels.index(name)] for name in best}
    seconds = prediction["seconds"]
    summary = f"{prediction['activity']} ({views.percent(ranked[0][1])})"
    alt = f"Probabilities over {seconds:.1f} s of {', '.join(best)}; the clip: {summary}"
    player = views.player("video", Path(path), "the clip")
    strip = ""
    if all(frame.ndim == 3 for frame in course.frames.values()):  # not joints
        frames = [_shrink(frame) for frame in course.frames.values()]
        strip = views.film_strip(frames, f"{len(frames)} frames of the clip, from first to last")
    view = views.paragraph(prediction["activity"], "translated")
    view += views.timed(player, strip, views.curves(over_time, seconds, alt=alt))
    bars = views.bars(dict(ranked[: 2 * DRAWN_ACTIVITIES]), prediction["activity"])
    view += views.titled("Most probable activities", bars)
    return Answer(summary, view, player)


def _shrink(frame: np.ndarray) -> bytes:
    import PIL.Image

    image = PIL.Image.fromarray(frame)
    image.thumbnail((2 * STRIP, STRIP))
    return _encode(image)


def music(
    model: Served,
    folder: Path,
    prime: str | None,
    steps: float,
    temperature: float,
    top_p: float,
    seed: float | None,
) -> Answer:
    """Compose music, or continue a MIDI file, and play it over its piano roll."""
    from tasks.music import midi, predict

    if seed is None or seed != int(seed) or seed < 0:
        raise InputError("The seed must be a whole number, 0 or more.")
    flags = predict.Predict(
        prime=None if prime is None else Path(prime),
        steps=int(steps),
        temperature=temperature,
        top_p=top_p,
        seed=int(seed),
    )
    (piece,) = predict.compose_pieces(model, flags)
    song = midi.to_song(
        piece.frames,
        steps_per_quarter=piece.steps_per_quarter,
        tempo=piece.tempo,
        prime=piece.prime,
    )
    summary = f"{len(piece.notes)} notes, {piece.seconds:.0f} s"
    bar = midi.first_bar(song) * piece.steps_per_quarter
    roll = views.piano_roll(
        [views.Note(*note) for note in piece.notes],
        len(piece.frames),
        bar=bar,
        given=piece.given,
        seconds=piece.seconds,
        alt=f"Piano roll of {math.ceil(len(piece.frames) / bar)} bars: {summary}",
    )
    sound = keep(folder, midi.wav_bytes(song), "music.wav")
    written = keep(folder, midi.midi_bytes(song), "music.mid")
    player = views.player("audio", sound, "the music")
    view = views.paragraph(summary, "translated")
    if not piece.notes:
        view += views.paragraph("The music is only silence; try another seed.", "note")
    given = "Grey: the notes that were given." if piece.given else ""
    view += views.titled("Piano roll", views.timed(player, roll), given)
    view += f"<p>{views.download(written, 'MIDI file')} {views.download(sound, 'Sound')}</p>"
    return Answer(summary, view, player)


ANSWER: Mapping[str, Callable[..., Answer]] = {
    answer.__name__: answer for answer in (sentiment, ner, translation, dna, speech, video, music)
}
