"""What quantising starts from: the tensors of a model by name, wherever they come from.

It is the seam alone: it knows no model and no file format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor


class TensorSource(Protocol):
    """The unique tensors of a model."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the tensors in model order: a tensor's inputs follow from those before it."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each of them."""

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that are stored nowhere and mean another tensor, such as a tied head."""

    def tensor(self, name: str) -> Tensor | LazyTensor | QuantizedTensor:
        """Return a tensor: floats to be quantised, or codes and scales to be kept as they are.

        It may be mapped from a file, so that only the pages in use are in memory; or lazy, so that
        only the rows in use are computed.
        """
