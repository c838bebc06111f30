"""Augmentation of training sentences."""

from tasks.ner.augmentation import TITLES, Gazetteer, augment
from tasks.ner.formats import Sentence, entities, to_iob2


def test_entities_are_replaced_within_their_list_and_tags_follow(tmp_path):
    (tmp_path / "PER.txt").write_text("Ada King-Noel\nO'Neill\n")
    (tmp_path / "MISC_ADJ.txt").write_text("French\nDutch\n")
    (tmp_path / "MISC_NAME.txt").write_text("Old Tale\n")
    rows = [
        Sentence(["the", "french", "poet", "Byron"], ["O", "B-MISC", "O", "B-PER"]),
        Sentence(["She", "read", "Sea", "Song"], ["O", "O", "B-MISC", "I-MISC"]),
    ]
    gazetteer = Gazetteer(rows, tmp_path)
    seen = {"PER": set(), "MISC": set()}
    for seed in range(60):
        varied = augment(rows, gazetteer, exchange=0.99, lower_case=0.0, seed=seed)
        for row, old in zip(varied, rows, strict=True):
            assert len(row.tokens) == len(row.tags) and to_iob2(row.tags) == row.tags
            outside = [t for t, tag in zip(*row, strict=True) if tag == "O"]
            assert outside == [t for t, tag in zip(*old, strict=True) if tag == "O"]
            for kind, a, b in entities(row.tags):
                seen[kind].add(" ".join(row.tokens[a:b]))
    assert seen["PER"] == {"Ada King-Noel", "O ' Neill", "Byron"}
    # A lower-cased adjective is replaced by a lower-cased adjective, a title by a title.
    assert seen["MISC"] == {"french", "dutch", "Old Tale", "Sea Song"}
    # `person` uses the list of PER; `group` has no list and no other name.
    person = [Sentence(["Byron"], ["B-person"]), Sentence(["Acme"], ["B-group"])]
    called = Gazetteer(person, tmp_path)
    drawn = [augment(person, called, exchange=0.99, lower_case=0, seed=n) for n in range(40)]
    assert {" ".join(rows[0].tokens) for rows in drawn} == seen["PER"]
    assert all(rows[1] == person[1] for rows in drawn)
    again = augment(rows, gazetteer, exchange=0.5, lower_case=0.5, seed=3)
    assert again == augment(rows, gazetteer, exchange=0.5, lower_case=0.5, seed=3)
    assert augment(rows, gazetteer, exchange=0.0, lower_case=0.0, seed=1) == rows
    small = augment(rows, gazetteer, exchange=0.0, lower_case=0.99, seed=1)
    assert small[1].tokens == ["she", "read", "sea", "song"]


def test_persons_get_titles_that_are_no_part_of_them():
    rows = [
        Sentence(["Ada", "Byron", "met", "Dr.", "Novak"], ["B-PER", "I-PER", "O", "O", "B-PER"]),
        Sentence(["@ada", "in", "Rome", "Omar"], ["B-person", "O", "B-LOC", "B-person"]),
        Sentence(["Mr.", "Lee"], ["B-PER", "I-PER"]),
    ]
    gazetteer = Gazetteer(rows)
    settings = {"exchange": 0.0, "lower_case": 0.0, "seed": 1}
    first, second, third = augment(rows, gazetteer, titles=0.999, **settings)
    assert first.tokens[0] in TITLES and first.tokens[1:] == rows[0].tokens
    assert first.tags == ["O", *rows[0].tags]
    assert second.tokens[3] in TITLES and second.tags == ["B-person", "O", "B-LOC", "O", "B-person"]
    assert third == rows[2]
    assert augment(rows, gazetteer, titles=0.0, **settings) == rows
