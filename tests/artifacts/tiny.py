"""Tiny random checkpoints in Hugging Face's layout, whose faults show.

Weights have a standard deviation of 0.1 and heads of 64: with smaller ones a missing rope scaling
or a wrong norm passes any tolerance.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from llama_export.llama.config import LlamaConfig, RopeScaling
from llama_export.llama.model import Llama
from llama_export.tokenizer.special_tokens import SPECIAL_TOKENS

RANKS = 256
TINY = LlamaConfig(
    vocab_size=RANKS + len(SPECIAL_TOKENS),
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=16384,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=RopeScaling(factor=32.0),
    tie_word_embeddings=True,
    bos_token_id=RANKS,
    eos_token_id=(RANKS + 1, RANKS + 8, RANKS + 9),
)
UNTIED = replace(TINY, tie_word_embeddings=False)
MULTI_HEAD = replace(TINY, num_key_value_heads=4, rope_scaling=None)


def random_llama(config: LlamaConfig, seed: int = 0) -> Llama:
    """Return a float32 model whose weights are bf16 values."""
    torch.manual_seed(seed)
    model = Llama(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.1)
        else:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.to(torch.bfloat16).float()


def random_tokens(config: LlamaConfig, length: int, seed: int = 1) -> list[int]:
    """Return ordinary tokens, reproducibly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, RANKS, (length,), generator=generator).tolist()


def write_checkpoint(folder: Path, config: LlamaConfig = TINY, seed: int = 0) -> Path:
    """Write config.json, model.safetensors and a vocabulary of the 256 bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    state = random_llama(config, seed).to(torch.bfloat16).state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config.to_hf()))
    write_byte_vocabulary(folder / "tokenizer.model")
    return folder


def write_byte_vocabulary(path: Path) -> None:
    """Write a tiktoken file in which every byte is a token."""
    import base64

    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(RANKS)]
    path.write_text("".join(lines))
