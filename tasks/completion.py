"""Complete the words of `sequence-suite` by the Tab key, in bash and zsh.

    source <(sequence-suite completion)   # or append its output to ~/.bashrc

Tasks, commands, flags, and the names of data sets after `--dataset` are completed; files elsewhere.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable

from common.commands import cli
from common.commands.push import Push
from common.commands.tune import TuneConfig
from tasks.__main__ import COMMANDS, FRONT, TASKS, List, Train

FUNCTION = """\
[ -n "${ZSH_VERSION:-}" ] && autoload -U +X compinit bashcompinit && compinit && bashcompinit
_sequence_suite() {
  local line="${COMP_WORDS[*]:1:COMP_CWORD-1}" current="${COMP_WORDS[COMP_CWORD]}" words=""
  case "$line" in
%s
  esac
  # The value of a flag, but for those that have none, is a file or a number.
  [[ "$line" =~ --[a-z_]+$ && "$current" != -* && ! "$line" =~ --(dataset|%s)$ ]] && words=""
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _sequence_suite %s"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """There are no flags."""


def flags_of(*configs: type) -> list[str]:
    """Return the flags of a command, sorted."""
    fields = {field.name for config in configs for field in dataclasses.fields(config)}
    return sorted(f"--{name}" for name in fields | {"help"})


def case(pattern: str, words: Iterable[str]) -> str:
    """Return the branch of the function for lines of a pattern."""
    return f'    {pattern}) words="{" ".join(words)}" ;;'


def configs_of(task: str, command: str) -> list[type]:
    """Return the dataclasses of a command's flags."""
    module, name = {
        "train": ("config", "Config"),
        "tune": ("config", "Config"),
        "evaluate": ("evaluate", "Evaluate"),
        "predict": ("predict", "Predict"),
    }[command]
    config = getattr(importlib.import_module(f"tasks.{task}.{module}"), name)
    return [config, TuneConfig] if command == "tune" else [config]


def switches() -> list[str]:
    """Return the names of flags without a value."""
    configs = [c for task in TASKS for command in COMMANDS for c in configs_of(task, command)]
    configs += [List, Train, Push]
    fields = (field for config in configs for field in dataclasses.fields(config))
    return sorted({field.name for field in fields if field.type == "bool"})


def branches() -> list[str]:
    """Return the branches of the function, the first that fits counts."""
    lines = []
    for task in TASKS:
        config = importlib.import_module(f"tasks.{task}.config")
        lines.append(case(f'"{task} "*" --dataset"', config.PRESETS))
    for task in TASKS:
        for command in COMMANDS:
            lines.append(case(f'"{task} {command}"*', flags_of(*configs_of(task, command))))
        lines.append(case(f'"{task} push"*', flags_of(Push)))
        lines.append(case(f'"{task}"', [*COMMANDS, "push"]))
    lines.append(case('"train"*', [*TASKS, *flags_of(Train)]))
    lines.append(case('""', [*FRONT, *TASKS, *flags_of(List), "--version"]))
    return lines


def main(argv: list[str]) -> None:
    """Print the function; see the module."""
    cli.parse(Completion, argv, doc=__doc__)
    print(FUNCTION % ("\n".join(branches()), "|".join(switches()), cli.SCRIPT))
