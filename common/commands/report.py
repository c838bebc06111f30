"""Reports for people: learning curves, confusion matrices, tables, the model card."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import plots

import numpy as np
from etils import epy
from numpy.typing import ArrayLike

with epy.lazy_imports():
    import keras
    import sklearn.metrics
    import tensorflow as tf

MANY = 20  # labels of a confusion matrix, above which cells are smaller


def learning_curves(history: Sequence[Mapping[str, float]], path: Path, *, best_epoch: int) -> None:
    """Draw loss and validation metrics over the epochs.

    Args:
      history: rows of `common.training.fit.Fitted.history`.
      path: the PNG to write.
      best_epoch: the epoch whose weights were kept; marked. Counted from 1.
    """
    epochs = [row["epoch"] for row in history]
    metrics = [name for name in history[0] if name.startswith("val_") and name != "val_loss"]
    kept = epochs.index(best_epoch)
    with plots.picture(path, (9, 3.5)) as figure:
        left, right = figure.subplots(1, 2)
        drawn = [(left, "loss", "training"), (left, "val_loss", "validation")]
        for axes, name, label in [*drawn, *((right, name, name[4:]) for name in metrics)]:
            values = [row[name] for row in history]
            (line,) = axes.plot(epochs, values, marker=".", label=label)
            ring = {"marker": "o", "markersize": 10, "fillstyle": "none"}
            axes.plot(best_epoch, values[kept], color=line.get_color(), **ring)
        left.set(xlabel="epoch", ylabel="loss")
        right.set(xlabel="epoch", ylabel="validation")
        for axes in (left, right):
            label = f"kept: epoch {best_epoch}"
            axes.axvline(best_epoch, color="grey", linewidth=0.8, linestyle=":", label=label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()


def confusion_matrix(
    truth: ArrayLike, predicted: ArrayLike, labels: Sequence[str], path: Path
) -> np.ndarray:
    """Draw counts of truth against prediction, each cell shaded by its fraction of the row.

    Long labels are turned, and many labels are drawn smaller, without zeros.

    Returns:
      `<int>[classes, classes]`, the rows are the truth.
    """
    counts = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(len(labels)))
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    longest, is_large = max(map(len, labels)), len(labels) > MANY
    cell, font = (0.3, 6) if is_large else (0.55, 9)
    centred: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": font}
    size = 1.2 + 0.08 * longest + cell * len(labels)  # inches
    with plots.picture(path, (size, size)) as figure:
        axes = figure.subplots()
        image = axes.imshow(fractions, vmin=0.0, vmax=1.0)
        for (row, column), count in np.ndenumerate(counts):
            if count or not is_large:
                colour = plots.contrasting(image.cmap(fractions[row, column]))
                axes.text(column, row, _short(count), color=colour, **centred)
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        turned = turned if longest > 4 else {}
        axes.set_xticks(range(len(labels)), labels, fontsize=font + 1, **turned)
        axes.set_yticks(range(len(labels)), labels, fontsize=font + 1)
        axes.set(xlabel="predicted", ylabel="true")
    return counts


def _short(count: int) -> str:
    """Return a number of at most five characters.

    Example:
      >>> _short(950), _short(23_456), _short(3_214_567)
      ('950', '23k', '3.2M')
    """
    for limit, unit in ((1_000_000, "M"), (10_000, "k")):
        if count >= limit:
            value = count / (1_000_000 if unit == "M" else 1_000)
            return f"{value:.1f}{unit}" if value < 10 else f"{value:.0f}{unit}"
    return str(count)


def confusion_table(counts: np.ndarray, labels: Sequence[str]) -> str:
    """Return counts of truth against prediction as a Markdown table.

    Args:
      counts: `<int>[classes, classes]`, the rows are the truth.
      labels: the classes.
    """
    corner = "true \\ predicted"
    return table(
        [
            {corner: label, **dict(zip(labels, row, strict=True))}
            for label, row in zip(labels, counts.tolist(), strict=True)
        ]
    )


def classification_report(truth: ArrayLike, predicted: ArrayLike, labels: Sequence[str]) -> str:
    """Return precision, recall and F1 per class by scikit-learn, and the confusion table.

    Args:
      truth: an index of `labels` for each example.
      predicted: the predicted index for each example.
      labels: the classes.
    """
    places = range(len(labels))
    rates = sklearn.metrics.classification_report(
        truth, predicted, labels=places, target_names=labels, zero_division=0.0
    )
    counts = sklearn.metrics.confusion_matrix(truth, predicted, labels=places)
    return f"{rates}\n{confusion_table(counts, labels)}"


def versions() -> dict[str, str]:
    """Return the versions of the software that a result depends on."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, headed by the keys of the first row.

    Example:
      >>> print(table([{"task": "ner", "f1": 0.5}]))
      | task | f1 |
      | --- | --- |
      | ner | 0.5000 |
    """
    header = list(rows[0])
    lines = [header, ["---"] * len(header)]
    lines += [[_cell(row.get(name, "")) for name in header] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def model_card(
    path: Path,
    *,
    header: Mapping[str, Any],
    title: str,
    summary: str,
    sections: Mapping[str, str],
    settings: Mapping[str, Any],
) -> None:
    """Write `model_card.md`: a description of the model, its data, its scores and its usage.

    Args:
      path: the file.
      header: facts for programs, which are written as YAML before the text.
      title: its heading.
      summary: a paragraph.
      sections: heading -> Markdown, in order.
      settings: the config of the run, listed at the end with the versions.
    """
    facts = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in header.items())
    parts = ["\n".join(["---", *facts, "---"]), f"# {title}", summary]  # JSON is YAML
    parts += [f"## {heading}\n\n{text}" for heading, text in sections.items()]
    listed = [{"setting": name, "value": value} for name, value in settings.items()]
    parts.append("## Settings\n\n" + table(listed))
    software = [{"software": name, "version": value} for name, value in versions().items()]
    parts.append("## Versions\n\n" + table(software))
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
