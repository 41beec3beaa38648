"""Round a checkpoint's linears to nearest while they are read, in the very forms of its weights.

That is the yardstick of a method: the same bytes, with no search and no calibration. All else is
what the quantised weights hold, be it tables, norms or codes that the checkpoint came with: a
figure then speaks of the method alone. It runs nothing, and keeps no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llama_export.llama.names import HEAD, TABLE
from llama_quantize.checkpoint.summary import KEPT
from llama_quantize.groupwise import dequantize_groups
from llama_quantize.lazy import LazyTensor
from llama_quantize.methods.method import find_method
from llama_quantize.scheme import GroupedInt
from llama_quantize.tensor import QuantizedTensor

if TYPE_CHECKING:
    from torch import Tensor

    from llama_export.llama.streamed import ReadWeight, Weight
    from llama_quantize.checkpoint.weights import QuantizedWeights

NEAREST = "nearest"


def methods_of_linears(weights: QuantizedWeights) -> Mapping[str, str]:
    """Return the method of each linear that was rounded in groups, by its name."""
    return {
        stats.name: stats.method
        for stats in weights.stats
        if stats.method not in (None, KEPT)
        and stats.name not in (TABLE, HEAD)
        and _has_groups(weights, stats.name)
    }


def rounded_to_nearest(weights: QuantizedWeights, original: Callable[[str], Weight]) -> ReadWeight:
    """Return a function that reads weights as plain rounding would have made them.

    Args:
        weights: quantised weights.
        original: function that reads a tensor of the checkpoint that they were made from.
    """
    linears = methods_of_linears(weights)
    method = find_method(NEAREST)

    def read(name: str) -> Weight:
        scheme = weights.scheme(name)
        if name not in linears or not isinstance(scheme, GroupedInt):
            return weights.get(name)
        return dequantize_groups(*method.quantize(_floats(original(name)), scheme))

    return read


def _floats(tensor: Weight) -> Tensor:
    if isinstance(tensor, QuantizedTensor):
        return tensor.dequantize()
    return tensor.whole() if isinstance(tensor, LazyTensor) else tensor


def _has_groups(weights: QuantizedWeights, name: str) -> bool:
    scheme = weights.scheme(name)
    return isinstance(scheme, GroupedInt) and scheme.group_size is not None
