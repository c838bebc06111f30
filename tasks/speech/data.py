"""Where recordings with transcripts come from, and how they become batches.

`spoken_commands` (the default; spoken by eSpeak NG on the user's machine) and `an4` are tfds
builders of ours; `librispeech`, `ljspeech` and `speech_commands` are tfds' own. Users bring a
folder with LJSpeech's `metadata.csv` or Kaldi's `wav.scp` and `text`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from common import ctc
from common.commands import cli
from common.data import batches
from common.datasets import SPLITS, Corpus, DataSource, prepare, split_rows
from common.errors import InputError
from common.files import read_lines
from tasks.speech import audio, synthesis
from tasks.speech.config import Config
from tasks.speech.features import RATE, count_frames

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# --- text -----------------------------------------------------------------------------------------


def normalise(text: tf.Tensor) -> tf.Tensor:
    """What is left of a transcript to be spoken: small letters, digits and apostrophes, in words.

    Example:
    >>> normalise(["The quick  brown fox-cub's Lunch!"])
    [b"the quick brown fox cub's lunch"]
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    text = tf.strings.regex_replace(tf.strings.lower(text, encoding="utf-8"), "[\u2018\u2019]", "'")
    return tf.strings.strip(tf.strings.regex_replace(text, r"[^\pL\pM\pN']+", " "))


def alphabet(texts: Iterable[str]) -> tuple[str, ...]:
    """The letters of the training transcripts, in order; the blank is none of them."""
    return tuple(sorted(set().union(*texts)))


# --- loading --------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """How a data set of the catalogue is read."""

    splits: Mapping[str, str]
    audio: str
    text: Callable[[Mapping[str, Any], Any], tf.Tensor]
    licence: str


_NINE_TENTHS = {"train": "train[:90%]", "validation": "train[90%:95%]", "test": "train[95%:]"}
_NOT_WORDS = ("_silence_", "_unknown_")


def _label(row: Mapping[str, Any], builder: Any) -> tf.Tensor:
    names = [n if n not in _NOT_WORDS else "" for n in builder.info.features["label"].names]
    return tf.gather(tf.constant(names), row["label"])


SOURCES = {
    "librispeech": _Source(
        {"train": "train_clean100", "validation": "dev_clean", "test": "test_clean"},
        "speech",
        lambda row, _: row["text"],
        "CC BY 4.0",
    ),
    "ljspeech": _Source(
        _NINE_TENTHS, "speech", lambda row, _: row["text_normalized"], "public domain"
    ),
    "speech_commands": _Source({s: s for s in SPLITS}, "audio", _label, "CC BY 4.0"),
    "an4": _Source(
        {s: s for s in SPLITS}, "speech", lambda row, _: row["text"], "free for any use"
    ),
    "spoken_commands": _Source(
        {s: s for s in SPLITS}, "speech", lambda row, _: row["text"], "yours: made on your machine"
    ),
}


