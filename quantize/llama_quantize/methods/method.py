"""What a method of quantisation is, and where one is found by its name.

A method chooses codes and scales; the storage form is given to it. It knows no names, no files and
no recipe. A new method is a file beside this one and its place in `_BUILT_IN`: a table rather than
a search of the folder, so that a reader sees what there is, mypy checks each entry against the
protocol, and nothing is imported by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from llama_quantize.calibration import InputStatistics, Needs
from llama_quantize.errors import QuantizationError
from llama_quantize.methods.clip_search import ClipSearch
from llama_quantize.methods.curvature_descent import CurvatureDescent
from llama_quantize.methods.gptq_descent import GptqDescent
from llama_quantize.methods.nearest import Nearest
from llama_quantize.scheme import GroupedInt


class Method(Protocol):
    """A way to choose codes and scales."""

    @property
    def name(self) -> str:
        """Name in a rule and in the record."""

    @property
    def needs(self) -> Needs:
        """How much it asks for of a weight's inputs.

        A method that asks for any sees a whole weight, on the calling thread; one that does not
        sees a block of rows at a time, on several threads at once.
        """

    @property
    def settings(self) -> Mapping[str, str]:
        """What decides its codes besides weight and inputs; kept in the record."""

    def quantize(
        self, weight: Tensor, scheme: GroupedInt, inputs: InputStatistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """Quantise a matrix group by group.

        Args:
            weight: float32, bfloat16 or float16 `[N, K]`; may be mapped from a file.
            scheme: storage form.
            inputs: statistics of the weight's inputs; None where it `needs` nothing.

        Returns:
            Codes int8 `[N, K]` and scales bfloat16 `[N, G]`, G groups in a row.

        Raises:
            QuantizationError: the matrix cannot be stored in that form, or holds a value that is
                NaN, infinite or too large for a scale.
        """


_BUILT_IN: tuple[Method, ...] = (
    Nearest(),
    ClipSearch(),
    GptqDescent(),
    CurvatureDescent(),
)
_METHODS: dict[str, Method] = {method.name: method for method in _BUILT_IN}


def find_method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        QuantizationError: there is none.
    """
    if name not in _METHODS:
        message = f"unknown method {name!r}: expected one of {', '.join(_METHODS)}"
        raise QuantizationError(message, "upgrade, or name another method in the recipe's rule")
    return _METHODS[name]


def register_method(method: Method) -> None:
    """Add a method that is not part of this package, so that a rule can name it.

    Raises:
        QuantizationError: the name is taken.
    """
    if method.name in _METHODS:
        message = f"the method {method.name!r} exists already"
        raise QuantizationError(message, "give the new one another name")
    _METHODS[method.name] = method
