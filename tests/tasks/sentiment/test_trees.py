from common.errors import InputError
from tasks.sentiment.trees import Span, phrases, read_trees, spans

import pytest

TREE = "(3 (2 Its) (4 (3 (2 very) (3 lovely)) (2 ending)))"


def test_spans_are_those_of_a_tree():
    assert spans(TREE) == [
        Span("Its very lovely ending", 3),
        Span("Its", 2),
        Span("very lovely ending", 4),
        Span("very lovely", 3),
        Span("very", 2),
        Span("lovely", 3),
        Span("ending", 2),
    ]
    assert spans("(0 \\/)") == [Span("\\/", 0)]


@pytest.mark.parametrize(
    "line", ["", "(3 a", "(3 a))", "(3 (2 ))", "(7 a)", "(3 a) (2 b)", "(a b)", "3 a", "(2 a (3 b"]
)
def test_other_lines_are_refused_with_their_number(line):
    with pytest.raises(InputError, match=r"dev.txt, line 2: expected a labelled tree"):
        read_trees(f"{TREE}\n{line}\n".encode(), "dev.txt")


def test_phrases_are_distinct_and_hold_no_held_out_sentence():
    trees = [spans(TREE), spans("(1 (2 The) (1 (2 its) (1 end)))")]
    texts = [span.text for span in phrases(trees, ["Very lovely", "end"])]
    assert texts == ["its", "very", "lovely", "ending", "The"]
