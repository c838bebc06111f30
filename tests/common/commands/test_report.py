"""Reports: drawn curves and matrices, Markdown tables, the model card."""

from common import plots
from common.commands import report

import matplotlib.figure
import numpy as np
import pytest
import yaml
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg

HISTORY = [
    {"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_accuracy": 0.3, "seconds": 1.0},
    {"epoch": 2, "loss": 1.0, "val_loss": 1.5, "val_accuracy": 0.6, "seconds": 2.0},
]


class Last:
    """The last figure that was written."""

    figure: matplotlib.figure.Figure

    def __getattr__(self, name):
        return getattr(self.figure, name)


@pytest.fixture
def drawn(monkeypatch):
    last, savefig = Last(), matplotlib.figure.Figure.savefig

    def spy(figure, *args, **kwargs):
        last.figure = figure
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", spy)
    return last


def count(pixels, colour):
    """Count the pixels of a colour such as #0072b2."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return (np.abs(pixels - wanted).max(axis=-1) < 0.02).sum()


def test_learning_curves_are_drawn(tmp_path):
    report.learning_curves(HISTORY, tmp_path / "curves.png", best_epoch=2)
    pixels = image.imread(tmp_path / "curves.png")[..., :3]
    assert pixels.shape[1] > 2 * pixels.shape[0]
    for colour in plots.CYCLES["light"][:2]:  # the two loss curves
        assert count(pixels, colour) > 100


def test_the_kept_epoch_is_marked_on_each_curve(tmp_path, drawn):
    report.learning_curves(HISTORY, tmp_path / "curves.png", best_epoch=2)
    for axes, names in zip(drawn.axes, (("loss", "val_loss"), ("val_accuracy",)), strict=True):
        rings = [line for line in axes.lines if line.get_fillstyle() == "none"]
        marked = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in rings]
        assert marked == [(2, HISTORY[1][name]) for name in names]
        assert "kept: epoch 2" in axes.get_legend_handles_labels()[1]


def test_a_confusion_matrix_is_counted_and_shaded(tmp_path):
    counts = report.confusion_matrix(
        [0, 0, 1, 2], [0, 1, 1, 2], ["a", "b", "c"], tmp_path / "c.png"
    )
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    pixels = image.imread(tmp_path / "c.png")[..., :3]
    darkest = "#08306b"  # of a row without an error
    assert count(pixels, darkest) > 0.02 * pixels[..., 0].size


@pytest.mark.parametrize("size", [5, 24])
def test_no_label_of_a_confusion_matrix_covers_another_or_leaves_the_picture(tmp_path, drawn, size):
    labels = [f"playing instrument {k}" for k in range(size)]
    truth = np.repeat(np.arange(size), 3)
    report.confusion_matrix(truth, truth, labels, tmp_path / "c.png")
    (axes,) = drawn.axes
    FigureCanvasAgg(drawn.figure).draw()  # a figure is saved at another resolution
    for texts in (axes.get_yticklabels(), axes.texts):
        extents = [text.get_window_extent() for text in texts]
        assert len(extents) >= size
        for k, a in enumerate(extents):
            assert not any(a.overlaps(b) for b in extents[k + 1 :])
            assert drawn.bbox.contains(a.x0, a.y0) and drawn.bbox.contains(a.x1, a.y1)
    # Turned labels are apart if their ends are further apart than a line is high.
    ends = [text.get_window_extent().x1 for text in axes.get_xticklabels()]
    points = axes.get_xticklabels()[0].get_fontsize()
    assert np.diff(ends).min() * np.sin(np.pi / 4) > points / 72 * drawn.dpi
    assert all(text.get_rotation() == 45 for text in axes.get_xticklabels())


def test_counts_in_a_confusion_matrix_contrast_with_their_cells_in_both_themes(tmp_path, drawn):
    for name, colours in (("c.png", ["white", "black"]), ("c-dark.png", ["black", "white"])):
        report.confusion_matrix([0, 0, 1], [0, 0, 0], ["a", "b"], tmp_path / name)
        assert [text.get_color() for text in drawn.axes[0].texts] == 2 * colours


def test_tables_round_floats_and_escape_bars():
    rows = [{"name": "a|b", "score": 0.123456}, {"name": "c\nd", "score": 2}]
    assert report.table(rows).splitlines() == [
        "| name | score |",
        "| --- | --- |",
        "| a\\|b | 0.1235 |",
        "| c d | 2 |",
    ]


def test_the_card_lists_settings_and_versions(tmp_path):
    path = tmp_path / "card.md"
    report.model_card(
        path,
        header={"license_name": 'MIT: "as is"', "metrics": ["f1", "recall"]},
        title="T",
        summary="S.",
        sections={"Scores": "good"},
        settings={"units": 7},
    )
    _, header, text = path.read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {"license_name": 'MIT: "as is"', "metrics": ["f1", "recall"]}
    assert text.startswith("\n# T\n\nS.\n\n## Scores\n\ngood\n\n## Settings")
    assert "| units | 7 |" in text and f"| keras | {report.versions()['keras']} |" in text


def test_a_classification_report_has_a_line_per_class():
    text = report.classification_report([0, 0, 1, 1], [0, 1, 1, 1], ["bad", "good"])
    bad, good = (
        next(x for x in text.splitlines() if x.split()[:1] == [n]) for n in ("bad", "good")
    )
    assert bad.split()[1:] == ["1.00", "0.50", "0.67", "2"]
    assert good.split()[1:] == ["0.67", "1.00", "0.80", "2"]
    assert text.splitlines()[-2:] == ["| bad | 1 | 1 |", "| good | 0 | 2 |"]
