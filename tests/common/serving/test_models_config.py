"""TF Serving's list of models: entries are added, and all else stays byte by byte."""

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

from common.errors import ExportError
from common.serving import models_config
from common.serving.models_config import list_version, write_models_config
from common.serving.versions import LITERT

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

BY_HAND = """\
# Our server. Ask Ada before you change it: "}" and ' are no ends here }
model_config_list: <
  config: {name:'élan' base_path: "/group/\\"} \\x7d",  # a folder of another group }
    model_platform: "tensorflow"; model_version_policy { specific { versions: [1, 2] } }
    version_labels { key: "stable" value: 1 } },
  config [{ name: "x" base_path: "/elsewhere/x" model_platform: "other" }]
> # end
"""
ENTRY = """\
  config {
    name: "ner"
    base_path: "/models/ner"
    model_platform: "tensorflow"
  }
"""


@pytest.fixture
def root(tmp_path):
    """A folder with one model and no list."""
    (tmp_path / "ner" / "1").mkdir(parents=True)
    return tmp_path


def parse(path: Path) -> dict[str, str]:
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(path.read_bytes().decode("utf-8", "replace"), config)
    names = [model.name for model in config.model_config_list.config]
    assert len(names) == len(set(names))
    return {model.name: model.base_path for model in config.model_config_list.config}


def test_the_list_names_only_models_with_a_version_for_servers(tmp_path):
    for folder in ("ner/1", "ner/2", "dna/run", "music/.staging-1-host-aa", "sentiment/10", "a/1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a" / "1" / LITERT).write_bytes(b"")
    (tmp_path / "README.md").write_text("")
    path = write_models_config(tmp_path)
    assert (
        path.read_text() == f"model_config_list {{\n{ENTRY}{ENTRY.replace('ner', 'sentiment')}}}\n"
    )
    assert parse(path) == {"ner": "/models/ner", "sentiment": "/models/sentiment"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"model_config_list {{\n{ENTRY}}}\n"),
        ("# mine", f"# mine\nmodel_config_list {{\n{ENTRY}}}\n"),
        ("model_config_list {}", f"model_config_list {{\n{ENTRY}}}"),
        ("model_config_list {\n}\n", f"model_config_list {{\n{ENTRY}}}\n"),
        (
            "model_config_list: { config { name: 'a' } } # }",
            f"model_config_list: {{ config {{ name: 'a' }} \n{ENTRY}}} # }}",
        ),
        (BY_HAND, BY_HAND.replace("> # end", f"{ENTRY}> # end")),
        (BY_HAND.replace("\n", "\r\n"), None),
        (BY_HAND.encode("latin-1").replace(b"\xe9lan", b"elan") + b"# caf\xe9\n", None),
    ],
)
def test_a_missing_entry_is_inserted_and_all_else_stays(root, before, after):
    path = root / "models.config"
    before = before if isinstance(before, bytes) else before.encode()
    path.write_bytes(before)
    write_models_config(root)
    written = path.read_bytes()
    if after is None:
        place = written.index(ENTRY.encode())
        assert written[:place] + written[place + len(ENTRY) :] == before
    else:
        assert written.decode() == after
    assert parse(path)["ner"] == "/models/ner"
    write_models_config(root)
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    "entry",
    [
        'name: "ner" base_path: "/models/ner" version_labels { key: "stable" value: 1 }',
        'name: "ner" base_path: "/elsewhere"',
        'name: "entities" base_path: "/models/ner/"',
    ],
)
def test_a_model_that_is_listed_by_name_or_folder_is_not_added(root, entry):
    path = root / "models.config"
    path.write_text(f"model_config_list {{ config {{ {entry} }} }}")
    before = path.read_bytes(), path.stat().st_mtime_ns
    write_models_config(root)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_an_entry_without_a_version_is_kept_and_reported(root, capsys):
    path = root / "models.config"
    gone = ENTRY.replace("ner", "gone")
    path.write_text(f"model_config_list {{\n{gone}}}\n")
    write_models_config(root)
    assert path.read_text() == f"model_config_list {{\n{gone}{ENTRY}}}\n"
    assert capsys.readouterr().err == (
        f"{path} lists 'gone', but {root / 'gone'} has no version: a server opens no port until it "
        "has one, or until you remove the entry\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not a message {", "correct the file or delete it"),
        ("model_config_list {} model_config_list {}", "correct the file or delete it"),
        ('model_config_list { config { name: "\xff" } }'.encode("latin-1"), "delete it"),
        (
            'custom_model_config { [type.googleapis.com/our.Config] { list: "a" } }',
            "custom_model_config, next to which a server accepts no model_config_list",
        ),
    ],
)
def test_a_list_that_cannot_be_extended_is_left_and_reported(root, capsys, content, message):
    path = root / "models.config"
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)
    with pytest.raises(ExportError, match=rf"models\.config: .*{message}"):
        write_models_config(root)
    list_version(root / "ner" / "1")
    error = capsys.readouterr().err
    assert error.startswith(
        f"{root / 'ner' / '1'} is published, but not listed for servers: {path}: "
    )
    assert error.endswith(f" To list the model, add\n{ENTRY}\n")
    assert path.read_bytes() == content
    assert sorted(os.listdir(root)) == [".models.config.lock", "models.config", "ner"]


