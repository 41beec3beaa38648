"""What a method may ask of a weight's inputs and outputs, and who answers.

It is the seam alone: it knows no model, no text and no method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.scheme import GroupedInt
    from llama_quantize.tensor import QuantizedTensor


class Needs(IntEnum):
    """How much a method must know of a weight; each level includes those before it."""

    NOTHING = 0
    INPUTS = 1
    """What flows into the weight while everything before it is quantised."""
    TARGETS = 2
    """How far what the weight computes from that is from what the unquantised model computes."""
    CURVATURE = 3
    """How much the model's answers change with what the weight computes."""


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """What flowed into a weight `[N, K]`, and what should have come out.

    Args:
        gram: float32 `[K, K]`, the sum of `x xᵀ` over the inputs x `[K]`, added up in float64.
        count: number of inputs.
        cross: float32 `[N, K]`, the sum of `e xᵀ`, where e `[N]` is what the unquantised model has
            at the weight's output, the residual stream behind it included where it is added there,
            less what the original weight computes from x; None below `Needs.TARGETS`.
        curvature: float32 `[N, N]`, the mean of `g gᵀ` over the gradients g `[N]` of the model's
            answers at the weight's output; None below `Needs.CURVATURE`, and where it is not known.
    """

    gram: Tensor
    count: int
    cross: Tensor | None = None
    curvature: Tensor | None = None


class Calibration(Protocol):
    """Answers for the inputs of one model's weights while it is being quantised.

    `quantize_to` goes through the tensors in model order, and reports each one before it asks about
    the next, so that an implementation may hold one layer at a time.
    """

    @property
    def origin(self) -> Mapping[str, str]:
        """What decides the answers, such as texts, seeds and versions; kept in the record."""

    def finished(self, name: str, scheme: GroupedInt) -> QuantizedTensor | None:
        """Return what an interrupted run already made of a weight; None: it is to be made."""

    def inputs(self, name: str, needs: Needs) -> InputStatistics:
        """Compute the statistics of a weight's inputs, all tensors before it being quantised.

        Args:
            name: name of the weight.
            needs: how much of it is asked for, `Needs.INPUTS` at least.

        Raises:
            QuantizationError: the weight has no inputs, or its turn is over.
        """

    def quantised(self, name: str, tensor: Tensor | QuantizedTensor) -> None:
        """Note what a tensor has become; later answers are computed with it.

        Args:
            name: name of the tensor.
            tensor: stored tensor, mapped from the file that is being written.
        """
