"""The target of an export: any device, a GPU, a TPU, or a small device.

- `portable`: any CPU or GPU; no op is bound to a device.
- `gpu`: the same signatures with the recurrent layers of cuDNN, traced on a machine with a GPU.
- `tpu`: the same signatures, whose batch and time have any size, as servers demand. The computation
  inside, the *core*, is one function per length with static shapes throughout: the compiler of a
  TPU supports neither dynamic shapes nor strings, tables or ragged tensors. Each core is a named
  function alias of the SavedModel, by which Cloud TPU's converter finds the functions to compile.
- `litert`: files for telephones and boards, which the task writes itself; see
  `tasks/sentiment/litert_export.py`.

The signatures of a task pass their core through `Target.core`, which makes it static where needed:

    core = target.core("core", run, timed=["ids"], steps={"attention": same})
    outputs = core(ids=ids, length=length)

`shared` lets several signatures share one graph; `common.serving.rows` handles invalid rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

from common.errors import InputError
from common.serving import TargetName
from common.serving.weights import from_halves

import numpy as np
from etils import epy

with epy.lazy_imports():
    from common import rnn_kernels

    import tensorflow as tf

Function: TypeAlias = "tf.types.experimental.PolymorphicFunction"
Signatures: TypeAlias = "Mapping[str, Function]"  # name -> what is exported under it
Example = Mapping[str, np.ndarray]  # a request: input name -> array
Examples = Mapping[str, Sequence[Example]]  # signature name -> requests
Run: TypeAlias = "Callable[..., dict[str, tf.Tensor]]"  # named tensors -> named tensors
Steps = Callable[[Any], Any]  # steps of a core's input -> steps of one of its outputs
P = ParamSpec("P")
T = TypeVar("T")

NO_LITERT = "it has no LiteRT export yet"  # the reason unless a task has another
BATCH = 16  # rows of a core: a TPU computes multiples of eight rows, and only whole batches


def same(steps: Any) -> Any:
    """Return the number of input steps: an output with as many steps as the input."""
    return steps


def shared(run: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that an export holds it once, however many signatures call it.

    Each signature is a graph of its own. Without this decorator each would trace and hold a copy,
    and exports would be larger and slower to make and to load.

    Args:
      run: tensors -> any structure of tensors. AutoGraph is off: loops and conditions on tensors
        must be TensorFlow's. It must be made anew for each export, as closures in a task's
        `signatures` are, since its graph is kept.

    Returns:
      `run`, as one graph while an export is traced. Elsewhere `run` itself, because a graph traced
      there may hold compiled functions, which an export must not.

    Example:
      >>> @shared
      ... def double(x):
      ...     return 2 * x
      >>> int(double(tf.constant(3)))
      6
    """
    once = tf.function(from_halves(run), autograph=False, reduce_retracing=True)

    @functools.wraps(run)
    def either(*args: P.args, **kwargs: P.kwargs) -> T:
        return (once if rnn_kernels.is_portable() else run)(*args, **kwargs)

    return either


@dataclasses.dataclass(frozen=True)
class Target:
    """The target of one export.

    Attributes:
      name: of the target.
      lengths: the numbers of time steps for which a core is made, in rising order.
      batch: rows of a core.
      cores: the static functions by alias; filled while the signatures are traced.
    """

    name: TargetName = "portable"
    lengths: Sequence[int] = ()
    batch: int = BATCH
    cores: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def folder(self, task: str) -> str:
        """Return the folder name of a task's versions, which is its model name for TF Serving.

        Example:
          >>> Target("tpu").folder("sentiment"), PORTABLE.folder("sentiment")
          ('sentiment-tpu', 'sentiment')
        """
        return task if self.name == "portable" else f"{task}-{self.name}"

    def core(
        self,
        name: str,
        run: Run,
        *,
        timed: Iterable[str] = (),
        steps: Mapping[str, Steps] | None = None,
        lengths: Sequence[int] | None = None,
        batch: int | None = None,
    ) -> Run:
        """Return the computation inside a signature in the form that the target needs.

        A static core maps the same inputs to the same outputs, with two differences: a row whose
        `length` exceeds the longest of `lengths` gets zeros, which all tasks return for a row that
        is too long; and values after the end of a row may differ.

        Args:
          name: of the core; the aliases are `name_<length>`, or `name` alone without `timed`.
          run: named tensors -> named tensors, all with the batch first. The outputs of a row depend
            on that row alone. All dimensions except batch and time must be static.
          timed: inputs with the time as second dimension, all of the same length.
          steps: outputs with a time as second dimension -> the number of their steps for a number
            of input steps.
          lengths: instead of the target's own.
          batch: instead of the target's own.

        Returns:
          A function that accepts the same tensors by name.
        """
        if self.name != "tpu":
            return run
        return _Static(
            name,
            run,
            timed=tuple(timed),
            steps=dict(steps or {}),
            lengths=tuple(sorted(self.lengths if lengths is None else lengths)),
            batch=batch or self.batch,
            cores=self.cores,
        )


PORTABLE = Target()


def choose(
    name: TargetName,
    task: str,
    lengths: Sequence[int] = (),
    *,
    no_litert: str | None = NO_LITERT,
) -> Target:
    """Return the target of a task's export; refuse an impossible one before anything is trained.

    Args:
      name: of the target, from the flags.
      task: name of the task.
      lengths: see `Target`.
      no_litert: why the task has no LiteRT export; None if it has one.

    Raises:
      InputError: the machine has no GPU to trace for, or the task has no LiteRT export.
    """
    if name == "litert" and no_litert is not None:
        raise InputError(f"--target litert is not for {task}: {no_litert}")
    if name == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise InputError(
            "--target gpu needs a GPU to trace the layers of cuDNN, and TensorFlow finds none; the "
            "default, --target portable, runs on GPUs too"
        )
    return Target(name, lengths=tuple(lengths))


