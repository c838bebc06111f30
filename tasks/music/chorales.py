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

# MIDI number, start, length in quarter notes, whether a tie continues the note before.
Note = tuple[int, float, float, bool]


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
    if path.suffix in MUSICXML:
        score = open_musicxml(path)
        parts, silence, bar = read_musicxml(score), *upbeat(score)
    else:
        parts, silence, bar = read_by_music21(path), 0.0, 4.0
    if len(parts) != 4:
        return None
    notes = [note for part in parts for note in join_ties(part)]
    pitch, start, length = np.array(notes).T
    # A frame contains the notes that sound when it begins.
    start, end = (
        np.ceil(quarters * STEPS_PER_QUARTER - 1e-6).astype(int)
        for quarters in (start, start + length)
    )
    # Frame 0 is at a bar line.
    rest = round(silence * STEPS_PER_QUARTER + start.min()) % max(1, round(bar * STEPS_PER_QUARTER))
    return Piece(path.name, midi.to_frames(pitch.astype(int), start, end, rest=rest))


def read_by_music21(path: Path) -> list[list[Note]]:
    """Read the notes of each part from a file of any format of music21."""
    # From the source: without it music21 keeps and loads pickles in a folder for temporary files.
    parse = require("music21", "music").converter.parse
    return [
        [
            (
                pitch.midi,
                float(note.offset),
                float(note.quarterLength),
                note.tie is not None and note.tie.type in ("stop", "continue"),
            )
            for note in part.flatten().notes
            for pitch in note.pitches
        ]
        for part in parse(path, forceSource=True, storePickle=False).parts
    ]


def join_ties(part: list[Note]) -> list[tuple[int, float, float]]:
    """Return the notes of a part, MIDI number, start and length, with tied notes as one.

    Example:
      >>> join_ties([(60, 0.0, 1.0, False), (60, 1.0, 2.0, True), (60, 3.0, 1.0, False)])
      [(60, 0.0, 3.0), (60, 3.0, 1.0)]
    """
    joined: dict[tuple[int, float], tuple[int, float, float]] = {}  # by pitch and end
    short = []
    for pitch, start, length, tied in sorted(part, key=lambda note: note[1]):
        before = joined.pop((pitch, start), None) if tied else None
        note = (pitch, start, length) if before is None else (*before[:2], before[2] + length)
        end = (pitch, note[1] + note[2])
        if end in joined:  # two voices in unison
            short.append(note)
        else:
            joined[end] = note
    return sorted([*joined.values(), *short], key=lambda note: note[1])


# --- MusicXML -------------------------------------------------------------------------------------


def open_musicxml(path: Path) -> ElementTree.Element:
    """Return the score of a `.xml` file, or of a `.mxl` file: a zip archive with one score."""
    if path.suffix == ".mxl":
        with zipfile.ZipFile(path) as archive:
            contents = ElementTree.fromstring(archive.read("META-INF/container.xml"))
            name = contents.findall(".//{*}rootfile")[0].attrib["full-path"]
            return ElementTree.fromstring(archive.read(name))
    return ElementTree.parse(path).getroot()


def read_musicxml(score: ElementTree.Element) -> list[list[Note]]:
    """Read the notes of each part of a score.

    They are those of music21, in the order of the file: tied notes are apart, repeats are not
    played, and grace notes have no length. A part on two staves, which music21 splits, is one part.
    """
    return [list(_part_notes(part)) for part in score.iterfind("part")]


def upbeat(score: ElementTree.Element) -> tuple[float, float]:
    """Return what is missing at the start of the first bar, and the length of a bar, in quarters.

    Example:
      >>> note = "<note><rest/><duration>1</duration></note>"
      >>> time = "<time><beats>3</beats><beat-type>4</beat-type></time>"
      >>> start = f"<attributes><divisions>1</divisions>{time}</attributes>{note}"
      >>> bars = f"<part><measure>{start}</measure><measure>{note * 3}</measure></part>"
      >>> upbeat(ElementTree.fromstring(f"<score>{bars}</score>"))
      (2.0, 3.0)
    """
    bar = 4.0
    longest = 0.0
    for part in score.iterfind("part"):
        measure = part.find("measure")
        beats, unit = (part.findtext(f".//time/{name}") for name in ("beats", "beat-type"))
        if measure is None or not (beats or "").isdigit() or not (unit or "").isdigit():
            continue
        bar = 4.0 * float(beats or 4) / float(unit or 4)
        divisions, position = float(part.findtext(".//divisions", "1")), 0.0
        for element in measure:
            length = float(element.findtext("duration", "0")) / divisions
            is_chord = element.find("chord") is not None
            sign = {"note": 0 if is_chord else 1, "forward": 1, "backup": -1}.get(element.tag, 0)
            position += sign * length
            longest = max(longest, position)
    return (bar - longest if 0.0 < longest < bar else 0.0), bar


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
                    tied = any(tie.get("type") == "stop" for tie in element.iterfind("tie"))
                    yield _midi_number(pitch), measure_start + start, length, tied
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
