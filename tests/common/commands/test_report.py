"""Reports: drawn curves and matrices, Markdown tables, the model card."""

from common.commands import report

import numpy as np
import yaml
from matplotlib import image

HISTORY = [
    {"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_accuracy": 0.3, "seconds": 1.0},
    {"epoch": 2, "loss": 1.0, "val_loss": 1.5, "val_accuracy": 0.6, "seconds": 2.0},
]


def test_learning_curves_are_drawn(tmp_path):
    report.learning_curves(HISTORY, tmp_path / "curves.png", best_epoch=2)
    pixels = image.imread(tmp_path / "curves.png")[..., :3]
    assert pixels.shape[1] > 2 * pixels.shape[0]
    for colour in ("#1f77b4", "#ff7f0e"):  # the two loss curves
        wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(axis=-1) < 0.02).sum() > 100


def test_a_confusion_matrix_is_counted_and_shaded(tmp_path):
    counts = report.confusion_matrix(
        [0, 0, 1, 2], [0, 1, 1, 2], ["a", "b", "c"], tmp_path / "c.png"
    )
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    pixels = image.imread(tmp_path / "c.png")[..., :3]
    darkest = np.array([8, 48, 107]) / 255  # a row without an error
    assert (np.abs(pixels - darkest).max(axis=-1) < 0.02).mean() > 0.02


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