def load(source: DataSource, *, seed: int) -> Corpus:
    """Loads what `--dataset` or `--data` names.

    The elements are `{id: <string>[], audio: <float32>[samples], text: <string>[]}`, 16 kHz in
    -1..1, the text as `normalise` leaves it.

    Args:
      source: the flags that say where from.
      seed: deals the user's recordings into splits.

    Raises:
      InputError: the data cannot be had or read.
    """
    if source.data is not None:
        return _own_files(source.data, seed)
    name = source.dataset
    if name not in SOURCES:
        raise InputError(f"no data set {name!r}; known: {', '.join(SOURCES)}")
    how = SOURCES[name]
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = tfds.builder(name, data_dir=data_dir)
    if isinstance(builder, An4) and not builder.data_path.exists():
        builder.find(source.manual_dir)
    builder = prepare(builder, manual_dir=source.manual_dir)

    def example(number: tf.Tensor, row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {
            "id": row["id"] if "id" in row else tf.strings.as_string(number),
            "audio": tf.cast(row[how.audio], tf.float32) / 2.0**15,
            "text": normalise(how.text(row, builder)),
        }

    splits = {}
    for split, part in how.splits.items():
        rows = builder.as_dataset(split=part, shuffle_files=False).enumerate()
        rows = rows.map(example, tf.data.AUTOTUNE)
        if name == "speech_commands":  # noise and a mixture of words have no transcript
            rows = rows.filter(lambda row: row["text"] != "")
            rows = rows.apply(tf.data.experimental.assert_cardinality(_count(rows)))
        splits[split] = rows
    return Corpus(name=name, splits=splits, citation=builder.info.citation, licence=how.licence)


def _count(rows: tf.data.Dataset) -> int:
    return int(rows.reduce(np.int64(0), lambda count, _: count + 1))


# --- the user's own recordings --------------------------------------------------------------------


class Recording(NamedTuple):
    """A sound file of the user's and what is said in it."""

    id: str
    path: Path
    text: str
    speaker: str = ""


def read_folder(folder: Path) -> list[Recording]:
    """Reads the list of a folder: `metadata.csv` (LJSpeech) or `wav.scp` and `text` (Kaldi).

    `metadata.csv` has lines `id|text` or `id|text|normalised text`, of which the last column
    counts; the sound of an id is `wavs/id.*` or `id.*`. `wav.scp` has lines `id path`, `text` lines
    `id words`, and `utt2spk`, if there, `id speaker`.

    Raises:
      InputError: names the file, the line, and what was expected.
    """
    if (folder / "metadata.csv").is_file():
        recordings = list(_read_metadata(folder / "metadata.csv"))
    elif (folder / "wav.scp").is_file():
        recordings = list(_read_kaldi(folder))
    else:
        raise InputError("expected metadata.csv (id|text), or wav.scp and text, in it", folder)
    if not recordings:
        raise InputError("no recordings listed", folder)
    return recordings


def _read_metadata(path: Path) -> Iterator[Recording]:
    seen = set()
    for number, line in read_lines(path):
        if not line.strip():
            continue
        name, *columns = line.split("|")
        if not columns or not name.strip() or not columns[-1].strip():
            raise InputError(f"expected id|text, got {line[:80]!r}", path, number)
        if name in seen:
            raise InputError(f"id {name!r} stands here twice", path, number)
        seen.add(name)
        yield Recording(name, _find_sound(path, number, name), columns[-1].strip())


def _find_sound(path: Path, number: int, name: str) -> Path:
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f"id {name!r} leads out of the folder", path, number)
    for folder in (path.parent / "wavs", path.parent):
        for suffix in ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise InputError(f"no sound file {name}.wav (or {', '.join(SUFFIXES[1:4])})", path, number)


SUFFIXES = audio.SUFFIXES


def _read_kaldi(folder: Path) -> Iterator[Recording]:
    if (folder / "segments").is_file():
        raise InputError("segments are not read: cut the recordings first", folder / "segments")
    texts = _read_pairs(folder / "text", "words")
    speakers = {}
    if (folder / "utt2spk").is_file():
        speakers = _read_pairs(folder / "utt2spk", "speaker")
    sounds = _read_pairs(folder / "wav.scp", "path")
    for name, (number, path) in sounds.items():
        if path.endswith("|"):
            raise InputError(
                "a command instead of a path: only files are read", folder / "wav.scp", number
            )
        if name not in texts:
            raise InputError(f"{name!r} has no line in text", folder / "wav.scp", number)
        sound = Path(path) if Path(path).is_absolute() else folder / path
        if not sound.is_file():
            raise InputError(f"no file {path!r}", folder / "wav.scp", number)
        yield Recording(name, sound, texts[name][1], speakers.get(name, (0, ""))[1])
    for name in texts.keys() - sounds.keys():
        raise InputError(f"{name!r} has no line in wav.scp", folder / "text", texts[name][0])


