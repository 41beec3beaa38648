"""The names and shapes of a Llama's tensors, as Hugging Face's checkpoints call them.

It knows a config; it knows no file, no quantisation and no target.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_export.llama.config import LlamaConfig

# Of tensors, by name.
Shapes = Mapping[str, tuple[int, ...]]

TABLE = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FINAL_NORM = "model.norm.weight"


def tied_names(config: LlamaConfig) -> Mapping[str, str]:
    """Return the tensors that share another tensor's storage, each with that tensor's name."""
    return {HEAD: TABLE} if config.tie_word_embeddings else {}


def expected_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """List the tensors of a checkpoint in model order; `lm_head.weight` only when it is untied."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    query = config.num_attention_heads * config.head_dim
    key_value = config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {TABLE: (config.vocab_size, hidden)}
    linears = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        for module, shape in linears.items():
            if module == "mlp.gate_proj":
                shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
            shapes |= _of_linear(config, f"{prefix}.{module}", shape)
    shapes[FINAL_NORM] = (hidden,)
    if not config.tie_word_embeddings:
        shapes[HEAD] = (config.num_logits, hidden)
    return shapes


def is_bias(name: str) -> bool:
    """Whether a tensor is the bias of a linear."""
    return name.endswith(".bias")


def is_adaptor(name: str) -> bool:
    """Whether a tensor is one of the two matrices of a side branch."""
    return ".adaptor." in name


def _of_linear(config: LlamaConfig, stem: str, shape: tuple[int, int]) -> Shapes:
    """List a block's linear, its bias and its adaptor."""
    rows, columns = shape
    found: dict[str, tuple[int, ...]] = {f"{stem}.weight": shape}
    if config.mlp_bias if ".mlp." in stem else config.attention_bias:
        found[f"{stem}.bias"] = (rows,)
    if config.adaptor_rank:
        found[f"{stem}.adaptor.A.weight"] = (config.adaptor_rank, columns)
        found[f"{stem}.adaptor.B.weight"] = (rows, config.adaptor_rank)
    return found
