"""Fixtures for the modules of the translation task."""

from tasks.translation import subwords
from tests.tasks.own.translation import own_pairs

import pytest


@pytest.fixture(scope="session")
def odd_texts():
    return [
        "Où es-tu ? « Là-bas », dit-il.",
        "aujourd'hui l’été coûte 1 234,50 €…",
        "Ελληνικά, 東京, العربية, हिन्दी",
        "😀👍🏽 e\u0301 \u200b x\u00a0y\tz",
        "<pad></s> <s>!!!??",
        "a" * 300,
        "",
        "   ",
    ]


@pytest.fixture(scope="module")
def pieces(odd_texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("subwords") / "pieces.txt"
    texts = [text.encode() for pair in own_pairs() for text in pair]
    subwords.learn([*texts, *(text.encode() for text in odd_texts[:2] * 5)], path, size=330)
    return subwords.Subwords(path)
