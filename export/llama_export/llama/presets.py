"""The shapes of the models that have a name here, as their own config.json gives them.

It is data, so that a plan of one of them needs no download; it knows no repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llama_export.llama.config import LlamaConfig, RopeScaling


def _llama3(hidden: int, intermediate: int, layers: int, heads: int, rope: float) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=hidden // heads,
        max_position_embeddings=131072 if rope else 8192,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        rope_scaling=RopeScaling(factor=rope) if rope else None,
        tie_word_embeddings=rope == 32.0,
        bos_token_id=128000,
        eos_token_id=(128001, 128008, 128009) if rope else (128001, 128009),
    )


def _smollm2(
    hidden: int, intermediate: int, layers: int, heads: tuple[int, int], theta: float
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        head_dim=64,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_theta=theta,
        rope_scaling=None,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=(0,),
    )


_LLAMA: Mapping[str, LlamaConfig] = {
    "3.2-1B": _llama3(2048, 8192, 16, 32, 32.0),
    "3.2-3B": _llama3(3072, 8192, 28, 24, 32.0),
    "3.1-8B": _llama3(4096, 14336, 32, 32, 8.0),
    "3-8B": _llama3(4096, 14336, 32, 32, 0.0),
}
_SMOLLM2: Mapping[str, LlamaConfig] = {
    "smollm2-135m": _smollm2(576, 1536, 30, (9, 3), 100000.0),
    "smollm2-360m": _smollm2(960, 2560, 32, (15, 5), 100000.0),
    "smollm2-1.7b": _smollm2(2048, 8192, 24, (32, 32), 130000.0),
}
PRESETS: Mapping[str, LlamaConfig] = {
    **_LLAMA,
    **{f"{name}-Instruct": config for name, config in _LLAMA.items()},
    **_SMOLLM2,
    **{
        f"{name}-instruct": replace(config, bos_token_id=1, eos_token_id=(2,))
        for name, config in _SMOLLM2.items()
    },
}
"""Shape of each model by its alias."""
