"""The corpus of chorales: its MusicXML is read as music21 reads it."""

from pathlib import Path

from tasks.music import chorales

import music21
import numpy as np
import pytest

BACH = Path(music21.__file__).parent / "corpus" / "bach"
# Grace notes, parts that differ in length, many instruments and voices, and an uncompressed file.
WORKS = ("bwv299.mxl", "bwv315.mxl", "bwv66.6.mxl", "bwv248.23-2.mxl", "bwv252.mxl", "bwv67.4.xml")

SCORE = """<score-partwise>
<part-list><score-part id="P1"><part-name>Alto</part-name></score-part></part-list>
<part id="P1">
  <measure>
    <attributes><divisions>2</divisions></attributes>
    <note><pitch><step>C</step><octave>4</octave></pitch><duration>4</duration></note>
    <note><chord/><pitch><step>E</step><alter>-1</alter><octave>4</octave></pitch>
      <duration>4</duration></note>
    <backup><duration>4</duration></backup>
    <note><rest/><duration>2</duration></note>
    <note><grace/><pitch><step>D</step><octave>3</octave></pitch></note>
    <note><pitch><step>F</step><alter>1</alter><octave>3</octave></pitch>
      <duration>1</duration></note>
  </measure>
  <measure>
    <attributes><divisions>3</divisions></attributes>
    <forward><duration>3</duration></forward>
    <note><pitch><step>B</step><octave>3</octave></pitch><duration>1</duration></note>
  </measure>
</part></score-partwise>"""


def check_against_music21(path):
    parts = chorales.read_musicxml(chorales.open_musicxml(path))
    expected = chorales.read_by_music21(path)
    assert [sorted(part) for part in parts] == [sorted(part) for part in expected], path.name


@pytest.mark.parametrize("name", WORKS)
def test_musicxml_has_the_notes_of_music21(name):
    check_against_music21(BACH / name)


@pytest.mark.slow  # the same test of six works is not
def test_all_works_have_the_notes_of_music21():
    paths = [path for path in BACH.iterdir() if path.suffix in chorales.MUSICXML]
    assert len(paths) == 410
    for path in paths:
        if path.name != "bwv846.mxl":  # for the piano: music21 splits its two staves
            check_against_music21(path)


def test_chords_voices_and_grace_notes_of_musicxml(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(SCORE, encoding="utf-8")
    notes = [(60, 0.0, 2.0), (63, 0.0, 2.0), (50, 1.0, 0.0), (54, 1.0, 0.5), (59, 3.0, 1 / 3)]
    expected = [[(*note, False) for note in notes]]
    assert chorales.read_musicxml(chorales.open_musicxml(path)) == expected
    check_against_music21(path)


def test_a_work_of_four_parts_is_a_piece():
    piece = chorales.read_chorale(BACH / "bwv66.6.mxl")
    assert piece.name == "bwv66.6.mxl" and piece.notes.shape == (78, 88)
    assert ((piece.notes > 0).sum(axis=1) <= 4).all()
    assert not piece.notes[:6].any()  # it begins with the fourth quarter of a bar
    assert (np.flatnonzero(piece.notes[6]) + 21).tolist() == [57, 64, 73]  # A C sharp E
    assert chorales.read_chorale(BACH / "bwv252.mxl") is None  # six parts
    assert chorales.read_chorale(BACH / "bwv277.krn").notes.shape[1] == 88


def test_analyses_have_one_part():
    paths = sorted(BACH.glob(f"choraleAnalyses/*{chorales.ANALYSIS}"))
    assert len(paths) == 20 and len(chorales.read_by_music21(paths[0])) == 1
