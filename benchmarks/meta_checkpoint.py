"""Rewrite a Hugging Face Llama checkpoint the way that Meta ships it, for ExecuTorch's exporter.

    python benchmarks/meta_checkpoint.py --checkpoint FOLDER --output FOLDER
    python benchmarks/meta_checkpoint.py --checkpoint FOLDER --output FOLDER --int8-head

Writes consolidated.00.pth and params.json. `export_llm` reads nothing else: its own converters are
for other families or need torchtune, so names and row order are translated here. In Meta's q and k
the two halves of a head's rotary pairs lie side by side; Hugging Face has them half a head apart.

It knows tied Llama 3.2 in bfloat16 and nothing else. A tied table is written once and has two
names, as torch saves shared storage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from safetensors import safe_open

TABLE = "tok_embeddings.weight"
NAMES = {
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
TOP = {"model.embed_tokens.weight": TABLE, "model.norm.weight": "norm.weight"}
# What `preq_mode` must find; its group size has to be the one on the command line.
GROUP_SIZE = 32


PATH = click.Path(path_type=Path)


@click.command()
@click.option(
    "--checkpoint", type=PATH, required=True, help="Folder with config.json and safetensors."
)
@click.option("--output", type=PATH, required=True, help="Folder for the two files.")
@click.option("--int8-head", is_flag=True, help="Store `output` as int8 with a scale for each row.")
def main(
    checkpoint: Path,
    output: Path,
    int8_head: bool,
) -> None:
    """Rewrite one checkpoint."""
    config = json.loads((checkpoint / "config.json").read_text())
    if not config["tie_word_embeddings"]:
        message = "only a checkpoint with a tied table is understood"
        raise click.UsageError(message)
    weights = dict(meta_weights(checkpoint, config))
    table = weights[TABLE]
    if int8_head:
        weights["output.weight"], weights["output.scales"] = rows_to_int8(table)
    else:
        weights["output.weight"] = table
    output.mkdir(parents=True, exist_ok=True)
    torch.save(weights, output / "consolidated.00.pth")
    (output / "params.json").write_text(json.dumps(params(config, int8_head=int8_head)))


def params(config: dict[str, Any], *, int8_head: bool) -> dict[str, Any]:
    """Return params.json.

    Its scaled rotary table is the factor 32 of `model_class=llama3_2`, and Meta's constants.
    """
    found: dict[str, Any] = {
        "dim": config["hidden_size"],
        "hidden_dim": config["intermediate_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "head_dim": config["head_dim"],
        "vocab_size": config["vocab_size"],
        "norm_eps": config["rms_norm_eps"],
        "rope_theta": config["rope_theta"],
        "use_scaled_rope": True,
    }
    if int8_head:
        found["quantization_args"] = {"group_size": GROUP_SIZE}
    return found


def meta_weights(checkpoint: Path, config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor by Meta's name; the table first, since its type names the checkpoint's."""
    found = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a handle, not a dictionary
                found[meta_name(name)] = file.get_tensor(name)
    heads = {"wq": config["num_attention_heads"], "wk": config["num_key_value_heads"]}
    for name in sorted(found, key=lambda name: (name != TABLE, name)):
        kind = name.split(".")[-2]
        tensor = found.pop(name)
        yield name, pairs_together(tensor, heads[kind]) if kind in heads else tensor


def meta_name(name: str) -> str:
    """Return Meta's name of a tensor."""
    if name in TOP:
        return TOP[name]
    _, layers, index, *middle, suffix = name.split(".")
    return ".".join((layers, index, NAMES[".".join(middle)], suffix))


def pairs_together(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of q or k so that the two rows of a rotary pair are adjacent."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns)


def rows_to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to -127..127 with one scale a row, taken from the row's largest value."""
    values = weight.float()
    scales = values.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    codes = (values / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return codes, scales


if __name__ == "__main__":
    main()
