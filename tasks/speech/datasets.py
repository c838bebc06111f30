"""Data sets by name: two builders of this module, and three of tensorflow-datasets.

`SpokenCommands` is synthetic speech, made by several synthesizers on the user's machine. `An4`
reads CMU AN4 from files that the user has downloaded.
"""

from __future__ import annotations

import functools
import hashlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from common.datasets import SPLITS
from common.errors import InputError
from common.progress import progress
from tasks.speech import audio, synthesis
from tasks.speech.recording import Recording

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


class NamedDataset(NamedTuple):
    """Description of a data set of the `--dataset` flag.

    Attributes:
      splits: the tfds split of each of our splits.
      audio: the feature with the sound, 16-bit samples.
      text: function from a row and its builder to the transcript.
      licence: licence of the data.
    """

    splits: Mapping[str, str]
    audio: str
    text: Callable[[Mapping[str, tf.Tensor], Any], tf.Tensor]
    licence: str


_SAME = {split: split for split in SPLITS}
_NINE_TENTHS = {"train": "train[:90%]", "validation": "train[90%:95%]", "test": "train[95%:]"}
# Classes of `speech_commands` that have no transcript.
_NOT_WORDS = ("_silence_", "_unknown_")


def _label_name(row: Mapping[str, tf.Tensor], builder: Any) -> tf.Tensor:
    """Return the word of a class of `speech_commands`, empty for classes that are no word."""
    names = [n if n not in _NOT_WORDS else "" for n in builder.info.features["label"].names]
    return tf.gather(tf.constant(names), row["label"])


DATASETS = {
    "librispeech": NamedDataset(
        {"train": "train_clean100", "validation": "dev_clean", "test": "test_clean"},
        "speech",
        lambda row, _: row["text"],
        "CC BY 4.0",
    ),
    "ljspeech": NamedDataset(
        _NINE_TENTHS, "speech", lambda row, _: row["text_normalized"], "public domain"
    ),
    "speech_commands": NamedDataset(_SAME, "audio", _label_name, "CC BY 4.0"),
    "an4": NamedDataset(_SAME, "speech", lambda row, _: row["text"], "free for any use"),
    "spoken_commands": NamedDataset(
        _SAME,
        "speech",
        lambda row, _: row["text"],
        "no recordings of people: made by speech synthesizers, whose licences (eSpeak NG: "
        "GPL-3.0-or-later; Pico, Hibari: Apache-2.0; Piper's voice Joe: CC0) do not extend to it",
    ),
}


# --- builders -------------------------------------------------------------------------------------

_ACERO = """@book{acero1993acoustical,
  title = {Acoustical and Environmental Robustness in Automatic Speech Recognition},
  author = {Acero, Alex}, publisher = {Kluwer Academic Publishers}, year = {1993}}"""

_SYNTHESIZERS = """@misc{espeakng, title = {eSpeak NG}, author = {Dunn, Reece H. and others},
  howpublished = {github.com/espeak-ng/espeak-ng}}
@misc{pico, title = {SVOX Pico}, author = {{SVOX AG}}, howpublished = {Android Open Source Project}}
@misc{hibari, title = {Hibari}, author = {Williams, M.},
  howpublished = {github.com/MMWilliams/hibari}}
@misc{piper, title = {Piper}, author = {Hansen, Michael},
  howpublished = {github.com/rhasspy/piper}}"""


def _dataset_info(builder: tfds.core.DatasetBuilder, citation: str) -> tfds.core.DatasetInfo:
    """Return the features and description of a builder of this module."""
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            # The Audio feature of tfds would store eight bytes per sample.
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
    """SYNTHETIC speech: commands, numbers, dates, spelled names, and scenes with rare letters.

    Several synthesizers speak the sentences on this machine when the data set is prepared; see
    `tasks.speech.voices`. The validation split has other speakers than the training split, and the
    test split has a synthesizer of a family of its own. No sentence is in two splits.
    """

    VERSION = tfds.core.Version("2.0.0")
    URLS = ()
    SIZES: ClassVar[dict[str, int]] = {"train": 6000, "validation": 200, "test": 300}

    def _info(self) -> tfds.core.DatasetInfo:
        return _dataset_info(self, _SYNTHESIZERS)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        synthesis.check_installed()  # raises before anything is written if a library is missing
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        spoken = synthesis.recordings(split, self.SIZES[split], seed=1)
        shown = progress(spoken, total=self.SIZES[split], unit=f"sentences of {split}")
        for number, (sentence, voice, sound) in enumerate(shown):
            name = f"{split}-{number}"
            yield (
                name,
                {
                    "id": name,
                    "speech": audio.to_int16(sound),
                    "text": sentence.text,
                    "speaker_id": f"{voice.family}:{voice.name}",
                },
            )


