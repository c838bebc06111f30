"""Answers as HTML: bars, marked texts, tables, and pictures that follow the theme of the page.

Every function returns HTML, in which all text is escaped. Pictures are drawn in percentages of
their width, with text of the page's own size, so that they are legible on a phone; those with many
columns scroll. Each picture has an alternative text. `page.css` holds the styles, and `page.py` the
colours and the script of the moving cursor.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

COLOURS = 6  # of the page: classes c0 to c5
DRAWN_POINTS = 600  # of a curve


def percent(value: float) -> str:
    """Format a probability.

    Example:
      >>> percent(0.516)
      '52 %'
    """
    return f"{100 * value:.0f} %"


def picture(body: str, alt: str, *, kind: str) -> str:
    """Return a picture with its alternative text."""
    return f'<div class="picture {kind}" role="img" aria-label="{escape(alt)}">{body}</div>'


def titled(title: str, body: str, note: str = "") -> str:
    """Return a part of an answer below its heading; the note explains it."""
    noted = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h3>{escape(title)}</h3>{noted}{body}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>'


def scrolling(body: str, *, label: str) -> str:
    """Return a box that scrolls sideways, also by the keyboard, if it is too narrow."""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(label)}">{body}</div>'
    )


# --- Text -----------------------------------------------------------------------------------------


def stars(count: int, most: int = 5) -> str:
    """Return large stars.

    Example:
      >>> stars(1, 3)
      '<p class="stars" role="img" aria-label="1 of 3 stars"><b>★</b>☆☆</p>'
    """
    label = f"{count} of {most} stars"
    full, empty = "★" * count, "☆" * (most - count)
    return f'<p class="stars" role="img" aria-label="{label}"><b>{full}</b>{empty}</p>'


def bars(values: Mapping[str, float], chosen: str | None = None) -> str:
    """Return a bar for each probability, in the order of `values`."""
    rows = "".join(
        f'<tr{" class=chosen" if name == chosen else ""}><th scope="row">{escape(name)}</th>'
        f'<td class="bar"><span style="width:{100 * value:.1f}%"></span></td>'
        f"<td>{percent(value)}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="bars"><tbody>{rows}</tbody></table>'


def contributions(pieces: Iterable[tuple[str, float | None]]) -> str:
    """Return a text whose pieces are marked by a signed weight.

    The colour is in proportion to the weight, and the number stands below the piece; one that
    rounds to zero is left out, and so is None.
    """
    pieces = list(pieces)
    most = max((abs(weight) for _, weight in pieces if weight is not None), default=0.0)
    marked = []
    for text, weight in pieces:
        if weight is None or abs(weight) < 0.05:
            marked.append(f"<span>{escape(text)}</span>")
            continue
        kind, share = "raises" if weight > 0 else "lowers", 50 * abs(weight) / most
        number = f"{weight:+.1f}".replace("-", "−")
        marked.append(
            f'<span class="{kind}" style="--share:{share:.0f}%">{escape(text)}'
            f"<small>{number}</small></span>"
        )
    return f'<p class="contributions">{" ".join(marked)}</p>'


class Mark(NamedTuple):
    """A part of a text, `text[start:end]`, with its label, its probability and its colour."""

    start: int
    end: int
    label: str
    probability: float
    colour: int


def marked_text(text: str, marks: Iterable[Mark]) -> str:
    """Return a text with its marked parts.

    Example:
      >>> marked_text("Ada & I", [Mark(0, 3, "PER", 0.98, 1)])
      '<p class="marked"><mark class="c1">Ada <small>PER 98 %</small></mark> &amp; I</p>'
    """
    parts, done = [], 0
    for start, end, label, probability, colour in marks:
        small = f"<small>{escape(label)} {percent(probability)}</small>"
        name = escape(text[start:end])
        parts += [escape(text[done:start])]
        parts += [f'<mark class="c{colour % COLOURS}">{name} {small}</mark>']
        done = end
    return f'<p class="marked">{"".join([*parts, escape(text[done:])])}</p>'


def listing(title: str, text: str, file: str, *, is_open: bool = False) -> str:
    """Return a text of many lines, folded if not open, with a link that downloads it as a file."""
    content = base64.b64encode(text.encode()).decode()
    return (
        f"<details{' open' * is_open}><summary>{escape(title)}</summary>"
        f'<p><a download="{escape(file)}" href="data:text/plain;base64,{content}">'
        f'Download {escape(file)}</a></p><pre tabindex="0">{escape(text)}</pre></details>'
    )


# --- Tables ---------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    body = f'<table class="plain"><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>'
    return scrolling(body, label="table")


def matrix(rows: Sequence[str], columns: Sequence[str], values: np.ndarray, *, label: str) -> str:
    """Return a table of weights between 0 and 1, shaded by them; those under 0.05 are left blank.

    Args:
      rows: names of the rows.
      columns: names of the columns, written upwards if one is long.
      values: `<float>[rows, columns]`.
      label: what the table shows.
    """
    upright = " upright" if max(map(len, columns), default=0) > 4 else ""
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in columns)
    lines = []
    for name, weights in zip(rows, values.tolist(), strict=True):
        cells = "".join(
            f'<td style="--share:{100 * w:.0f}%">{f"{w:.2f}".lstrip("0") if w >= 0.05 else ""}</td>'
            for w in weights
        )
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    body = (
        f'<table class="matrix{upright}"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
    return scrolling(body, label=label)


# --- Axes and curves ------------------------------------------------------------------------------


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most `most` round numbers of `[low, high]`, at equal distances.

    Example:
      >>> ticks(0, 950), ticks(0, 2.3)
      ([0, 200, 400, 600, 800], [0.0, 0.5, 1.0, 1.5, 2.0])
    """
    if high <= low:
        return [low]
    unit = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(
        unit * factor
        for factor in (1, 2, 5, 10, 20)
        if math.floor(high / (unit * factor)) - math.ceil(low / (unit * factor)) < most
    )
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    whole = step >= 1
    return [round(n * step) if whole else round(n * step, 6) for n in numbers]


