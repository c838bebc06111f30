"""What an export is made for: any device, a GPU, a TPU, or a small device.

- `portable`: any CPU or GPU; no op of it is bound to one.
- `gpu`: the same signatures with cuDNN's recurrent layers, traced where a GPU is.
- `tpu`: the same signatures again, with the batch and the time of any size as servers demand. What
  computes inside, the *core*, is one function per length with static shapes throughout, since a
  TPU's compiler takes no others and no strings, tables or ragged tensors. Each core is a named
  function alias of the SavedModel, by which Cloud TPU's converter finds what to compile.
- `litert`: files for telephones and boards, which a task that goes there writes itself; see
  `tasks/sentiment/litert.py`.

A task's signatures pass their core through `Target.core`, which leaves it alone or makes it static:

    core = target.core("core", run, timed=["ids"], steps={"attention": same})
    outputs = core(ids=ids, length=length)

What several signatures compute alike, they share: see `shared`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from common import rnn_kernels
from common.errors import InputError

import tensorflow as tf

TargetName = Literal["portable", "gpu", "tpu", "litert"]
Run = Callable[..., dict[str, tf.Tensor]]  # named tensors -> named tensors
Steps = Callable[[Any], Any]  # of a core's input -> of one of its outputs
F = TypeVar("F", bound=Callable[..., Any])

BATCH = 16  # rows of a core: a TPU computes in eights and more, and waits for whole batches


def same(steps: Any) -> Any:
    """As many steps out as in."""
    return steps


def shared(run: F) -> F:
    """Decorator: an export holds a function once, whatever number of its signatures call it.

    Each signature is a graph of its own; of a plain function each would trace and hold a copy, and
    exports would be larger and slower to make and to load.

    Args:
      run: tensors -> any structure of tensors, without AutoGraph: loops and conditions on tensors
        are TensorFlow's. Made anew for each export, as closures in a task's `signatures` are, since
        the graph is kept.

    Returns:
      `run`, as one graph where an export is traced. Elsewhere it is left alone, for what is traced
      there may hold compiled functions, which an export must not.

    Example:
      >>> @shared
      ... def run(ids, length):
      ...     return model({"ids": ids, "length": length})
    """
    once = tf.function(run, autograph=False, reduce_retracing=True)

    @functools.wraps(run)
    def either(*args: Any, **kwargs: Any) -> Any:
        return (once if rnn_kernels.is_portable() else run)(*args, **kwargs)

    return either


@dataclasses.dataclass(frozen=True)
class Target:
    """What one export is made for; each export has its own.

    Attributes:
      name: of the target.
      lengths: the time steps for which a core is made, the shortest first.
      batch: rows of a core.
      cores: the static functions by alias; filled while the signatures are traced.
    """

    name: TargetName = "portable"
    lengths: Sequence[int] = ()
    batch: int = BATCH
    cores: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def folder(self, task: str) -> str:
        """Name of the folder of its versions, such as `sentiment-tpu`; TF Serving's model name."""
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
        """Gives what computes inside a signature in the form that the target needs.

        Made static, it takes and gives what `run` does, with these differences: a row whose
        `length` is over the longest of `lengths` gets zeros, which is what all tasks answer to a
        row that they cannot read; and what stands behind a row's length may be another.

        Args:
          name: of the core; the aliases are `name_<length>`, or `name` alone without `timed`.
          run: named tensors -> named tensors, all with the batch first; a row's answer depends on
            that row alone. What is neither batch nor time in its inputs has static sizes.
          timed: its inputs with the time as second dimension, all of the same length.
          steps: its outputs with a time as second dimension, and how many steps of those there are
            for so many of the inputs.
          lengths: instead of the target's own.
          batch: instead of the target's own.

        Returns:
          A function that takes the same tensors by name.
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
    no_litert: str | None = "nobody has made a file of it yet",
) -> Target:
    """Makes a task's target; refuses, before anything is trained, what could not be exported.

    Args:
      name: of the target, from the flags.
      task: its name.
      lengths: see `Target`.
      no_litert: why the task does not go onto small devices; `None` if it does.

    Raises:
      InputError: no GPU is here to trace for, or the task does not go onto small devices.
    """
    if name == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise InputError(
            "--target gpu needs a GPU to trace cuDNN's layers on, and TensorFlow sees none here; "
            "the default, --target portable, runs on GPUs too"
        )
    if name == "litert" and no_litert is not None:
        raise InputError(f"--target litert is not for {task}: {no_litert}")
    return Target(name, lengths=tuple(lengths))


# --- static shapes --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Static:
    """A core of any batch and time, computed by functions of static shapes; see `Target.core`."""

    name: str
    run: Run
    timed: tuple[str, ...]
    steps: Mapping[str, Steps]
    lengths: tuple[int, ...]
    batch: int
    cores: dict[str, Any]

    def __call__(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes on the host: fits the inputs to a length and a batch, and the answers back."""
        if not self.timed:
            return self._walk(None, inputs)
        time = tf.shape(inputs[self.timed[0]])[1]
        if "length" in inputs:
            read = inputs["length"] <= self.lengths[-1]
            inputs = {**inputs, "length": tf.where(read, inputs["length"], 0)}
        branches = [lambda size=size: self._walk(size, inputs) for size in self.lengths]
        which = tf.reduce_sum(tf.cast(time > tf.constant(self.lengths[:-1], tf.int32), tf.int32))
        found = tf.switch_case(which, branches) if len(branches) > 1 else branches[0]()
        if "length" in inputs:
            found = {key: _blank(value, read) for key, value in found.items()}
        return found

    def _walk(self, size: int | None, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Walks over the rows, so many at a time, with the time made `size`."""
        rows = tf.shape(next(iter(inputs.values())))[0]
        chunks = (rows + self.batch - 1) // self.batch
        alias = self.name if size is None else f"{self.name}_{size}"
        parts = {}
        for key, value in inputs.items():
            if key in self.timed:
                value = fit(value, size)
            if not value.shape[1:].is_fully_defined():
                raise ValueError(f"{key!r} of core {alias!r} has no static shape: {value.shape}")
            padded = tf.pad(value, [[0, chunks * self.batch - rows], *_none(value, 1)])
            parts[key] = tf.reshape(padded, [chunks, self.batch, *value.shape[1:]])
        function = self._function(size, alias, parts)
        outputs = function.structured_outputs
        specs = {key: tf.TensorSpec(value.shape, value.dtype) for key, value in outputs.items()}
        found = tf.map_fn(function, parts, parallel_iterations=1, fn_output_signature=specs)
        answer = {}
        for key, value in found.items():
            value = tf.reshape(value, [chunks * self.batch, *value.shape[2:]])[:rows]
            if key in self.steps:
                # The time as an input has it, of which a number of steps comes.
                time = tf.shape(inputs[self.timed[0]])[1]
                value = fit(value, self.steps[key](time))
            answer[key] = value
        return answer

    def _function(self, size: int | None, alias: str, parts: Mapping[str, tf.Tensor]) -> Any:
        """The static function for a length, traced once."""

        def core(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            found = {}
            for key, value in self.run(**tensors).items():
                # Not all ops know that their shapes are static.
                time = [times[key]] if key in times else []
                value.set_shape([self.batch, *time, *value.shape[1 + len(time) :]])
                # No bfloat16 leaves a core, whatever it computes in.
                narrow = value.dtype == tf.bfloat16
                found[key] = tf.cast(value, tf.float32) if narrow else value
            return found

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
    """Cuts or pads (by zeros) the second dimension.

    Example:
      >>> fit(tf.constant([[1, 2, 3]]), 4), fit(tf.constant([[1, 2, 3]]), 2)
      ([[1, 2, 3, 0]], [[1, 2]])
    """
    value = value[:, :steps]
    missing = tf.maximum(0, steps - tf.shape(value)[1])
    padded = tf.pad(value, [[0, 0], [0, missing], *_none(value, 2)])
    if isinstance(steps, int):
        padded = tf.ensure_shape(padded, [value.shape[0], steps, *value.shape[2:]])
    return padded


def _none(value: tf.Tensor, axis: int) -> list[list[int]]:
    """No padding from an axis on."""
    return [[0, 0]] * (len(value.shape) - axis)


def _blank(value: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Zeros in the rows that are not kept."""
    kept = tf.reshape(kept, [-1, *[1] * (len(value.shape) - 1)])
    return tf.where(kept, value, tf.zeros([], value.dtype))
