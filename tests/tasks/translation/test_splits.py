"""Groups of sentence pairs that stay in one split."""

from tasks.translation.splits import ACCEPTANCE, group_rows, normalise, split_groups


def test_groups_share_a_sentence_on_either_side():
    pairs = [("a", "x"), ("b", "y"), ("A!", "z"), ("c", "Z."), ("d", "w")]
    assert group_rows(pairs) == [
        [("a", "x"), ("A!", "z"), ("c", "Z.")],
        [("b", "y")],
        [("d", "w")],
    ]


def test_groups_are_never_divided():
    rows = [(f"phrase {k % 40}", f"sentence {k}") for k in range(120)]
    splits = split_groups(rows, seed=3)
    assert sorted(row for part in splits.values() for row in part) == sorted(rows)
    sides = {split: {source for source, _ in part} for split, part in splits.items()}
    assert {split: len(sources) for split, sources in sides.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }


def test_case_and_punctuation_are_no_difference():
    assert normalise("Voulez-vous  CHANTER ?!") == normalise("voulez vous chanter")
    assert normalise("Où ?") != normalise("Ou ?")


def test_the_acceptance_sentences_are_those_of_the_readme():
    assert ACCEPTANCE == (
        "Voulez-vous chanter avec moi?",
        "Do you want to sing with me?",
        "Would you like to sing with me?",
    )
