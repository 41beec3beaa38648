"""The eager model a token at a time, many texts side by side: one pass over the weights a step.

It runs the very modules of `llama_export.llama.model` over weights that are mapped from a file and
never upcast, with a cache that is written in place. It draws nothing and knows no text.

Shapes: B texts, S positions, H query heads, K key/value heads, D head_dim, E hidden_size,
V num_logits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor
from torch.nn import functional

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.llama.config import LlamaConfig
from llama_export.llama.model import LlamaAttention, LlamaDecoderLayer
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE
from llama_export.llama.rope import inverse_frequencies, rope_tables, rotate
from llama_export.llama.streamed import weight_rows
from llama_quantize.checkpoint.safetensors_writer import SafetensorsWriter
from llama_quantize.checkpoint.weights_file import map_file
from llama_quantize.groupwise import BLOCK_WEIGHTS, row_blocks
from llama_quantize.workers import worker_pool

_COPY = "sampled.safetensors"


def quick_dtype() -> torch.dtype:
    """Return the type in which this machine multiplies a small batch soonest.

    bfloat16 takes a fifth of the time of float32 where the processor knows it, and the same time at
    half the bytes on an older one with AVX-512. Elsewhere it takes four times as long.
    """
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.bfloat16 if fast and torch.backends.mkldnn.is_available() else torch.float32


@contextmanager
def mapped_floats(
    checkpoint: Checkpoint, dtype: torch.dtype, scratch: Path
) -> Iterator[Mapping[str, Tensor]]:
    """Provide a checkpoint's tensors in one type, none of them in memory of its own.

    Those that are mapped in that type already are used as they are; of the others a copy is
    written, and removed in the end.

    Args:
        checkpoint: model.
        dtype: type of the floats.
        scratch: folder in which the copy may be written.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    weights = {
        name: found
        for name in checkpoint.names
        if (found := _mapped(checkpoint, name, dtype)) is not None
    }
    others = {
        name: (dtype, tuple(checkpoint.shapes[name]))
        for name in checkpoint.names
        if name not in weights
    }
    folder = Path(mkdtemp(prefix=".sampled.", dir=scratch))
    try:
        with SafetensorsWriter(folder / _COPY, others, {}) as writer:
            for name in others:
                _copy(checkpoint, name, dtype, writer)
        copied = map_file(folder / _COPY)
        yield weights | {name: copied.get_tensor(name) for name in others}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mapped(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> Tensor | None:
    """Return a tensor that lies in a file, and so in one place however often it is read."""
    first, again = checkpoint.tensor(name), checkpoint.tensor(name)
    if not isinstance(first, Tensor) or not isinstance(again, Tensor):
        return None
    return first if first.dtype == dtype and first.data_ptr() == again.data_ptr() else None


def _copy(checkpoint: Checkpoint, name: str, dtype: torch.dtype, writer: SafetensorsWriter) -> None:
    weight, shape = checkpoint.tensor(name), checkpoint.shapes[name]

    def write(rows: slice) -> None:
        writer.write(name, rows.start, weight_rows(weight, rows).to(dtype))

    columns = 1 if len(shape) == 1 else shape[1]
    with worker_pool() as pool:
        list(pool.map(write, row_blocks(shape[0], columns, BLOCK_WEIGHTS)))


class StepwiseModel:
    """A model that reads one token of each text at a time.

    Its memory is the cache of keys and values, `cache_bytes` for each text.

    Args:
        config: shape of the model.
        weights: its tensors by Hugging Face's names, all of one type.
        texts: B, the number of texts.
        positions: S, the most tokens of a text.
    """

    def __init__(
        self, config: LlamaConfig, weights: Mapping[str, Tensor], texts: int, positions: int
    ) -> None:
        self._config = config
        self._table = weights[TABLE]
        self._norm = weights[FINAL_NORM]
        self._head = self._table if config.tie_word_embeddings else weights[HEAD]
        self._layers = [_layer(config, weights, index) for index in range(config.num_hidden_layers)]
        dtype = self._table.dtype
        tables = rope_tables(
            inverse_frequencies(config), torch.arange(positions), config.attention_factor
        )
        self._cos, self._sin = (table.to(dtype) for table in tables)
        shape = (2, texts, config.num_key_value_heads, positions, config.head_dim)
        self._caches = [torch.zeros(shape, dtype=dtype) for _ in self._layers]
        self._position = 0

    @torch.inference_mode()
    def step(self, token_ids: Tensor) -> Tensor:
        """Read a token of each text.

        Args:
            token_ids: int64 `[B]`.

        Returns:
            Logits of the tokens that come next, float32 `[B, V]`.
        """
        hidden = self._table[token_ids]
        for layer, cache in zip(self._layers, self._caches, strict=True):
            hidden = hidden + self._attend(layer.self_attn, layer.input_layernorm(hidden), cache)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        self._position += 1
        normed = functional.rms_norm(
            hidden, self._norm.shape, self._norm, self._config.rms_norm_eps
        )
        return functional.linear(normed, self._head).float()

    def _attend(self, attention: LlamaAttention, hidden: Tensor, cache: Tensor) -> Tensor:
        """Attend over the cache `[2, B, K, S, D]`, to which the new keys and values are added."""
        at = self._position
        cos, sin = self._cos[at : at + 1], self._sin[at : at + 1]
        texts, heads, size = cache.shape[1], cache.shape[2], cache.shape[4]

        def split(rows: Tensor) -> Tensor:
            return rows.view(texts, heads, -1, size)

        # The query heads that share keys and values stand side by side, as if they were positions.
        query = rotate(split(attention.q_proj(hidden)), cos, sin)
        cache[0, :, :, at : at + 1] = rotate(split(attention.k_proj(hidden)), cos, sin)
        cache[1, :, :, at : at + 1] = split(attention.v_proj(hidden))
        keys, values = cache[:, :, :, : at + 1]
        mixed = functional.scaled_dot_product_attention(query, keys, values)
        result: Tensor = attention.o_proj(mixed.reshape(texts, -1))
        return result


def cache_bytes(config: LlamaConfig, dtype: torch.dtype, positions: int) -> int:
    """Return the size of one text's keys and values."""
    heads = config.num_hidden_layers * config.num_key_value_heads
    return 2 * dtype.itemsize * heads * config.head_dim * positions


def _layer(config: LlamaConfig, weights: Mapping[str, Tensor], index: int) -> LlamaDecoderLayer:
    with torch.device("meta"):
        layer = LlamaDecoderLayer(config)
    prefix = f"model.layers.{index}."
    layer.load_state_dict(
        {name: weights[prefix + name] for name in layer.state_dict()}, assign=True
    )
    return layer.requires_grad_(requires_grad=False)
