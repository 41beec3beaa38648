"""Group-wise quantisation of weights, and one checkpoint to keep them in.

It knows weights, not models and not targets. A recipe says what each tensor becomes, `quantize_to`
streams a model through it, `QuantizedWeights` maps the result.
"""

from __future__ import annotations

from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.summary import QuantSummary, TensorStats
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import dequantize_groups, quantize_groups
from llama_quantize.packing import pack_int4, unpack_int4
from llama_quantize.recipe import (
    DEFAULT_GROUP_SIZE,
    GROUP_SIZES,
    RECIPES,
    QuantRecipe,
    QuantRule,
    ResolvedRecipe,
    recipe,
)
from llama_quantize.scheme import Float, GroupedInt, Scheme, scheme_from_json
from llama_quantize.tensor import QuantizedTensor

__all__ = [
    "DEFAULT_GROUP_SIZE",
    "GROUP_SIZES",
    "RECIPES",
    "Float",
    "GroupedInt",
    "QuantRecipe",
    "QuantRule",
    "QuantSummary",
    "QuantizationError",
    "QuantizedTensor",
    "QuantizedWeights",
    "ResolvedRecipe",
    "Scheme",
    "TensorStats",
    "dequantize_groups",
    "pack_int4",
    "quantize_groups",
    "quantize_to",
    "recipe",
    "scheme_from_json",
    "unpack_int4",
]
