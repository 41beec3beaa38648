"""What a manifest says of weights, tokenizer and chat: an export writes it, `verify` compares it.

It gathers; it writes and compares nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_export.llama.config import LlamaConfig
from llama_export.sources.chat_settings import own_chat_format
from llama_export.tokenizer.chat.find_turns import find_turns
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.checkpoint.summary import KEPT
from llama_quantize.recipe import METHODS_WITHOUT_INPUTS

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights

# A record of weights is anybody's.
_METHODS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_, -]{0,199}")
_COUNT, _SHA256 = re.compile(r"[1-9][0-9]{0,11}"), re.compile(r"[0-9a-f]{64}")


def describe_tokenizer(tokenizer: Tokenizer, config: LlamaConfig) -> dict[str, Any]:
    """Describe a model's tokenizer for the manifest.

    Args:
        tokenizer: tokenizer of the model.
        config: completed config of the same model, which names every end of a text.
    """
    bos = first_token(tokenizer, config)
    prefix = list(tokenizer.prefix_ids)
    return {
        "file": tokenizer.file,
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": bos,
        # Where it is not said, a text begins with the token above: as every older manifest has it.
        **({} if prefix == [bos] else {"prefix_token_ids": prefix}),
        "stop_token_ids": sorted(config.eos_token_id),
    }


def first_token(tokenizer: Tokenizer, config: LlamaConfig) -> int | None:
    """Return the token that begins a text: the tokenizer's, else the config's; None: none does."""
    own = tokenizer.bos_token_id
    return config.bos_token_id if own is None else own


def describe_chat(
    name: str, tokenizer: Tokenizer, settings: Mapping[str, object]
) -> dict[str, object]:
    """Describe for the manifest how a model's dialogs are written, or why that cannot be said.

    Args:
        name: name of the model.
        tokenizer: its tokenizer.
        settings: keys of its tokenizer_config.json.
    """
    return find_turns(own_chat_format(name, tokenizer, settings)).to_json()


def describe_quantization(weights: QuantizedWeights) -> dict[str, Any]:
    """Describe for the manifest how the weights were made, and what they are to the bit."""
    from llama_quantize.tensor import QuantizedTensor

    quantised = {name: weights.get(name) for name in weights.names()}
    sqnr_db = weights.summary.sqnr_db
    return {
        "recipe": weights.recipe.name,
        "group_size": group_size_of(weights),
        "bits_per_weight": round(weights.summary.bits_per_weight, 4),
        "sqnr_db": round(sqnr_db, 2) if math.isfinite(sqnr_db) else None,
        "tensors": {
            name: {"codes_sha256": tensor.codes_sha256(), "scales_sha256": tensor.scales_sha256()}
            for name, tensor in quantised.items()
            if isinstance(tensor, QuantizedTensor)
        },
        **describe_calibration(weights),
    }


def describe_calibration(weights: QuantizedWeights) -> dict[str, Any]:
    """Describe what weights were calibrated on; nothing where they were not, or it is not said."""
    said = weights.calibration or {}
    named = {stats.method for stats in weights.stats} - {None, KEPT, *METHODS_WITHOUT_INPUTS}
    tokens, sha256 = said.get("tokens", ""), said.get("ids_sha256", "")
    method = ", ".join(sorted(filter(None, named)))
    sound = _METHODS.fullmatch(method) and _COUNT.fullmatch(tokens) and _SHA256.fullmatch(sha256)
    if not sound:
        return {}
    return {"calibration": {"method": method, "tokens": int(tokens), "ids_sha256": sha256}}


def group_size_of(weights: QuantizedWeights) -> int | None:
    """Return the group size that all quantised tensors share; None: there is none."""
    from llama_quantize.scheme import shared_group_size

    return shared_group_size(weights.scheme(name) for name in weights.names())
