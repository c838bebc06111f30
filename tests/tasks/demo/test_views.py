"""Answers as HTML: order, alternative texts, escaping, places."""

import base64
import html.parser
import itertools
import re
from pathlib import Path

from common import plots
from tasks.demo import views

import numpy as np
import pytest

SVG = b"\x89PNG"


class Reader(html.parser.HTMLParser):
    """The elements of a piece of HTML, each with its attributes, and its visible text."""

    VOID = ("img", "line", "polyline", "polygon", "rect")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag, kind=""):
        return [a for t, a in self.elements if t == tag and kind in (a.get("class") or "")]


def shares(attributes, name="left"):
    return float(re.search(rf"{name}:([\d.]+)%", attributes["style"])[1])


EVIL = "<script>'\"&</script>"


def everything(text="word"):
    """All views, with a text of a user in each place that takes one."""
    path = Path(f"/tmp/{text.replace('/', '')}.wav")
    gene = views.Arrow(text, [(2, 8)], 1)
    return {
        "paragraph": views.paragraph(text, "note"),
        "titled": views.titled(text, "", text),
        "stars": views.stars(3),
        "bars": views.bars({text: 0.5}, text),
        "contributions": views.contributions([(text, 1.0), (text, None)]),
        "marked_text": views.marked_text(text, [views.Mark(0, 2, text, 0.5, 7)]),
        "listing": views.listing(text, text, f"{text}.txt"),
        "table": views.table([text], [[text]]),
        "matrix": views.matrix([text], [text], np.ones((1, 1)), label=text),
        "curves": views.curves({text: np.ones(3)}, 3.0, alt=text),
        "tracks": views.tracks(10, [gene], np.ones((2, 10)), alt=text),
        "player": views.player("audio", path, text),
        "download": views.download(path, text),
        "piano_roll": views.piano_roll(
            [views.Note(60, 0, 2)], 4, bar=2, given=0, seconds=2.0, alt=text
        ),
        "spectrogram": views.spectrogram(SVG, [views.Spoken(text, 0, 1, 0.5)], 2.0, alt=text),
        "film_strip": views.film_strip([SVG, SVG], text),
        "card": views.card(text, text, text),
    }


@pytest.mark.parametrize("name", everything())
def test_the_text_of_a_user_is_escaped(name):
    harmless, evil = Reader(everything()[name]), Reader(everything(EVIL)[name])
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in harmless.elements]
    assert [[*a] for _, a in evil.elements] == [[*a] for _, a in harmless.elements]


@pytest.mark.parametrize("name", everything())
def test_every_picture_has_an_alternative_text(name):
    reader = Reader(everything()[name])
    for tag, attributes in reader.elements:
        if tag == "img":
            assert attributes["alt"] or name == "film_strip"  # its frame is the picture
        if attributes.get("role") == "img":
            assert attributes["aria-label"]
        if tag == "svg":
            assert attributes["aria-hidden"] == "true"
    pictures = ("curves", "tracks", "piano_roll", "film_strip", "stars")
    assert (name in pictures) == any(a.get("role") == "img" for _, a in reader.elements)


# --- Bars and words -------------------------------------------------------------------------------


def test_bars_keep_the_order_of_the_classes():
    reader = Reader(views.bars({"1": 0.1, "2": 0.65, "3": 0.25}, "2"))
    assert reader.text == "110 %265 %325 %"
    assert [shares(bar, "width") for bar in reader.all("span")] == [10.0, 65.0, 25.0]
    assert len(reader.all("tr", "chosen")) == 1


@pytest.mark.parametrize("count", range(1, 6))
def test_stars_are_counted_in_words_as_well(count):
    reader = Reader(views.stars(count))
    assert reader.text == "★" * count + "☆" * (5 - count)
    assert reader.elements[0][1]["aria-label"].startswith(f"{count} of 5")


def test_the_colour_of_a_word_is_in_proportion_to_its_signed_weight():
    words = [("a", 0.0), ("dull", -1.0), ("good", 0.5), ("so", 0.04), ("x", None)]
    reader = Reader(views.contributions(words))
    lowers, raises = reader.all("span", "lowers"), reader.all("span", "raises")
    assert len(lowers) == len(raises) == 1 and len(reader.all("span")) == 5
    assert shares(lowers[0], "--share") == 2 * shares(raises[0], "--share")
    assert reader.text.split() == ["a", "dull−1.0", "good+0.5", "so", "x"]


def test_words_without_any_weight_have_no_colour():
    assert not Reader(views.contributions([("a", 0.0), ("b", None)])).all("small")


def test_marks_split_the_text_and_nothing_is_lost():
    text = "Ada met Bob & Co."
    marks = [views.Mark(0, 3, "PER", 0.99, 0), views.Mark(8, 11, "PER", 0.5, 0)]
    reader = Reader(views.marked_text(text, marks))
    assert reader.text == "Ada PER 99 % met Bob PER 50 % & Co."


def test_a_listing_is_downloaded_as_it_is():
    text = ">é & <\nMKP\n"
    (link,) = Reader(views.listing("Proteins", text, "a.faa")).all("a")
    assert base64.b64decode(link["href"].partition("base64,")[2]).decode() == text
    assert link["download"] == "a.faa"


# --- Tables and axes ------------------------------------------------------------------------------


def test_a_matrix_shows_weights_and_leaves_small_ones_blank():
    weights = np.array([[0.98, 0.02], [0.5, 1.0]])
    reader = Reader(views.matrix(["a", "b"], ["x", "a long name"], weights, label="weights"))
    cells = [shares(cell, "--share") for cell in reader.all("td") if "style" in cell]
    assert cells == [98.0, 2.0, 50.0, 100.0]
    assert reader.text == "xa long namea.98b.501.00"
    assert reader.all("table", "upright")


