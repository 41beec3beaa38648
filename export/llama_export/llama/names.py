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
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (query, hidden),
            f"{prefix}.self_attn.k_proj.weight": (key_value, hidden),
            f"{prefix}.self_attn.v_proj.weight": (key_value, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, query),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.mlp.gate_proj.weight": (intermediate, hidden),
            f"{prefix}.mlp.up_proj.weight": (intermediate, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, intermediate),
        }
    shapes[FINAL_NORM] = (hidden,)
    if not config.tie_word_embeddings:
        shapes[HEAD] = (config.vocab_size, hidden)
    return shapes