def axis(high: float, unit: str) -> str:
    """Return the numbers below a picture that shows 0 to `high`."""
    numbers = "".join(
        f'<span style="left:{100 * value / high:.2f}%">{value:,}</span>' for value in ticks(0, high)
    )
    return f'<div class="axis" aria-hidden="true">{numbers}<b>{escape(unit)}</b></div>'


def drawing(body: str, width: float, height: float) -> str:
    """Return shapes in their own units, stretched over the picture."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" aria-hidden="true">'
        f"{body}</svg>"
    )


def thin_out(values: np.ndarray, most: int = DRAWN_POINTS) -> np.ndarray:
    """Return at most `most` values: the largest of each of as many runs.

    Example:
      >>> thin_out(np.array([1, 5, 2, 0, 3, 1]), 3)
      array([5, 2, 3])
    """
    if len(values) <= most:
        return values
    return np.maximum.reduceat(values, np.arange(most) * len(values) // most)


def curves(values: Mapping[str, np.ndarray], seconds: float, *, alt: str) -> str:
    """Return a curve of probabilities over time for each name, with a cursor.

    Curves differ in colour and in dashes.

    Args:
      values: `<float>[time]` of each name.
      seconds: duration of the picture.
      alt: alternative text.
    """
    lines, legend = [], []
    for number, (name, probabilities) in enumerate(values.items()):
        thin = thin_out(np.asarray(probabilities))
        width, kind = max(1, len(thin)), f"c{number % COLOURS}"
        points = " ".join(f"{(n + 0.5) / width:.4f},{1 - p:.3f}" for n, p in enumerate(thin))
        lines.append(f'<polyline class="{kind}" points="{points}"/>')
        sample = f'<line class="{kind}" x1="0" x2="24" y1="2" y2="2"/>'
        legend.append(f"<span>{drawing(sample, 24, 4)} {escape(name)}</span>")
    plot = f'<div class="plot" data-seconds="{seconds:.3f}">{drawing("".join(lines), 1, 1)}'
    plot += '<div class="cursor"></div></div>'
    body = '<div class="heights" aria-hidden="true"><span>1</span><span>0</span></div>'
    body += f'<div class="wide">{plot}{axis(seconds, "seconds")}</div>'
    return picture(body, alt, kind="curves") + f'<p class="legend">{" ".join(legend)}</p>'


# --- Genes ----------------------------------------------------------------------------------------


class Arrow(NamedTuple):
    """A gene: its name, its exons `(start, end)` in ascending order, and its strand, 1 or -1."""

    name: str
    exons: Sequence[tuple[int, int]]
    strand: int


def tracks(size: int, arrows: Sequence[Arrow], coding: np.ndarray, *, alt: str) -> str:
    """Return genes as arrows on the two strands, below the probability that a base is coding.

    Args:
      size: bases of the picture.
      arrows: the genes.
      coding: `<float>[2, bases]` of the forward and the reverse strand; no bases: not drawn.
      alt: alternative text.
    """
    rows = []
    if coding.size:
        up, down = (thin_out(of_strand) for of_strand in coding)
        areas = _area(up, "forward", -1) + _area(down, "reverse", 1)
        line = f'<line class="zero" x1="0" x2="{len(up)}" y1="1" y2="1"/>'
        rows.append(("P(coding)", "coding", drawing(areas + line, len(up), 2)))
    for strand, sign in ((1, "+"), (-1, "−")):
        drawn = "".join(_arrow(arrow, size) for arrow in arrows if arrow.strand == strand)
        rows.append((f"{sign} strand", "strand", drawn))
    body = "".join(
        f'<span class="name" aria-hidden="true">{name}</span><div class="plot {kind}">{drawn}</div>'
        for name, kind, drawn in rows
    )
    body += f'<span class="name"></span>{axis(size, "bases")}'
    drawn = f'<div style="min-width:{0.08 * size:.0f}px">{picture(body, alt, kind="tracks")}</div>'
    return scrolling(drawn, label="genes")


def _area(values: np.ndarray, kind: str, sign: int) -> str:
    points = " ".join(f"{n + 0.5:g},{1 + sign * value:.3f}" for n, value in enumerate(values))
    return f'<polygon class="{kind}" points="0,1 {points} {len(values)},1"/>'


def _arrow(arrow: Arrow, size: int) -> str:
    """Return a gene: a line from end to end, its exons on it, the last one with a head."""
    kind = "forward" if arrow.strand == 1 else "reverse"
    start, end = arrow.exons[0][0], arrow.exons[-1][1]
    last = arrow.exons[-1 if arrow.strand == 1 else 0]
    parts = [f'<i class="gene {kind}" style="{_place(start, end, size)}"></i>']
    for exon in arrow.exons:
        head = " head" if exon == last else ""
        name = escape(arrow.name) if exon == max(arrow.exons, key=lambda e: e[1] - e[0]) else ""
        style = _place(*exon, size)
        parts.append(f'<b class="exon {kind}{head}" style="{style}"><span>{name}</span></b>')
    return "".join(parts)


def _place(start: float, end: float, size: float) -> str:
    return f"left:{100 * start / size:.3f}%;width:{100 * (end - start) / size:.3f}%"


# --- Sound and moving pictures --------------------------------------------------------------------


def source(path: Path) -> str:
    """Return the address of a file that the page may show."""
    return f"gradio_api/file={quote(str(path))}"


def player(kind: str, path: Path, label: str) -> str:
    """Return a player, `audio` or `video`, which moves the cursor of a picture next to it."""
    failed = "this.insertAdjacentHTML('afterend', '<p>This browser cannot play this file.</p>')"
    return (
        f'<{kind} controls preload="metadata" src="{escape(source(path))}" aria-label='
        f'"{escape(label)}" onplay="follow(this)" onseeked="follow(this)" onerror="{failed}">'
        f"</{kind}>"
    )


def timed(*parts: str) -> str:
    """Return a player together with the picture whose cursor it moves."""
    return f'<div class="timed">{"".join(parts)}</div>'


def download(path: Path, words: str) -> str:
    """Return a link that downloads a file."""
    name, address = escape(path.name), escape(source(path))
    return f'<a download="{name}" href="{address}">{escape(words)}</a>'


def image(content: bytes, alt: str, *, kind: str = "") -> str:
    """Return a PNG image."""
    data = base64.b64encode(content).decode()
    return f'<img class="{kind}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'


class Note(NamedTuple):
    """A note of a piano roll: its MIDI pitch, its first frame, and the frame after its last one."""

    pitch: int
    start: int
    end: int


def piano_roll(
    notes: Sequence[Note], frames: int, *, bar: float, given: int, seconds: float, alt: str
) -> str:
    """Return a piano roll with bar lines and a cursor; it scrolls if the music is long.

    Args:
      notes: the notes.
      frames: length of the music.
      bar: frames of a bar.
      given: number of initial frames that come from the user, in another colour.
      seconds: duration of the frames.
      alt: alternative text.
    """
    pitches = [note.pitch for note in notes] or [60]
    low, high = min(pitches) - 2, max(pitches) + 3
    lines = [n * bar for n in range(math.ceil(frames / bar))]
    octaves = [pitch for pitch in range(low, high) if pitch % 12 == 0]
    shapes = [
        f'<line class="octave" x1="0" x2="{frames}" y1="{high - p}" y2="{high - p}"/>'
        for p in octaves
    ]
    shapes += [f'<line x1="{x:g}" x2="{x:g}" y1="0" y2="{high - low}"/>' for x in lines]
    shapes += [
        f'<rect class="{"given" if start < given else "made"}" x="{start}" '
        f'y="{high - pitch - 1 + 0.08:.2f}" width="{end - start - 0.15:.2f}" height="0.84"/>'
        for pitch, start, end in notes
    ]
    every = max(1, math.ceil(len(lines) / 16))
    numbers = "".join(
        f'<span style="left:{100 * x / frames:.2f}%">{n}</span>'
        for n, x in list(enumerate(lines, start=1))[::every]
    )
    names = "".join(
        f'<span style="bottom:{100 * (p - low) / (high - low):.1f}%">C{p // 12 - 1}</span>'
        for p in octaves
    )
    plot = f'<div class="plot" data-seconds="{seconds:.3f}" style="height:{7 * (high - low)}px">'
    plot += f'{drawing("".join(shapes), frames, high - low)}<div class="cursor"></div></div>'
    body = f'{plot}<div class="axis" aria-hidden="true">{numbers}<b>bar</b></div>'
    drawn = picture(f'<div style="min-width:{3 * frames}px">{body}</div>', alt, kind="notes")
    return (
        f'<div class="roll"><div class="octaves" aria-hidden="true">{names}</div>'
        f'<div class="wide">{scrolling(drawn, label="piano roll")}</div></div>'
    )


class Spoken(NamedTuple):
    """A word with its times in seconds and its probability."""

    text: str
    start: float
    end: float
    confidence: float


def spectrogram(
    pixels: bytes, words: Sequence[Spoken], seconds: float, *, alt: str, least: int = 140
) -> str:
    """Return an image of sound over time with the words below it; it scrolls if the sound is long.

    The line above a word is as strong as its probability.

    Args:
      pixels: the PNG image.
      words: with their times.
      seconds: duration of the image.
      alt: alternative text.
      least: pixels per second.
    """
    spoken = "".join(
        f'<span style="{_place(word.start, word.end, seconds)};'
        f'--share:{100 * word.confidence:.0f}%">{escape(word.text)}</span>'
        for word in words
    )
    inner = f'<div style="min-width:{least * seconds:.0f}px">{image(pixels, alt)}'
    inner += f'<div class="words" aria-hidden="true">{spoken}</div>{axis(seconds, "seconds")}</div>'
    return f'<div class="picture sound">{scrolling(inner, label="spectrogram")}</div>'


def film_strip(frames: Sequence[bytes], alt: str) -> str:
    """Return small frames of a clip side by side."""
    cells = "".join(image(frame, "") for frame in frames)
    return picture(cells, alt, kind="strip")


def card(title: str, given: str, answer: str, player: str = "") -> str:
    """Return an example on the start page: an input and the model's answer to it."""
    return (
        f'<article class="card"><h3>{escape(title)}</h3>{player}'
        f'<p class="given">{escape(given)}</p><p class="got">{escape(answer)}</p></article>'
    )
