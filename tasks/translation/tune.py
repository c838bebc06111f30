"""Search settings of the translator that score best on validation data.

    python -m tasks.translation.tune --trials 30                      # default data
    python -m tasks.translation.tune --data my.tsv --trials 30
    python -m tasks.translation.tune --data my.tsv --trials 30 --resume

See `common.commands.tune`; all flags of `train` are accepted, too.
"""

from __future__ import annotations

from common.commands import cli, tune
from tasks.translation import train
from tasks.translation.config import DEFAULT, MODE, MONITOR, PRESETS, TASK


def main(argv: list[str]) -> None:
    """Search, and print the best settings; see the module."""
    trained = tune.Trained(
        TASK, train.__name__, train.read_settings, MONITOR, MODE, train.ARCHITECTURE
    )
    tune.search(trained, argv, doc=cli.with_datasets(__doc__, PRESETS, DEFAULT))


if __name__ == "__main__":
    cli.run(main)
