"""Groups of sentence pairs that stay in one split."""

from common.datasets import SPLITS, split_rows
from tasks.translation.splits import (
    ACCEPTANCE,
    flatten,
    group_numbers,
    group_rows,
    normalise,
    sentence_key,
    split_groups,
)

import numpy as np
import pytest


def test_groups_share_a_sentence_on_either_side():
    pairs = [("a", "x"), ("b", "y"), ("A!", "z"), ("c", "Z."), ("d", "w")]
    assert group_rows(pairs) == [
        [("a", "x"), ("A!", "z"), ("c", "Z.")],
        [("b", "y")],
        [("d", "w")],
    ]


def keys_of(rows):
    return [np.array([sentence_key(row[side]) for row in rows], np.uint64) for side in (0, 1)]


def test_groups_are_never_divided():
    rows = [(f"phrase {k % 40}", f"sentence {k}") for k in range(120)]
    splits = {
        split: [rows[number] for number in numbers]
        for split, numbers in split_groups(keys_of(rows), seed=3).items()
    }
    assert sorted(row for part in splits.values() for row in part) == sorted(rows)
    sides = {split: {source for source, _ in part} for split, part in splits.items()}
    assert {split: len(sources) for split, sources in sides.items()} == {
        "train": 32,
        "validation": 4,
        "test": 4,
    }


def groups_by_union(rows):
    """Return the groups by a union of sets, as a reference."""
    groups = []
    for row in rows:
        named = {(side, normalise(text)) for side, text in enumerate(row) if normalise(text)}
        joined = [group for group in groups if group[0] & named]
        groups = [group for group in groups if not group[0] & named]
        numbered = [pair for group in joined for pair in group[1]]
        groups.append((named.union(*(group[0] for group in joined)), [*numbered, row]))
    return sorted(sorted(group) for _, group in groups)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_a_union_of_sets(seed):
    random = np.random.default_rng(seed)
    words = ["", "?", *map(str, range(60))]
    rows = [(words[a], words[b]) for a, b in random.integers(0, len(words), (50, 2))]
    groups = group_rows(rows)
    assert sorted(map(sorted, groups)) == groups_by_union(rows)
    firsts = [rows.index(group[0]) for group in groups]
    assert firsts == sorted(firsts)


def test_a_chain_of_rows_is_one_group_whatever_their_order():
    chain = [(f"s {k // 2}", f"t {(k + 1) // 2}") for k in range(400)]
    random = np.random.default_rng(0)
    for rows in (chain, chain[::-1], [chain[k] for k in random.permutation(len(chain))]):
        numbers = group_numbers(keys_of([*rows, ("other", "rows"), ("rows", "other")]))
        assert numbers.tolist() == [0] * 400 + [1, 2]


def test_the_rows_of_a_split_are_those_of_the_split_of_groups():
    rows = [(f"phrase {k % 40}", f"sentence {k}") for k in range(120)]
    expected = split_rows(group_rows(rows), seed=3)
    found = split_groups(keys_of(rows), seed=3)
    for split in SPLITS:
        assert [rows[number] for number in found[split]] == flatten(expected[split])


def test_case_and_punctuation_are_no_difference():
    assert normalise("Voulez-vous  CHANTER ?!") == normalise("voulez vous chanter")
    assert normalise("Où ?") != normalise("Ou ?")


def test_the_acceptance_sentences_are_those_of_the_readme():
    assert ACCEPTANCE == (
        "Voulez-vous chanter avec moi?",
        "Do you want to sing with me?",
        "Would you like to sing with me?",
    )
