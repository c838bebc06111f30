from common.errors import InputError
from tasks.music import formats, midi
from tests.tasks.music.examples import write_broken_files
from tests.tasks.own.music import chord_piece, write_folder, write_midi

import numpy as np
import pytest


def test_every_broken_file_of_a_folder_is_counted(tmp_path, capsys):
    broken = write_broken_files(tmp_path)
    write_midi(tmp_path / "good.mid", chord_piece(np.random.default_rng(0)))
    for name, message in broken.items():
        with pytest.raises(InputError, match=f"{name}: ({message})"):
            midi.read_midi(tmp_path / name, 4)
    assert [piece.name for piece in formats.read_folder(tmp_path, 4)] == ["good.mid"]
    error = capsys.readouterr().err
    assert f"skipped {len(broken)} of {len(broken) + 1} files cannot be used" in error
    assert sum(name in error for name in broken) == 5 and f"and {len(broken) - 5} more" in error
    assert "good.mid" not in error
    (tmp_path / "good.mid").unlink()
    with pytest.raises(InputError, match="8 of 8 files cannot be used"):
        formats.read_folder(tmp_path, 4)


def test_duplicates_are_skipped_so_that_no_two_splits_have_one(tmp_path, capsys):
    folder = write_folder(tmp_path / "midi", 12, seed=1)
    first = (folder / "000.mid").read_bytes()
    (folder / "copy").mkdir()
    (folder / "copy" / "again.MID").write_bytes(first)
    (folder / "notes.txt").write_text("no music")
    rows = formats.read_folder(folder, 1)
    names = [row.name for row in rows]
    assert names[0] == "000.mid" and not any("again" in name for name in names)
    assert len({row.notes.tobytes() for row in rows}) == len(rows) >= 10
    assert "again.MID contains the same music as 000.mid" in capsys.readouterr().err


def test_a_piece_needs_two_frames(tmp_path):
    write_midi(tmp_path / "short.mid", chord_piece(np.random.default_rng(0))[:1])
    with pytest.raises(InputError, match=r"short\.mid: one frame long; at least two are needed"):
        formats.read_piece(tmp_path / "short.mid", 1)