def _read_pairs(path: Path, what: str) -> dict[str, tuple[int, str]]:
    """Lines `key value`: key -> line number and value."""
    pairs: dict[str, tuple[int, str]] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        key, _, value = line.strip().partition(" ")
        if not value.strip():
            raise InputError(f"expected an id and {what}, got {line[:80]!r}", path, number)
        if key in pairs:
            raise InputError(f"id {key!r} stands here twice", path, number)
        pairs[key] = number, value.strip()
    return pairs


def _own_files(folder: Path, seed: int) -> Corpus:
    if not folder.is_dir():
        raise InputError("expected a folder with metadata.csv, or wav.scp and text", folder)
    names = {"train": "train", "test": "test"}
    names["validation"] = "dev" if (folder / "dev").is_dir() else "validation"
    if all((folder / name).is_dir() for name in names.values()):
        parts = {split: read_folder(folder / names[split]) for split in SPLITS}
    else:
        parts = deal(read_folder(folder), seed)
    return Corpus(
        name=folder.name,
        splits={split: as_dataset(rows) for split, rows in parts.items()},
        citation="",
        licence="yours",
    )


def deal(recordings: Sequence[Recording], seed: int) -> dict[str, list[Recording]]:
    """Deals 80/10/10: by speaker where at least ten are named, else by recording."""
    speakers = sorted({recording.speaker for recording in recordings})
    if len(speakers) < 10:
        return split_rows(recordings, seed)
    parts = split_rows(speakers, seed)
    return {
        split: [recording for recording in recordings if recording.speaker in set(parts[split])]
        for split in SPLITS
    }


def as_dataset(recordings: Sequence[Recording]) -> tf.data.Dataset:
    """Reads recordings once, and keeps them in memory: 115 MB an hour.

    Raises:
      InputError: a file cannot be read; says which.
    """
    texts = normalise([recording.text for recording in recordings]).numpy()
    sounds = []
    for number, (recording, text) in enumerate(zip(recordings, texts, strict=True), start=1):
        if not text:
            raise InputError(f"no letter in the text of {recording.id!r}", recording.path)
        sounds.append(audio.to_int16(audio.read(recording.path)))
        if number % 1000 == 0:
            cli.say(f"read {number:,} of {len(recordings):,} recordings")

    def rows() -> Iterator[dict[str, Any]]:
        for recording, text, sound in zip(recordings, texts, sounds, strict=True):
            yield {"id": recording.id, "audio": sound, "text": text}

    signature = {
        "id": tf.TensorSpec((), tf.string),
        "audio": tf.TensorSpec((None,), tf.int16),
        "text": tf.TensorSpec((), tf.string),
    }
    found = tf.data.Dataset.from_generator(rows, output_signature=signature)
    found = found.apply(tf.data.experimental.assert_cardinality(len(recordings)))
    return found.map(lambda row: {**row, "audio": tf.cast(row["audio"], tf.float32) / 2.0**15})


