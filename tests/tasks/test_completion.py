"""The words that the Tab key offers, asked of bash itself."""

import shutil
import subprocess

from tasks import completion
from tasks.__main__ import TASKS
from tasks.ner.config import PRESETS

import pytest

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
ASK = """
COMP_WORDS=(sequence-suite "$@")
COMP_CWORD=$#
_sequence_suite
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lines.append)
        completion.main([])
    return "\n".join(lines)


def offers(script, *words):
    done = subprocess.run(
        ["bash", "-c", script + ASK, "bash", *words], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            [
                "",
            ],
            {"examples", "train", "demo", "completion", *TASKS},
        ),
        (["sp"], {"speech"}),
        (["ner", ""], {"train", "tune", "evaluate", "predict", "push"}),
        (["ner", "tune", "--tri"], {"--trials"}),
        (["ner", "tune", "--token_"], {"--token_column"}),
        (["ner", "push", "hf://a/b", "--pri"], {"--private"}),
        (["ner", "train", "--epo"], {"--epochs"}),
        (["ner", "train", "--epochs", "3", "--see"], {"--seed"}),
        (["ner", "predict", "--json", "--outp"], {"--output"}),
        (["ner", "train", "--epochs", ""], set()),
        (["ner", "train", "--data", "x"], set()),
        (["ner", "train", "--dataset", "wi"], {n for n in PRESETS if n.startswith("wi")}),
        (["speech", "evaluate", "--spl"], {"--split"}),
        (["train", "--qu"], {"--quick"}),
        (["train", "--quick", "mus"], {"music"}),
        (["--vers"], {"--version"}),
    ],
)
def test_words_are_completed(script, words, expected):
    offered = set(offers(script, *words))
    assert offered >= expected if words == [""] else offered == expected
