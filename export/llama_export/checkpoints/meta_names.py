"""What Meta's layout calls each tensor, how its shards split it, and in which order its rows stand.

It knows names and shapes; it knows no file and no tensor's values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE, expected_shapes

META_TABLE = "tok_embeddings.weight"
META_HEAD = "output.weight"
FIRST_QUERY = "layers.0.attention.wq.weight"
"""The first tensor whose rows every shard holds some of."""
# Old files carry the rotary frequencies, which follow from the config.
IGNORED = re.compile(r"(layers\.\d+\.attention\.inner_attention\.)?rope\.freqs")

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+?)(\.adaptor\.[AB])?\.weight")
_MODULES: Mapping[str, str] = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}
_OUTSIDE: Mapping[str, str] = {
    TABLE: META_TABLE,
    HEAD: META_HEAD,
    FINAL_NORM: "norm.weight",
}
# Products whose inputs are spread over the shards; the others' outputs are.
_BY_COLUMNS = ("attention.wo", "feed_forward.w2")


@dataclass(frozen=True)
class MetaTensor:
    """A tensor of the model as Meta's files hold it.

    Args:
        name: its name in the files.
        shape: its shape, all shards together.
        splits: dimensions along which the shards may hold parts of it; empty: each holds all of it.
        heads: number of heads whose rows stand in pairs that are rotated together; 0: the rows
            stand as everywhere.
    """

    name: str
    shape: tuple[int, ...]
    splits: tuple[int, ...] = ()
    heads: int = 0


def meta_tensors(config: LlamaConfig) -> dict[str, MetaTensor]:
    """List the tensors of a model by Hugging Face's names, in model order."""
    heads = {
        "attention.wq": config.num_attention_heads,
        "attention.wk": config.num_key_value_heads,
    }
    found = {}
    for name, shape in expected_shapes(config).items():
        if name in _OUTSIDE:
            # Llama 3 splits the table by tokens, Llama 1 and 2 by what stands for one.
            splits = {TABLE: (0, 1), HEAD: (0,)}.get(name, ())
            found[name] = MetaTensor(_OUTSIDE[name], shape, splits)
        elif match := _LAYER.fullmatch(name):
            module, adaptor = _MODULES[match[2]], match[3] or ""
            found[name] = MetaTensor(
                f"layers.{match[1]}.{module}{adaptor}.weight",
                shape,
                _splits(module, adaptor, shape),
                0 if adaptor.endswith("A") else heads.get(module, 0),
            )
    return found


def meta_order(rows: int, heads: int) -> list[int]:
    """Return for each row of Hugging Face's order its place in Meta's.

    Meta rotates the rows 2i and 2i + 1 of a head together, Hugging Face i and i + half.
    """
    half = rows // heads // 2
    return [
        head * 2 * half + 2 * pair + side
        for head in range(heads)
        for side in range(2)
        for pair in range(half)
    ]


def _splits(module: str, adaptor: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 1:
        return ()
    if module in _BY_COLUMNS:
        return () if adaptor.endswith("B") else (1,)
    return () if adaptor.endswith("A") else (0,)
