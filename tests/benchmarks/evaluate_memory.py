"""Memory of `evaluate` for a large file of the user's own.

    python -m tests.benchmarks.evaluate_memory --task sentiment --rows 300000
    python -m tests.benchmarks.evaluate_memory --task ner --rows 300000

The tables are those of `tests.benchmarks.scale`. An export in `saved_models` gives the settings
only: predictions are made up, so it takes a minute or two. After each step, the memory of the
process and its peak until then are printed. Run one task per process. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from common.commands import report
from common.serving import versions
from common.serving.served import Served
from tests.benchmarks import pairs_memory, scale

import numpy as np


@dataclasses.dataclass(frozen=True)
class MadeUp(Served):
    """An export whose predictions are made up from the input, each time anew as strings."""

    path: Path
    settings: Mapping[str, Any]

    def call(self, signature: str, /, **inputs: Any) -> dict[str, np.ndarray]:
        """Return predictions for texts, or for sentences of tokens."""
        if signature == "tokens":
            labels = [tag.encode() for tag in self.settings["labels"]]
            tags = np.array([[labels[0]] * row.shape[0] for row in inputs["tokens"]], object)
            tags[:, :3:2] = np.array(labels[1], object)
            return {"tags": tags, "confidence": np.full(tags.shape, 0.5, np.float32)}
        texts = inputs["text"]
        if "languages" in self.settings:
            return {"translation": np.array([text.encode() for text in texts], object)}
        classes = np.array([len(text) for text in texts]) % len(self.settings["labels"])
        return {"probabilities": np.eye(len(self.settings["labels"]), dtype=np.float32)[classes]}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.evaluate_memory", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--task", choices=scale.LINES, default="sentiment", help="task")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the file")
    flags = parser.parse_args()
    evaluate = import_module(f"tasks.{flags.task}.evaluate")
    published = versions.find(None, flags.task)
    served = MadeUp(published.path, published.settings)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = scale.write_table(flags.task, flags.rows, Path(folder))
        rows.append(pairs_memory.memory("making the file"))
        settings = evaluate.Evaluate(data=path, data_dir=Path(folder))
        _, _, *split = evaluate.load_split(served, settings)
        rows.append(pairs_memory.memory("reading it"))
        scored = evaluate.score(served, *split)
        rows.append(pairs_memory.memory("scoring it"))
    print(report.table(rows))
    print(json.dumps({"rows": flags.rows, "metrics": scored.metrics, "memory": rows}))


if __name__ == "__main__":
    main()