class An4(tfds.core.GeneratorBasedBuilder):
    """CMU AN4: spelled names, numbers, dates and commands, 948 + 130 utterances, 16 kHz.

    The validation split has 100 of the 948 training utterances, by eight speakers who are not in
    the training split; see `held_out_speakers`.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # the user downloads the files and passes --manual_dir
    ARCHIVES = ("an4_sphere.tar.gz", "an4_raw.bigendian.tar.gz")
    SHA256 = "a0525579493735d32b60fb6fa5975dd0eaacde087b0a4eeb7f13b7ef33077b12"  # of the first
    VALIDATION = 100
    files: An4Files

    def locate(self, folder: Path | None) -> None:
        """Open the files in `--manual_dir`: an archive, or the folders `etc/` and `wav/`.

        Args:
          folder: has the archive, the two folders, or a folder `an4` with the two folders.

        Raises:
          InputError: `folder` is None or has none of them.
        """
        if folder is not None:
            for root in (folder, folder / "an4"):
                if (root / "etc" / "an4_train.transcription").is_file():
                    self.files = An4Files(root)
                    return
            for name in self.ARCHIVES:
                if (folder / name).is_file():
                    self.files = An4Files(folder / name)
                    return
        raise InputError(
            f"data set 'an4' needs {' or '.join(self.ARCHIVES)} from "
            "http://www.speech.cs.cmu.edu/databases/an4/ (or its folders etc/ and wav/): put it "
            "into a folder and pass --manual_dir FOLDER"
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return _dataset_info(self, _ACERO)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        rows = self.files.utterances("train")
        held_out = held_out_speakers([row.speaker for row in rows], self.VALIDATION)
        return {
            "train": self._generate_examples(row for row in rows if row.speaker not in held_out),
            "validation": self._generate_examples(row for row in rows if row.speaker in held_out),
            "test": self._generate_examples(self.files.utterances("test")),
        }

    def _generate_examples(self, rows: Iterable[Recording]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield (
                row.id,
                {
                    "id": row.id,
                    "speech": audio.to_int16(self.files.sound(row.path)),
                    "text": row.text,
                    "speaker_id": row.speaker,
                },
            )


# --- files of AN4 ---------------------------------------------------------------------------------


def held_out_speakers(speakers: Sequence[str], utterances: int) -> set[str]:
    """Choose speakers with at most `utterances` utterances in total.

    The speakers are visited in the order of the SHA-1 of their names, and chosen if their
    utterances still fit. So the choice is the same on every machine.

    Args:
      speakers: the speaker of each utterance.
      utterances: maximum number of utterances.

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


class An4Files:
    """The folders `etc/` and `wav/` of AN4, or the archive that contains them.

    The archive is read without being unpacked.

    Args:
      path: the folder that contains `etc/` and `wav/`, or the `.tar.gz`.

    Raises:
      InputError: the archive is damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        # Functions that read each file, by its name relative to the root.
        self._readers: dict[str, Callable[[], bytes]] = {}
        if path.is_dir():
            for folder in ("etc", "wav"):
                for file in (path / folder).rglob("*"):
                    self._readers[file.relative_to(path).as_posix()] = file.read_bytes
            return
        if path.name == An4.ARCHIVES[0]:
            _check_sha256(path, An4.SHA256)
        try:
            archive = tarfile.open(path)  # noqa: SIM115  (read from until the data is prepared)
            members = [member for member in archive if member.isfile()]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InputError(f"is not a readable archive ({error})", path) from error
        for member in members:
            name = member.name.removeprefix("an4/")
            self._readers[name] = functools.partial(_read_member, archive, member)

    def content(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
          InputError: the file is missing.
        """
        if name not in self._readers:
            raise InputError(f"{name} is missing", self.path)
        return self._readers[name]()

    def utterances(self, part: str) -> list[Recording]:
        """Return the utterances of `train` or `test` in the published order.

        The path of each is relative to `wav/` and has no suffix.

        Raises:
          InputError: a list is missing or malformed, or an utterance has no transcript.
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
        name = f"etc/an4_{part}.fileids"
        for number, line in enumerate(self.content(name).decode().split(), start=1):
            path = Path(line)
            if path.name not in texts:
                raise InputError(f"{path.name} has no transcript", self.path / name, number)
            rows.append(Recording(path.name, path, texts[path.name], path.parent.name))
        return rows

    def sound(self, path: Path) -> np.ndarray:
        """Return an utterance as `<float32>[samples]`, in any of the published formats.

        Args:
          path: relative to `wav/`, without suffix.

        Raises:
          InputError: the file is missing or not readable.
        """
        for suffix in (".flac", ".wav", ".sph", ".raw"):
            name = f"wav/{path.as_posix()}{suffix}"
            if name in self._readers:
                return audio.read_bytes(self.content(name), name)
        raise InputError(f"wav/{path.as_posix()}.flac (.wav, .sph, .raw) is missing", self.path)


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a regular file of an archive."""
    file = archive.extractfile(member)
    if file is None:
        raise InputError(f"{member.name} is not a regular file", str(archive.name))
    return file.read()


def _check_sha256(path: Path, expected: str) -> None:
    """Raise an `InputError` if the checksum of a file differs."""
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise InputError(f"its SHA-256 is {actual}, expected {expected}", path)
