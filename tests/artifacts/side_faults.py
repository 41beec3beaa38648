"""Faults of what stands beside an artifact, each sealed again so that no hash gives it away.

A fault changes the folder, or the manifest that is sealed with it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_export.bundle.bundle import Bundle, seal
from llama_export.bundle.manifest import Manifest

Json = dict[str, Any]
# Takes the folder and the manifest, and changes either.
Fault = Callable[[Path, Json], None]


def injected(folder: Path, fault: Fault) -> Bundle:
    """Put a fault into a copy of a bundle, seal it again, and open it."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    fault(folder, manifest)
    # What is added without an entry stays without one.
    unlisted = [folder / name for name in manifest.pop("unlisted", ())]
    contents = {path: path.read_bytes() for path in unlisted if path.exists()}
    for path in contents:
        path.unlink()
    seal(folder, Manifest.from_json(manifest))
    for path, content in contents.items():
        path.write_bytes(content)
    return Bundle.open(folder)


def in_json(name: str, change: Callable[[Json], object]) -> Fault:
    def fault(folder: Path, _manifest: Json) -> None:
        path = folder / name
        value = json.loads(path.read_text(encoding="utf-8"))
        change(value)
        path.write_text(json.dumps(value), encoding="utf-8")

    return fault


def in_manifest(change: Callable[[Json], object]) -> Fault:
    return lambda _folder, manifest: change(manifest) and None


def written(name: str, content: str) -> Fault:
    return lambda folder, _manifest: (folder / name).write_text(content) and None


def unlisted(name: str, content: str = "{}") -> Fault:
    def fault(folder: Path, manifest: Json) -> None:
        (folder / name).write_text(content)
        manifest["unlisted"] = [name]

    return fault


def removed(name: str) -> Fault:
    return lambda folder, _manifest: (folder / name).unlink()


def put(*path: str | int, value: object) -> Callable[[Json], None]:
    def change(tree: Any) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


def swapped(*path: str | int, first: Any, second: Any) -> Callable[[Json], None]:
    def change(tree: Any) -> None:
        for key in path:
            tree = tree[key]
        tree[first], tree[second] = tree[second], tree[first]

    return change


def times(factor: float, *path: str) -> Callable[[Json], None]:
    def change(tree: Any) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = int(tree[path[-1]] * factor)

    return change


def _tokens_exchanged(folder: Path, _manifest: Json) -> None:
    path = folder / "tokenizer.model"
    lines = path.read_bytes().splitlines(keepends=True)
    the, and_ = (
        next(i for i, line in enumerate(lines) if line.split()[0] == base64.b64encode(token))
        for token in (b" the", b" and")
    )
    (one, rank), (other, last) = lines[the].split(), lines[and_].split()
    lines[the], lines[and_] = b"%s %s\n" % (other, rank), b"%s %s\n" % (one, last)
    path.write_bytes(b"".join(lines))


def _last_token_lost(folder: Path, _manifest: Json) -> None:
    path = folder / "tokenizer.model"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _template_changed(keys: Json) -> None:
    keys["chat_template"] = keys["chat_template"].replace("assistant", "assistent", 1)


def _in_another_folder(folder_name: str, name: str) -> Fault:
    def fault(folder: Path, manifest: Json) -> None:
        (folder / folder_name).mkdir()
        unlisted(f"{folder_name}/{name}", "x")(folder, manifest)

    return fault


def _other_rows(manifest: Json) -> None:
    manifest["graph"]["all_logits"] = not manifest["graph"]["all_logits"]


def _other_cache(manifest: Json) -> None:
    kept = manifest["graph"]["kv_cache"] == "state"
    manifest["graph"]["kv_cache"] = "io" if kept else "state"


def _one_hash_lost(manifest: Json) -> None:
    manifest["quantization"]["tensors"].popitem()


