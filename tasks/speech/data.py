"""Corpora of recordings with transcripts, checks before training, augmentation and batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import ctc
from common.data import batches
from common.datasets import (
    SPLITS,
    Corpus,
    DataSource,
    join,
    manual_folder,
    parts_of,
    prepare,
    split_rows,
)
from common.errors import InputError, require
from common.messages import Skipped, report_skipped
from common.progress import progress
from common.text import compose
from tasks.speech import audio, augmentation, datasets
from tasks.speech.audio import RATE, Channel
from tasks.speech.config import MIXABLE, Config
from tasks.speech.features import count_frames, count_steps
from tasks.speech.formats import find_parts, read_folder
from tasks.speech.recording import Recording

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# --- text -----------------------------------------------------------------------------------------


def normalise(text: Any) -> tf.Tensor:
    """Normalise transcripts to lower-case words of letters, digits and apostrophes.

    Accents and their letters become one character (Unicode's normal form C).

    Args:
      text: `<string>[...]`, UTF-8.

    Returns:
      `<string>[...]`, the words separated by single spaces.

    Example:
      >>> normalise("The quick  brown fox-cub's Lunch!").numpy().decode()
      "the quick brown fox cub's lunch"
    """
    text = compose(tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace"))
    text = tf.strings.regex_replace(tf.strings.lower(text, encoding="utf-8"), "[\u2018\u2019]", "'")
    return tf.strings.strip(tf.strings.regex_replace(text, r"[^\pL\pM\pN']+", " "))


def alphabet(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the letters of the training transcripts in order, without the blank of CTC.

    Example:
      >>> alphabet(["go on", "no"])
      (' ', 'g', 'n', 'o')
    """
    return tuple(sorted(set().union(*texts)))


def spell(letters: Sequence[str], labels: Iterable[int]) -> str:
    """Return labels as text, with single spaces between the words.

    Args:
      letters: the letter of each label.
      labels: indices into `letters`; -1 is padding.

    Example:
      >>> spell((" ", "g", "n", "o"), [1, 3, 0, 3, 2, -1, -1])
      'go on'
    """
    return " ".join("".join(letters[label] for label in labels if label >= 0).split())


# --- loading --------------------------------------------------------------------------------------


def load(
    source: DataSource, *, seed: int, max_bad: float = 0.0, channel: Channel = "mix"
) -> Corpus:
    """Load a data set by name, several that train together, or the user's own recordings.

    The elements are `{id: <string>[], audio: <float32>[samples], text: <string>[]}`. The sound is
    at 16 kHz in -1..1, the text is normalised; see `normalise`.

    Args:
      source: the flags `--dataset`, `--data`, `--manual_dir` and `--data_dir`; `a+b` names two
        data sets.
      seed: seed of the split of the user's own recordings.
      max_bad: largest fraction of them that may be skipped; see `as_dataset`.
      channel: the channel of them that is read.

    Raises:
      InputError: the data set is unknown or not available, or too many files are not readable.
    """
    if source.data is not None:
        return _load_folder(source.data, seed, max_bad, channel)
    name = source.dataset or ""
    if "+" not in name and name not in datasets.DATASETS:
        raise InputError(f"no data set {name!r}; known: {', '.join(datasets.DATASETS)}")
    names = parts_of(name, MIXABLE) if "+" in name else [name]
    # A missing file is said before the first part is prepared, which may take minutes.
    builders = [_builder(part, source) for part in names]
    corpora = [_read(part, builder, source) for part, builder in zip(names, builders, strict=True)]
    return corpora[0] if len(corpora) == 1 else join(corpora)


def _builder(name: str, source: DataSource) -> tfds.core.DatasetBuilder:
    """Return the builder of a data set.

    Raises:
      InputError: its files have to be in `--manual_dir`, and are not.
    """
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = tfds.builder(name, data_dir=data_dir)
    if isinstance(builder, datasets.An4) and not builder.data_path.exists():
        builder.locate(manual_folder(source.manual_dir, name))
    return builder


def _read(name: str, builder: tfds.core.DatasetBuilder, source: DataSource) -> Corpus:
    """Load a data set through its builder."""
    described = datasets.DATASETS[name]
    builder = prepare(builder, manual_dir=manual_folder(source.manual_dir, name))

    def example(number: tf.Tensor, row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            "id": row["id"] if "id" in row else tf.strings.as_string(number),
            "audio": _to_float(row[described.audio]),
            "text": normalise(described.text(row, builder)),
        }

    splits = {}
    for split, part in described.splits.items():
        rows = builder.as_dataset(split=part, shuffle_files=False).enumerate()
        rows = rows.map(example, tf.data.AUTOTUNE)
        if name == "speech_commands":  # its classes for noise and other words have no transcript
            rows = rows.filter(lambda row: row["text"] != "")
            rows = rows.apply(tf.data.experimental.assert_cardinality(_count(rows)))
        splits[split] = rows
    return Corpus(
        name=name,
        splits=splits,
        citation=builder.info.citation,
        licence=described.licence,
        identity=builder.info.full_name,
    )


def _to_float(samples: Any) -> tf.Tensor:
    """Convert 16-bit samples to `<float32>` in -1..1."""
    return tf.cast(samples, tf.float32) / 2.0**15


def _count(rows: tf.data.Dataset) -> int:
    return int(rows.reduce(np.int64(0), lambda count, _: count + 1))


def list_folder(folder: Path, seed: int, skipped: Skipped) -> dict[str, list[Recording]]:
    """List the user's own recordings, with the user's splits or random ones.

    Raises:
      InputError: see `tasks.speech.formats.read_folder`.
    """
    if parts := find_parts(folder):
        return {split: read_folder(path, skipped) for split, path in parts.items()}
    return split_by_speaker(read_folder(folder, skipped), seed)


def _load_folder(folder: Path, seed: int, max_bad: float, channel: Channel) -> Corpus:
    """Load the user's own recordings."""
    skipped: Skipped = []
    parts = list_folder(folder, seed, skipped)
    total = sum(map(len, parts.values())) + len(skipped)
    splits = {split: as_dataset(rows, skipped, channel) for split, rows in parts.items()}
    report_skipped(folder, skipped, total=total, unit="recordings", limit=max_bad)
    return Corpus(name=folder.name, splits=splits, citation="", licence="yours")


def load_part(folder: Path, *, max_bad: float, channel: Channel) -> tf.data.Dataset:
    """Load all recordings of a folder without splits; see `load`."""
    skipped: Skipped = []
    recordings = read_folder(folder, skipped)
    total = len(recordings) + len(skipped)
    rows = as_dataset(recordings, skipped, channel)
    report_skipped(folder, skipped, total=total, unit="recordings", limit=max_bad)
    return rows


def split_by_speaker(recordings: Sequence[Recording], seed: int) -> dict[str, list[Recording]]:
    """Split recordings 80/10/10 by speaker, or by recording if there are fewer than ten speakers.

    Args:
      recordings: the recordings of all splits.
      seed: seed of the random split.

    Raises:
      InputError: fewer than ten recordings.
    """
    speakers = sorted({recording.speaker for recording in recordings})
    if len(speakers) < 10:
        return split_rows(recordings, seed)
    parts = split_rows(speakers, seed)
    return {
        split: [recording for recording in recordings if recording.speaker in set(parts[split])]
        for split in SPLITS
    }


def as_dataset(
    recordings: Sequence[Recording], skipped: Skipped, channel: Channel = "mix"
) -> tf.data.Dataset:
    """Read recordings into memory (115 MB per hour) and return them as a data set; see `load`.

    Args:
      recordings: the recordings.
      skipped: receives those whose sound is not readable or whose transcript has no letters.
      channel: the channel that is read, where a recording names none.
    """
    for library in ("soundfile", "soxr"):  # an error of each file otherwise
        require(library, "speech")
    texts = normalise([recording.text for recording in recordings]).numpy()
    kept = []
    shown = progress(recordings, total=len(recordings), unit="recordings")
    for recording, text in zip(shown, texts, strict=True):
        try:
            if not text:
                raise InputError("no letter in the text")
            part = recording.part
            if part.channel == "mix":
                part = part._replace(channel=channel)
            kept.append((recording.id, audio.to_int16(audio.read(recording.path, part=part)), text))
        except InputError as error:
            skipped.append((repr(recording.id), str(error)))

    def rows() -> Iterator[dict[str, Any]]:
        for name, sound, text in kept:
            yield {"id": name, "audio": sound, "text": text}

    signature = {
        "id": tf.TensorSpec((), tf.string),
        "audio": tf.TensorSpec((None,), tf.int16),
        "text": tf.TensorSpec((), tf.string),
    }
    dataset = tf.data.Dataset.from_generator(rows, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(kept)))
    return dataset.map(lambda row: {**row, "audio": _to_float(row["audio"])})


