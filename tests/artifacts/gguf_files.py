"""Llamas in GGUF: as llama.cpp's converter lays them out, written by the `gguf` package's writer.

And files of a few bytes whose header is put together by hand, right or wrong.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from artifacts.tiny import TINY, random_llama

from llama_export.llama.config import LlamaConfig

# Rows of 256, which blocks of K-quants need; the vocabulary is the 256 bytes and six tokens.
SMALL = replace(
    TINY,
    vocab_size=262,
    hidden_size=256,
    intermediate_size=512,
    bos_token_id=256,
    eos_token_id=(257,),
)
CONTROLS = ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a tensor."""
    stem, _, kind = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[inner]}.{kind}"


def meta_order(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Put the rows of q or k into the order that llama.cpp wants, as its converter does."""
    return (
        rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
        .swapaxes(1, 2)
        .reshape(rows.shape)
    )


def stored_state(config: LlamaConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the tensors of a random model by Hugging Face's names, in Hugging Face's order."""
    state = random_llama(config, seed).state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    return {name: value.float() for name, value in state.items()}


def rope_freqs(config: LlamaConfig) -> np.ndarray:
    """Compute llama.cpp's divisors in float32, as its converter does."""
    scaling = config.rope_scaling
    low = scaling.original_max_position_embeddings / scaling.low_freq_factor
    high = scaling.original_max_position_embeddings / scaling.high_freq_factor
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    found = []
    for freq in 1.0 / (config.rope_theta**exponents):
        length = 2 * math.pi / freq
        smooth = (scaling.original_max_position_embeddings / length - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        if length < high:
            found.append(1.0)
        elif length > low:
            found.append(scaling.factor)
        else:
            found.append(float(1 / ((1 - smooth) / scaling.factor + smooth)))
    return np.array(found, dtype=np.float32)


def quantized(values: torch.Tensor, form: str) -> np.ndarray:
    """Store a matrix in a form; of one that the package cannot make, in blocks of noise."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import quantize

    kind = GGMLQuantizationType[form]
    try:
        return quantize(values.numpy(), kind)
    except NotImplementedError:
        block, size = GGML_QUANT_SIZES[kind]
        random = np.random.default_rng(values.numel())
        noise = random.integers(0, 256, (len(values), values.shape[1] // block, size), np.uint8)
        # Scales are float16 somewhere in the block; of these bytes none is NaN or infinite.
        return (noise & 0x3F).reshape(len(values), -1)


def form_of(forms: str | Mapping[str, str] | Callable[[str], str], name: str) -> str:
    """Return the form of a matrix by its Hugging Face name."""
    if isinstance(forms, str):
        return forms
    return forms(name) if callable(forms) else forms.get(name, "F32")


def byte_letters() -> list[str]:
    """Return GPT-2's letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def write_gguf(
    path: Path,
    config: LlamaConfig = SMALL,
    forms: str | Mapping[str, str] | Callable[[str], str] = "F32",
    state: Mapping[str, torch.Tensor] | None = None,
    keys: Mapping[str, object] | None = None,
    without: tuple[str, ...] = (),
) -> Path:
    """Write a model.

    Args:
        path: file to write.
        config: its shape.
        forms: form of every matrix, or of each by its Hugging Face name; vectors are F32.
        state: tensors by Hugging Face's names; None: random ones.
        keys: metadata that replace or join what the converter writes; None as a value: no such key.
        without: GGUF's names of tensors that are left out.
    """
    from gguf import GGUFWriter
    from gguf.constants import GGMLQuantizationType

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    for key, value in {**metadata(config), **(keys or {})}.items():
        add_key(writer, key, value)
    state = stored_state(config) if state is None else state
    for name, value in state.items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        kind = name.split(".")[-2]
        rows = meta_order(value, heads[kind]) if kind in heads else value
        if gguf_name(name) in without:
            continue
        if rows.ndim == 1:
            writer.add_tensor(gguf_name(name), rows.numpy())
            continue
        form = form_of(forms, name)
        content = quantized(rows.contiguous(), form)
        writer.add_tensor(gguf_name(name), content, raw_dtype=GGMLQuantizationType[form])
    if config.rope_scaling is not None and "rope_freqs.weight" not in without:
        writer.add_tensor("rope_freqs.weight", rope_freqs(config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def split_gguf(path: Path, config: LlamaConfig = SMALL) -> list[Path]:
    """Cut a file of floats into three, as llama.cpp's gguf-split does; the first has no tensor."""
    from gguf import GGUFWriter

    from llama_export.checkpoints.gguf.header import read_header

    header, parts = read_header(path), []
    names = list(header.tensors)
    for index, (start, stop) in enumerate(((0, 0), (0, 4), (4, len(names)))):
        part = path.with_name(f"m-{index + 1:05d}-of-00003.gguf")
        writer = GGUFWriter(part, "llama")
        for key, value in metadata(config).items() if index == 0 else ():
            add_key(writer, key, value)
        writer.add_uint16("split.no", index)
        writer.add_uint16("split.count", 3)
        writer.add_int32("split.tensors.count", len(names))
        for name in names[start:stop]:
            stored = header.tensors[name]
            raw = np.fromfile(path, np.uint8, stored.size_bytes, offset=stored.start)
            writer.add_tensor(name, raw.view(np.float32).reshape(stored.shape))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        parts.append(part)
    return parts


def metadata(config: LlamaConfig) -> dict[str, object]:
    """Return what the converter writes for a model with a byte-level tokenizer."""
    letters = byte_letters()
    return {
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.block_count": config.num_hidden_layers,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": float(config.rope_theta),
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "general.quantization_version": 2,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*letters, *CONTROLS, "ab", "[PAD261]"],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * 4 + [1, 5],
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.bos_token_id": 256,
        "tokenizer.ggml.eos_token_id": 257,
        "tokenizer.ggml.padding_token_id": 257,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }


def add_key(writer, key: str, value: object) -> None:
    """Add a key with the type that the converter would give it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif key == "general.alignment":
        writer.add_custom_alignment(value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        if key != "general.architecture":
            writer.add_string(key, value)
        else:
            writer.kv_data[0][key].value = value
    elif isinstance(value, list):
        writer.add_array(key, value)


def text(value: str | bytes) -> bytes:
    """Return a string as a file has it."""
    content = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(content)) + content


def key_value(key: str, kind: int, content: bytes) -> bytes:
    """Return a key with its value as a file has them."""
    return text(key) + struct.pack("<I", kind) + content


def tensor_info(name: str, sizes: tuple[int, ...], kind: int, offset: int) -> bytes:
    """Return what a header has of a tensor; sizes as the file has them, the innermost first."""
    dims = struct.pack(f"<{len(sizes)}Q", *sizes)
    return text(name) + struct.pack("<I", len(sizes)) + dims + struct.pack("<IQ", kind, offset)


def raw_gguf(
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: bytes = b"",
    start: bytes = b"GGUF" + struct.pack("<I", 3),
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Put a file together."""
    numbers = struct.pack("<QQ", *(counts or (len(tensors), len(keys))))
    header = start + numbers + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data
