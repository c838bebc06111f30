"""What a recurrent layer remembers, measured: gradients over time, and two problems of memory.

The gradient of a late output with respect to an early input is a product of as many factors as
there are steps between them. Where the factors are smaller than one it vanishes, and nothing that
happened early can be learnt from what is wrong late (Bengio, Simard and Frasconi 1994, "Learning
long-term dependencies with gradient descent is difficult"). `gradient_norms` measures it,
`plot_gradient_norms` draws it, and `adding` and `copying` are problems that only a network which
keeps what it saw can solve. `notebooks/vanishing_gradient.ipynb` puts them together.

Example:
  >>> x = np.random.default_rng(0).normal(size=(16, 100, 2))
  >>> norms = {cell: gradient_norms(stack(cell, 32, 1), x) for cell in ("simple_rnn", "lstm")}
  >>> plot_gradient_norms(norms).savefig("gradients.png")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from common import rnn_kernels

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

__all__ = ["Problem", "adding", "copying", "gradient_norms", "plot_gradient_norms"]


def gradient_norms(
    layer: Callable[..., Any], sequences: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Measures how much the last output depends on each input step.

    That is, with `y` `<float>[units]` a row's output at its last step and `x_t` `<float>[features]`
    its input at step `t`, the Frobenius norm of the Jacobian `dy / dx_t`. Norms are taken in
    float64, since squares of vanishing gradients are no float32.

    Args:
      layer: a recurrent Keras layer, or a model on such, that takes `sequences`; of a tuple of
        outputs the first counts, of outputs at every step the last step's.
      sequences: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`, real steps first; the last real step of a row is its last then.

    Returns:
      `<float64>[batch, time]`, zero at padded steps.

    Example:
      >>> layer = SimpleRNN(1, kernel_initializer="ones", recurrent_initializer="ones")
      >>> gradient_norms(layer, np.zeros((1, 3, 1)))  # at 0 the slope of tanh is 1
      array([[1., 1., 1.]])
    """
    x = tf.convert_to_tensor(sequences, tf.float32)
    masked = {} if mask is None else {"mask": tf.convert_to_tensor(mask, tf.bool)}

    @tf.function
    def jacobian(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=False, **masked)
            if isinstance(outputs, (tuple, list)):
                outputs = outputs[0]
            if len(outputs.shape) == 3:
                outputs = _last(outputs, masked.get("mask"))
        return tape.batch_jacobian(outputs, x, experimental_use_pfor=False)

    with rnn_kernels.portable():  # it is run once: not worth compiling
        found = jacobian(x).numpy().astype("float64")  # [batch, units, time, features]
    return np.sqrt(np.square(found).sum(axis=(1, 3)))


def _last(outputs: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    if mask is None:
        return outputs[:, -1]
    length = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    return tf.gather(outputs, tf.maximum(length - 1, 0), batch_dims=1)


def plot_gradient_norms(norms: Mapping[str, np.ndarray], *, title: str = "") -> Figure:
    """Draws gradient norms over time, on a logarithmic scale.

    Args:
      norms: name -> what `gradient_norms` gave, `<float>[batch, time]`; the line is the geometric
        mean of the rows, the band reaches from their 10th to their 90th percentile.
      title: of the picture.

    Returns:
      The figure; `figure.savefig(path)` writes it, a notebook shows it.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, values in norms.items():
        logarithms = np.log10(np.maximum(np.atleast_2d(values), np.finfo("float64").tiny))
        distance = np.arange(logarithms.shape[1])[::-1]
        (line,) = axes.plot(distance, 10 ** logarithms.mean(axis=0), label=name)
        low, high = 10 ** np.percentile(logarithms, [10, 90], axis=0)
        axes.fill_between(distance, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.invert_xaxis()  # time runs to the right
    axes.set(
        xlabel="steps before the last",
        ylabel="norm of d last output / d input",
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


class Problem(NamedTuple):
    """Examples of a problem of memory, and what one reaches without memory."""

    inputs: np.ndarray
    targets: np.ndarray
    baseline: float


def adding(count: int, steps: int, *, seed: int) -> Problem:
    """Makes the adding problem: two of many numbers are marked; give their sum.

    Hochreiter and Schmidhuber 1997, "Long short-term memory", experiment 4, in the form of
    Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks": numbers are
    uniform in [0, 1), and one is marked in each half, so that the first has to be kept for half the
    time or longer.

    Args:
      count: how many examples.
      steps: of each, 2 or more.
      seed: decides all.

    Returns:
      inputs `<float32>[count, steps, 2]`, the number and its mark (0 or 1); targets
      `<float32>[count]`; baseline 1/6, the mean squared error of the constant answer 1, since the
      variance of one such number is 1/12. (Papers often give it as 0.1767 or 0.167.)

    Raises:
      ValueError: fewer than 2 steps.

    Example:
      >>> inputs, targets, _ = adding(1, 4, seed=0)
      >>> inputs[0].T.round(2), targets.round(2)
      (array([[0.85, 0.64, 0.51, 0.27],
              [1.  , 0.  , 1.  , 0.  ]], dtype=float32), array([1.36], dtype=float32))
    """
    if steps < 2:
        raise ValueError(f"two numbers are marked, so there must be 2 steps or more, got {steps}")
    rng = np.random.default_rng(seed)
    values = rng.random((count, steps), "float32")
    marks = np.zeros((count, steps), "float32")
    rows, half = np.arange(count), steps // 2
    marks[rows, rng.integers(0, half, count)] = 1.0
    marks[rows, rng.integers(half, steps, count)] = 1.0
    return Problem(np.stack([values, marks], axis=-1), (values * marks).sum(axis=1), 1 / 6)


def copying(count: int, delay: int, *, seed: int, symbols: int = 8, length: int = 10) -> Problem:
    """Makes the copying problem: read some symbols, wait, then write them down.

    After Hochreiter and Schmidhuber 1997, in the form of Arjovsky, Shah and Bengio 2016: `length`
    random symbols; blanks; a mark, `delay` steps after the last symbol, that asks for them; blanks
    while they are written. The target is blank up to the mark and the symbols behind it.

    Args:
      count: how many examples.
      delay: steps from the last symbol to the mark, 1 or more.
      seed: decides all.
      symbols: how many different ones; they are 1 to `symbols`, the blank 0, the mark
        `symbols + 1`.
      length: how many are to be kept.

    Returns:
      inputs and targets `<int32>[count, delay + 2 * length]`; baseline `length * log(symbols)
      / (delay + 2 * length)`, the mean cross-entropy in nats of an answer that knows when to write,
      but not what.

    Raises:
      ValueError: no delay.

    Example:
      >>> inputs, targets, _ = copying(1, 3, seed=0, length=2)
      >>> inputs, targets
      (array([[7, 6, 0, 0, 9, 0, 0]], dtype=int32), array([[0, 0, 0, 0, 0, 7, 6]], dtype=int32))
    """
    if delay < 1:
        raise ValueError(f"the mark comes behind the symbols: delay must be 1 or more, got {delay}")
    kept = np.random.default_rng(seed).integers(1, symbols + 1, (count, length), "int32")
    inputs = np.zeros((count, delay + 2 * length), "int32")
    targets = np.zeros_like(inputs)
    inputs[:, :length] = kept
    inputs[:, length + delay - 1] = symbols + 1
    targets[:, -length:] = kept
    return Problem(inputs, targets, length * math.log(symbols) / (delay + 2 * length))
