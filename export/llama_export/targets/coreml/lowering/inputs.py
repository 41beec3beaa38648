"""Declare what a function takes: coremltools' placeholders, and the ranges of flexible shapes.

All inputs of a function are flexible or all are fixed: Core ML fails at run time where states and a
mixture meet (coremltools 2548). It knows coremltools; it knows no graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llama_export.bundle.graph_spec import IO
from llama_export.llama.config import LlamaConfig
from llama_export.targets.coreml import signature
from llama_export.targets.coreml.options import CoremlOptions
from llama_export.targets.coreml.signature import cache_shape


@dataclass(frozen=True)
class Declared:
    """The inputs of one function.

    Args:
        placeholders: inputs and states by name.
        types: types of the inputs, with the ranges of their shapes; empty when all are fixed.
    """

    placeholders: Mapping[str, Any]
    types: tuple[Any, ...]


def opset(options: CoremlOptions) -> Any:  # noqa: ANN401 - coremltools' enumeration has no types
    """Return the operators that a package may use."""
    import coremltools

    return getattr(coremltools.target, options.deployment_target)


def declare(
    config: LlamaConfig, max_context: int, count: int | None, options: CoremlOptions
) -> Declared:
    """Declare a function's inputs and states.

    Args:
        config: shape of the model.
        max_context: number of slots of the caches.
        count: number of tokens of a call; None: any number.
        options: the user's choices.
    """
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    if count is not None:
        scalar = mb.placeholder((1,), types.int32)
        inputs = {signature.INPUT_IDS: mb.placeholder((1, count), types.int32)}
        inputs[signature.POSITION] = scalar
        if count > 1:
            inputs[signature.LENGTH] = mb.placeholder((1,), types.int32)
        return Declared({**inputs, **_states(config, max_context)}, ())
    if options.kv_cache == IO:
        return _flexible_io(config, max_context)
    return _flexible_state(config, max_context)


def _states(config: LlamaConfig, max_context: int) -> dict[str, Any]:
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    shape = cache_shape(config, max_context)
    names = (signature.KEY_CACHE, signature.VALUE_CACHE)
    return {name: mb.state_tensor_placeholder(shape, types.fp16) for name in names}


def _flexible_state(config: LlamaConfig, max_context: int) -> Declared:
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol, types

    # Rows of the mask and tokens are two symbols: Swift clients send one row for many tokens.
    tokens, rows, slots = get_new_symbol(), get_new_symbol(), get_new_symbol()
    placeholders = {
        signature.INPUT_IDS: mb.placeholder((1, tokens), types.int32),
        signature.CAUSAL_MASK: mb.placeholder((1, 1, rows, slots), types.fp16),
        **_states(config, max_context),
    }
    up_to = [ct.RangeDim(1, max_context, 1) for _ in range(3)]
    ranges = (
        ct.TensorType(signature.INPUT_IDS, (1, up_to[0]), np.int32),
        ct.TensorType(signature.CAUSAL_MASK, (1, 1, up_to[1], up_to[2]), np.float16),
    )
    return Declared(placeholders, ranges)


def _flexible_io(config: LlamaConfig, max_context: int) -> Declared:
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol, types

    tokens, past = get_new_symbol(), get_new_symbol()
    names = (signature.KEY_CACHE, signature.VALUE_CACHE)
    layers, one, heads, _, size = cache_shape(config, max_context)
    placeholders = {
        signature.INPUT_IDS: mb.placeholder((1, tokens), types.int32),
        **{name: mb.placeholder((layers, one, heads, past, size), types.fp16) for name in names},
    }
    count, length = (ct.RangeDim(1, max_context, 1) for _ in range(2))
    ranges = [ct.TensorType(signature.INPUT_IDS, (1, count), np.int32)]
    ranges += [
        ct.TensorType(name, (layers, one, heads, length, size), np.float16) for name in names
    ]
    return Declared(placeholders, tuple(ranges))