# Of every target: what is put in, and a row that turns red.
ANY_TARGET: dict[str, tuple[Fault, str]] = {
    "two tokens of tokenizer.model exchanged": (_tokens_exchanged, "side_tokenizer"),
    "the last token of tokenizer.model lost": (_last_token_lost, "side_tokenizer"),
    "two ids of tokenizer.json exchanged": (
        in_json("tokenizer.json", swapped("model", "vocab", first="Ġthe", second="Ġand")),
        "side_tokenizer",
    ),
    "tokenizer.json empty": (written("tokenizer.json", "{}"), "side_tokenizer"),
    "tokenizer.json cut off": (written("tokenizer.json", '{"model": '), "side_tokenizer"),
    "end of turn with another id": (
        in_json("tokenizer.json", put("added_tokens", 9, "id", value=3850)),
        "side_tokenizer",
    ),
    "a special token that eats blanks": (
        in_json("tokenizer.json", put("added_tokens", 9, "lstrip", value=True)),
        "side_tokenizer",
    ),
    "no token begins a text": (
        in_json("tokenizer.json", put("post_processor", value=None)),
        "side_tokenizer",
    ),
    "texts cut off by the tokenizer": (
        in_json("tokenizer.json", put("truncation", value={"max_length": 8})),
        "side_tokenizer",
    ),
    "two merges exchanged": (
        in_json("tokenizer.json", swapped("model", "merges", first=100, second=200)),
        "side_tokenizer",
    ),
    "tokenizer.json removed": (removed("tokenizer.json"), "side_tokenizer"),
    "twice the memory": (in_manifest(times(2, "memory", "resident_bytes")), "manifest_memory"),
    "half a cache": (in_manifest(times(0.5, "memory", "kv_bytes_per_token")), "manifest_memory"),
    "turns that keep blanks": (
        in_manifest(put("chat", "turns", "trim", value=[])),
        "manifest_chat",
    ),
    "turns that do not end": (
        in_manifest(put("chat", "turns", "user", "suffix", value=[])),
        "manifest_chat",
    ),
    "no turns": (
        in_manifest(put("chat", value={"turns": None, "reason": "none"})),
        "manifest_chat",
    ),
    "chat template of others": (
        in_json("tokenizer_config.json", put("chat_template", value="{{ messages }}")),
        "side_chat",
    ),
    "one word of the chat template": (
        in_json("tokenizer_config.json", _template_changed),
        "side_chat",
    ),
    "another end token's name": (
        in_json("tokenizer_config.json", put("eos_token", value="<|end_of_text|>")),
        "side_chat",
    ),
    "no beginning added by a key": (
        in_json("tokenizer_config.json", put("add_bos_token", value=False)),
        "side_chat",
    ),
    "config.json with another end": (
        in_json("config.json", put("eos_token_id", value=7)),
        "side_config",
    ),
    "config.json with another theta": (
        in_json("config.json", put("rope_theta", value=10000.0)),
        "side_config",
    ),
    "config.json with another scaling": (
        in_json("config.json", put("rope_scaling", "factor", value=8.0)),
        "side_config",
    ),
    "config.json with a window": (
        in_json("config.json", put("sliding_window", value=128)),
        "side_config",
    ),
    "config.json with other heads": (
        in_json("config.json", put("num_key_value_heads", value=4)),
        "side_config",
    ),
    "config.json with true for one": (
        in_json("config.json", put("num_hidden_layers", value=True)),
        "side_config",
    ),
    "config.json with a key twice": (
        written("config.json", '{"vocab_size": 1, "vocab_size": 4096}'),
        "side_config",
    ),
    "generation_config.json with another end": (
        in_json("generation_config.json", put("eos_token_id", value=[5])),
        "side_generation",
    ),
    "generation_config.json with another warmth": (
        in_json("generation_config.json", put("temperature", value=5.0)),
        "side_generation",
    ),
    "generation_config.json with NaN": (
        written("generation_config.json", '{"temperature": NaN}'),
        "side_generation",
    ),
    "generation_config.json removed": (removed("generation_config.json"), "side_generation"),
    "NOTICE empty": (written("NOTICE", ""), "side_licence"),
    "NOTICE removed": (removed("NOTICE"), "side_licence"),
    "a licence of others": (written("LICENSE", "Do as you like."), "side_licence"),
    "stops of the manifest": (
        in_manifest(put("tokenizer", "stop_token_ids", value=[5])),
        "manifest_tokenizer",
    ),
    "beginning of the manifest": (
        in_manifest(put("tokenizer", "bos_token_id", value=5)),
        "manifest_tokenizer",
    ),
    "size of the manifest's vocabulary": (
        in_manifest(put("tokenizer", "vocab_size", value=5000)),
        "manifest_tokenizer",
    ),
    "another file of the tokenizer": (
        in_manifest(put("tokenizer", "file", value="tokenizer.json")),
        "manifest_tokenizer",
    ),
    "end of the manifest's model": (
        in_manifest(put("model", "config", "eos_token_id", value=7)),
        "manifest_model",
    ),
    "length of the manifest's model": (
        in_manifest(put("model", "config", "max_position_embeddings", value=99)),
        "manifest_model",
    ),
    "epsilon of the manifest's model": (
        in_manifest(put("model", "config", "rms_norm_eps", value=1e-6)),
        "manifest_model",
    ),
    "a key more of the manifest's model": (
        in_manifest(put("model", "config", "sliding_window", value=None)),
        "manifest_model",
    ),
    "origin of the manifest's model": (
        in_manifest(put("model", "hub_id", value="somebody/else")),
        "manifest_model",
    ),
    "name of the manifest's model": (
        in_manifest(put("model", "name", value="another")),
        "manifest_model",
    ),
    "recipe of the manifest": (
        in_manifest(put("quantization", "recipe", value="int8")),
        "manifest_quantization",
    ),
    "groups of the manifest": (
        in_manifest(put("quantization", "group_size", value=64)),
        "manifest_quantization",
    ),
    "half the context": (in_manifest(times(0.5, "graph", "max_context")), "manifest_graph"),
    "twice the context": (in_manifest(times(2, "graph", "max_context")), "manifest_graph"),
    "other rows of logits": (in_manifest(_other_rows), "manifest_graph"),
    "a cache in another place": (in_manifest(_other_cache), "manifest_graph"),
    "an input of another type": (
        in_manifest(put("graph", "inputs", 0, "dtype", value="float32")),
        "manifest_graph",
    ),
    "an output of another width": (
        in_manifest(lambda tree: tree["graph"]["outputs"][0]["shape"].__setitem__(-1, 4095)),
        "manifest_graph",
    ),
    "an input too many": (
        in_manifest(lambda tree: tree["graph"]["inputs"].append(tree["graph"]["inputs"][0])),
        "manifest_graph",
    ),
    "functions that are not there": (
        in_manifest(put("graph", "functions", value={"prefill": 64})),
        "manifest_graph",
    ),
    "a template that is not listed": (unlisted("chat_template.jinja", "{{ x }}"), "side_others"),
    "added tokens that are not listed": (unlisted("added_tokens.json"), "side_others"),
    "special tokens that are not listed": (unlisted("special_tokens_map.json"), "side_others"),
    "a tokenizer.json that is not listed": (
        lambda _folder, manifest: manifest.update(unlisted=["tokenizer.json"]),
        "side_others",
    ),
    "a template in another folder": (
        _in_another_folder("additional_chat_templates", "tool.jinja"),
        "side_others",
    ),
    "a template that is listed": (written("chat_template.jinja", "{{ x }}"), "side_others"),
    "another form of the model": (unlisted("model_quantized.onnx", "x"), "side_others"),
    "code that generates": (_in_another_folder("custom_generate", "generate.py"), "side_others"),
    "capital letters": (unlisted("Added_Tokens.JSON"), "side_others"),
}

