"""Messages on standard error: progress, and items of a user's data that cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError

LISTED = 5  # items that a message names
Skipped = list[tuple[str, str]]  # place of an item (a line, a file, an id), and why it is skipped


def say(message: str) -> None:
    """Print a message about progress on standard error, apart from the results."""
    print(message, file=sys.stderr, flush=True)


def report_skipped(
    source: str | Path, skipped: Sequence[tuple[str, str]], *, total: int, unit: str, limit: float
) -> None:
    """Print how many items of a source were skipped and why, or refuse the source.

    Args:
      source: the file, folder or data set.
      skipped: place and reason of each item.
      total: number of all items.
      unit: their name in the plural.
      limit: largest fraction that may be skipped, by the flag `--max_bad`; 1.0 without a limit.

    Raises:
      InputError: more were skipped, or all of them.
    """
    if not skipped:
        return
    named = "; ".join(f"{place}: {reason}" for place, reason in skipped[:LISTED])
    more = f"; and {len(skipped) - LISTED} more" if len(skipped) > LISTED else ""
    message = f"{len(skipped):,} of {total:,} {unit} cannot be used ({named}{more})"
    if len(skipped) > limit * total or len(skipped) == total:
        advice = f". At most {limit:.0%} may be skipped: see --max_bad" if limit < 1.0 else ""
        raise InputError(f"{message}{advice}", source)
    say(f"{source}: skipped {message}")
