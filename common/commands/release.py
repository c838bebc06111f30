"""The end of every `train`: export, score the staged export, write its card, print the result."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, report
from common.commands.cli import Scored
from common.commands.config import NOT_IN_CHECKPOINT, RunConfig, without_place
from common.commands.run import Run
from common.datasets import Corpus
from common.serving.publish import Example, Function, publish
from common.serving.served import Served, load_export
from common.training.distribution import wait_for_all, worker_index
from common.training.fit import Fitted

from etils import epy

with epy.lazy_imports():
    import keras


@dataclasses.dataclass(frozen=True)
class Card:
    """A task's texts for its model card, in Markdown; the rest follows from the run."""

    title: str
    summary: str  # input, output and architecture
    scores: str  # the meaning of the scores, and the task's plots: `![...](assets.extra/name.png)`
    usage: str  # inputs and outputs of `serving_default`, a curl, the largest requests
    limits: str  # what the model is for, and where it fails; `python -m tasks demo` shows it, too
    data: str = ""  # remarks in addition to name, licence and citation


def describe_layers(count: int, cell: str, units: int) -> str:
    """Describe a stack of bidirectional layers for the summary of a card.

    Example:
      >>> describe_layers(2, "lstm", 64)
      '2 bidirectional lstm layers of 64 units per direction'
    """
    plural = "s" if count > 1 else ""
    return f"{count} bidirectional {cell} layer{plural} of {units} units per direction"


def release(
    run: Run[Any],
    *,
    corpus: Corpus,
    fitted: Fitted,
    signatures: Mapping[str, Function],
    model: keras.Model,
    resources: Sequence[Any],
    examples: Mapping[str, Sequence[Example]],
    settings: Mapping[str, Any],
    score: Callable[[Served, Path], Scored],
    card: Card,
    publish: Callable[..., Path] = publish,
    load: Callable[[Path], Served] = load_export,
) -> Path | None:
    """Publish a fitted model, scored through its own export, and print the JSON line.

    Args:
      run: the training run; the versions lie in `run.target.folder(run.task)` of its output folder.
      corpus: the data it was trained on.
      fitted: the result of `common.training.fit.fit`.
      signatures: see `common.serving.publish.publish`, as for `model`, `resources`, `examples`.
      model: see there.
      resources: see there.
      examples: see there.
      settings: what only this task's `evaluate` and `predict` must know (labels, units). `task`,
        `training_data` and `config` are added.
      score: receives the staged export and the folder for plots; returns the score on the split
        `config.score`. Not called for `--score none`.
      card: the task's texts for the model card.
      publish: writes the version; another function writes another format than a SavedModel.
      load: loads what `publish` has written.

    Returns:
      The version folder; None on workers that are not the chief.

    Raises:
      ExportError: see `common.serving.publish.publish`. Then nothing is published.
    """
    config = run.config
    worker = worker_index(run.strategy)
    if worker:
        cli.say(f"worker {worker} is done; the chief publishes")
        wait_for_all(run.strategy)
        return None
    scored = Scored(examples=0, seconds=0.0, metrics={})
    published_settings = config.published_settings()

    def finish(staged: Path) -> None:
        nonlocal scored
        plots = staged / "assets.extra"
        curves = plots / "learning_curves.png"
        report.learning_curves(fitted.history, curves, best_epoch=fitted.best_epoch)
        if config.score != "none":
            scored = score(load(staged), plots)
        _write_card(staged, run.task, card, config, corpus, fitted, scored)

    published = publish(
        signatures,
        model=model,
        resources=resources,
        examples=examples,
        settings={
            "task": run.task,
            **settings,
            "limits": card.limits,
            "training_data": {
                "dataset": config.dataset,
                "data": None if config.data is None else str(config.data.resolve()),
                "init": published_settings["init"],
                "examples": corpus.size("train"),
            },
            "config": published_settings,
        },
        directory=config.output / run.target.folder(run.task),
        target=run.target,
        finish=finish,
    )
    wait_for_all(run.strategy)
    trained = Scored(scored.examples, round(fitted.seconds, 1), scored.metrics)
    cli.print_result(cli.to_result(run.task, corpus.name, config.score, trained, published))
    return published


def _write_card(
    staged: Path,
    task: str,
    card: Card,
    config: RunConfig,
    corpus: Corpus,
    fitted: Fitted,
    scored: Scored,
) -> None:
    size = sum(file.stat().st_size for file in staged.rglob("*") if file.is_file())
    citation = f"```bibtex\n{corpus.citation}\n```" if corpus.citation else ""
    licence = f"`{corpus.name}`, licence: {corpus.licence}."
    folder = without_place(str(staged.parent))
    python = f'```python\nfrom tasks.{task} import load\n\nmodel = load("{folder}")\n```'
    typed = cli.command_line()
    command = f"```\n{typed}\n```" if typed else "Called from Python, with the settings below."
    shown = {"split": config.score, "examples": scored.examples, **scored.metrics}
    report.model_card(
        staged / "model_card.md",
        header={
            "library_name": "keras",
            "tags": [task, "recurrent"],
            "license": "other",
            "license_name": corpus.licence,
            "datasets": [corpus.name],
            "metrics": [*scored.metrics],
            "date": datetime.date.today().isoformat(),
        },
        title=card.title,
        summary=card.summary,
        sections={
            "Scores": (
                f"{report.table([shown])}\n\nScores of this export itself. {card.scores}"
                if config.score != "none"
                else "Not scored."
            ),
            "Training": (
                f"{corpus.size('train'):,} examples; {len(fitted.history)} epochs in "
                f"{fitted.seconds:.0f} s, epoch {fitted.best_epoch} kept by its validation score."
                f"\n\n{command}"
                "\n\n![learning curves](assets.extra/learning_curves.png)"
            ),
            "Data and licence": "\n\n".join(filter(None, (licence, citation, card.data))),
            "Intended use and limits": card.limits,
            "Usage": f"{python}\n\n{card.usage}",
            "Target": f"`{config.target}`.",
            "Size": f"{size / 1e6:.1f} MB in all.",
        },
        settings={
            name: value
            for name, value in config.published_settings().items()
            if name not in NOT_IN_CHECKPOINT
        },
    )