# --- checks before training -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Survey:
    """The recordings of a split without their sound.

    Attributes:
      ids: names of the recordings.
      texts: normalised transcripts.
      samples: `<int64>[recordings]`, lengths in samples.
    """

    ids: list[str]
    texts: list[str]
    samples: np.ndarray

    def bucket_lengths(self, count: int, stretch: float, around: float = 0.0) -> list[int]:
        """Choose bucket lengths that divide the recordings about evenly.

        Args:
          count: maximum number of lengths.
          stretch: factor by which augmentation may lengthen a recording.
          around: seconds of silence by which it may lengthen a recording, in addition.

        Returns:
          Increasing lengths in samples, multiples of a tenth of a second.

        Example:
          >>> recordings = Survey(["a", "b", "c"], ["go"] * 3, np.array([9_000, 30_000, 50_000]))
          >>> recordings.bucket_lengths(2, stretch=1.0)
          [30400, 51200]
        """
        fractions = np.linspace(0.0, 1.0, count + 1)[1:]
        lengths = np.quantile(self.samples, fractions, method="higher") * stretch
        lengths = [*lengths[:-1] + 0.25 * around * RATE, lengths[-1] + around * RATE]
        return sorted({RATE // 10 * math.ceil(length / (RATE // 10)) for length in lengths})


def survey(rows: tf.data.Dataset) -> Survey:
    """Read a split once, and return everything except the sound."""
    ids, texts, samples = [], [], []
    sizes = rows.map(lambda row: (row["id"], row["text"], tf.size(row["audio"])))
    total = max(0, int(rows.cardinality()))  # negative: unknown
    for name, text, size in progress(sizes.as_numpy_iterator(), total=total, unit="recordings"):
        ids.append(name.decode())
        texts.append(text.decode())
        samples.append(size)
    return Survey(ids, texts, np.array(samples, np.int64))


def usable(
    recordings: Survey, config: Config, split: str, *, source: str
) -> tuple[np.ndarray, Survey]:
    """Find the recordings from which a model can learn; the others are counted and listed.

    Args:
      recordings: the recordings of a split.
      config: the limits.
      split: name of the split, for messages.
      source: name of the data, for messages.

    Returns:
      `<bool>[recordings]`, and the usable recordings: not longer than `--max_seconds`, with a
      letter in the text, and with as many steps as CTC needs for it.

    Raises:
      InputError: more than `--max_bad` of them are not usable.
    """
    codes = [np.frombuffer(text.encode("utf-32-le"), np.int32) for text in recordings.texts]
    width = max(map(len, codes), default=0)
    labels = np.stack([np.pad(code, (0, width - len(code))) for code in codes])
    needed = ctc.frames_needed(labels, [len(code) for code in codes]).numpy()
    steps = count_steps(count_frames(recordings.samples).numpy(), config.strides)
    spacing = 10 * math.prod(config.strides)
    problems = {
        f"longer than --max_seconds {config.max_seconds:g}": (
            recordings.samples > config.max_seconds * RATE
        ),
        "no letter in the text": np.array([not text for text in recordings.texts]),
        "too short for the text (CTC needs a step for each letter and one between equal letters; "
        f"--strides {' '.join(map(str, config.strides))} means a step every {spacing} ms)": (
            steps < needed
        ),
    }
    good = np.ones(len(recordings.ids), bool)
    skipped: Skipped = []
    for reason, is_bad in problems.items():
        for place in np.flatnonzero(is_bad & good):
            seconds = recordings.samples[place] / RATE
            text = recordings.texts[place][:40]
            skipped.append((f"{recordings.ids[place]!r}, {seconds:.2f} s, {text!r}", reason))
        good &= ~is_bad
    report_skipped(
        f"{source}, {split}", skipped, total=len(good), unit="recordings", limit=config.max_bad
    )
    kept = np.flatnonzero(good)
    return good, Survey(
        [recordings.ids[place] for place in kept],
        [recordings.texts[place] for place in kept],
        recordings.samples[kept],
    )


def keep(rows: tf.data.Dataset, good: np.ndarray) -> tf.data.Dataset:
    """Return the rows of a data set for which `good` is true."""
    if good.all():
        return rows
    kept = rows.enumerate().filter(lambda number, _: tf.gather(good, number))
    kept = kept.map(lambda _, row: row)
    return kept.apply(tf.data.experimental.assert_cardinality(int(good.sum())))


# --- batches --------------------------------------------------------------------------------------


def to_batches(
    rows: tf.data.Dataset,
    letters: Sequence[str],
    lengths: Sequence[int],
    longest_label: int,
    config: Config,
    *,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Encode, augment and batch recordings.

    Args:
      rows: recordings; see `load`.
      letters: the letter of each label; other letters of the transcripts are dropped.
      lengths: bucket lengths in samples.
      longest_label: letters of the longest transcript.
      config: batch size and augmentation.
      seed: seed of shuffling, speed and noise. None: no shuffling and no augmentation.

    Returns:
      A data set of `audio` `<float32>[batch, samples]`, `length` `<int32>[batch]` in samples,
      `label` `<int32>[batch, longest_label]`, `label_length` `<int32>[batch]`, and `number`
      `<int64>[batch]`, the place of each recording in `rows`.
    """
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(list(letters), tf.range(len(letters))), -1
    )

    def encode(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        label = table.lookup(tf.strings.unicode_split(row["text"], "UTF-8"))
        label = tf.boolean_mask(label, label >= 0)[:longest_label]
        size = tf.size(label)
        label = tf.ensure_shape(tf.pad(label, [[0, longest_label - size]]), [longest_label])
        return {**row, "label": label, "label_length": size}

    def change(number: tf.Tensor, row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        draw = tf.stack([seed, number])
        needed = ctc.frames_needed(row["label"][None], row["label_length"][None])[0]

        def say() -> dict[str, tf.Tensor]:
            return {**row, "audio": augmentation.augment(row["audio"], draw, config, needed=needed)}

        def say_nothing() -> dict[str, tf.Tensor]:
            sound = augmentation.nothing(tf.size(row["audio"]), draw)
            empty = {name: tf.zeros_like(row[name]) for name in ("label", "label_length")}
            return {**row, "audio": sound, **empty}

        is_replaced = tf.random.stateless_uniform([], draw + 2) < config.nothing
        return tf.cond(is_replaced, say_nothing, say)

    def measure(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        names = ("number", "audio", "label", "label_length")
        return {**{name: row[name] for name in names}, "length": tf.size(row["audio"])}

    def select(number: tf.Tensor, row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"number": number, "audio": row["audio"], "text": row["text"]}

    rows = rows.enumerate().map(select)
    if seed is not None:
        rows = rows.shuffle(2_000, seed=seed, reshuffle_each_iteration=False)
    rows = rows.map(encode, tf.data.AUTOTUNE)
    if seed is not None:
        rows = rows.enumerate().map(change, tf.data.AUTOTUNE)
    return batches(rows.map(measure), lengths, config.batch_size)
