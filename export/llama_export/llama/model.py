"""Llama in plain PyTorch: the one definition that everything is traced from and compared to.

Fields and modules carry Hugging Face's names, so a checkpoint loads with no key map. The model is
a pure function `(input_ids, position, past key/values) -> (logits, present key/values)`; it knows
no tokens, no quantisation and no runtime.

Shapes: B batch, S query length, C cache capacity, H query heads, K key/value heads, D head_dim,
E hidden_size, V num_logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from llama_export.llama.attention import KeyValue, attention, self_attention
from llama_export.llama.config import LlamaConfig
from llama_export.llama.hadamard import hadamard
from llama_export.llama.linear import block_linear
from llama_export.llama.rope import inverse_frequencies


class LlamaRMSNorm(nn.Module):
    """Scale by the root mean square, then by a learnt weight `[E]`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[B, S, E]` to `[B, S, E]`."""
        return functional.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


class LlamaAttention(nn.Module):
    """Grouped-query attention: H query heads share K key/value heads."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.attention_factor = config.attention_factor
        query_size = config.num_attention_heads * config.head_dim
        key_value_size = config.num_key_value_heads * config.head_dim
        hidden_size, bias = config.hidden_size, config.attention_bias
        self.q_proj = block_linear(config, hidden_size, query_size, bias=bias)
        self.k_proj = block_linear(config, hidden_size, key_value_size, bias=bias)
        self.v_proj = block_linear(config, hidden_size, key_value_size, bias=bias)
        self.o_proj = block_linear(config, query_size, hidden_size, bias=bias)

    def forward(
        self, hidden: Tensor, position: Tensor | None, past: KeyValue | None, inv_freq: Tensor
    ) -> tuple[Tensor, KeyValue]:
        """Map `[B, S, E]` to `[B, S, E]` and the new cache `[B, K, C, D]` twice."""
        mixed, present = self.mix(hidden, position, past, inv_freq)
        return self.o_proj(mixed), present

    def mix(
        self, hidden: Tensor, position: Tensor | None, past: KeyValue | None, inv_freq: Tensor
    ) -> tuple[Tensor, KeyValue]:
        """Map `[B, S, E]` to what the output projection takes, `[B, S, H*D]`, and the cache."""
        query, key, value = self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)
        if past is None or position is None:
            size, factor = self.head_dim, self.attention_factor
            return self_attention(query, key, value, size, inv_freq, factor)
        rope = (inv_freq, self.attention_factor)
        return attention(query, key, value, past, position, *rope)


class LlamaMLP(nn.Module):
    """The gated feed-forward layer: `down(silu(gate(x)) * up(x))`, perhaps rotated before down."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        hidden_size, inner_size = config.hidden_size, config.intermediate_size
        bias = config.mlp_bias
        self.rotates = config.down_proj_rotation
        self.gate_proj = block_linear(config, hidden_size, inner_size, bias=bias)
        self.up_proj = block_linear(config, hidden_size, inner_size, bias=bias)
        self.down_proj = block_linear(config, inner_size, hidden_size, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[B, S, E]` to `[B, S, E]`."""
        result: Tensor = self.down_proj(self.gate(hidden))
        return result

    def gate(self, hidden: Tensor) -> Tensor:
        """Map `[B, S, E]` to what the down projection takes, `[B, S, intermediate_size]`."""
        gated: Tensor = functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden)
        return hadamard(gated) if self.rotates else gated


class LlamaDecoderLayer(nn.Module):
    """Attention and feed-forward, each behind a norm and a residual."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = LlamaRMSNorm(config)
        self.post_attention_layernorm = LlamaRMSNorm(config)

    def forward(
        self, hidden: Tensor, position: Tensor | None, past: KeyValue | None, inv_freq: Tensor
    ) -> tuple[Tensor, KeyValue]:
        """Map `[B, S, E]` to `[B, S, E]` and the layer's new cache."""
        mixed, present = self.self_attn(self.input_layernorm(hidden), position, past, inv_freq)
        hidden = hidden + mixed
        hidden = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return hidden, present


class LlamaModel(nn.Module):
    """Embedding, layers and final norm; everything but the head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(config) for _ in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config)
        # A plain attribute: a buffer would be rounded by `model.to(torch.bfloat16)`.
        self.inv_freq = inverse_frequencies(config)

    def forward(
        self,
        input_ids: Tensor,
        position: Tensor | None = None,
        past_key_values: list[KeyValue] | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Map int64 `[B, S]` to the normed hidden states `[B, S, E]` and the new cache."""
        hidden = self.embed_tokens(input_ids)
        present_key_values = []
        for index, layer in enumerate(self.layers):
            past = None if past_key_values is None else past_key_values[index]
            hidden, present = layer(hidden, position, past, self.inv_freq)
            present_key_values.append(present)
        return self.norm(hidden), present_key_values


class Llama(nn.Module):
    """A Llama language model.

    Args:
        config: the shape; weights are random until a state dict is loaded.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.num_logits, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let the head use the embedding's table where the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        input_ids: Tensor,
        position: Tensor | None = None,
        past_key_values: list[KeyValue] | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Compute the logits of every position.

        Args:
            input_ids: int64 `[B, S]`.
            position: int64 `[]`, where the first token stands. None: 0, and there is no past.
            past_key_values: per layer keys and values `[B, K, C, D]`, from `empty_cache`.

        Returns:
            Logits `[B, S, V]` and per layer keys and values: `[B, K, C, D]`, or `[B, K, S, D]`
            when there was no past.
        """
        hidden, present_key_values = self.model(input_ids, position, past_key_values)
        return self.lm_head(hidden), present_key_values

    def empty_cache(
        self, capacity: int, batch_size: int = 1, dtype: torch.dtype | None = None
    ) -> list[KeyValue]:
        """Allocate a cache for `capacity` positions: per layer two tensors `[B, K, C, D]`."""
        weight = self.model.norm.weight
        shape = (batch_size, self.config.num_key_value_heads, capacity, self.config.head_dim)
        dtype = dtype or weight.dtype

        def zeros() -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=weight.device)

        return [(zeros(), zeros()) for _ in range(self.config.num_hidden_layers)]