@pytest.mark.parametrize("high", [0.4, 1, 2.96, 19, 459, 1000, 20_000, 999_999])
def test_ticks_are_few_and_inside(high):
    ticks = views.ticks(0, high)
    assert ticks[0] == 0 and 2 <= len(ticks) <= 5 and ticks[-1] <= high
    assert len({round(b - a, 6) for a, b in itertools.pairwise(ticks)}) == 1


def test_a_thinned_curve_keeps_its_peaks():
    values = np.zeros(10_000)
    values[1234] = 1.0
    thin = views.thin_out(values)
    assert len(thin) == views.DRAWN_POINTS and thin.max() == 1.0
    assert np.flatnonzero(thin)[0] / len(thin) == pytest.approx(0.1234, abs=0.002)


# --- Pictures -------------------------------------------------------------------------------------


def test_genes_are_arrows_at_their_places_with_a_head_in_reading_direction():
    genes = [
        views.Arrow("forward", [(100, 200), (300, 500)], 1),
        views.Arrow("reverse", [(600, 700), (800, 900)], -1),
    ]
    reader = Reader(views.tracks(1000, genes, np.zeros((2, 0)), alt="genes"))
    exons = [(shares(e), shares(e, "width")) for e in reader.all("b", "exon")]
    assert exons == [(10, 10), (30, 20), (60, 10), (80, 10)]
    heads = [shares(e) for e in reader.all("b", "head")]
    assert heads == [30, 60]  # the last exon; on the reverse strand the leftmost one
    lines = [(shares(e), shares(e, "width")) for e in reader.all("i", "gene")]
    assert lines == [(10, 40), (60, 30)]
    assert "P(coding)" not in reader.text


def test_coding_probabilities_point_up_and_down():
    coding = np.array([[0.0, 1.0], [0.5, 0.0]])
    up, down = Reader(views.tracks(2, [], coding, alt="no gene")).all("polygon")
    assert up["points"].split()[1:-1] == ["0.5,1.000", "1.5,0.000"]
    assert down["points"].split()[1:-1] == ["0.5,1.500", "1.5,1.000"]


def test_curves_differ_in_colour_and_dashes():
    reader = Reader(views.curves({"run": np.array([0.0, 1.0]), "sit": np.ones(2)}, 2.0, alt="x"))
    assert [a["class"] for a in reader.all("polyline")] == ["c0", "c1"]
    assert reader.all("polyline")[0]["points"] == "0.2500,1.000 0.7500,0.000"
    style = (Path(views.__file__).parent / "page.css").read_text()
    dashes = re.findall(r"\.curves \.c\d.*stroke-dasharray: ([\d ]+)", style)
    assert len(set(dashes)) == 3  # and the first is solid


def test_a_piano_roll_has_bars_and_given_notes():
    notes = [views.Note(60, 0, 2), views.Note(64, 2, 4), views.Note(72, 4, 12)]
    reader = Reader(views.piano_roll(notes, 12, bar=4, given=4, seconds=6.0, alt="notes"))
    assert [a["class"] for a in reader.all("rect")] == ["given", "given", "made"]
    assert [a["x1"] for a in reader.all("line") if a["x1"] == a["x2"]] == ["0", "4", "8"]
    assert reader.text == "C4C5123bar"
    heights = [float(a["y"]) for a in reader.all("rect")]
    assert heights == sorted(heights, reverse=True)  # higher notes are higher
    (plot,) = reader.all("div", "plot")
    assert plot["data-seconds"] == "6.000"


def test_a_long_piece_has_few_numbers_and_scrolls():
    reader = Reader(views.piano_roll([], 512, bar=8, given=0, seconds=9.0, alt="silence"))
    assert len(re.findall("left:", str(reader.elements))) <= 17
    assert reader.all("div", "scroll")[0]["tabindex"] == "0"


def test_words_are_below_their_sound():
    words = [views.Spoken("go", 0.5, 1.0, 0.9), views.Spoken("on", 1.5, 2.0, 0.4)]
    reader = Reader(views.spectrogram(SVG, words, 2.0, alt="a spectrogram"))
    below = [a for a in reader.all("span") if "width" in a["style"]]
    assert [(shares(a), shares(a, "width")) for a in below] == [(25, 25), (75, 25)]
    assert [shares(a, "--share") for a in below] == [90, 40]
    assert reader.all("img")[0]["alt"] == "a spectrogram"


def test_a_player_moves_the_cursor_and_quotes_its_file():
    reader = Reader(views.player("video", Path("/tmp/a clip #1.mp4"), "the clip"))
    (player,) = reader.all("video")
    assert player["src"] == "gradio_api/file=/tmp/a%20clip%20%231.mp4"
    assert player["onplay"] == player["onseeked"] == "follow(this)"
    assert "controls" in player and player["aria-label"] == "the clip"


def test_there_is_a_style_and_a_colour_for_each_class():
    style = (Path(views.__file__).parent / "page.css").read_text()
    assert all(len(cycle) == views.COLOURS for cycle in plots.CYCLES.values())
    for kind in ("bars", "matrix", "tracks", "roll", "curves", "strip", "contributions", "cards"):
        assert f".{kind} " in style
    assert not re.search(r"#[0-9a-f]{3,6}\b", style)  # colours come from the theme
    assert ":is(" not in re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
