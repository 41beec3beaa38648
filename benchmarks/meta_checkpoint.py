"""Rewrite a Hugging Face Llama checkpoint the way that Meta ships it, for ExecuTorch's exporter.

    python benchmarks/meta_checkpoint.py --checkpoint FOLDER --output FOLDER
    python benchmarks/meta_checkpoint.py --checkpoint FOLDER --output FOLDER --int8-head

Writes consolidated.00.pth and params.json. `export_llm` reads nothing else: its own converters are
for other families or need torchtune. Names and row order are those that our reader of Meta's layout
goes by.

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

from llama_export.checkpoints.meta_names import META_TABLE, meta_order, meta_tensors
from llama_export.llama.config import LlamaConfig

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
    weights = dict(meta_weights(checkpoint))
    table = weights[META_TABLE]
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


def meta_weights(checkpoint: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor by Meta's name; the table first, since its type names the checkpoint's."""
    found = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a handle, not a dictionary
                found[name] = file.get_tensor(name)
    tensors = meta_tensors(LlamaConfig.read(checkpoint / "config.json"))
    by_name = {tensor.name: (name, tensor.heads) for name, tensor in tensors.items()}
    for name in sorted(by_name, key=lambda name: (name != META_TABLE, name)):
        ours, heads = by_name[name]
        tensor = found.pop(ours)
        yield name, pairs_together(tensor, heads) if heads else tensor


def pairs_together(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of q or k so that the two rows of a rotary pair are adjacent."""
    result = torch.empty_like(weight)
    result[meta_order(len(weight), heads)] = weight
    return result


def rows_to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to -127..127 with one scale a row, taken from the row's largest value."""
    values = weight.float()
    scales = values.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    codes = (values / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return codes, scales


if __name__ == "__main__":
    main()
