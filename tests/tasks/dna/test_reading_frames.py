"""Open reading frames and starts, against a plain search of each frame."""

from tasks.dna import reading_frames
from tasks.dna.nucleotides import encode, reverse_complement_letters, stop_codons
from tests.tasks.own.dna import letters

import numpy as np
import pytest
import tensorflow as tf

STARTS = ("ATG", "GTG", "TTG")
FUNCTION = tf.function(
    lambda bases, length, stops: _spans(bases, length, stops),
    autograph=False,
    reduce_retracing=True,
)


def _spans(bases, length, stops):
    """Return row, first base, end, strand, whether it runs off at its begin and end, and phase."""
    strands = reading_frames.lay_out(bases, length)
    frames, starts = reading_frames.find(strands, STARTS, stops)
    off = starts.kind == len(STARTS)
    stop, open_end = (tf.gather(v, starts.frame) for v in (frames.stop, frames.open_end))
    span = reading_frames.span(strands, starts.codon, stop, off, open_end)
    row = tf.gather(strands.rows, span.left)
    first = tf.gather(strands.offsets, row)
    return (
        row, span.left - first, span.right - first, span.strand,
        tf.cast(off, tf.int32), tf.cast(open_end, tf.int32), span.phase,
    )  # fmt: skip


def search(sequence, strand, stops):
    """Yield what `_spans` returns for one strand of a row, without the row."""
    text = sequence if strand == 1 else reverse_complement_letters(sequence)
    size = len(text)
    for frame in range(3):
        places = range(frame, size - 2, 3)
        ends = [p for p in places if text[p : p + 3] in stops]
        edge = places[-1] + 3 if len(places) else frame
        begin, is_open = frame, True
        for stop, off_end in [*((p, False) for p in ends), (edge, True)]:
            codons = (stop - begin) // 3
            least = reading_frames.LEAST_OPEN if off_end else reading_frames.LEAST
            enough = reading_frames.LEAST_OPEN if off_end or is_open else reading_frames.LEAST
            if codons >= enough:
                right = size if off_end else stop + 3
                for p in range(begin, stop, 3):
                    if text[p : p + 3] in STARTS and (stop - p) // 3 >= least:
                        yield p, right, 0, int(off_end), 0
                if is_open:
                    yield 0, right, 1, int(off_end), frame
            begin, is_open = stop + 3, False


def expected(rows, stops):
    found = set()
    for number, sequence in enumerate(rows):
        size = len(sequence)
        for strand in (1, -1):
            for left, right, off, off_end, phase in search(sequence, strand, stops):
                place = (left, right) if strand == 1 else (size - right, size - left)
                found.add((number, *place, strand, off, off_end, phase))
    return found


@pytest.mark.parametrize("code", [11, 4])
def test_all_reading_frames_and_starts_of_all_rows_are_found(code):
    random = np.random.default_rng(code)
    # Poor in T: long open frames.
    rows = [letters(random, n, (0.3, 0.3, 0.3, 0.1)) for n in (700, 61, 59, 332, 1, 500)]
    rows.append(letters(random, 400, (0.3, 0.3, 0.3, 0.1)) + "ACR")
    length = np.array([len(row) for row in rows], np.int32)
    bases = np.full((len(rows), length.max() + 5), 8, np.int32)  # the padding is no sequence
    for row, sequence in zip(bases, rows, strict=True):
        row[: len(sequence)] = encode(sequence)
    stops = reading_frames.codon_table(stop_codons(code)) >= 0
    outputs = FUNCTION(bases, length, np.repeat(stops[None], len(rows), axis=0))
    found = set(zip(*(value.numpy().tolist() for value in outputs), strict=True))
    assert found == expected(rows, stop_codons(code)) and len(found) > 100


def test_masked_bases_end_a_reading_frame():
    bases = encode("ATG" + "GCC" * 100).copy()[None]
    bases[0, 150:160] = 0
    stops = reading_frames.codon_table(stop_codons(11)) >= 0
    outputs = FUNCTION(bases, np.array([303]), stops[None])
    left, right = outputs[1].numpy(), outputs[2].numpy()
    assert len(left) and not ((left < 150) & (right > 150)).any()


def test_codon_order_and_positions_are_inverse():
    strands = reading_frames.lay_out(tf.ones([1, 50], tf.int32), tf.constant([50]))
    positions = tf.range(2 * strands.size)
    np.testing.assert_array_equal(strands.position(strands.codon(positions)), positions)
    ordered = strands.in_codon_order(positions)
    np.testing.assert_array_equal(strands.position(positions), ordered)
    np.testing.assert_array_equal(strands.by_position(ordered), positions)