ONNX: dict[str, tuple[Fault, str]] = {
    name: (in_json("genai_config.json", change), "side_clients")
    for name, change in {
        "genai: another end": put("model", "eos_token_id", value=[5]),
        "genai: another beginning": put("model", "bos_token_id", value=5),
        "genai: another padding": put("model", "pad_token_id", value=5),
        "genai: other heads": put("model", "decoder", "num_key_value_heads", value=4),
        "genai: other layers": put("model", "decoder", "num_hidden_layers", value=5),
        "genai: another head size": put("model", "decoder", "head_size", value=32),
        "genai: another length": times(2, "model", "context_length"),
        "genai: another input": put("model", "decoder", "inputs", "input_ids", value="ids"),
        "genai: another output": put("model", "decoder", "outputs", "logits", value="scores"),
        "genai: draws not": put("search", "do_sample", value=False),
        "genai: draws otherwise": put("search", "temperature", value=0.7),
        "genai: repeats not": put("search", "repetition_penalty", value=3.0),
    }.items()
} | {
    "another file for transformers.js": (
        in_json("config.json", put("transformers.js_config", "dtype", value="q4")),
        "side_config",
    ),
    "genai_config.json removed": (removed("genai_config.json"), "side_clients"),
}

# What the hashes of the weights in the manifest are for; found with the weights of any target.
HASHES: dict[str, Fault] = {
    "recorded hashes removed": in_manifest(put("quantization", "tensors", value={})),
    "one recorded hash removed": in_manifest(_one_hash_lost),
}
