"""Standard MIDI Files: against pretty_midi where they are well-formed, and damaged ones."""

import io
import struct

from common.errors import InputError
from tasks.music import midi, smf
from tasks.music.smf import Note, Song
from tests.tasks.music.examples import BASS, TUNE, make_song, pretty_bytes

import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

WHOLE = pretty_bytes(make_song((False, TUNE), (False, BASS)))
NOTES = [(36, 0, 960), (60, 0, 480), (62, 480, 720), (64, 720, 1440), (43, 960, 1440)]


def file(*tracks, resolution=480, count=None, kind=1):
    """A file of tracks, which are bytes of events."""
    header = struct.pack(">4sIHHH", b"MThd", 6, kind, count or len(tracks), resolution)
    return header + b"".join(struct.pack(">4sI", b"MTrk", len(t)) + t for t in tracks)


def notes_of(content):
    song = smf.parse(content)
    return [note[:3] for note in song.notes], dict(song.dropped)


ON, OFF, END = b"\x00\x90\x3c\x50", b"\x60\x80\x3c\x00", b"\x00\xff\x2f\x00"  # C, 96 ticks


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([24, 480, 32767]))
def test_notes_are_those_of_pretty_midi(seed, count, resolution):
    random = np.random.default_rng(seed)
    song = pretty_midi.PrettyMIDI(
        resolution=resolution, initial_tempo=float(random.integers(40, 200))
    )
    for program in range(3):
        instrument = pretty_midi.Instrument(program, is_drum=program == 2)
        for pitch in random.permutation(128)[:count].tolist():  # no pitch twice in a track
            start, length = random.random(2) * 8 + 0.1
            velocity = int(random.integers(1, 128))
            instrument.notes.append(pretty_midi.Note(velocity, pitch, start, start + length))
        song.instruments.append(instrument)
    content = pretty_bytes(song)
    parsed, expected = smf.parse(content), pretty_midi.PrettyMIDI(io.BytesIO(content))
    ticks = expected.time_to_tick
    rows = [
        Note(note.pitch, ticks(note.start), ticks(note.end), note.velocity)
        for instrument in expected.instruments
        if not instrument.is_drum
        for note in instrument.notes
    ]
    assert sorted(parsed.notes) == sorted(rows) and parsed.drums == count
    assert parsed.dropped == {} and parsed.resolution == resolution
    assert parsed.tempos[0][1] == pytest.approx(expected.get_tempo_changes()[1][0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_what_is_written_is_read_by_both(seed, count):
    random = np.random.default_rng(seed)
    pitches = random.permutation(np.arange(21, 109))[:count].tolist()
    notes = []
    for pitch in pitches:
        start, length = random.integers(0, 5000), random.integers(1, 5000)
        notes.append(Note(pitch, int(start), int(start + length), int(random.integers(1, 128))))
        notes.append(Note(pitch, int(start + length), int(start + length + 7), 64))  # at once
    song = Song(480, sorted(notes, key=lambda n: (n.start, n.pitch)), tempos=[(0, 90.0)])
    again = smf.parse(smf.encode(song))
    assert sorted(again.notes) == sorted(notes) and not again.dropped
    other = pretty_midi.PrettyMIDI(io.BytesIO(smf.encode(song)))
    assert len(other.instruments[0].notes) == len(notes)


@pytest.mark.parametrize(
    ("content", "dropped"),
    [
        (b"RIFF\0\0\0\0RMIDdata\0\0\0\0" + WHOLE, {}),
        (b"\0" * 128 + WHOLE, {}),  # the header of an old Macintosh
        (WHOLE[:10] + b"\0\x07" + WHOLE[12:], {"wrong number of tracks in the header": 1}),
        (WHOLE + b"LIST\0\0\0\4abcd", {"chunks that are no tracks": 1}),
        (WHOLE[:14] + b"XFIH\0\0\0\2ab" + WHOLE[14:], {"chunks that are no tracks": 1}),
        (WHOLE[:14] + b"\xff\xfe\xfd" + WHOLE[14:], {"bytes between tracks": 3}),
        (WHOLE[:-1], {"wrong length of a track": 1, "events that are cut off": 1}),
        (WHOLE[:-4], {"wrong length of a track": 1}),
    ],
)
def test_odd_files_are_read_whole(content, dropped):
    assert notes_of(content) == (NOTES, dropped)


@pytest.mark.parametrize(
    ("track", "dropped"),
    [
        (ON + OFF + END, {}),
        (ON + b"\x60\x3c\x00" + END, {}),  # running status, velocity 0
        (b"\x00\xff\x51\x02\x07\xa1" + ON + OFF + END, {"odd meta events": 1}),
        (b"\x00\xff\x51\x00" + ON + OFF + END, {"odd meta events": 1}),
        (b"\x00\xff\x58\x01\x04" + ON + OFF + END, {"odd meta events": 1}),
        (b"\x00\xff\x58\x04\x00\x02\x18\x08" + ON + OFF + END, {"odd meta events": 1}),
        (b"\x00\xff\x51\x03\x00\x00\x00" + ON + OFF + END, {"odd meta events": 1}),
        (b"\x00\xff\x59\x00" + ON + OFF + END, {}),
        (b"\x00\xff\x01\x00" + ON + OFF + END, {}),
        (b"\x00\xff\x90\x01a" + ON + OFF + END, {"odd meta events": 1}),
        (b"\x00\xf0\x03abc" + ON + OFF + END, {}),
        (b"\x00\xf8" + ON + OFF + END, {"system messages": 1}),
        (b"\x00\x3c" + ON + OFF + END, {"bytes that belong to no event": 1}),
        (b"\x00\xb0\x07\xff" + ON + OFF + END, {"data bytes over 127": 1}),
        (b"\x00\x90\x3c\xff" + OFF + END, {"data bytes over 127": 1}),
        (b"\x00\x90\xbc\x40" + ON + OFF + END, {"data bytes over 127": 1}),
        (ON + OFF, {}),
        (ON + b"\x60\x90\x3e\x00" + END, {"notes without an end": 1}),
    ],
)
def test_odd_events_are_counted_and_the_notes_kept(track, dropped):
    assert notes_of(file(track)) == ([(60, 0, 96)], dropped)


def test_a_key_that_is_struck_again_ends_the_note_before():
    track = ON + b"\x60\x90\x3c\x40" + OFF + END
    assert notes_of(file(track))[0] == [(60, 0, 96), (60, 96, 192)]
    long = ON + b"\x00\xff\x06\x01a" + b"\xff\x7f\x90\x3e\x40" + b"\x60\x80\x3e\x00" + END
    notes, dropped = notes_of(file(long))
    assert notes[0] == (60, 0, 4 * 480) and dropped == {"notes without an end": 1}


def test_wrong_lengths_of_tracks_are_found():
    one, other = ON + OFF + END, b"\x00\x90\x40\x50\x60\x80\x40\x00" + END
    content = bytearray(file(one, other))
    for wrong in (5, 200, 2**31):
        content[18:22] = wrong.to_bytes(4)
        notes, dropped = notes_of(bytes(content))
        assert notes == [(60, 0, 96), (64, 0, 96)] and dropped == {"wrong length of a track": 1}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2**32 - 1))
