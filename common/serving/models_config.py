"""TF Serving's list of models, `models.config`: add the models that it lacks, change nothing else.

The list belongs to the person who runs the server: version policies, labels, comments and models
from elsewhere. So the file is never printed anew. It is parsed to find which models are listed, and
the text of the missing entries is inserted at the end of `model_config_list`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.errors import ExportError
from common.files import locked, write_atomically
from common.serving.versions import LITERT, latest, versions

from etils import epy

with epy.lazy_imports():
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

MODELS_CONFIG = "models.config"
LIST = "model_config_list"
CUSTOM = "custom_model_config"  # the server takes one of the two
# A comment, a string, a name, a bracket, or any other character.
TOKEN = re.compile(r"#[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[\w.]+|\S", re.ASCII)


def write_models_config(root: Path) -> Path:
    """Add to TF Serving's list the models below a folder that have a version and are not listed.

    A server opens no port while a listed model has no version, so no other model is added. Folders
    are named as a server sees them when `root` is mounted as `/models`. A model is listed if an
    entry has its name or its folder. All else in the file stays, byte by byte; an entry whose model
    has no version is reported on standard error. Any number of processes may call this at once.

    Args:
      root: the folder of the tasks' folders, such as `saved_models`.

    Returns:
      `root/models.config`.

    Raises:
      ExportError: the existing file is no list of models.
      OSError: the file cannot be written.
    """
    path = root / MODELS_CONFIG
    with locked(root / f".{MODELS_CONFIG}.lock"):
        try:  # bytes that are no UTF-8 may stand in comments
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            text = ""
        try:
            added = _add(text, _servable(root))
        except ExportError as error:
            raise ExportError(f"{path}: {error}") from error
        if added != text or not path.exists():
            real = Path(os.path.realpath(path))  # a link stays a link
            write_atomically(real, added.encode("utf-8", "surrogateescape"), public=True)
    _report_absent(path, _parse(added))
    return path


def list_version(version: Path) -> None:
    """Add the model of a new version to the list of models; report a problem, but never raise it.

    Args:
      version: the version folder, such as `saved_models/sentiment/2`.
    """
    root, name = version.parents[1], version.parent.name
    try:
        write_models_config(root)
    except (ExportError, OSError) as error:
        entry = (
            "" if (version / LITERT).exists() else f" To list the model, add\n{_entries([name])}"
        )
        print(
            f"{version} is published, but not listed for servers: {error}.{entry}",
            file=sys.stderr,
            flush=True,
        )


def _servable(root: Path) -> Iterator[str]:
    """Yield the names of the folders that have a version for servers, in order."""
    for directory in sorted(path for path in root.iterdir() if versions(path)):
        if not (latest(directory) / LITERT).exists():  # for small devices
            yield directory.name


def _add(text: str, names: Iterable[str]) -> str:
    """Return the text of a list with entries for the models that it lacks."""
    models = _parse(text)
    listed = {model.name for model in models.config}
    folders = {model.base_path.rstrip("/") for model in models.config}
    missing = [name for name in names if name not in listed and _path(name) not in folders]
    end = _ends(text).get(LIST)
    if end is None:
        separator = "\n" if text and not text.endswith("\n") else ""
        added = f"{text}{separator}{LIST} {{\n{_entries(missing)}}}\n"
    elif missing:
        line = text.rfind("\n", 0, end) + 1
        # The closing bracket stays on a line of its own, or gets one.
        place, separator = (end, "\n") if text[line:end].strip() else (line, "")
        added = f"{text[:place]}{separator}{_entries(missing)}{text[place:]}"
    else:
        added = text
    models.config.extend(_model(name) for name in missing)
    if _parse(added) != models:
        raise ExportError(f"no place for an entry; write the end of {LIST} on a line of its own")
    return added


def _parse(text: str) -> Any:
    """Return the `ModelConfigList` in the text of a `ModelServerConfig`."""
    if CUSTOM in _ends(text):
        raise ExportError(f"it holds {CUSTOM}, next to which a server accepts no {LIST}")
    config = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(text, config)
    except (text_format.ParseError, ValueError) as error:
        reason = str(error).encode(errors="backslashreplace").decode()
        raise ExportError(f"{reason}; correct the file or delete it") from error
    return config.model_config_list


def _ends(text: str) -> dict[str, int]:
    """Return the place of the closing bracket of each field of the outermost message."""
    ends, depth, field = {}, 0, ""
    for token in TOKEN.finditer(text):
        if token[0] in ("{", "<"):
            depth += 1
        elif token[0] in ("}", ">"):
            depth -= 1
            if depth == 0:
                ends[field] = token.start()
        elif depth == 0 and token[0].isidentifier():
            field = token[0]
    return ends


def _path(name: str) -> str:
    return f"/models/{name}"


def _model(name: str) -> Any:
    return model_server_config_pb2.ModelConfig(
        name=name, base_path=_path(name), model_platform="tensorflow"
    )


def _entries(names: Iterable[str]) -> str:
    """Return the text of new entries."""
    models = model_server_config_pb2.ModelConfigList(config=[_model(name) for name in names])
    return text_format.MessageToString(models, indent=2)


def _report_absent(path: Path, models: Any) -> None:
    """Report the listed models of this folder that have no version."""
    for model in models.config:
        folder = path.parent / model.base_path.removeprefix(_path(""))
        if model.base_path.startswith(_path("")) and not versions(folder):
            print(
                f"{path} lists {model.name!r}, but {folder} has no version: a server opens no port "
                "until it has one, or until you remove the entry",
                file=sys.stderr,
                flush=True,
            )
