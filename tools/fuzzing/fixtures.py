"""The small inputs that the mutations start from: a random checkpoint, and its bundle a target.

They are written by the product itself, once for a folder: two layers, a hidden size of 128, heads
of 64 and a vocabulary of the 256 bytes and the special tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzzing.format_fixtures import write_formats
from fuzzing.lying_hub import honest

HUB, REPORT = "hub.json", "report.json"
ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("onnx", "executorch", "coreml")
CONTEXT = 512
RANKS = 256
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
    "bos_token_id": 256,
    "eos_token_id": [257, 264, 265],
    "torch_dtype": "bfloat16",
}
_GENERATION = {
    "bos_token_id": 256,
    "eos_token_id": [257, 264, 265],
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
}
_ADAPTER: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "demo",
    "r": 4,
    "lora_alpha": 8,
    "alpha_pattern": {"layers.0.self_attn.q_proj": 4},
    "rank_pattern": {},
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "init_lora_weights": True,
    "modules_to_save": ["embed_tokens"],
    "target_modules": ["q_proj"],
}
# Written for the tokens that the vocabulary of bytes has.
_TEMPLATE = """{{ bos_token }}{% for message in messages %}\
{{ '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\n\n' }}\
{% if message.content is string %}{{ message.content | trim }}\
{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}\
{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
_SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def prepare(base: Path, targets: Sequence[str]) -> None:
    """Write what is not there yet: checkpoints, bundles of the targets, a saved chat, small texts.

    Raises:
        RuntimeError: the product failed on an input that is right; the message is what it said.
    """
    base.mkdir(parents=True, exist_ok=True)
    if not (base / "ck").is_dir():
        _write_checkpoints(base)
    write_formats(base)
    for target in ("onnx", *targets):
        if not (base / target).is_dir():
            _export(base, target)
    if not (base / "ck" / _TOKENIZER_FILES[0]).exists():
        for name in _TOKENIZER_FILES:
            for folder in ("ck", "ck-sharded"):
                shutil.copy(base / "onnx" / name, base / folder / name)
    if not (base / "saved.npz").exists():
        options = ["--save", str(base / "saved.npz"), "-p", "Hello", "-n", "4", "--seed", "1"]
        _product(["chat", str(base / "onnx"), *options])
    (base / REPORT).write_text(json.dumps(_right_report(base / "onnx")))
    (base / "prompt.txt").write_text("Once upon a time, a king\nsaid: 42 + 1 = 43?\n")
    (base / HUB).write_text(json.dumps(honest(base / "ck")))
    (base / "argv.json").write_text('["generate", "{bundle}", "-p", "Hello", "-n", "2"]')


def _right_report(bundle: Path) -> dict[str, Any]:
    """Return what a phone says that computes exactly what the bundle's golden data say."""
    golden = json.loads((bundle / "golden.json").read_bytes())
    return {
        "format_version": 1,
        "device": {"model": "a phone", "system": "Android 15"},
        "runtime": "onnxruntime",
        "manifest_sha256": hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest(),
        "positions": [
            {
                "at": call["at"],
                "logprobs": [logprob for _, logprob in call["top"]],
                "rest_logprob": call["rest_logprob"],
                "best": call["top"][0][0],
            }
            for call in golden["positions"]
        ],
    }


def _export(base: Path, target: str) -> None:
    """Export to a folder of its own, then put bundle and weights where they are looked for."""
    output = base / f"out-{target}"
    shutil.rmtree(output, ignore_errors=True)
    model = ["--model", str(base / "ck"), "--output", str(output), "--max-context", str(CONTEXT)]
    model += ["--quality", "fast"]
    _product(["--target", target, *model])
    if not (base / "weights").is_dir():
        (output / "weights").rename(base / "weights")
    (output / target).rename(base / target)
    shutil.rmtree(output)


def _product(arguments: Sequence[str]) -> None:
    paths = os.pathsep.join(str(ROOT / root) for root in ("export", "quantize"))
    done = subprocess.run(
        [sys.executable, "-m", "llama_export", *arguments],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        message = f"llama-export {' '.join(arguments)} failed:\n{done.stderr}"
        raise RuntimeError(message)


def _write_checkpoints(base: Path) -> None:
    """Write one checkpoint in one file, in two, pickled and with Meta's vocabulary; an adapter."""
    import torch
    from safetensors.torch import save_file

    tensors = _tensors()
    for name in ("ck", "ck-sharded", "ck-ranks", "ck-pickled"):
        folder = base / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
        (folder / "generation_config.json").write_text(json.dumps(_GENERATION))
        lines = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(RANKS))
        (folder / "tokenizer.model").write_text("".join(lines))
    (base / "ck" / "chat_template.jinja").write_text(_TEMPLATE)
    for name in ("ck", "ck-ranks"):
        save_file(tensors, base / name / "model.safetensors")
    torch.save(tensors, base / "ck-pickled" / "pytorch_model.bin")
    (base / "adapter").mkdir()
    (base / "adapter" / "adapter_config.json").write_text(json.dumps(_ADAPTER, indent=1))
    save_file(_adapter_tensors(), base / "adapter" / "adapter_model.safetensors")
    names = list(tensors)
    halves = dict(zip(_SHARDS, (names[: len(names) // 2], names[len(names) // 2 :]), strict=True))
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, base / "ck-sharded" / file)
    where = {name: file for file, held in halves.items() for name in held}
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (base / "ck-sharded" / "model.safetensors.index.json").write_text(json.dumps(index))


def _adapter_tensors() -> dict[str, Any]:
    """Return low-rank updates of some weights, and a token table that takes the model's place."""
    import torch

    shapes, rank, generator = _shapes(), int(_ADAPTER["r"]), torch.Generator().manual_seed(1)
    table = "model.embed_tokens.weight"
    found = {f"base_model.model.{table}": torch.randn(shapes[table], generator=generator)}
    for name, (rows, columns) in {n: s for n, s in shapes.items() if "q_proj" in n}.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        found[f"{module}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) * 0.1
        found[f"{module}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.1
    return found


def _tensors() -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return {
        name: (
            torch.randn(shape, generator=generator) * 0.1
            if len(shape) > 1
            else torch.rand(shape, generator=generator) + 0.5
        ).to(torch.bfloat16)
        for name, shape in _shapes().items()
    }


def _shapes() -> dict[str, tuple[int, ...]]:
    hidden, inner, heads = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"]
    queries = CONFIG["num_attention_heads"] * heads
    values = CONFIG["num_key_value_heads"] * heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (CONFIG["vocab_size"], hidden)
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        own = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (values, hidden),
            "self_attn.v_proj": (values, hidden),
            "self_attn.o_proj": (hidden, queries),
            "post_attention_layernorm": (hidden,),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return shapes | {"model.norm.weight": (hidden,)}
