"""What a method may ask of a weight's inputs, and who answers.

It is the seam alone: it knows no model, no text and no method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.tensor import QuantizedTensor


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What flowed into a weight `[N, K]`.

    Args:
        gram: float64 `[K, K]`, the sum of `x xᵀ` over the inputs x `[K]`.
        count: number of inputs.
    """

    gram: Tensor
    count: int


class Calibration(Protocol):
    """Answers for the inputs of one model's weights while it is being quantised.

    `quantize_to` goes through the tensors in model order, and reports each one before it asks about
    the next, so that an implementation may hold one layer at a time.
    """

    @property
    def origin(self) -> Mapping[str, str]:
        """What decides the answers, such as texts, seeds and versions; kept in the record."""

    def inputs(self, name: str) -> InputStatistics:
        """Compute the statistics of a weight's inputs, all tensors before it being quantised.

        Raises:
            QuantizationError: the weight has no inputs, or its turn is over.
        """

    def quantised(self, name: str, tensor: Tensor | QuantizedTensor) -> None:
        """Note what a tensor has become; later answers are computed with it.

        Args:
            name: name of the tensor.
            tensor: stored tensor, mapped from the file that is being written.
        """
