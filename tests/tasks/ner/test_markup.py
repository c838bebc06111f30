"""Predictions as CoNLL, BRAT standoff and HTML."""

from common.errors import InputError
from tasks.ner import formats, markup, predict
from tasks.ner.predict import Tagged

import pytest


def predictions():
    tags, confidence = ["B-PER", "O", "O"], [0.9, 0.8, 0.7]
    ada = Tagged("Ada & I", ["Ada", "&", "I"], tags, [0, 4, 6], [3, 5, 7], confidence)
    tags, confidence = ["B-LOC", "I-LOC"], [0.5, 0.5]
    town = Tagged("\u00e9New\nDelhi", ["New", "Delhi"], tags, [1, 5], [4, 10], confidence)
    return [predict.describe(tagged) for tagged in (ada, Tagged(), town)]


def test_conll_is_read_again(tmp_path):
    path = tmp_path / "names.conll"
    assert markup.write(path, predictions(), ["LOC", "PER"])["text"] == "Ada & I"
    assert path.read_text().startswith("Ada\t0.9000\tB-PER\n&\t0.8000\tO\n")
    rows = formats.read_conll(path)
    assert [row.tags for row in rows] == [["B-PER", "O", "O"], ["B-LOC", "I-LOC"]]


def test_brat_offsets_count_the_characters_of_the_text_file(tmp_path):
    path = tmp_path / "names.ann"
    markup.write(path, predictions(), ["LOC", "PER"])
    text = (tmp_path / "names.txt").read_text(encoding="utf-8")
    assert text == "Ada & I\n\n\u00e9New\nDelhi\n"
    one, note, two, _ = path.read_text(encoding="utf-8").splitlines()
    assert one == "T1\tPER 0 3\tAda" and note == "#1\tAnnotatorNotes T1\t0.9000"
    number, place, name = two.split("\t")
    kind, start, end = place.split()
    assert (number, kind, name) == ("T2", "LOC", "New Delhi")
    assert text[int(start) : int(end)] == "New\nDelhi"


def test_html_is_escaped_and_marked(tmp_path):
    path = tmp_path / "names.html"
    markup.write(path, predictions(), ["LOC", "PER"])
    page = path.read_text(encoding="utf-8")
    expected = '<p><mark class="t1" title="PER 0.900">Ada<small>PER</small></mark> &amp; I</p>'
    assert expected in page and page.endswith("</body>\n</html>\n")
    odd = {"text": "a<b", "entities": [{"type": "<x>", "start": 0, "end": 3, "probability": 1.0}]}
    lines = "\n".join(markup.html_lines([odd], ["<x>"]))
    assert "a&lt;b<small>&lt;x&gt;</small>" in lines and "<x>" not in lines


@pytest.mark.parametrize("ending", ["conll", "ann", "html"])
def test_without_input_no_file_is_written(tmp_path, ending):
    path = tmp_path / f"names.{ending}"
    path.write_text("old")
    with pytest.raises(InputError, match="the input is empty"):
        markup.write(path, [], ["PER"])
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_endings_are_left_to_the_shared_writer(tmp_path):
    assert not any(map(markup.writes, (None, tmp_path / "a.jsonl", tmp_path / "conll")))
    assert markup.writes(tmp_path / "A.HTML")
