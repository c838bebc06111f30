"""Upload a published model to the Hugging Face Hub, with its model card as the page.

    sequence-suite ner push hf://ada/names
    sequence-suite ner push hf://ada/names --model saved_models/ner/2 --private

The repository is made if it does not exist. `huggingface_hub` does the work (pip install
huggingface_hub): log in once by its command `hf auth login`, or set HF_TOKEN.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from common.commands import cli
from common.commands.config import Settings
from common.errors import ExportError, InputError
from common.serving import versions

import tyro

CARD = "model_card.md"
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push(Settings):
    """Flags of `push`."""

    address: tyro.conf.Positional[str]
    """the repository, hf://OWNER/NAME"""
    model: Path | None = None
    """version folder, or a task's folder (its newest version); default: saved_models/<task>"""
    private: bool = False
    """make the repository private, if it does not exist yet"""

    def __post_init__(self) -> None:
        """Validate flags that the type system cannot express."""
        super().__post_init__()
        if not ADDRESS.fullmatch(self.address):
            raise InputError(f"the address must be hf://OWNER/NAME, got {self.address!r}")


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a version folder; return the address of the commit.

    Args:
      folder: the version folder.
      repository: `OWNER/NAME`.
      private: whether a new repository is private.

    Raises:
      InputError: the library is not installed.
      ExportError: the Hub refuses, or cannot be reached.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise InputError("this needs huggingface_hub: pip install huggingface_hub") from error
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        if (folder / CARD).is_file():  # the Hub shows README.md
            hub.upload_file(
                path_or_fileobj=str(folder / CARD), path_in_repo="README.md", repo_id=repository
            )
        commit = hub.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message=f"Version {folder.name}"
        )
    except (HfHubHTTPError, OSError) as error:
        raise ExportError(f"hf://{repository}: {error}") from error
    return str(commit)


def main(task: str, argv: list[str]) -> None:
    """Upload the model of a task, and print the address as JSON; see the module."""
    flags = cli.parse(Push, argv, doc=__doc__)
    published = versions.find(flags.model, task)
    address = push(published.path, flags.address.removeprefix("hf://"), private=flags.private)
    cli.print_result({"task": task, "model": published.path, "address": address})