# --- batches --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a pass over a split has found."""

    ids: list[str]
    texts: list[str]
    samples: np.ndarray

    def bucket_lengths(self, count: int, stretch: float) -> list[int]:
        """Lengths in samples that part the recordings about evenly.

        Args:
          count: how many, at most.
          stretch: how much longer augmentation may make a recording.
        """
        shares = np.linspace(0.0, 1.0, count + 1)[1:]
        lengths = np.quantile(self.samples, shares, method="higher") * stretch
        return sorted({RATE // 10 * math.ceil(length / (RATE // 10)) for length in lengths})


def survey(rows: tf.data.Dataset) -> Survey:
    """Reads a split once, and keeps all but the sound."""
    ids, texts, samples = [], [], []
    sizes = rows.map(lambda row: (row["id"], row["text"], tf.size(row["audio"])))
    for number, (name, text, size) in enumerate(sizes.as_numpy_iterator(), start=1):
        ids.append(name.decode())
        texts.append(text.decode())
        samples.append(size)
        if number % 10_000 == 0:
            cli.say(f"looked at {number:,} recordings")
    return Survey(ids, texts, np.array(samples, np.int64))


def steps_of(samples: Any, strides: Sequence[int]) -> np.ndarray:
    """Steps of the network for a recording, as `tasks.speech.model` makes them."""
    steps = count_frames(np.minimum(samples, 2**30)).numpy()
    for stride in strides:
        steps = -(-steps // stride)
    return steps


def check(found: Survey, config: Config, split: str) -> None:
    """Refuses recordings from which nothing can be learnt, before training.

    Raises:
      InputError: a recording is longer than `--max_seconds`, has no text, or (at the highest speed
        of the augmentation) fewer steps than CTC needs for its text. Names the first.
    """
    too_long = found.samples > config.max_seconds * RATE
    _refuse(found, too_long, split, f"longer than --max_seconds {config.max_seconds:g}")
    empty = np.array([not text for text in found.texts])
    _refuse(found, empty, split, "without a letter in the transcript")
    codes = [np.frombuffer(text.encode("utf-32-le"), np.int32) for text in found.texts]
    width = max(map(len, codes))
    labels = np.stack([np.pad(code, (0, width - len(code))) for code in codes])
    needed = ctc.frames_needed(labels, [len(code) for code in codes]).numpy()
    fastest = found.samples / (1.0 + config.speed)
    short = steps_of(fastest.astype(np.int64), config.strides) < needed
    _refuse(
        found,
        short,
        split,
        "too short for their transcripts (CTC needs a step for each letter, and one between equal "
        f"letters; --strides {' '.join(map(str, config.strides))} gives a step each "
        f"{10 * math.prod(config.strides)} ms)",
    )


def _refuse(found: Survey, wrong: np.ndarray, split: str, why: str) -> None:
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{wrong.sum():,} of {len(wrong):,} {split} recordings are {why}: first "
            f"{found.ids[first]!r}, {found.samples[first] / RATE:.2f} s, {found.texts[first]!r}"
        )


def to_batches(
    rows: tf.data.Dataset,
    letters: Sequence[str],
    lengths: Sequence[int],
    longest_label: int,
    config: Config,
    *,
    seed: int | None = None,
) -> tf.data.Dataset:
    """Turns recordings into batches.

    Args:
      rows: of `load`.
      letters: their places are the labels; other letters are left out of labels.
      lengths: the bucket lengths in samples.
      longest_label: letters of the longest transcript.
      config: batch size and augmentation.
      seed: shuffles, and changes speed and adds noise, the same way for the same seed. None: takes
        the recordings as they are.

    Returns:
      A data set of `audio` `<float32>[batch, samples]`, `length` `<int32>[batch]` in samples,
      `label` `<int32>[batch, longest_label]`, `label_length` `<int32>[batch]`.
    """
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(list(letters), tf.range(len(letters))), -1
    )

    def encode(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        label = table.lookup(tf.strings.unicode_split(row["text"], "UTF-8"))
        label = tf.boolean_mask(label, label >= 0)[:longest_label]
        size = tf.size(label)
        label = tf.ensure_shape(tf.pad(label, [[0, longest_label - size]]), [longest_label])
        return {"audio": row["audio"], "label": label, "label_length": size}

    def change(number: tf.Tensor, row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**row, "audio": augment(row["audio"], tf.stack([seed, number]), config)}

    def measure(row: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**row, "length": tf.size(row["audio"])}

    if seed is not None:
        rows = rows.shuffle(2_000, seed=seed, reshuffle_each_iteration=False)
    rows = rows.map(encode, tf.data.AUTOTUNE)
    if seed is not None:
        rows = rows.enumerate().map(change, tf.data.AUTOTUNE)
    return batches(rows.map(measure), lengths, config.batch_size)


def augment(sound: tf.Tensor, seed: tf.Tensor, config: Config) -> tf.Tensor:
    """Changes the speed (with it the pitch) of a recording, and adds white noise.

    Args:
      sound: `<float32>[samples]`.
      seed: `<int64>[2]`, from which everything random follows.
      config: `speed` and `noise`.
    """
    chance = tf.random.stateless_uniform([3], seed)
    if config.speed:
        sound = change_speed(sound, 1.0 + config.speed * (2.0 * chance[0] - 1.0))
    # From 0 to 30 dB weaker than the loudest.
    ratio = 10.0 ** (-(config.noise + 30.0 * chance[1]) / 20.0)
    loudness = tf.sqrt(tf.reduce_mean(sound**2))
    return sound + ratio * loudness * tf.random.stateless_normal(tf.shape(sound), seed + 1)


def change_speed(sound: tf.Tensor, factor: Any) -> tf.Tensor:
    """Plays `<float32>[samples]` faster by `factor`: the spectrum is cut, or widened with zeros.

    That is exact for what is below both Nyquist frequencies. Lengths are multiples of 320 inside,
    for whose FFT there are quick ways.
    """
    count = tf.size(sound)
    padded = 320 * -(-count // 320)
    ratio = tf.cast(padded, tf.float32) / factor / 320.0
    target = 320 * tf.maximum(tf.cast(tf.round(ratio), tf.int32), 1)
    spectrum = tf.signal.rfft(tf.pad(sound, [[0, padded - count]]))
    share = tf.cast(target, tf.float32) / tf.cast(padded, tf.float32)
    played = tf.signal.irfft(spectrum, [target]) * share
    return played[: tf.cast(tf.cast(count, tf.float32) * share, tf.int32)]


# --- builders -------------------------------------------------------------------------------------

_ACERO = """@book{acero1993acoustical,
  title = {Acoustical and Environmental Robustness in Automatic Speech Recognition},
  author = {Acero, Alex}, publisher = {Kluwer Academic Publishers}, year = {1993}}"""

_ESPEAK = """@misc{espeakng, title = {eSpeak NG}, author = {Dunn, Reece H. and others},
  howpublished = {github.com/espeak-ng/espeak-ng}}"""


def _info(builder: tfds.core.DatasetBuilder, citation: str) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            # tfds' own Audio feature stores eight bytes a sample.
            "speech": tfds.features.Tensor(
                shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
            ),
            "text": tfds.features.Text(),
            "speaker_id": tfds.features.Text(),
        }
    )
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=features,
        supervised_keys=("speech", "text"),
        citation=citation,
    )


