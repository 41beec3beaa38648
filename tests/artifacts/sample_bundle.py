"""A bundle's folder and manifest fields, as an export would give them, and ways to spoil them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from llama_export.bundle.bundle import seal
from llama_export.bundle.graph_spec import IO, GraphSpec, TensorSpec
from llama_export.bundle.manifest import FORMAT_VERSION, Manifest
from llama_export.bundle.model_info import ModelInfo
from llama_export.llama.presets import PRESETS

HASH = "0123456789abcdef" * 4
DRAFT = Manifest(
    format_version=FORMAT_VERSION,
    target="onnx",
    artifact="model.onnx",
    model=ModelInfo(
        name="3.2-1B",
        hub_id="meta-llama/Llama-3.2-1B",
        revision="4e20de362430cd3b72f300e6b0f18e50e7166e08",
        config=PRESETS["3.2-1B"].to_hf(),
    ),
    graph=GraphSpec(
        inputs=(TensorSpec("input_ids", "int64", ("batch_size", "sequence_length")),),
        outputs=(TensorSpec("logits", "float32", ("batch_size", 1, 128256)),),
        kv_cache=IO,
        max_context=4096,
        all_logits=False,
    ).to_json(),
    quantization={
        "recipe": "int4",
        "group_size": 32,
        "bits_per_weight": 4.97,
        "sqnr_db": 21.5,
        "tensors": {"model.layers.0.q_proj": {"codes_sha256": HASH, "scales_sha256": HASH}},
    },
    tokenizer={
        "file": "tokenizer.model",
        "vocab_size": 128256,
        "bos_token_id": 128000,
        "stop_token_ids": (128001, 128008, 128009),
    },
    created_with={"llama-export": "0.1.0", "torch": "2.13.0+cpu"},
    files={},
    runs_here=True,
)

# In `damaged`, takes the key away.
ABSENT = object()


def fill(folder: Path) -> Path:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.onnx.data").write_bytes(bytes(range(256)) * 400)
    (folder / "tokenizer.model").write_bytes(b"IQ== 0\n")
    (folder / "deep" / "er" / "empty.bin").write_bytes(b"")
    return folder


def write_bundle(folder: Path) -> Path:
    seal(fill(folder), DRAFT)
    return folder


def raw_manifest(tmp_path: Path) -> dict:
    return json.loads((write_bundle(tmp_path / "raw") / "manifest.json").read_text())


def rewrite(folder: Path, raw: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(raw))


def damaged(raw: dict, where: str, value: object) -> dict:
    raw = copy.deepcopy(raw)
    *outer, last = where.split(".")
    owner = raw
    for key in outer:
        owner = owner[key]
    if value is ABSENT:
        del owner[last]
    else:
        owner[last] = value
    return raw
