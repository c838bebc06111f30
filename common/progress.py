"""Progress of long loops on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Row = TypeVar("Row")
SECONDS = 20.0  # between two lines, where standard error is no terminal


def progress(
    rows: Iterable[Row],
    *,
    total: int,
    unit: str,
    seconds: float = SECONDS,
    place: Callable[[Row], int] | None = None,
) -> Iterator[Row]:
    """Yield rows, and show how many were processed and how long the rest will take.

    Args:
      rows: the rows.
      total: their number; 0 if it is unknown.
      unit: a plural, such as `recordings`.
      seconds: between two lines, where standard error is no terminal.
      place: the place of a row among `total`, such as its line; None: rows are counted.

    Example:
      >>> list(progress("ab", total=2, unit="letters"))
      ['a', 'b']
    """
    counted = ((count if place is None else place(row), row) for count, row in enumerate(rows, 1))
    if sys.stderr.isatty():
        with tqdm(total=total or None, unit=f" {unit}") as bar:
            for count, row in counted:
                yield row
                bar.update(count - bar.n)
        return
    start = shown = time.monotonic()
    for count, row in counted:
        yield row
        now = time.monotonic()
        if now - shown >= seconds and count < (total or count + 1):
            left = (now - start) / count * (total - count)
            ending = f" of {total:,} {unit}, about {left:.0f} s left" if total else f" {unit}"
            print(f"{count:,}{ending}", file=sys.stderr, flush=True)
            shown = now
