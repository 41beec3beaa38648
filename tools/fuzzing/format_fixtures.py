"""Small checkpoints in the formats of other programs, which mutations start from.

They are written by what the tests write theirs with, once for a folder: GGUF with either kind of
vocabulary, weights packed by each method, Meta's own layout, and the tokenizers of other models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

GGUF = ("gguf/letters.gguf", "gguf/pieces.gguf")
META, META_INT4, PIECES, JSON_TOKENIZER = "ck-meta", "ck-int4", "ck-pieces", "ck-json"
METHODS = ("gptq", "awq", "compressed", "nf4", "fp8", "torchao")
_GROUP = 32
_BLOCK = 64
# Both forms that are kept and some that are not, in one file.
_FORMS = {"q_proj": "Q4_0", "k_proj": "F16", "down_proj": "Q6_K", "embed_tokens": "Q8_0"}


@dataclass(frozen=True)
class _Method:
    """How a method packs a matrix, and what config.json says of it."""

    settings: Mapping[str, object]
    pack: Callable[[Any], Mapping[str, Any]]


def packed_folder(method: str) -> str:
    """Return the name of the folder of a method's checkpoint."""
    return f"packed-{method}"


def write_formats(base: Path) -> None:
    """Write the checkpoints that are not there yet; of each, its first file comes last."""
    if not (base / GGUF[1]).exists():
        _write_gguf(base)
    for method in METHODS:
        if not (base / packed_folder(method) / "tokenizer.model").exists():
            _write_packed(base / packed_folder(method), method)
    if not (base / META).is_dir():
        _write_meta(base)
    if not (base / JSON_TOKENIZER).is_dir():
        _write_other_tokenizers(base)


def _write_gguf(base: Path) -> None:
    from artifacts.gguf_files import SMALL, write_gguf
    from artifacts.sentencepieces import trained

    def form(name: str) -> str:
        return _FORMS.get(name.split(".")[-2], "F32")

    write_gguf(base / GGUF[0], SMALL, form)
    pieces, scores, kinds = _pieces(trained())
    other = replace(SMALL, vocab_size=len(pieces), bos_token_id=1, eos_token_id=(2,))
    unwanted = ("pre", "merges", "padding_token_id")
    keys: dict[str, object] = {f"tokenizer.ggml.{name}": None for name in unwanted}
    keys |= {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    write_gguf(base / GGUF[1], other, "Q8_0", keys=keys)


def _pieces(model: bytes) -> tuple[list[str], list[float], list[int]]:
    """Return the texts, scores and kinds of the pieces of a SentencePiece model."""
    from llama_export.tokenizer.sentencepiece_model import SentencePieceModel

    held = SentencePieceModel.parse(model, "a model").pieces
    kinds = [each.kind for each in held]
    return [each.text for each in held], [each.score for each in held], kinds


def _write_packed(folder: Path, method: str) -> None:
    from artifacts import packed_weights as packed

    found = _method(method)
    names = [name for name in packed.floats() if "_proj." in name]
    metadata = packed.torchao_metadata(names, [1, _GROUP]) if method == "torchao" else None
    packed.write_packed(
        folder, found.settings, lambda _module, weight: found.pack(weight), metadata=metadata
    )


def _method(name: str) -> _Method:
    import torch
    from artifacts import packed_weights as packed

    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights | {"group_size": _GROUP}}}
    compressed: dict[str, object] = {"quant_method": "compressed-tensors", "config_groups": groups}
    compressed |= {"format": "pack-quantized", "ignore": ["lm_head"]}
    grouped: dict[str, object] = {"bits": 4, "group_size": _GROUP}

    def grid(weight: object) -> Any:  # noqa: ANN401 - of a module without types
        return packed.rounded(weight, _GROUP)

    def fp8(weight: object) -> Any:  # noqa: ANN401
        return packed.fp8(weight, (_BLOCK, _BLOCK), "weight_scale_inv", torch.float32)

    methods = {
        "gptq": _Method({"quant_method": "gptq", **grouped}, lambda w: packed.gptq(grid(w))),
        "awq": _Method(
            {"quant_method": "awq", **grouped, "version": "gemm"},
            lambda w: packed.awq(packed.rounded(w, _GROUP, symmetric=False)),
        ),
        "compressed": _Method(compressed, lambda w: packed.pack_quantized(grid(w))),
        "nf4": _Method(
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            lambda w: packed.nf4(w, nested=True),
        ),
        "fp8": _Method({"quant_method": "fp8", "weight_block_size": [_BLOCK, _BLOCK]}, fp8),
        "torchao": _Method({"quant_method": "torchao"}, lambda w: packed.torchao(grid(w))),
    }
    return methods[name]


def _write_meta(base: Path) -> None:
    from artifacts.meta_int4 import write_qlora
    from artifacts.meta_layout import from_hugging_face
    from artifacts.tiny import write_checkpoint

    from_hugging_face(write_checkpoint(base / "out-meta"), base / META, shards=2)
    write_qlora(base / META_INT4)
    for folder in (base / META, base / META_INT4):
        (folder / "bytes").unlink(missing_ok=True)


def _write_other_tokenizers(base: Path) -> None:
    from artifacts.json_tokenizers import CONTROL, json_bytes
    from artifacts.sentencepieces import trained
    from artifacts.tiny import TINY, write_checkpoint

    config = replace(TINY, vocab_size=512, num_hidden_layers=1, bos_token_id=1, eos_token_id=(2,))
    write_checkpoint(base / PIECES, config)
    (base / PIECES / "tokenizer.model").write_bytes(trained())
    write_checkpoint(base / JSON_TOKENIZER, config)
    (base / JSON_TOKENIZER / "tokenizer.model").unlink()
    (base / JSON_TOKENIZER / "tokenizer.json").write_bytes(json_bytes("smollm2"))
    said = {"bos_token": CONTROL[1], "eos_token": CONTROL[2], "pad_token": CONTROL[0]}
    more = {"added_tokens_decoder": {"0": {"content": CONTROL[0], "special": True}}}
    (base / JSON_TOKENIZER / "tokenizer_config.json").write_text(json.dumps({**said, **more}))
