from tasks.music import midi, smf
from tasks.music.midi import KEYS
from tasks.music.smf import Note, Song
from tests.tasks.music.examples import BASS, TUNE, make_song, random_notes
from tests.tasks.own.music import write_midi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure


@pytest.mark.parametrize(("resolution", "tempo"), [(480, 120.0), (96, 63.0), (220, 200.0)])
def test_frames_depend_neither_on_tempo_nor_on_resolution(tmp_path, resolution, tempo):
    song = make_song(
        (False, TUNE), (False, BASS), (True, [(38, 0, 4)]), resolution=resolution, tempo=tempo
    )
    song.write(str(tmp_path / "a.mid"))
    frames = midi.read_midi(tmp_path / "a.mid", 2)
    sounding = [(np.flatnonzero(row) + 21).tolist() for row in frames]
    assert sounding == [[36, 60], [36, 60], [36, 62], [36, 64], [43, 64], [43, 64]]


def test_outer_silence_is_removed_and_short_notes_last_a_step(tmp_path):
    make_song((False, [(60, 4, 4.05), (64, 6, 7)])).write(str(tmp_path / "a.mid"))
    frames = midi.read_midi(tmp_path / "a.mid", 1)
    assert frames.shape == (3, KEYS) and frames.sum(axis=1).tolist() == [1, 0, 1]


@pytest.mark.parametrize(("bar", "lines"), [(4.0, [0, 4, 8]), (3.0, [0, 3, 6, 9])])
def test_a_piano_roll_has_a_line_at_the_beginning_of_each_bar(bar, lines):
    frames = np.zeros((40, KEYS))
    frames[3:9, 39] = 1  # C4, from 0.75 to 2.25 quarter notes
    axes = Figure().subplots()
    midi.draw_piano_roll(axes, frames, steps_per_quarter=4, given=4, bar=bar)
    assert [line.get_xdata()[0] for line in axes.lines] == lines
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        str(number) for number in range(1, len(lines) + 1)
    ]
    spans = [np.ptp(part.get_paths()[0].vertices[:, 0]) for part in axes.collections]
    assert spans == [0.25, 1.25]  # the given part, and the rest


def test_a_long_piano_roll_has_a_line_for_each_bar_and_fewer_numbers():
    axes = Figure().subplots()
    midi.draw_piano_roll(axes, np.zeros((16 * 200, KEYS)), steps_per_quarter=4)
    assert len(axes.lines) == 200 and len(axes.get_xticks()) == 20


def test_the_picture_of_a_continued_waltz_has_its_bars():
    assert midi.first_bar(Song(480, [], meters=[smf.Meter(0, 3, 4)])) == 3.0
    assert midi.first_bar(Song(480, [], meters=[smf.Meter(0, 255, 1)])) == 4.0  # corrupt


def test_notes_outside_the_piano_are_moved_by_octaves():
    frames = midi.to_frames(np.array([20, 0, 109, 127]), np.zeros(4, int), np.ones(4, int))
    assert (np.flatnonzero(frames[0]) + 21).tolist() == [24, 32, 97, 103]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.0, 0.5))
def test_frames_survive_the_conversion_to_notes(seed, time, density):
    frames = (np.random.default_rng(seed).random((time, KEYS)) < density).astype(np.uint8)
    frames[0, 0] = frames[-1, 5] = 1  # no silence at the ends
    key, start, end = np.array(midi.to_notes(frames)).T
    assert np.array_equal(midi.to_frames(key + midi.LOWEST, start, end), frames)
    assert (end > start).all()


def test_midi_files_are_read_as_they_were_written(tmp_path):
    frames = random_notes((40,), 10, 80, density=0.1).astype(np.uint8)
    for steps in (1, 2, 4, 12):
        write_midi(tmp_path / "a.mid", frames, steps_per_quarter=steps, tempo=77)
        assert np.array_equal(midi.read_midi(tmp_path / "a.mid", steps), frames)


def test_melody_intervals_skip_silence_and_repeated_notes():
    frames = np.zeros((7, KEYS))
    for step, keys in enumerate([(), (30, 40), (40,), (), (45,), (20, 45), (31,)]):
        frames[step, list(keys)] = 1
    assert midi.melody_intervals(frames).tolist() == [5, -14]
    assert midi.melody_intervals(np.zeros((3, KEYS))).tolist() == []


@pytest.mark.parametrize(("start", "end"), [(0, 6), (1, 5), (3, 6), (5, 6)])
def test_a_part_of_a_recording_has_the_notes_that_sound_in_it(tmp_path, start, end):
    notes = [Note(60, 0, 480, 70), Note(60, 480, 1440, 80), Note(64, 240, 1200, 90)]
    tempos = [(0, 60.0), (480, 90.0), (960, 120.0)]
    (tmp_path / "a.mid").write_bytes(smf.encode(Song(480, notes, tempos=tempos)))
    part = midi.read_recording(tmp_path / "a.mid", 2).cut(start, end)
    song = midi.to_song(part.frames, steps_per_quarter=2, tempo=100.0, prime=part)
    (tmp_path / "b.mid").write_bytes(midi.midi_bytes(song))
    again = midi.read_recording(tmp_path / "b.mid", 2)
    assert np.array_equal(again.frames > 0, part.frames > 0)
    assert {note.velocity for note in again.song.notes} <= {70, 80, 90}
    first = [value for tick, value in again.song.tempos if tick == 0][-1]
    assert round(first) == (60 if start < 2 else 90 if start < 4 else 120)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]))
def test_every_note_of_a_hymn_is_kept(tmp_path_factory, seed, steps):
    """Four voices, in which most notes are struck again at once."""
    random = np.random.default_rng(seed)
    notes = []
    for voice in range(4):
        pitch, step = 40 + 10 * voice, 0
        for _ in range(20):
            pitch += int(random.choice([0, 0, 0, 1, -1]))
            pitch = min(max(pitch, 40 + 10 * voice), 48 + 10 * voice)
            length = int(random.integers(1, 5))
            notes.append((pitch - midi.LOWEST, step, step + length))
            step += length
    tick = 480 // steps
    song = Song(480, [Note(21 + key, a * tick, b * tick, 80) for key, a, b in notes])
    path = tmp_path_factory.mktemp("hymn") / "a.mid"
    path.write_bytes(smf.encode(song))
    frames = midi.read_midi(path, steps)
    assert sorted(midi.to_notes(frames)) == sorted(notes)
    path.write_bytes(midi.midi_bytes(midi.to_song(frames, steps_per_quarter=steps, tempo=80.0)))
    assert np.array_equal(midi.read_midi(path, steps), frames)