class SpokenCommands(tfds.core.GeneratorBasedBuilder):
    """Commands, numbers, dates, spelled names and sentences with rare letters, SYNTHETIC speech.

    Spoken by eSpeak NG on this machine when the data is prepared. No voice and no sentence of the
    validation and test splits stands in the training split.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
    SIZES: ClassVar[dict[str, int]] = {"train": 4000, "validation": 150, "test": 300}

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _ESPEAK)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        synthesis.synthesizer()  # says what is missing before anything is written
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        spoken = synthesis.recordings(split, self.SIZES[split], seed=1)
        for number, (sentence, voice, sound) in enumerate(spoken):
            name = f"{split}-{number}"
            yield (
                name,
                {
                    "id": name,
                    "speech": audio.to_int16(sound),
                    "text": sentence.text,
                    "speaker_id": f"{voice.accent}+{voice.variant}",
                },
            )


class An4(tfds.core.GeneratorBasedBuilder):
    """CMU AN4: spelled names, numbers, dates and commands, 948 + 130 utterances, 16 kHz.

    The validation split is 100 training utterances of eight speakers who are not heard in training:
    speakers in the order of the SHA-1 of their names, each that still fits into 100.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # a folder or an archive given by --manual_dir
    ARCHIVES = ("an4_sphere.tar.gz", "an4_raw.bigendian.tar.gz")
    SHA256 = "a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12"  # of the first
    VALIDATION = 100

    def find(self, folder: Path | None) -> None:
        """Finds the tree (`etc/`, `wav/`), alone or in `an4/`, or one of the public archives.

        Raises:
          InputError: none of them is there; says what to fetch.
        """
        for place in (folder, folder / "an4") if folder is not None else ():
            if (place / "etc" / "an4_train.transcription").is_file():
                self.tree = Tree(place)
                return
        for name in self.ARCHIVES if folder is not None else ():
            if (folder / name).is_file():
                self.tree = Tree(folder / name)
                return
        raise InputError(
            f"data set 'an4' needs {' or '.join(self.ARCHIVES)} from "
            "http://www.speech.cs.cmu.edu/databases/an4/ (or its folders etc/ and wav/): put it "
            "into a folder and pass --manual_dir FOLDER"
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _ACERO)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        rows = self.tree.utterances("train")
        held_out = held_out_speakers([row.speaker for row in rows], self.VALIDATION)
        return {
            "train": self._generate_examples(row for row in rows if row.speaker not in held_out),
            "validation": self._generate_examples(row for row in rows if row.speaker in held_out),
            "test": self._generate_examples(self.tree.utterances("test")),
        }

    def _generate_examples(self, rows: Iterable[Recording]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield (
                row.id,
                {
                    "id": row.id,
                    "speech": audio.to_int16(self.tree.sound(row.path)),
                    "text": row.text,
                    "speaker_id": row.speaker,
                },
            )


def held_out_speakers(speakers: Sequence[str], utterances: int) -> set[str]:
    """Chooses speakers with `utterances` utterances together, at most; the same everywhere.

    Example:
    >>> sorted(held_out_speakers(["a", "a", "b", "c", "c", "c"], 3))
    ['c']
    """
    chosen: set[str] = set()
    left = utterances
    for speaker in sorted(set(speakers), key=lambda name: hashlib.sha1(name.encode()).hexdigest()):
        count = speakers.count(speaker)
        if count <= left:
            chosen.add(speaker)
            left -= count
    return chosen


class Tree:
    """AN4's `etc/` and `wav/`, in a folder or in an archive, of which nothing is written to disk.

    Args:
      path: the folder, or the `.tar.gz`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.archive = None
        if path.is_dir():
            self.files = {
                file.relative_to(path).as_posix(): file
                for folder in ("etc", "wav")
                for file in (path / folder).rglob("*")
            }
            return
        if path.name == An4.ARCHIVES[0]:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != An4.SHA256:
                raise InputError(f"its SHA-256 is {found}, expected {An4.SHA256}", path)
        try:
            self.archive = tarfile.open(path)  # noqa: SIM115  (read from until the data is prepared)
            members = [member for member in self.archive if member.isfile()]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InputError(f"no archive that can be read ({error})", path) from error
        self.files = {member.name.removeprefix("an4/"): member for member in members}

    def content(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
          InputError: there is no such file.
        """
        if name not in self.files:
            raise InputError(f"{name} is missing", self.path)
        if self.archive is not None:
            return self.archive.extractfile(self.files[name]).read()
        return self.files[name].read_bytes()

    def utterances(self, part: str) -> list[Recording]:
        """The utterances of `train` or `test`, in the order of the lists.

        Raises:
          InputError: the lists are malformed, or disagree.
        """
        name = f"etc/an4_{part}.transcription"
        texts = {}
        for number, line in enumerate(self.content(name).decode("latin-1").splitlines(), start=1):
            match = re.fullmatch(r"(?:<s>)?(.*?)(?:</s>)?\s*\((\S+)\)\s*", line.strip())
            if match is None:
                raise InputError(
                    f"expected WORDS (id), got {line[:80]!r}", self.path / name, number
                )
            texts[match[2]] = match[1].strip().lower()
        rows = []
        listed = f"etc/an4_{part}.fileids"
        for number, line in enumerate(self.content(listed).decode().split(), start=1):
            path = Path(line)
            if path.name not in texts:
                raise InputError(f"{path.name} has no transcript", self.path / listed, number)
            rows.append(Recording(path.name, path, texts[path.name], path.parent.name))
        return rows

    def sound(self, path: Path) -> np.ndarray:
        """The samples of an utterance, whatever its format."""
        for suffix in (".flac", ".wav", ".sph", ".raw"):
            name = f"wav/{path.as_posix()}{suffix}"
            if name in self.files:
                return audio.read_bytes(self.content(name), name)
        raise InputError(f"wav/{path.as_posix()}.flac (.wav, .sph, .raw) is missing", self.path)
