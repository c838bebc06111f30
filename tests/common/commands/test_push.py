"""Uploads to the Hugging Face Hub, against a double of its library."""

import json
import sys
import types

from common.commands import push
from common.errors import ExportError, InputError
from common.serving.versions import GRAPH, SETTINGS
from tasks import __main__ as front

import pytest


class RefusedError(Exception):
    """The error of the library's double."""


@pytest.fixture
def calls(monkeypatch):
    """The calls of a double of `huggingface_hub`."""
    calls = []

    class HfApi:
        def create_repo(self, repo_id, **options):
            if repo_id.startswith("other/"):
                raise RefusedError("403 Forbidden")
            calls.append(("create_repo", repo_id, options))

        def upload_file(self, **options):
            calls.append(("upload_file", options))

        def upload_folder(self, **options):
            calls.append(("upload_folder", options))
            return f"https://hub.example/{options['repo_id']}/commit/1"

    double = types.ModuleType("huggingface_hub")
    double.HfApi = HfApi
    double.errors = types.ModuleType("huggingface_hub.errors")
    double.errors.HfHubHTTPError = RefusedError
    monkeypatch.setitem(sys.modules, "huggingface_hub", double)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", double.errors)
    return calls


@pytest.fixture
def version(tmp_path):
    folder = tmp_path / "ner" / "3"
    (folder / SETTINGS).parent.mkdir(parents=True)
    (folder / SETTINGS).write_text('{"task": "ner"}')
    (folder / GRAPH).touch()
    (folder / "model_card.md").write_text("# Names\n")
    return folder


def test_a_version_is_uploaded_with_its_card_as_the_page(calls, version, capsys):
    front.main(["ner", "push", "hf://ada/names", "--model", str(version.parent), "--private"])
    (create, (_, card), (_, folder)) = calls
    assert create == ("create_repo", "ada/names", {"private": True, "exist_ok": True})
    assert card == {
        "path_or_fileobj": str(version / "model_card.md"),
        "path_in_repo": "README.md",
        "repo_id": "ada/names",
    }
    assert folder["folder_path"] == str(version) and folder["commit_message"] == "Version 3"
    assert json.loads(capsys.readouterr().out) == {
        "task": "ner",
        "model": str(version),
        "address": "https://hub.example/ada/names/commit/1",
    }


def test_what_cannot_be_uploaded_is_one_message(calls, version, monkeypatch):
    model = ["--model", str(version)]
    with pytest.raises(ExportError, match=r"^hf://other/names: 403 Forbidden$"):
        front.main(["ner", "push", "hf://other/names", *model])
    for address in ("ada/names", "hf://names", "hf://a/b/c"):
        with pytest.raises(InputError, match=r"must be hf://OWNER/NAME, got"):
            front.main(["ner", "push", address, *model])
    with pytest.raises(InputError, match="is a ner model; this command needs dna"):
        front.main(["dna", "push", "hf://ada/names", *model])
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        push.push(version, "ada/names")
    assert calls == []