# --- Static shapes --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Static:
    """A core of any batch and time that runs functions of static shapes; see `Target.core`."""

    name: str
    run: Run
    timed: tuple[str, ...]
    steps: Mapping[str, Steps]
    lengths: tuple[int, ...]
    batch: int
    cores: dict[str, Any]

    def __call__(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Run on the host: fit the inputs to a length and a batch, and the outputs back."""
        if not self.timed:
            return self._run_chunks(None, inputs)
        time = tf.shape(inputs[self.timed[0]])[1]
        if "length" in inputs:
            fits = inputs["length"] <= self.lengths[-1]
            inputs = {**inputs, "length": tf.where(fits, inputs["length"], 0)}
        branches = [lambda size=size: self._run_chunks(size, inputs) for size in self.lengths]
        which = tf.reduce_sum(tf.cast(time > tf.constant(self.lengths[:-1], tf.int32), tf.int32))
        outputs = tf.switch_case(which, branches) if len(branches) > 1 else branches[0]()
        if "length" in inputs:
            outputs = {key: choose_rows(fits, value) for key, value in outputs.items()}
        return outputs

    def _run_chunks(
        self, size: int | None, inputs: Mapping[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Run the rows in chunks of `batch` rows and `size` steps."""
        rows = tf.shape(next(iter(inputs.values())))[0]
        chunks = (rows + self.batch - 1) // self.batch
        alias = self.name if size is None else f"{self.name}_{size}"
        parts = {}
        for key, value in inputs.items():
            if key in self.timed:
                value = fit(value, size)
            if not value.shape[1:].is_fully_defined():
                raise ValueError(f"{key!r} of core {alias!r} has no static shape: {value.shape}")
            padded = tf.pad(value, [[0, chunks * self.batch - rows], *_no_padding(value, 1)])
            parts[key] = tf.reshape(padded, [chunks, self.batch, *value.shape[1:]])
        function = self._function(size, alias, parts)
        static = function.structured_outputs
        specs = {key: tf.TensorSpec(value.shape, value.dtype) for key, value in static.items()}
        chunked = tf.map_fn(function, parts, parallel_iterations=1, fn_output_signature=specs)
        outputs = {}
        for key, value in chunked.items():
            value = tf.reshape(value, [chunks * self.batch, *value.shape[2:]])[:rows]
            if key in self.steps:
                time = tf.shape(inputs[self.timed[0]])[1]
                value = fit(value, self.steps[key](time))
            outputs[key] = value
        return outputs

    def _function(self, size: int | None, alias: str, parts: Mapping[str, tf.Tensor]) -> Any:
        """Return the static function for a length, traced once."""

        def core(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            outputs = {}
            for key, value in self.run(**tensors).items():
                # Some ops lose their static shapes.
                time = [times[key]] if key in times else []
                value.set_shape([self.batch, *time, *value.shape[1 + len(time) :]])
                is_narrow = value.dtype == tf.bfloat16  # outputs are float32 at any precision
                outputs[key] = tf.cast(value, tf.float32) if is_narrow else value
            return outputs

        with tf.init_scope():
            times = {key: int(steps(size)) for key, steps in self.steps.items()}
        core.__name__ = alias
        if alias not in self.cores:
            specs = {
                key: tf.TensorSpec(value.shape[1:], value.dtype, name=key)
                for key, value in parts.items()
            }
            self.cores[alias] = tf.function(core, input_signature=[specs], autograph=False)
        with tf.init_scope():
            return self.cores[alias].get_concrete_function()


def fit(value: tf.Tensor, steps: int | tf.Tensor) -> tf.Tensor:
    """Truncate or pad (with zeros) the second dimension.

    Example:
      >>> fit(tf.constant([[1, 2, 3]]), 4).numpy(), fit(tf.constant([[1, 2, 3]]), 2).numpy()
      (array([[1, 2, 3, 0]], dtype=int32), array([[1, 2]], dtype=int32))
    """
    value = value[:, :steps]
    missing = tf.maximum(0, steps - tf.shape(value)[1])
    padded = tf.pad(value, [[0, 0], [0, missing], *_no_padding(value, 2)])
    if isinstance(steps, int):
        padded = tf.ensure_shape(padded, [value.shape[0], steps, *value.shape[2:]])
    return padded


def _no_padding(value: tf.Tensor, axis: int) -> list[list[int]]:
    """Return the paddings of all axes from `axis` on: none."""
    return [[0, 0]] * (len(value.shape) - axis)


def choose_rows(valid: tf.Tensor, value: tf.Tensor, otherwise: Any = 0) -> tf.Tensor:
    """Replace the values of the rows that are not valid.

    Args:
      valid: `<bool>[batch]`.
      value: `[batch, ...]`.
      otherwise: the value of the other rows.

    Example:
      >>> choose_rows(tf.constant([True, False]), tf.constant([[1, 2], [3, 4]])).numpy().tolist()
      [[1, 2], [0, 0]]
    """
    valid = tf.reshape(valid, [-1, *[1] * (len(value.shape) - 1)])
    return tf.where(valid, value, tf.cast(otherwise, value.dtype))
