"""The best arrangement of genes: which candidates do not exclude each other.

Neighbouring genes may overlap by up to `OVERLAP` bases, on either strand, as real ones do; neither
may lie inside the other one. A dynamic program over the candidates finds the set with the highest
sum of scores (as Prodigal's; Hyatt et al. 2010).
"""

from __future__ import annotations

from common.tensor_arrays import unstack
from tasks.dna.gene_tables import OVERLAP
from tasks.dna.reading_frames import Span

import tensorflow as tf

NEAR = 32  # candidates before one that may overlap it


def arrange(spans: Span, score: tf.Tensor) -> tf.Tensor:
    """Return which candidates have the highest sum of scores together.

    Args:
      spans: `[candidates]`, in any order.
      score: `<float32>[candidates]`; a candidate with a score of 0 or less is never chosen, since
        without it the others fit all the more.

    Returns:
      `<int32>[genes]`, indices of the candidates in the order of their right ends.

    Example:
      >>> left, right = tf.constant([0, 90, 300]), tf.constant([120, 400, 500])
      >>> spans = Span(left, right, tf.constant([1, -1, 1]), tf.zeros([3], tf.int32))
      >>> arrange(spans, tf.constant([5.0, 3.0, 1.0])).numpy()
      array([0, 1], dtype=int32)
    """
    kept = tf.cast(tf.reshape(tf.where(score > 0), [-1]), tf.int32)
    kept = tf.gather(kept, tf.argsort(tf.gather(spans.right, kept), stable=True))
    left, right = tf.gather(spans.left, kept), tf.gather(spans.right, kept)
    chosen = _chain(left, right, tf.cast(tf.gather(score, kept), tf.float64))
    return tf.gather(kept, chosen)


def _chain(left: tf.Tensor, right: tf.Tensor, score: tf.Tensor) -> tf.Tensor:
    """Return the best chain of candidates that are sorted by their right ends.

    Candidate `c` is entry `c + 1` of the arrays of the loop; entry 0 stands for none.
    """
    count = tf.size(score)
    far = tf.searchsorted(right, left, side="right")  # candidates that end before this one begins
    near = far[:, None] + tf.range(NEAR)
    inside = near < tf.range(count)[:, None]
    near = tf.where(inside, near, 0)
    inside &= tf.gather(right, near) <= left[:, None] + OVERLAP
    inside &= tf.gather(right, near) < right[:, None]
    inside &= tf.gather(left, near) < left[:, None]
    link = tf.where(inside, tf.constant(0.0, tf.float64), tf.constant(-1e30, tf.float64))
    near = tf.where(inside, near + 1, 0)

    def array(dtype: tf.DType) -> tf.TensorArray:
        made = tf.TensorArray(dtype, count + 1, element_shape=[], clear_after_read=False)
        return made.write(0, tf.zeros([], dtype))

    inputs = [unstack(values) for values in (far, near, link, score)]

    def body(
        number: tf.Tensor,
        value: tf.TensorArray,
        back: tf.TensorArray,
        best: tf.TensorArray,
        best_at: tf.TensorArray,
    ) -> tuple[tf.Tensor | tf.TensorArray, ...]:
        before, close, links, own = (array.read(number) for array in inputs)
        values = value.gather(close) + links
        overlapping = tf.reduce_max(values)
        apart = best.read(before)
        is_apart = apart >= overlapping
        total = own + tf.where(is_apart, apart, overlapping)
        previous = tf.where(
            is_apart, best_at.read(before), close[tf.argmax(values, output_type=tf.int32)]
        )
        entry, highest = number + 1, best.read(number)
        is_best = total > highest
        return (
            entry,
            value.write(entry, total),
            back.write(entry, previous),
            best.write(entry, tf.where(is_best, total, highest)),
            best_at.write(entry, tf.where(is_best, entry, best_at.read(number))),
        )

    doubles, integers = tf.float64, tf.int32
    loop = (tf.constant(0), array(doubles), array(integers), array(doubles), array(integers))
    _, _, back, _, best_at = tf.while_loop(lambda number, *_: number < count, body, loop)
    return _trace_back(back, best_at.read(count), count)


def _trace_back(back: tf.TensorArray, last: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Return the candidates of the chain that ends in an entry, in ascending order."""
    path = tf.TensorArray(tf.int32, count, element_shape=[])

    def body(entry: tf.Tensor, size: tf.Tensor, path: tf.TensorArray) -> tuple:
        return back.read(entry), size + 1, path.write(size, entry - 1)

    start = (last, tf.constant(0), path)
    _, size, path = tf.while_loop(lambda entry, *_: entry > 0, body, start)
    return tf.reverse(path.stack()[:size], [0])
