"""The chorales of Bach in the corpus of music21, as piano rolls.

Most of the corpus is MusicXML. It is read directly, which takes a tenth of music21's time, since
music21 also builds the notation. Nothing here imports TensorFlow: processes import this module.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from common.data import map_in_processes
from common.errors import require
from common.progress import progress
from tasks.music import midi
from tasks.music.formats import Piece

import numpy as np

STEPS_PER_QUARTER = 2  # frames per quarter note
MUSICXML = (".mxl", ".xml")
ANALYSIS = ".rntxt"  # chord symbols in one part
SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

Note = tuple[int, float, float]  # MIDI number, start, length; in quarter notes


def read_chorales() -> list[Piece]:
    """Read the four-part works of Bach in the corpus of music21, each music once.

    Raises:
      InputError: music21 is not installed.
    """
    music21 = require("music21", "music", ", or train on your own files with --data FOLDER")
    paths = sorted(music21.corpus.getComposer("bach"), key=lambda path: path.name)
    paths = [path for path in paths if path.suffix != ANALYSIS]
    works = map_in_processes(read_chorale, paths)
    pieces: dict[bytes, Piece] = {}
    for work in progress(works, total=len(paths), unit="works"):
        if work is not None:
            pieces.setdefault(work.notes.tobytes(), work)
    return list(pieces.values())


def read_chorale(path: Path) -> Piece | None:
    """Read one work; return None if it does not have four parts."""
    read = read_musicxml if path.suffix in MUSICXML else read_by_music21
    parts = read(path)
    if len(parts) != 4:
        return None
    pitch, start, length = np.array([note for part in parts for note in part]).T
    # A frame contains the notes that sound when it begins.
    start, end = (
        np.ceil(quarters * STEPS_PER_QUARTER - 1e-6).astype(int)
        for quarters in (start, start + length)
    )
    return Piece(path.name, midi.to_frames(pitch.astype(int), start, end))


def read_by_music21(path: Path) -> list[list[Note]]:
    """Read the notes of each part from a file of any format of music21."""
    # From the source: without it music21 keeps and loads pickles in a folder for temporary files.
    parse = require("music21", "music").converter.parse
    return [
        [
            (pitch.midi, float(note.offset), float(note.quarterLength))
            for note in part.flatten().notes
            for pitch in note.pitches
        ]
        for part in parse(path, forceSource=True, storePickle=False).parts
    ]


# --- MusicXML -------------------------------------------------------------------------------------


def read_musicxml(path: Path) -> list[list[Note]]:
    """Read the notes of each part from a MusicXML file.

    They are those of music21, in the order of the file: tied notes are apart, repeats are not
    played, and grace notes have no length. A part on two staves, which music21 splits, is one part.

    Args:
      path: a `.xml` file, or a `.mxl` file: a zip archive with one score.
    """
    if path.suffix == ".mxl":
        with zipfile.ZipFile(path) as archive:
            contents = ElementTree.fromstring(archive.read("META-INF/container.xml"))
            name = contents.findall(".//{*}rootfile")[0].attrib["full-path"]
            score = ElementTree.fromstring(archive.read(name))
    else:
        score = ElementTree.parse(path).getroot()
    return [list(_part_notes(part)) for part in score.iterfind("part")]


def _part_notes(part: ElementTree.Element) -> Iterator[Note]:
    """Yield the notes of a `<part>`; a measure begins where the longest voice before it ends."""
    divisions = 1.0  # units of `<duration>` per quarter note
    measure_start = 0.0
    for measure in part.iterfind("measure"):
        position = start = end = 0.0  # within the measure
        for element in measure:
            divisions = float(element.findtext("divisions", divisions))
            length = float(element.findtext("duration", 0.0)) / divisions
            if element.tag == "backup":  # to another voice
                position -= length
            elif element.tag == "forward":
                position += length
            elif element.tag == "note":
                if element.find("chord") is None:  # else it starts with the note before
                    start = position
                    position += length
                pitch = element.find("pitch")
                if pitch is not None:
                    yield _midi_number(pitch), measure_start + start, length
            end = max(end, position)
        measure_start += end


def _midi_number(pitch: ElementTree.Element) -> int:
    """Return the MIDI number of a `<pitch>`.

    Example:
      >>> text = "<pitch><step>A</step><alter>-1</alter><octave>4</octave></pitch>"
      >>> _midi_number(ElementTree.fromstring(text))
      68
    """
    octave, alter = int(pitch.findtext("octave", "")), float(pitch.findtext("alter", 0.0))
    return 12 * (octave + 1) + SEMITONES[pitch.findtext("step", "")] + round(alter)
