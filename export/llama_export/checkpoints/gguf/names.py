"""The tensors of a GGUF file by Hugging Face's names, and held against what a model must have.

It knows names, shapes and forms; it reads none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llama_export.checkpoints.gguf.files import GgufModel
from llama_export.checkpoints.gguf.head import ROPE_TENSOR
from llama_export.checkpoints.gguf.stored import StoredTensor
from llama_export.checkpoints.gguf.types import FLOATS, INT4_DB, INT4_FROM_FLOATS_DB, POOR
from llama_export.errors import CheckpointError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import FINAL_NORM, HEAD, TABLE, expected_shapes
from llama_quantize.printable import shown_name

_TOP: Mapping[str, str] = {
    "token_embd.weight": TABLE,
    "output_norm.weight": FINAL_NORM,
    "output.weight": HEAD,
}
_IN_LAYER: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.(\d{1,6})\.(\w+)\.(weight|bias)")
_MOST_PROBLEMS = 12


def hugging_face_name(name: str) -> str | None:
    """Return Hugging Face's name of a tensor; None: a Llama has no such tensor."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return _TOP.get(name)
    inner = _IN_LAYER.get(match[2])
    return None if inner is None else f"model.layers.{int(match[1])}.{inner}.{match[3]}"


def llama_tensors(
    model: GgufModel, config: LlamaConfig, *, accept_loss: bool
) -> dict[str, StoredTensor]:
    """Find the tensors of a model by Hugging Face's names, in model order.

    Args:
        model: opened model.
        config: shape that its metadata describes.
        accept_loss: whether forms that have lost more than int4 would are read.

    Raises:
        CheckpointError: a tensor is missing, unexpected, or of the wrong shape or form; every fault
            found is named.
    """
    shapes = expected_shapes(config)
    names = {name: hugging_face_name(name) for name in model.tensors if name != ROPE_TENSOR}
    found = {hf: model.tensors[name] for name, hf in names.items() if hf is not None}
    problems = [
        f"{shown_name(name)} {list(model.tensors[name].shape)} is not part of a Llama"
        for name, hf in names.items()
        if hf not in shapes
    ]
    problems += [f"{name} is missing" for name in shapes if name not in found]
    present = {name: found[name] for name in shapes if name in found}
    problems += _wrong_shapes(present, shapes)
    problems += _refused_forms(present, accept_loss=accept_loss)
    _raise_any(model.path, problems)
    return present


def _wrong_shapes(
    tensors: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
    for name, tensor in tensors.items():
        if tensor.shape != shapes[name]:
            found = list(tensor.shape)
            yield f"{name} must be {list(shapes[name])} by the metadata, found {found}"
        elif len(tensor.shape) == 1 and tensor.type.name not in FLOATS:
            yield f"{name} must be {', '.join(FLOATS)}, found {tensor.type.name}"


def _refused_forms(tensors: Mapping[str, StoredTensor], *, accept_loss: bool) -> Iterator[str]:
    """Name the forms that are not read, each once, with a tensor that has it."""
    first: dict[str, str] = {}
    for name, tensor in tensors.items():
        first.setdefault(tensor.type.name, name)
    for form, name in first.items():
        if form in POOR and not accept_loss:
            yield (
                f"{name} is {form}, of which int4 keeps {INT4_DB[form]} dB of signal to noise "
                f"({INT4_FROM_FLOATS_DB} dB from the floats): give --accept-loss to read it all "
                "the same"
            )
        elif form not in (*FLOATS, *INT4_DB):
            yield f"{name} is {form}, which is not read; {', '.join((*FLOATS, *INT4_DB))} are"


def _raise_any(path: Path, problems: Sequence[str]) -> None:
    if not problems:
        return
    shown = list(problems[:_MOST_PROBLEMS])
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    message = f"{path} cannot be used:" + "".join(f"\n  {line}" for line in shown)
    hint = "take a larger file of the same model (Q8_0, F16, BF16), or the one it was made from"
    raise CheckpointError(message, hint)
