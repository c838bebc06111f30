"""A published model as a Python function: raw input in, typed results out.

The function `load(path=None, *, batch_size=...)` of a task makes one. `path` is a version folder,
or the folder of a task's versions, of which the newest is loaded; None means
`saved_models/<task>`. `batch_size` is the number of inputs per request. It raises
`FileNotFoundError` if there is no model, `ExportError` if the folder is incomplete, and
`InputError` if the model is of another task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from common.serving.served import Served
from common.serving.versions import find

import numpy as np

if TYPE_CHECKING:
    import keras

Input = TypeVar("Input", bound="str | Path | int | np.ndarray")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Model(Generic[Input, Result]):
    """A published model that is called like a function.

    `tasks.<task>.load()` makes one; see the module.

    Attributes:
      served: the export.
      answer: inputs -> their results, in order; inputs are read lazily.
    """

    served: Served
    answer: Callable[[Iterable[Input]], Iterator[Result]] = dataclasses.field(repr=False)

    @overload
    def __call__(self, inputs: Input) -> Result: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, inputs: Iterable[Input]) -> list[Result]: ...

    def __call__(self, inputs: Input | Iterable[Input]) -> Result | list[Result]:
        """Return the result for one input, or the list of those for several."""
        if isinstance(inputs, str | Path | int | np.ndarray):
            (result,) = self.answer([inputs])  # type: ignore[list-item]  # narrowed to the union
            return result
        return list(self.answer(inputs))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that were published with the model."""
        return self.served.settings

    def to_keras(self) -> keras.Model:
        """Return the Keras model with the weights of the export; its layers are registered."""
        return find(self.served.path).model
