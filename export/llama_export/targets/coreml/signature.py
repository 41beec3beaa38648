"""What a Core ML package takes and gives: the names that Swift clients expect, in three forms.

It knows names, shapes and options; it imports no toolkit.

Shapes: L layers, K key/value heads, C max_context, D head_dim, V num_logits, q new tokens, m and e
rows and columns of the mask, P tokens in the cache so far.
"""

from __future__ import annotations

from llama_export.bundle.graph_spec import IO, STATE, GraphSpec, TensorSpec
from llama_export.llama.config import LlamaConfig
from llama_export.targets.coreml.options import DECODE, PREFILL, CoremlOptions

INPUT_IDS = "inputIds"
CAUSAL_MASK = "causalMask"
POSITION = "position"
LENGTH = "length"
KEY_CACHE = "keyCache"
VALUE_CACHE = "valueCache"
PRESENT_KEYS = "presentKeys"
PRESENT_VALUES = "presentValues"
LOGITS = "logits"

# Tokens of one call of `prefill`: a chat's turn is shorter, and a prompt is several.
PREFILL_TOKENS = 64


def cache_shape(config: LlamaConfig, length: int | str) -> tuple[int | str, ...]:
    """Return a cache's shape, `[L, 1, K, length, D]`."""
    return (config.num_hidden_layers, 1, config.num_key_value_heads, length, config.head_dim)


def prefill_tokens(max_context: int) -> int:
    """Return how many tokens a call of `prefill` takes."""
    return min(PREFILL_TOKENS, max_context)


def graph_spec(config: LlamaConfig, max_context: int, options: CoremlOptions) -> GraphSpec:
    """Return the package's signature, as the manifest has it."""
    logits = config.num_logits
    if options.kv_cache == IO:
        past, total = (cache_shape(config, name) for name in ("past_length", "total_length"))
        return GraphSpec(
            inputs=(
                TensorSpec(INPUT_IDS, "int32", (1, "sequence_length")),
                TensorSpec(KEY_CACHE, "float16", past),
                TensorSpec(VALUE_CACHE, "float16", past),
            ),
            outputs=(
                TensorSpec(LOGITS, "float16", (1, "sequence_length", logits)),
                TensorSpec(PRESENT_KEYS, "float16", total),
                TensorSpec(PRESENT_VALUES, "float16", total),
            ),
            kv_cache=IO,
            max_context=max_context,
            all_logits=True,
        )
    caches = cache_shape(config, max_context)
    states = (
        TensorSpec(KEY_CACHE, "float16", caches),
        TensorSpec(VALUE_CACHE, "float16", caches),
    )
    if options.fixed:
        return GraphSpec(
            inputs=(TensorSpec(INPUT_IDS, "int32", (1, 1)), TensorSpec(POSITION, "int32", (1,))),
            outputs=(TensorSpec(LOGITS, "float16", (1, 1, logits)),),
            kv_cache=STATE,
            max_context=max_context,
            all_logits=False,
            states=states,
            functions={PREFILL: prefill_tokens(max_context), DECODE: 1},
        )
    mask = (1, 1, "mask_rows", "total_length")
    return GraphSpec(
        inputs=(
            TensorSpec(INPUT_IDS, "int32", (1, "sequence_length")),
            TensorSpec(CAUSAL_MASK, "float16", mask),
        ),
        outputs=(TensorSpec(LOGITS, "float16", (1, "sequence_length", logits)),),
        kv_cache=STATE,
        max_context=max_context,
        all_logits=True,
        states=states,
    )
