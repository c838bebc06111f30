"""Progress of long loops on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Row = TypeVar("Row")
SECONDS = 20.0  # between two lines, where standard error is no terminal


def progress(
    rows: Iterable[Row], *, total: int, unit: str, seconds: float = SECONDS
) -> Iterator[Row]:
    """Yield rows, and show how many were processed and how long the rest will take.

    Args:
      rows: the rows.
      total: their number; 0 if it is unknown.
      unit: a plural, such as `recordings`.
      seconds: between two lines, where standard error is no terminal.

    Example:
      >>> list(progress("ab", total=2, unit="letters"))
      ['a', 'b']
    """
    if sys.stderr.isatty():
        yield from tqdm(rows, total=total or None, unit=f" {unit}")
        return
    start = shown = time.monotonic()
    for count, row in enumerate(rows, start=1):
        yield row
        now = time.monotonic()
        if now - shown >= seconds and count != total:
            left = (now - start) / count * (total - count)
            ending = f" of {total:,} {unit}, about {left:.0f} s left" if total else f" {unit}"
            print(f"{count:,}{ending}", file=sys.stderr, flush=True)
            shown = now
