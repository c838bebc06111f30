"""Words of recognised texts with their times and confidence, as graph code."""

from __future__ import annotations

import tensorflow as tf


def find_words(
    text: tf.Tensor,
    tokens: tf.Tensor,
    alignment: tf.Tensor,
    probabilities: tf.Tensor,
    *,
    space: int,
    step_seconds: float,
) -> dict[str, tf.Tensor]:
    """Return the words of texts, with their times and confidence.

    A word lasts from the first step of its letters to the last one. Its confidence is the geometric
    mean over its letters of the largest probability of the letter at its steps.

    Args:
      text: `<string>[batch]`, with single spaces.
      tokens: `<int32>[batch, letters]`, the labels of the text; below 0 after its end.
      alignment: `<int32>[batch, steps]`, the place in the text of the letter at each step, or -1.
      probabilities: `<float32>[batch, steps, symbols]`, of each symbol at each step.
      space: label of the space; -1 if there is none.
      step_seconds: seconds between two steps.

    Returns:
      `words` `<string>[batch, words]`, "" after the last word, and `word_start`, `word_end` (in
      seconds) and `word_confidence`, all `<float32>[batch, words]`, 0 after the last word.

    Example:
      >>> result = find_words(
      ...     tf.constant(["go on"]), tf.constant([[1, 2, 0, 2, 3]]),
      ...     tf.constant([[0, 0, 1, -1, 2, 3, 4]]), tf.fill([1, 7, 5], 0.5),
      ...     space=0, step_seconds=0.1,
      ... )
      >>> result["words"].numpy().tolist(), result["word_start"].numpy().round(2).tolist()
      ([[b'go', b'on']], [[0.0, 0.5]])
    """
    words = tf.strings.split(text, " ").to_tensor()
    batch, count, letters = tf.shape(text)[0], tf.shape(words)[1], tf.shape(tokens)[1]
    is_letter = (tokens >= 0) & (tokens != space)
    spaces = tf.cumsum(tf.cast(tokens == space, tf.int32) * int(space >= 0), axis=1)
    row = tf.range(batch)[:, None]
    # Numbers of the words and letters of the whole batch; -1 belongs to none.
    word_of_letter = tf.where(is_letter, row * count + spaces, -1)
    place = tf.maximum(alignment, 0)
    word_of_step = tf.where(alignment >= 0, tf.gather(word_of_letter, place, batch_dims=1), -1)
    letter_of_step = tf.where(alignment >= 0, row * letters + place, -1)
    label = tf.maximum(tf.gather(tokens, place, batch_dims=1), 0)
    probability = tf.gather(probabilities, label, axis=2, batch_dims=2)
    best = tf.math.unsorted_segment_max(probability, letter_of_step, batch * letters)
    logs = tf.math.log(tf.reshape(tf.maximum(best, 1e-30), [batch, letters]))
    confidence = tf.exp(tf.math.unsorted_segment_mean(logs, word_of_letter, batch * count))
    steps = tf.broadcast_to(tf.range(tf.shape(alignment)[1])[None, :], tf.shape(alignment))
    first = tf.math.unsorted_segment_min(steps, word_of_step, batch * count)
    last = tf.math.unsorted_segment_max(steps, word_of_step, batch * count)
    values = {
        "word_start": tf.cast(first, tf.float32) * step_seconds,
        "word_end": tf.cast(last + 1, tf.float32) * step_seconds,
        "word_confidence": confidence,
    }
    values = {name: tf.reshape(value, [batch, count]) for name, value in values.items()}
    return {
        "words": words,
        **{name: tf.where(words == "", 0.0, value) for name, value in values.items()},
    }