def test_a_list_that_cannot_be_written_is_reported(root, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "models.config")

    monkeypatch.setattr(os, "replace", refuse)
    list_version(root / "ner" / "1")
    error = capsys.readouterr().err
    assert "not listed for servers: [Errno 13] Permission denied: 'models.config'. To" in error
    (root / "ner" / "1" / LITERT).write_bytes(b"")
    list_version(root / "ner" / "1")
    assert "To list" not in capsys.readouterr().err  # it is not for servers


def test_a_link_stays_a_link_and_every_user_may_read_the_list(root, tmp_path_factory):
    real = tmp_path_factory.mktemp("etc") / "list"
    real.write_text("# mine\n")
    (root / "models.config").symlink_to(real)
    mask = os.umask(0o077)
    try:
        write_models_config(root)
    finally:
        os.umask(mask)
    assert (root / "models.config").is_symlink() and "# mine\n" in real.read_text()
    assert parse(real) == {"ner": "/models/ner"}
    assert stat.S_IMODE(real.stat().st_mode) == 0o644


def publish_at_once(root: Path, processes: int, each: int) -> None:
    """Publish `processes * each` models, in threads of several processes, all at the same time."""
    program = textwrap.dedent(f"""
        import concurrent.futures, pathlib, sys, time
        from common.serving.publish import publish_folder
        import google.protobuf.text_format, tensorflow_serving.config.model_server_config_pb2

        root, process = pathlib.Path({str(root)!r}), sys.argv[1]

        def publish(number):
            directory = root / f"model-{{process}}-{{number}}"
            return publish_folder(lambda staged: None, settings={{}}, directory=directory)

        print("ready", flush=True)
        sys.stdin.readline()
        with concurrent.futures.ThreadPoolExecutor({each}) as pool:
            assert [v.name for v in pool.map(publish, range({each}))] == ["1"] * {each}
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(models_config.__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(number)], env=environment, text=True, **pipes
        )
        for number in range(processes)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(process.communicate()[1], process.returncode) for process in started]
    assert ends == [("", 0)] * processes


@pytest.mark.parametrize(
    ("processes", "each"), [(2, 20), pytest.param(8, 25, marks=pytest.mark.slow)]
)
def test_publications_at_once_lose_no_entry(tmp_path, processes, each):
    path = tmp_path / "models.config"
    path.write_text(BY_HAND)
    publish_at_once(tmp_path, processes, each)
    written = path.read_text()
    head, tail = BY_HAND.split("> # end")
    assert written.startswith(head) and written.endswith(f"> # end{tail}")
    names = {f"model-{a}-{b}" for a in range(processes) for b in range(each)}
    assert parse(path).keys() == names | {"élan", "x"}
    assert sorted(os.listdir(tmp_path)) == sorted({*names, ".models.config.lock", "models.config"})
