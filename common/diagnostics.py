"""Memory of recurrent layers: gradient norms over time, and two benchmark problems.

The gradient of a late output with respect to an early input is a product with one factor per step
between them. Where the factors are smaller than one the gradient vanishes, and the network cannot
learn from early inputs (Bengio, Simard and Frasconi 1994, "Learning long-term dependencies with
gradient descent is difficult"). `gradient_norms` measures this and `plot_gradient_norms` plots it.
`adding` and `copying` are problems that only a network with memory can solve.
`notebooks/vanishing_gradient.ipynb` uses all of them.

Example:
  >>> from common.rnn import stack
  >>> x = np.random.default_rng(0).normal(size=(4, 20, 2))
  >>> norms = {cell: gradient_norms(stack(cell, 8, 1), x) for cell in ("simple_rnn", "lstm")}
  >>> figure = plot_gradient_norms(norms)  # figure.savefig("gradients.png") writes it to a file
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
    """Measure how much the last output depends on each input step.

    With `y` `<float>[units]` the output of a row at its last step and `x_t` `<float>[features]` its
    input at step `t`, this is the Frobenius norm of the Jacobian `dy / dx_t`. Norms are computed in
    float64, since the squares of vanishing gradients underflow in float32.

    Args:
      layer: a recurrent Keras layer, or a model that contains one, called with `sequences`. The
        first output of a tuple is used, and the last step of outputs at every step.
      sequences: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`, right-padded; the last step of a row is then its last real step.

    Returns:
      `<float64>[batch, time]`, zero at padded steps.

    Example:
      >>> from common.rnn import SimpleRNN
      >>> layer = SimpleRNN(1, kernel_initializer="ones", recurrent_initializer="ones")
      >>> gradient_norms(layer, np.zeros((1, 3, 1)))  # the slope of tanh at 0 is 1
      array([[1., 1., 1.]])
    """
    x = tf.convert_to_tensor(sequences, tf.float32)
    mask_tensor = None if mask is None else tf.convert_to_tensor(mask, tf.bool)
    call_arguments = {} if mask is None else {"mask": mask_tensor}

    @tf.function
    def jacobian(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=False, **call_arguments)
            if isinstance(outputs, (tuple, list)):
                outputs = outputs[0]
            if len(outputs.shape) == 3:
                outputs = _last_step(outputs, mask_tensor)
        return tape.batch_jacobian(outputs, x, experimental_use_pfor=False)

    with rnn_kernels.portable():  # compiling does not pay for a single run
        # A concrete function, since TensorFlow warns of functions that are traced repeatedly.
        traced = jacobian.get_concrete_function(x)
        jacobians = traced(x).numpy().astype("float64")  # [batch, units, time, features]
    return np.sqrt(np.square(jacobians).sum(axis=(1, 3)))


def _last_step(outputs: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Return the last real step of each row, `<float>[batch, units]`."""
    if mask is None:
        return outputs[:, -1]
    length = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
    return tf.gather(outputs, tf.maximum(length - 1, 0), batch_dims=1)


def plot_gradient_norms(norms: Mapping[str, np.ndarray], *, title: str = "") -> Figure:
    """Plot gradient norms over time, on a logarithmic scale.

    Args:
      norms: name -> result of `gradient_norms`, `<float>[batch, time]`. The line is the geometric
        mean over the rows, the band extends from their 10th to their 90th percentile.
      title: title of the figure.

    Returns:
      The figure; `figure.savefig(path)` writes it to a file, a notebook displays it.

    Example:
      >>> figure = plot_gradient_norms({"lstm": np.array([[1e-3, 1e-2, 1.0]])})
      >>> figure.axes[0].get_yscale()
      'log'
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
    """Examples of a problem that needs memory.

    Attributes:
      inputs: `[count, steps, ...]`.
      targets: `[count, ...]`.
      baseline: loss of the best prediction without memory.
    """

    inputs: np.ndarray
    targets: np.ndarray
    baseline: float


def adding(count: int, steps: int, *, seed: int) -> Problem:
    """Generate the adding problem: predict the sum of the two marked numbers of a sequence.

    Hochreiter and Schmidhuber 1997, "Long short-term memory", experiment 4, in the form of
    Arjovsky, Shah and Bengio 2016, "Unitary evolution recurrent neural networks": the numbers are
    uniform in [0, 1), and one number in each half of the sequence is marked.

    Args:
      count: number of examples.
      steps: length of each example, at least 2.
      seed: seed of the random numbers.

    Returns:
      inputs `<float32>[count, steps, 2]`, the number and its mark (0 or 1); targets
      `<float32>[count]`; baseline 1/6, the mean squared error of the constant prediction 1, since
      the variance of each number is 1/12. (Papers often give it as 0.1767 or 0.167.)

    Raises:
      ValueError: fewer than 2 steps.

    Example:
      >>> inputs, targets, _ = adding(1, 4, seed=0)
      >>> inputs[0].T.round(2), targets.round(2)
      (array([[0.85, 0.64, 0.51, 0.27],
              [1.  , 0.  , 1.  , 0.  ]], dtype=float32), array([1.36], dtype=float32))
    """
    if steps < 2:
        raise ValueError(f"steps must be 2 or more, since two numbers are marked, got {steps}")
    rng = np.random.default_rng(seed)
    values = rng.random((count, steps), "float32")
    marks = np.zeros((count, steps), "float32")
    rows, half = np.arange(count), steps // 2
    marks[rows, rng.integers(0, half, count)] = 1.0
    marks[rows, rng.integers(half, steps, count)] = 1.0
    return Problem(np.stack([values, marks], axis=-1), (values * marks).sum(axis=1), 1 / 6)


def copying(count: int, delay: int, *, seed: int, symbols: int = 8, length: int = 10) -> Problem:
    """Generate the copying problem: read some symbols, wait, then repeat them.

    After Hochreiter and Schmidhuber 1997, in the form of Arjovsky, Shah and Bengio 2016. The input
    consists of `length` random symbols, blanks, a mark `delay` steps after the last symbol, and
    blanks again. The target is blank up to and including the mark, and then repeats the symbols.

    Args:
      count: number of examples.
      delay: steps from the last symbol to the mark, at least 1.
      seed: seed of the random numbers.
      symbols: number of different symbols. They are 1 to `symbols`, the blank is 0, the mark is
        `symbols + 1`.
      length: number of symbols to remember.

    Returns:
      inputs and targets `<int32>[count, delay + 2 * length]`; baseline `length * log(symbols)
      / (delay + 2 * length)`, the mean cross-entropy in nats of a prediction that knows where the
      symbols are, but not which.

    Raises:
      ValueError: `delay` is less than 1.

    Example:
      >>> inputs, targets, _ = copying(1, 3, seed=0, length=2)
      >>> inputs, targets
      (array([[7, 6, 0, 0, 9, 0, 0]], dtype=int32), array([[0, 0, 0, 0, 0, 7, 6]], dtype=int32))
    """
    if delay < 1:
        raise ValueError(f"delay must be 1 or more, got {delay}")
    sequence = np.random.default_rng(seed).integers(1, symbols + 1, (count, length), "int32")
    inputs = np.zeros((count, delay + 2 * length), "int32")
    targets = np.zeros_like(inputs)
    inputs[:, :length] = sequence
    inputs[:, length + delay - 1] = symbols + 1
    targets[:, -length:] = sequence
    return Problem(inputs, targets, length * math.log(symbols) / (delay + 2 * length))
