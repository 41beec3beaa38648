"""The manifest: strict, and described by the schema beside the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from artifacts.sample_bundle import ABSENT, HASH, damaged, raw_manifest, rewrite, write_bundle

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.bundle.manifest import Manifest, path_fault
from llama_export.errors import BundleError

SCHEMA = Path(__file__).parents[2] / "export/llama_export/bundle/schemas/manifest.schema.json"

# Every way to damage a manifest: what to set (dots descend, ABSENT deletes), a word of the
# message, and whether the schema can see it too.
DAMAGE = [
    ("format_version", 0, "format_version", True),
    ("format_version", "1", "format_version", True),
    ("format_version", True, "format_version", True),
    ("format_version", ABSENT, "format_version", True),
    ("target", "ONNX", "target", True),
    ("target", 3, "target", True),
    ("artifact", "gone.onnx", "not among the files", False),
    ("artifact", "../model.onnx", "leads out", True),
    ("artifact", None, "artifact", True),
    ("extra", 1, "extra is not a key", True),
    ("runs_here", "yes", "runs_here must be true or false", True),
    ("runs_here", 1, "runs_here must be true or false", True),
    ("runs_here", ABSENT, "runs_here must be true or false", True),
    ("model", [], "model must be an object", True),
    ("model.name", "", "model.name", True),
    ("model.name", "/home/me/llama", "model.name", True),
    ("model.name", "C:\\llama", "model.name", True),
    ("model.hub_id", "a b", "model.hub_id", True),
    ("model.hub_id", ABSENT, "model.hub_id", True),
    ("model.revision", "main", "model.revision", True),
    ("model.config", None, "model.config", True),
    ("model.path", "x", "model.path is not a key", True),
    ("graph", "io", "graph must be an object", True),
    ("quantization.recipe", None, "quantization.recipe", True),
    ("quantization.group_size", 0, "quantization.group_size", True),
    ("quantization.group_size", ABSENT, "quantization.group_size", True),
    ("quantization.group_size", 32.5, "quantization.group_size", True),
    ("quantization.bits_per_weight", None, "bits_per_weight", True),
    ("quantization.bits_per_weight", 10**39, "bits_per_weight", True),
    ("quantization.bits_per_weight", -1, "bits_per_weight", True),
    ("quantization.sqnr_db", "21", "sqnr_db", True),
    ("quantization.sqnr_db", ABSENT, "sqnr_db", True),
    ("quantization.tensors", [], "tensors must be an object", True),
    ("quantization.tensors", {"w": {"codes_sha256": HASH}}, "w.scales_sha256", True),
    ("quantization.tensors", {"w": {"codes_sha256": HASH.upper()}}, "w.codes_sha256", True),
    ("tokenizer.file", "other.model", "not among the files", False),
    ("tokenizer.file", "/etc/passwd", "not relative", True),
    ("tokenizer.vocab_size", 0, "vocab_size", True),
    ("tokenizer.bos_token_id", "x", "bos_token_id", True),
    ("tokenizer.bos_token_id", 128256, "inside the vocabulary", False),
    ("tokenizer.prefix_token_ids", 5, "a list of token ids", True),
    ("tokenizer.prefix_token_ids", [128256], "prefix_token_ids", False),
    ("tokenizer.stop_token_ids", [], "stop_token_ids", True),
    ("tokenizer.stop_token_ids", 5, "stop_token_ids", True),
    ("tokenizer.stop_token_ids", [True], "stop_token_ids", True),
    ("tokenizer.stop_token_ids", [128256], "inside the vocabulary", False),
    ("files", {}, "not among the files", True),
    ("files", {"a": 5}, "files.a must be an object", True),
    ("files", {"a": {"sha256": HASH, "size_bytes": -1}}, "files.a.size_bytes", True),
    ("files", {"a": {"sha256": HASH, "size_bytes": 1.5}}, "files.a.size_bytes", True),
    ("files", {"a": {"sha256": HASH[1:], "size_bytes": 1}}, "files.a.sha256", True),
    ("files", {"a": {"sha256": HASH, "size_bytes": 1, "x": 1}}, "files.a.x is not a key", True),
    ("created_with", {"\x1b[2J": "2"}, "named by a package", True),
    ("created_with", {"torch": 2}, "created_with.torch", True),
    ("created_with", {"host": "build7.example.org"}, "created_with.host", True),
    ("created_with", {"python": "/usr/bin/python3"}, "created_with.python", True),
]


DELEGATE = {
    "name": "xnnpack",
    "delegate_calls": 3,
    "outside": {"llama::custom_sdpa.out": 2},
    "products_inside": 15,
    "products": 15,
}
STATE_TENSOR = {"name": "keyCache", "dtype": "float16", "shape": [2, 1, 2, 4096, 64]}
GRAPH_DAMAGE = [
    ("inputs", ABSENT, "graph.inputs must be a list", True),
    ("inputs", [], "graph.inputs must be a list of at least one", True),
    ("inputs", {}, "graph.inputs must be a list", True),
    ("inputs", [5], "graph.inputs[0] must be an object", True),
    ("inputs", [STATE_TENSOR, STATE_TENSOR], "names of their own", False),
    ("outputs", [], "graph.outputs must be a list of at least one", True),
    ("outputs", [STATE_TENSOR] * 5000, "graph.outputs must be a list of at most", True),
    ("states", [{**STATE_TENSOR, "name": 5}], "states[0].name", True),
    ("states", [{**STATE_TENSOR, "name": "[/]"}], "states[0].name", True),
    ("states", [{**STATE_TENSOR, "dtype": "x"}], "states[0].dtype", True),
    ("states", [{**STATE_TENSOR, "dtype": ["float16"]}], "states[0].dtype", True),
    ("states", [{**STATE_TENSOR, "more": 1}], "states[0].more", True),
    ("states", [{**STATE_TENSOR, "shape": "64"}], "states[0].shape", True),
    ("states", [{**STATE_TENSOR, "shape": []}], "states[0].shape", True),
    ("states", [{**STATE_TENSOR, "shape": [1] * 9}], "states[0].shape", True),
    ("states", [{**STATE_TENSOR, "shape": [0]}], "states[0].shape", True),
    ("states", [{**STATE_TENSOR, "shape": [True]}], "states[0].shape", True),
    ("states", [{**STATE_TENSOR, "shape": [1.5]}], "states[0].shape", True),
    ("states", [{**STATE_TENSOR, "shape": [2**31]}], "states[0].shape", True),
    ("states", [{**STATE_TENSOR, "shape": [2**20, 2**20]}], "states[0].shape", False),
    ("states", [{**STATE_TENSOR, "shape": ["width"]}], "states[0].shape", True),
    ("kv_cache", ABSENT, "graph.kv_cache", True),
    ("kv_cache", "inside", "graph.kv_cache must be state or io", True),
    ("max_context", ABSENT, "graph.max_context", True),
    ("max_context", None, "graph.max_context", True),
    ("max_context", 0, "graph.max_context", True),
    ("max_context", -1, "graph.max_context", True),
    ("max_context", "64", "graph.max_context", True),
    ("max_context", 64.0, "graph.max_context", False),
    ("max_context", 2**24 + 1, "graph.max_context", True),
    ("all_logits", 0, "graph.all_logits must be true or false", True),
    ("all_logits", "no", "graph.all_logits must be true or false", True),
    ("functions", [1], "graph.functions must be an object", True),
    ("functions", {"decode": -1}, "graph.functions.decode", True),
    ("functions", {"decode": {}}, "graph.functions.decode", True),
    ("functions", {"[/]": 1}, "graph.functions must be an object", True),
    ("functions", {f"f{i}": 1 for i in range(17)}, "graph.functions must be an object", True),
    ("delegate", [], "graph.delegate must be an object", True),
    ("delegate", {"x": 1}, "graph.delegate.x is not a key", True),
    ("delegate.name", 5, "graph.delegate.name", True),
    ("delegate.outside", {"a": "b"}, "graph.delegate.outside.a", True),
    ("delegate.products", 2**31, "graph.delegate.products", True),
    ("delegate.kv_dtype", "int3", "graph.delegate.kv_dtype", True),
    ("delegate.kv_bytes_per_token", "x", "graph.delegate.kv_bytes_per_token", True),
    ("more", 1, "graph.more is not a key", True),
]


TURN = {"prefix": [128006, "user\n"], "suffix": [128009]}
TURNS = {
    "begin": [128000],
    "no_system": ["Today: ", {"strftime": "%d %b %Y"}, "\n"],
    **dict.fromkeys(("system", "user", "assistant"), TURN),
    "answer": [],
    "trim": ["system", "user"],
    "thoughts_end": "</think>",
}
INSIDE = {"user": "last", "before": "", "after": "\n\n"}
FOR_APPS = {
    "memory": {"resident_bytes": 10**9, "kv_bytes_per_token": 0},
    "chat": {"turns": TURNS, "reason": None},
}
FOR_APPS_DAMAGE = [
    ("memory", None, "memory must be an object", True),
    ("memory", {}, "memory.resident_bytes", True),
    ("memory.resident_bytes", -1, "memory.resident_bytes", True),
    ("memory.kv_bytes_per_token", 1.5, "memory.kv_bytes_per_token", True),
    ("memory.peak", 1, "memory.peak is not a key", True),
    ("chat", [], "chat must be an object", True),
    ("chat", {"turns": None, "reason": None}, "chat.reason must be why", True),
    ("chat", {"turns": None, "reason": "a\nb"}, "chat.reason must be why", True),
    ("chat", {"turns": None, "reason": " "}, "chat.reason must be why", True),
    ("chat", {"turns": None, "reason": "x" * 501}, "chat.reason must be why", True),
    ("chat.reason", "why", "chat.reason must be null", True),
    ("chat.reason", ABSENT, "chat.reason must be null", True),
    ("chat.turns", ABSENT, "chat.turns must be an object", True),
    ("chat.more", 1, "chat.more is not a key", True),
    ("chat.turns.tool", TURN, "chat.turns.tool is not a key", True),
    ("chat.turns.trim", True, "chat.turns.trim must be a list of roles", True),
    ("chat.turns.trim", ["user", "user"], "chat.turns.trim must be a list of roles", True),
    ("chat.turns.trim", ["tool"], "chat.turns.trim must be a list of system", True),
    ("chat.turns.trim", [[]], "chat.turns.trim must be a list of system", True),
    ("chat.turns.thoughts_end", "", "chat.turns.thoughts_end must be a text", True),
    ("chat.turns.thoughts_end", 1, "chat.turns.thoughts_end must be a text", True),
    ("chat.turns.thoughts_end", ABSENT, "chat.turns.thoughts_end must be a text", True),
    ("chat.turns.begin", ABSENT, "chat.turns.begin must be a list", True),
    ("chat.turns.begin", "<s>", "chat.turns.begin must be a list", True),
    ("chat.turns.begin", [True], "chat.turns.begin must be a list of token ids", True),
    ("chat.turns.begin", [-1], "chat.turns.begin must be a list of token ids", True),
    ("chat.turns.begin", [128256], "chat.turns.begin must be inside the vocabulary", False),
    ("chat.turns.begin", [""], "chat.turns.begin must be a list of token ids", True),
    ("chat.turns.begin", ["x" * 70000], "chat.turns.begin must be a list of token ids", True),
    ("chat.turns.begin", ["x"] * 257, "chat.turns.begin must be a list of at most 256", True),
    ("chat.turns.answer", [{"strftime": "%c"}], "chat.turns.answer must be", True),
    ("chat.turns.answer", [{"strftime": "today"}], "chat.turns.answer must be", True),
    ("chat.turns.answer", [{"strftime": "%d", "x": 1}], "chat.turns.answer must be", True),
    ("chat.turns.answer", [{}], "chat.turns.answer must be", True),
    ("chat.turns.user.suffix", None, "chat.turns.user.suffix must be a list", True),
    ("chat.turns.user.more", [], "chat.turns.user.more is not a key", True),
    ("chat.turns.system", ABSENT, "chat.turns.system must be an object", True),
    ("chat.turns.system", "none", "chat.turns.system must be an object", True),
    ("chat.turns.user", None, "chat.turns.user must be an object", True),
    ("chat.turns.user", INSIDE, "chat.turns.user.user is not a key", True),
    ("chat.turns.system", INSIDE | {"user": "second"}, "chat.turns.system.user must be", True),
    ("chat.turns.system", INSIDE | {"before": None}, "chat.turns.system.before must be", True),
    ("chat.turns.system", INSIDE | {"after": [1]}, "chat.turns.system.after must be", True),
    ("chat.turns.system", INSIDE | {"after": "\ud800"}, "chat.turns.system.after must be", False),
    ("chat.turns.system", INSIDE | TURN, "chat.turns.system.prefix is not a key", True),
]


@pytest.fixture(scope="module")
def schema():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    text = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(text)


READ = {
    "adapters": [{"name": "a", "hub_id": None, "revision": None}],
    "reading": {"rope_factor": 32.0, "accept_loss": True},
    "notes": ["the rope factor 32 was inferred"],
    "file": "BF16/M 1B-BF16-00001-of-00002.gguf",
}


@pytest.mark.parametrize("key", READ)
def test_how_a_model_was_read_fits_the_schema_or_is_absent(tmp_path, schema, key):
    raw = damaged(raw_manifest(tmp_path), f"model.{key}", READ[key])
    assert list(schema.iter_errors(raw)) == []
    assert json.loads(Manifest.from_json(raw).to_text())["model"][key] == READ[key]
    for wrong in (type(READ[key])(), 3, {"x": 1}):
        assert list(schema.iter_errors(damaged(raw, f"model.{key}", wrong)))
        with pytest.raises(BundleError, match=f"model.{key}"):
            Manifest.from_json(damaged(raw, f"model.{key}", wrong))


def test_what_weights_were_calibrated_on_fits_the_schema_or_is_absent(tmp_path, schema):
    right = {"method": "gptq_descent", "tokens": 32768, "ids_sha256": "0" * 64}
    raw = damaged(raw_manifest(tmp_path), "quantization.calibration", right)
    assert list(schema.iter_errors(raw)) == []
    assert Manifest.from_json(raw).quantization["calibration"] == right
    for key, wrong in (("method", ""), ("tokens", 0), ("tokens", "1"), ("ids_sha256", "0" * 63)):
        other = damaged(raw, f"quantization.calibration.{key}", wrong)
        assert list(schema.iter_errors(other))
        with pytest.raises(BundleError, match=f"quantization.calibration.{key}"):
            Manifest.from_json(other)


@pytest.mark.parametrize(
    "file",
    [
        "../x.gguf", "a/../x.gguf", "./x.gguf", "/x.gguf", "a//x.gguf", "C:/x.gguf", "a\\x.gguf",
        "a\nb.gguf", ".gguf/x", "x.bin", "x" * 200 + ".gguf", "a/.gguf/",
    ],
)  # fmt: skip
def test_a_file_of_a_repository_lies_in_it(tmp_path, schema, file):
    raw = damaged(raw_manifest(tmp_path), "model.file", file)
    assert list(schema.iter_errors(raw))
    with pytest.raises(BundleError, match=r"model\.file"):
        Manifest.from_json(raw)


def test_a_written_manifest_fits_the_schema(tmp_path, schema):
    raw = raw_manifest(tmp_path)
    assert list(schema.iter_errors(raw)) == []
    unquantised = {**raw["quantization"], "group_size": None, "sqnr_db": None, "tensors": {}}
    raw = damaged(damaged(raw, "quantization", unquantised), "model.hub_id", None)
    assert list(schema.iter_errors(damaged(raw, "model.revision", None))) == []
    Manifest.from_json(damaged(raw, "model.revision", None))


@pytest.mark.parametrize("prefix", [[], [1], [1, 2]])
def test_a_model_may_begin_a_text_with_anything_or_nothing(tmp_path, schema, prefix):
    raw = damaged(raw_manifest(tmp_path), "tokenizer.bos_token_id", None)
    raw = damaged(raw, "tokenizer.prefix_token_ids", prefix)
    assert list(schema.iter_errors(raw)) == []
    assert Manifest.from_json(raw).tokenizer["prefix_token_ids"] == prefix


@pytest.mark.parametrize(("where", "value", "word", "in_schema"), DAMAGE)
def test_a_wrong_field_is_named(tmp_path, where, value, word, in_schema):
    raw = damaged(raw_manifest(tmp_path), where, value)
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(raw)
    assert word in caught.value.message
    assert caught.value.hint


def test_the_schema_refuses_what_the_reader_refuses(tmp_path, schema):
    raw = raw_manifest(tmp_path)
    seen = [bool(list(schema.iter_errors(damaged(raw, *case[:2])))) for case in DAMAGE]
    assert seen == [in_schema for _, _, _, in_schema in DAMAGE]


def test_all_faults_are_named_at_once(tmp_path):
    raw = raw_manifest(tmp_path)
    for where, value in (("target", 3), ("model.name", None), ("files.a", {}), ("zeta", 1)):
        raw = damaged(raw, where, value)
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(raw)
    for word in ("target", "model.name", "files.a.sha256", "files.a.size_bytes", "zeta"):
        assert word in caught.value.message


def test_a_thousand_faults_are_counted(tmp_path):
    raw = damaged(raw_manifest(tmp_path), "files", {f"f{i}": 1 for i in range(1000)})
    with pytest.raises(BundleError, match="and 980 more faults") as caught:
        Manifest.from_json(raw)
    assert len(caught.value.message) < 5000


@pytest.mark.parametrize(("where", "value", "word", "in_schema"), GRAPH_DAMAGE)
def test_a_wrong_field_of_the_graph_is_named(tmp_path, schema, where, value, word, in_schema):
    """By whoever reads the manifest, and by whoever reads the graph alone."""
    whole = raw_manifest(tmp_path)
    whole["graph"] |= {"delegate": DELEGATE, "functions": {"decode": 1}, "states": [STATE_TENSOR]}
    raw = damaged(whole, f"graph.{where}", value)
    with pytest.raises(BundleError, match=re.escape(word)):
        Manifest.from_json(raw)
    with pytest.raises(BundleError, match=re.escape(word)):
        GraphSpec.from_json(raw["graph"])
    assert bool(list(schema.iter_errors(raw))) is in_schema
    assert GraphSpec.from_json(whole["graph"]).to_json() == whole["graph"]
    assert list(schema.iter_errors(whole)) == []


@pytest.mark.parametrize(("where", "value", "word", "in_schema"), FOR_APPS_DAMAGE)
def test_a_wrong_field_for_apps_is_named(tmp_path, schema, where, value, word, in_schema):
    whole = raw_manifest(tmp_path) | FOR_APPS
    assert list(schema.iter_errors(whole)) == []
    assert json.loads(Manifest.from_json(whole).to_text()) == whole
    raw = damaged(whole, where, value)
    with pytest.raises(BundleError, match=re.escape(word)):
        Manifest.from_json(raw)
    assert bool(list(schema.iter_errors(raw))) is in_schema


@pytest.mark.parametrize("system", [None, INSIDE, INSIDE | {"user": "first", "after": ""}])
def test_a_system_message_may_have_no_turn(tmp_path, schema, system):
    chat = {"turns": TURNS | {"system": system, "thoughts_end": None, "trim": []}, "reason": None}
    raw = raw_manifest(tmp_path) | {"chat": chat}
    assert list(schema.iter_errors(raw)) == []
    assert Manifest.from_json(raw).chat == chat


def test_a_model_without_turns_says_why(tmp_path, schema):
    raw = raw_manifest(tmp_path) | {"chat": {"turns": None, "reason": "a base model"}}
    assert list(schema.iter_errors(raw)) == []
    assert Manifest.from_json(raw).chat == {"turns": None, "reason": "a base model"}


def test_an_older_bundle_has_no_keys_for_apps(tmp_path):
    raw = raw_manifest(tmp_path)
    found = Manifest.from_json(raw)
    assert (found.memory, found.chat) == (None, None)
    assert "memory" not in found.to_json()
    first = first_version(raw, None)
    for key, value in FOR_APPS.items():
        with pytest.raises(BundleError, match=f"{key} is not a key of this format"):
            Manifest.from_json(first | {key: value})


@pytest.mark.parametrize("raw", [None, [], 5, "io", {}])
def test_a_graph_of_another_kind_is_named(raw):
    with pytest.raises(BundleError, match="graph"):
        GraphSpec.from_json(raw)


def values(raw: object, where: tuple = ()):
    """Yield the place of every value in parsed JSON."""
    yield where
    if isinstance(raw, (dict, list)):
        for key in raw if isinstance(raw, dict) else range(len(raw)):
            yield from values(raw[key], (*where, key))


ODD = (
    None,
    True,
    -1,
    0,
    2.5,
    10**39,
    "",
    "[/]",
    "x" * 5000,
    "\x1b[2J",
    "\ud800",
    [],
    [1],
    {},
    {"x": 1},
)


@pytest.mark.parametrize(
    "key", ["graph", "quantization", "tokenizer", "created_with", "model", "memory", "chat"]
)
def test_a_manifest_of_any_shape_is_read_or_named(tmp_path, key):
    """Every value is replaced by every odd one; what is let through can be written again."""
    whole = raw_manifest(tmp_path) | FOR_APPS
    whole["graph"] |= {"delegate": DELEGATE, "functions": {"decode": 1}, "states": [STATE_TENSOR]}
    for place in values(whole[key]):
        for odd in ODD:
            raw = json.loads(json.dumps(whole))
            owner, last = raw, key
            for step in place:
                owner, last = owner[last], step
            owner[last] = odd
            try:
                found = Manifest.from_json(raw)
            except BundleError:
                continue
            assert found.spec.max_context >= 1
            assert json.loads(found.to_text()) == raw


def first_version(raw: dict, status: str | None) -> dict:
    """Write a manifest as the first version of the format has it."""
    delegate = {} if status is None else {"delegate": {**DELEGATE, "status": status}}
    kept = {key: value for key, value in raw.items() if key != "runs_here"}
    return {**kept, "format_version": 1, "graph": {**raw["graph"], **delegate}}


@pytest.mark.parametrize(
    ("status", "runs_here"),
    [
        (None, True),
        ("runs in this machine's runtime", True),
        ("lowered, not run here", False),
    ],
)
def test_the_first_version_says_in_words_whether_an_artifact_runs(tmp_path, status, runs_here):
    folder = write_bundle(tmp_path / "b")
    raw = first_version(raw_manifest(tmp_path), status)
    rewrite(folder, raw)
    found = Bundle.open(folder).manifest
    assert found.runs_here is runs_here
    # It is written as it was read.
    assert json.loads(found.to_text()) == raw


def test_the_first_version_has_no_key_of_the_second(tmp_path):
    raw = first_version(raw_manifest(tmp_path), None) | {"runs_here": True}
    with pytest.raises(BundleError, match="runs_here is not a key of this format"):
        Manifest.from_json(raw)


def test_a_newer_format_names_both_versions(tmp_path):
    folder = write_bundle(tmp_path / "b")
    rewrite(folder, {"format_version": 3, "shape": "unknown"})
    with pytest.raises(BundleError, match=r"format_version 3; .* reads format_version 2") as caught:
        Bundle.open(folder)
    assert "update" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"format_version": NaN}',
        b'{"target": "a", "target": "b"}',
        b'{"format_version": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"model": {"' + b"\\u001b[2J" + b'": 1}}',
    ],
    ids=[
        "empty",
        "open",
        "list",
        "null",
        "no-utf8",
        "nan",
        "twice",
        "huge-number",
        "deep",
        "escape-codes",
    ],
)
def test_no_valid_json_is_a_bundle_error(tmp_path, text):
    folder = write_bundle(tmp_path / "b")
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert "manifest.json" in caught.value.message
    assert caught.value.message.isprintable()


def test_an_endless_manifest_is_not_read(tmp_path):
    folder = write_bundle(tmp_path / "b")
    with (folder / "manifest.json").open("wb") as file:
        file.truncate(2**34)
    with pytest.raises(BundleError, match="longer than 16777216 bytes"):
        Bundle.open(folder)


BAD_PATHS = [
    "../x",
    "a/../../x",
    "a/..",
    "..",
    "/etc/passwd",
    "//server/x",
    "~/x",
    "C:/x",
    "C:\\x",
    "c:x",
    "a\\b",
    "..\\x",
    "a//b",
    "./a",
    "a/./b",
    "a/",
    ".",
    "",
    "a\nb",
    "a\x00b",
    "manifest.json",
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_out_of_the_folder_is_refused(tmp_path, path):
    folder = write_bundle(tmp_path / "b")
    raw = json.loads((folder / "manifest.json").read_text())
    raw["files"][path] = {"sha256": HASH, "size_bytes": 1}
    rewrite(folder, raw)
    with pytest.raises(BundleError, match="path inside the folder"):
        Bundle.open(folder)


def test_half_a_surrogate_pair_in_a_path_is_refused():
    assert path_fault("a\ud800b")


GOOD_PATHS = ["a", "a/b.c", "..a", "a..b/...", "é/漢字 x", ".hidden", "a~", "x/manifest.json"]


@pytest.mark.parametrize("path", GOOD_PATHS)
def test_an_honest_path_is_accepted(path):
    assert path_fault(path) == ""


def test_the_schema_accepts_the_same_paths(tmp_path, schema):
    raw = raw_manifest(tmp_path)
    entry = {"sha256": HASH, "size_bytes": 1}
    fits = {
        path: not list(schema.iter_errors({**raw, "files": {path: entry}}))
        for path in BAD_PATHS + GOOD_PATHS
    }
    assert fits == {**dict.fromkeys(BAD_PATHS, False), **dict.fromkeys(GOOD_PATHS, True)}


def test_a_key_given_twice_is_refused(tmp_path):
    text = (write_bundle(tmp_path / "b") / "manifest.json").read_text()
    Manifest.from_text(text)
    with pytest.raises(BundleError, match="'target' is given twice"):
        Manifest.from_text(text.replace('"target": "onnx"', '"target": "onnx", "target": "onnx"'))
