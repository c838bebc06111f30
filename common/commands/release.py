"""The end of every `train`: export, score the staged export, write its card, print the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, report
from common.commands.config import RunConfig, jsonable
from common.datasets import Corpus
from common.serving.publish import Example, Function, publish
from common.serving.served import Served, load_export
from common.serving.targets import PORTABLE, Target
from common.training.distribution import wait_for_all, worker_index
from common.training.fit import Fitted

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Card:
    """What a task says in its model card, in Markdown; the rest is known from the run."""

    title: str
    summary: str  # what it reads, what it answers, how it is built
    scores: str  # what the figures mean, and the task's plots: `![...](assets.extra/name.png)`
    usage: str  # `serving_default`'s inputs and outputs, a curl, the limits
    data: str = ""  # what there is to say beside name, licence and citation


def release(
    *,
    task: str,
    config: RunConfig,
    corpus: Corpus,
    fitted: Fitted,
    signatures: Mapping[str, Function],
    model: keras.Model,
    resources: Sequence[Any],
    examples: Mapping[str, Sequence[Example]],
    settings: Mapping[str, Any],
    score: Callable[[Served, Path], tuple[int, dict[str, float]]],
    card: Card,
    strategy: tf.distribute.Strategy | None = None,
    target: Target = PORTABLE,
    publish: Callable[..., Path] = publish,
    load: Callable[[Path], Served] = load_export,
) -> Path | None:
    """Publishes a fitted model, scored through its own export, and prints the JSON line.

    Args:
      task: its name; the folder below `config.output` is `target.folder(task)`.
      config: the run's settings.
      corpus: what it was trained on.
      fitted: what `common.training.fit.fit` gave back.
      signatures: as `publish` takes them, like `model`, `resources` and `examples`.
      model: see there.
      resources: see there.
      examples: see there.
      settings: what only this task's `evaluate` and `predict` must know (labels, units). `task`,
        `training_data` and `config` are added.
      score: takes the staged export and the folder for plots; gives how many examples of the split
        `config.score` it scored, and their metrics by name. Not called for `--score none`.
      card: the task's words for the model card.
      strategy: under which it was trained. Of several workers the chief publishes, and the others
        wait for it.
      target: what the signatures were made for.
      publish: writes the version; another one writes another format than a SavedModel.
      load: opens what `publish` has written.

    Returns:
      The version folder; None on workers that are not the chief.

    Raises:
      ExportError: see `common.serving.publish.publish`. Then nothing is published.
    """
    if target.name != config.target:
        raise ValueError(f"signatures made for {target.name!r}, --target {config.target!r}")
    strategy = strategy or tf.distribute.get_strategy()
    if worker_index(strategy):
        cli.say(f"worker {worker_index(strategy)} is done; the chief publishes")
        wait_for_all(strategy)
        return None
    count = 0
    metrics: dict[str, float] = {}

    def finish(staged: Path) -> None:
        nonlocal count, metrics
        plots = staged / "assets.extra"
        curves = plots / "learning_curves.png"
        report.learning_curves(fitted.history, curves, best_epoch=fitted.best_epoch)
        if config.score != "none":
            count, metrics = score(load(staged), plots)
        shown = {"split": config.score, "examples": count, **metrics}
        _write_card(staged, card, config, corpus, fitted, shown)

    published = publish(
        signatures,
        model=model,
        resources=resources,
        examples=examples,
        settings={
            "task": task,
            **settings,
            "training_data": {
                "dataset": config.dataset,
                "data": None if config.data is None else str(config.data.resolve()),
                "init": None if config.init is None else str(config.init),
                "examples": corpus.size("train"),
            },
            "config": jsonable(dataclasses.asdict(config)),
        },
        directory=config.output / target.folder(task),
        target=target,
        finish=finish,
    )
    seconds = round(fitted.seconds, 1)
    wait_for_all(strategy)
    cli.print_scored(task, corpus.name, config.score, count, seconds, published, metrics)
    return published


def _write_card(
    staged: Path,
    card: Card,
    config: RunConfig,
    corpus: Corpus,
    fitted: Fitted,
    scores: Mapping[str, Any],
) -> None:
    size = sum(file.stat().st_size for file in staged.rglob("*") if file.is_file())
    citation = f"```bibtex\n{corpus.citation}\n```" if corpus.citation else ""
    licence = f"`{corpus.name}`, licence: {corpus.licence}."
    report.model_card(
        staged / "model_card.md",
        title=card.title,
        summary=card.summary,
        sections={
            "Scores": (
                f"{report.table([scores])}\n\nOf this exported SavedModel. {card.scores}"
                if config.score != "none"
                else "Not scored."
            ),
            "Training": (
                f"{corpus.size('train'):,} examples; {len(fitted.history)} epochs in "
                f"{fitted.seconds:.0f} s, epoch {fitted.best_epoch} kept by its validation score."
                "\n\n![learning curves](assets.extra/learning_curves.png)"
            ),
            "Data and licence": "\n\n".join(filter(None, (licence, citation, card.data))),
            "How to ask it": card.usage,
            "Target": f"`{config.target}`.",
            "Size": f"{size / 1e6:.1f} MB in all.",
        },
        settings=config.checkpoint_settings(),
    )
