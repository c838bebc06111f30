"""Pictures: light and dark themes, the same bytes each time, no trace in global settings."""

import io
import subprocess
import sys
import threading

from common import plots

import matplotlib
import numpy as np
import pytest
from matplotlib import colors, image


def draw(target, theme=None):
    with plots.picture(target, (3, 2), theme=theme) as figure:
        axes = figure.subplots()
        axes.plot([1, 2, 3], label="a")
        axes.set(title="title", xlabel="x")
        axes.legend()


def corner(path):
    return image.imread(path)[0, 0, :3]


@pytest.mark.parametrize(
    ("name", "theme"),
    [("a.png", "light"), ("a-dark.png", "dark"), ("dark.png", "light"), ("a-dark.svg", "dark")],
)
def test_the_name_chooses_the_theme(tmp_path, name, theme):
    draw(tmp_path / name)
    if name.endswith(".png"):
        paper = np.array(colors.to_rgb(plots.PAPER[theme]))
        assert np.abs(corner(tmp_path / name) - paper).max() < 0.01
    else:
        assert plots.PAPER[theme] in (tmp_path / name).read_text()


def test_a_picture_is_drawn_in_a_process_that_has_not_imported_matplotlib(tmp_path):
    code = (
        "import sys; from pathlib import Path; from common import plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "with plots.picture(Path('a-dark.png'), (3, 2)) as figure:\n"
        "    figure.subplots().text(0, 0, 'a', color=plots.contrasting('C0'))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert corner(tmp_path / "a-dark.png").mean() < 0.5


def luminance(colour):
    """Return the relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_the_background(theme):
    def contrast(colour):
        pair = sorted(luminance(colors.to_rgb(c)) for c in (colour, plots.PAPER[theme]))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    assert contrast(plots.INK[theme]) > 7
    assert min(map(contrast, plots.CYCLES[theme])) > 3  # what WCAG 2 demands of graphics


def test_the_same_drawing_yields_the_same_bytes():
    files = io.BytesIO(), io.BytesIO()
    for file in files:
        draw(file)
    assert files[0].getvalue() == files[1].getvalue()


def test_settings_of_matplotlib_are_restored_even_after_an_error(tmp_path):
    before = dict(matplotlib.rcParams)
    draw(tmp_path / "a-dark.png")
    with pytest.raises(ZeroDivisionError), plots.picture(tmp_path / "b.png", (3, 2)):
        _ = 1 / 0
    assert dict(matplotlib.rcParams) == before
    assert not (tmp_path / "b.png").exists()


def test_threads_do_not_mix_their_themes(tmp_path):
    names = [f"{k}{'-dark' * (k % 2)}.png" for k in range(8)]
    threads = [threading.Thread(target=draw, args=(tmp_path / name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        assert (corner(tmp_path / name).mean() < 0.5) == ("dark" in name)


@pytest.fixture
def settings():
    with matplotlib.rc_context():
        yield matplotlib.rcParams


def test_a_notebook_uses_a_theme_for_all_pictures(settings):
    plots.use("dark")
    assert settings["figure.facecolor"] == plots.PAPER["dark"]
    plots.use("light")
    assert settings["figure.facecolor"] == plots.PAPER["light"]