def test_no_damage_raises_another_error(junk, seed):
    random = np.random.default_rng(seed)
    content = bytearray(WHOLE)
    place = int(random.integers(0, len(content)))
    content[place : place + int(random.integers(0, 20))] = junk
    try:
        song = smf.parse(bytes(content))
    except InputError:
        return
    assert all(note.end >= note.start >= 0 and 0 <= note.pitch < 128 for note in song.notes)


# --- on the grid ----------------------------------------------------------------------------------


def test_repeated_notes_are_struck_again(tmp_path):
    """Eight quarter notes of one pitch, without a gap."""
    notes = [Note(60, 480 * n, 480 * (n + 1), 80) for n in range(8)]
    (tmp_path / "a.mid").write_bytes(smf.encode(Song(480, notes)))
    frames = midi.read_midi(tmp_path / "a.mid", 2)
    assert frames[:, 60 - 21].tolist() == [1, 1] + [2, 1] * 7
    assert midi.to_notes(frames) == [(39, 2 * n, 2 * n + 2) for n in range(8)]
    song = midi.to_song(frames, steps_per_quarter=2, tempo=90.0)
    (tmp_path / "b.mid").write_bytes(midi.midi_bytes(song))
    assert np.array_equal(midi.read_midi(tmp_path / "b.mid", 2), frames)


@pytest.mark.parametrize(
    ("meters", "first", "silence"),
    [
        ([], 0, 0),
        ([], 3 * 480, 6),  # the fourth quarter of a bar of four
        ([(0, 3, 4)], 2 * 480, 4),
        ([(0, 3, 4)], 3 * 480, 0),
        ([(0, 1, 4), (480, 4, 4)], 0, 6),  # an upbeat as a bar of its own
        ([(0, 4, 4), (4 * 480, 3, 4)], 4 * 480 + 480, 2),
        ([(0, 255, 1)], 480, 0),  # a corrupt meter
    ],
)
def test_bar_lines_are_kept(tmp_path, meters, first, silence):
    notes = [Note(60, first, first + 480, 80)]
    song = Song(480, notes, meters=[smf.Meter(*meter) for meter in meters])
    (tmp_path / "a.mid").write_bytes(smf.encode(song))
    recording = midi.read_recording(tmp_path / "a.mid", 2)
    assert recording.frames.any(axis=1).tolist() == [False] * silence + [True] * 2
    assert recording.origin == first - silence * 240


def test_notes_finer_than_the_grid_are_told(tmp_path, capsys):
    notes = [Note(60, 0, 480, 80), Note(62, 480, 500, 80), Note(64, 600, 600, 80)]
    (tmp_path / "a.mid").write_bytes(smf.encode(Song(480, notes)))
    content = (tmp_path / "a.mid").read_bytes()
    assert smf.parse(content).notes[:2] == notes[:2]
    frames = midi.read_midi(tmp_path / "a.mid", 1)
    assert frames.any(axis=1).tolist() == [True, True]
    assert "notes shorter than half a frame, lengthened (1)" in capsys.readouterr().err
