"""Choice of symbols from a distribution, at random or the best, as graph code.

Each row has its own seed, so its result does not depend on the other rows or their number, nor on
the device. `common.decoding` samples whole sequences with these functions.
"""

from __future__ import annotations

from common.tensor_arrays import dimension

import numpy as np
import tensorflow as tf

# The log-probability of an impossible event. It is finite, so sums and products of it stay finite.
IMPOSSIBLE = -1e9
GROUP = 8  # symbols whose maximum is compared first, see `best_symbols`


def uniform(seed: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """Return random numbers in [0, 1) that depend only on a row's seed and the position.

    This is the counter-based generator Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel
    random numbers: as easy as 1, 2, 3"). The numbers are the same on every device, compiled or not,
    for any batch. `tf.random.stateless_uniform` has one seed for the whole batch instead.

    Args:
      seed: `<int32>[batch, 2]`.
      position: `<int32>[]` or `[batch]`, number of the draw within a row; each position has its
        own numbers.
      count: how many numbers.

    Returns:
      `<float32>[batch, count]`, multiples of 2^-23.

    Example:
      >>> one = uniform(tf.constant([[7, 1]]), 0, 2)
      >>> two = uniform(tf.constant([[7, 2], [7, 1]]), 0, 2)
      >>> bool(tf.reduce_all(one[0] == two[1]))
      True
    """
    seed = tf.bitcast(seed, tf.uint32)
    key = [seed[:, :1], seed[:, 1:]]
    position = tf.reshape(tf.bitcast(tf.cast(position, tf.int32), tf.uint32), [-1, 1])
    pairs = tf.range((count + 1) // 2, dtype=tf.int32)[None, :]
    counter = [tf.bitcast(pairs, tf.uint32), position]
    words = tf.concat(_threefry(key, counter), axis=1)[:, :count]
    return tf.cast(tf.bitwise.right_shift(words, 9), tf.float32) * 2.0**-23


def _threefry(key: list[tf.Tensor], counter: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return two random words `<uint32>[...]` for two words of key and two of counter."""
    schedule = [*key, key[0] ^ key[1] ^ tf.constant(0x1BD11BDA, tf.uint32)]
    left, right = counter[0] + schedule[0], counter[1] + schedule[1]
    for round_ in range(20):
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[round_ % 8]
        left += right
        up = tf.bitwise.left_shift(right, tf.constant(turn, tf.uint32))
        down = tf.bitwise.right_shift(right, tf.constant(32 - turn, tf.uint32))
        right = (up | down) ^ left
        if round_ % 4 == 3:
            block = round_ // 4 + 1
            left += schedule[block % 3]
            right += schedule[(block + 1) % 3] + tf.constant(block, tf.uint32)
    return [left, right]


def draw(log_probabilities: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Draw a symbol for each row by inverting the cumulative distribution.

    Args:
      log_probabilities: `<float>[batch, symbols]`, not necessarily normalized.
      uniform: `<float32>[batch]`, random numbers in [0, 1).

    Returns:
      `<int32>[batch]`; never a symbol of probability 0.

    Example:
      >>> draw(tf.math.log([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]), tf.constant([0.4, 0.6])).numpy()
      array([1, 2], dtype=int32)
    """
    cumulative = tf.cumsum(tf.nn.softmax(tf.cast(log_probabilities, tf.float32)), axis=-1)
    # `uniform` is below 1 by more than a rounding error, so this stays below the last sum.
    threshold = uniform[:, None] * cumulative[:, -1:]
    return tf.reduce_sum(tf.cast(cumulative <= threshold, tf.int32), axis=-1)


def filter_log_probabilities(
    log_probabilities: tf.Tensor,
    *,
    temperature: float | tf.Tensor = 1.0,
    top_k: int | tf.Tensor = 0,
    top_p: float | tf.Tensor = 1.0,
) -> tf.Tensor:
    """Apply a temperature to distributions, then restrict them to their most likely symbols.

    Args:
      log_probabilities: `<float>[batch, symbols]`, not necessarily normalized.
      temperature: divisor of the log-probabilities; scalar or `<float>[batch]`. 0 leaves the most
        likely symbol only.
      top_k: number of symbols to keep; 0 keeps all. Scalar or `<int>[batch]`.
      top_p: keep the smallest set of symbols with at least this total probability, the nucleus
        (Holtzman et al. 2020, "The curious case of neural text degeneration"); at least one symbol.
        Scalar or `<float>[batch]`.

    Returns:
      `<float32>[batch, symbols]`, normalized; `IMPOSSIBLE` for removed symbols. Of equally likely
      symbols the first ones are kept.

    Example:
      >>> filtered = filter_log_probabilities(tf.math.log([[0.5, 0.3, 0.2]]), top_p=0.6)
      >>> tf.exp(filtered).numpy().round(3)
      array([[0.625, 0.375, 0.   ]], dtype=float32)
    """
    log_probabilities = tf.cast(log_probabilities, tf.float32)
    temperature, top_p = (_column(x, tf.float32) for x in (temperature, top_p))
    # The differences to the most likely symbol grow without bound as the temperature goes to 0.
    divisor = tf.clip_by_value(temperature, 1e-6, 1e6)
    scaled = (log_probabilities - tf.reduce_max(log_probabilities, -1, keepdims=True)) / divisor
    order = tf.argsort(scaled, axis=-1, direction="DESCENDING", stable=True)
    ranks = tf.argsort(order, axis=-1, stable=True)
    sorted_probabilities = tf.nn.softmax(tf.gather(scaled, order, batch_dims=1))
    cumulative = tf.cumsum(sorted_probabilities, axis=-1, exclusive=True)
    before = tf.gather(cumulative, ranks, batch_dims=1)
    most = _column(top_k, tf.int32)
    keep = (before < top_p) & ((most <= 0) | (ranks < most)) & ((temperature > 0) | (ranks < 1))
    filtered = tf.nn.log_softmax(tf.where(keep | (ranks < 1), scaled, IMPOSSIBLE))
    return tf.maximum(filtered, IMPOSSIBLE)


def best_symbols(scores: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return scores and numbers of the best symbols: `tf.math.top_k`, but faster.

    The best symbols are in the groups with the largest maxima, which vector instructions find.

    Args:
      scores: `<float32>[rows, symbols]`.
      count: number of the symbols to find.
    """
    rows, symbols = dimension(scores, 0), dimension(scores, 1)
    if isinstance(symbols, int) and symbols < 4 * GROUP * count:
        return tf.math.top_k(scores, min(count, symbols))
    size = (symbols + GROUP - 1) // GROUP
    size = size if isinstance(size, int) else tf.maximum(size, count)
    added = size * GROUP - symbols
    if not isinstance(added, int) or added:
        scores = tf.pad(scores, [[0, 0], [0, added]], constant_values=-np.inf)
    groups = tf.reshape(scores, [rows, size, GROUP])
    _, best = tf.math.top_k(tf.reduce_max(groups, axis=2), count)
    best = tf.sort(best, axis=1)  # of equal scores the first is taken
    values = tf.reshape(tf.gather(groups, best, batch_dims=1), [rows, count * GROUP])
    values, places = tf.math.top_k(values, count)
    group = tf.gather(best, places // GROUP, batch_dims=1)
    # A row of NaN has any order; its symbols must exist all the same.
    return values, tf.minimum(group * GROUP + places % GROUP, symbols - 1)


def _column(value: float | tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return a setting as a tensor `[batch, 1]` or `[1, 1]`."""
    return tf.reshape(tf.cast(value, dtype), [-1, 1])
