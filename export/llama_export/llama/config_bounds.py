"""How large each number of a Llama's config may be.

It knows names and limits; it reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_export.llama.config_keys import shown

# Numbers between these, their squares and their products with a position are finite in float32,
# and not zero. No model has been trained with an epsilon or a rotation beyond them.
_LEAST_NUMBER, _MOST_NUMBER = 1e-12, 1e12
_MOST_POSITIONS = 2**31 - 1  # the runtimes count them in 32 bits
# Far above every Llama (126 layers, 2^38.6 parameters), and so low that its tensors are listed in
# milliseconds: a config.json of some bytes must not keep a machine busy for hours.
MOST_PARAMETERS = 2**40
_MOST: Mapping[str, float] = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 2**14,
    "num_key_value_heads": 2**14,
    "head_dim": 2**14,
    "max_position_embeddings": _MOST_POSITIONS,
    "original_max_position_embeddings": _MOST_POSITIONS,
    "rms_norm_eps": _MOST_NUMBER,
    "rope_theta": _MOST_NUMBER,
    "factor": _MOST_NUMBER,
    "low_freq_factor": _MOST_NUMBER,
    "high_freq_factor": _MOST_NUMBER,
    "attention_factor": _MOST_NUMBER,
    "beta_fast": _MOST_NUMBER,
    "beta_slow": _MOST_NUMBER,
    "short_factor": _MOST_NUMBER,
    "long_factor": _MOST_NUMBER,
}


def beyond_bounds(values: Mapping[str, Any]) -> list[str]:
    """List the fields whose number is not above zero, or beyond what any model has.

    Args:
        values: numbers, or tuples of them, by the name of their field; other fields are passed.
    """
    least = {name: 1 if isinstance(_MOST[name], int) else _LEAST_NUMBER for name in _MOST}
    return [
        f"{name} must be between {least[name]} and {_MOST[name]}, found {shown(value)}"
        for name, value in values.items()
        if name in _MOST
        for each in (value if isinstance(value, tuple) else (value,))
        if not least[name] <= each <= _MOST[name]
    ]


def head_faults(head_tokens: Sequence[int], vocab_size: int, tied: bool) -> list[str]:
    """List what is wrong with the tokens that a pruned head keeps.

    Args:
        head_tokens: ids; none for a head of all tokens.
        vocab_size: number of tokens that there are.
        tied: whether head and token table are one, so that no row can be left out.
    """
    if not head_tokens:
        return []
    faults = ["head_tokens need a head of its own, and it is tied to the table"] if tied else []
    if list(head_tokens) != sorted(set(head_tokens)):
        faults.append("head_tokens must ascend, and name each token once")
    if not 0 <= min(head_tokens) <= max(head_tokens) < vocab_size:
        faults.append(f"head_tokens are outside the vocabulary of {vocab_size}")
    return faults
