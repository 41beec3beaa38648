"""Group-wise quantisation of weights, and one checkpoint to keep them in.

It knows weights, not models and not targets. A recipe says what each tensor becomes, a method
chooses its codes, `quantize_to` streams a model through both, `QuantizedWeights` maps the result.
What needs torch arrives when it is used, so that a recipe can be checked without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from llama_quantize.errors import QuantizationError
from llama_quantize.kept import kept_recipe
from llama_quantize.recipe import (
    DEFAULT_GROUP_SIZE,
    GROUP_SIZES,
    RECIPES,
    TABLES,
    QuantRecipe,
    QuantRule,
    ResolvedRecipe,
    recipe,
    with_rules_beside,
)
from llama_quantize.scheme import Float, GroupedInt, Scheme, scheme_from_json

if TYPE_CHECKING:
    from llama_quantize.calibration import Calibration, InputStatistics, Needs
    from llama_quantize.checkpoint.store import quantize_to
    from llama_quantize.checkpoint.summary import QuantSummary, TensorStats
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.groupwise import dequantize_groups
    from llama_quantize.keep import keep_codes
    from llama_quantize.methods.method import Method, find_method, register_method
    from llama_quantize.packing import pack_int4, unpack_int4
    from llama_quantize.source import TensorSource
    from llama_quantize.tensor import QuantizedTensor

__all__ = [
    "DEFAULT_GROUP_SIZE",
    "GROUP_SIZES",
    "RECIPES",
    "TABLES",
    "Calibration",
    "Float",
    "GroupedInt",
    "InputStatistics",
    "Method",
    "Needs",
    "QuantRecipe",
    "QuantRule",
    "QuantSummary",
    "QuantizationError",
    "QuantizedTensor",
    "QuantizedWeights",
    "ResolvedRecipe",
    "Scheme",
    "TensorSource",
    "TensorStats",
    "dequantize_groups",
    "find_method",
    "keep_codes",
    "kept_recipe",
    "pack_int4",
    "quantize_to",
    "recipe",
    "register_method",
    "scheme_from_json",
    "unpack_int4",
    "with_rules_beside",
]

_PLACES = {
    "Calibration": "llama_quantize.calibration",
    "InputStatistics": "llama_quantize.calibration",
    "Needs": "llama_quantize.calibration",
    "Method": "llama_quantize.methods.method",
    "QuantSummary": "llama_quantize.checkpoint.summary",
    "QuantizedTensor": "llama_quantize.tensor",
    "QuantizedWeights": "llama_quantize.checkpoint.weights",
    "TensorSource": "llama_quantize.source",
    "TensorStats": "llama_quantize.checkpoint.summary",
    "dequantize_groups": "llama_quantize.groupwise",
    "find_method": "llama_quantize.methods.method",
    "keep_codes": "llama_quantize.keep",
    "pack_int4": "llama_quantize.packing",
    "quantize_to": "llama_quantize.checkpoint.store",
    "register_method": "llama_quantize.methods.method",
    "unpack_int4": "llama_quantize.packing",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
