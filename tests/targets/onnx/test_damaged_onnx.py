"""Damaged graphs and manifests of an ONNX bundle: named by every reader, and at every run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.resealing import reseal
from artifacts.small_bundle import export_small

from llama_export.bundle.bundle import Bundle
from llama_export.errors import BundleError, LlamaExportError
from llama_export.examine.inspection import inspect_bundle
from llama_export.generation.opening import open_session
from llama_export.targets.onnx.target import OnnxTarget
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.verify import VerifySettings, verify_bundle

onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

PROMPT = list(range(40))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    return export_small(tmp_path_factory.mktemp("damaged"), max_context=64)


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported / "onnx", tmp_path / "onnx"))


def edited(folder: Path, edit) -> Bundle:
    """Change the graph of a bundle and seal it again, so that no hash gives it away."""
    proto = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    edit(proto.graph)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return reseal(folder)


def stored_tensor(graph, suffix: str = ""):
    return next(each for each in graph.initializer if each.external_data and suffix in each.name)


def entry(graph, key: str):
    return next(each for each in stored_tensor(graph).external_data if each.key == key)


def without(graph, key: str) -> None:
    tensor = stored_tensor(graph)
    kept = [each for each in tensor.external_data if each.key != key]
    del tensor.external_data[:]
    tensor.external_data.extend(kept)


def circle(graph) -> None:
    """Let the codes of a product come from two casts that take each other's result."""
    product = next(node for node in graph.node if node.op_type == "MatMulNBits")
    for mine, other in (("a", "b"), ("b", "a")):
        graph.node.insert(0, onnx.helper.make_node("Cast", [mine], [other], to=1))
    product.input[1] = "a"


GRAPHS = {
    "a length in words": lambda graph: setattr(entry(graph, "length"), "value", "many"),
    "a length below 0": lambda graph: setattr(entry(graph, "length"), "value", "-64"),
    "a length of 5000 digits": lambda graph: setattr(entry(graph, "length"), "value", "9" * 5000),
    "no length": lambda graph: without(graph, "length"),
    "no offset": lambda graph: without(graph, "offset"),
    "an offset below 0": lambda graph: setattr(entry(graph, "offset"), "value", "-4096"),
    "other dimensions": lambda graph: stored_tensor(graph, "codes").dims.__setitem__(0, 3),
    "another type": lambda graph: setattr(stored_tensor(graph), "data_type", 3),
    "other metadata": lambda graph: setattr(
        next(node for node in graph.node if node.metadata_props).metadata_props[0], "value", "x"
    ),
    "no outputs": lambda graph: graph.output.__delitem__(slice(None)),
    "nodes without inputs": lambda graph: [
        node.input.__delitem__(slice(None)) for node in graph.node
    ],
    "nodes without attributes": lambda graph: [
        node.attribute.__delitem__(slice(None)) for node in graph.node
    ],
    "a circle": circle,
}


def readers(bundle: Bundle):
    target, artifact = OnnxTarget(), StoredArtifact.of(bundle)
    probe = target.probe(artifact)
    return {
        "stored": lambda: target.stored(artifact),
        "describe": lambda: target.describe(artifact),
        "inspect": lambda: inspect_bundle(bundle),
        "rounded": lambda: target.rounded_inputs(artifact),
        "probe": lambda: probe([PROMPT[:4]]),
        "exact": lambda: target.open_session(artifact, exact=True).prefill(PROMPT),
        "shipped": lambda: target.open_session(artifact).prefill(PROMPT),
    }


@pytest.mark.parametrize("name", GRAPHS)
def test_a_damaged_graph_is_named_by_whoever_reads_it(folder, name):
    refused = []
    for reader, read in readers(edited(folder, GRAPHS[name])).items():
        try:
            read()
        except BundleError as error:
            refused.append((reader, error.hint))
    assert refused
    assert all(hint for _, hint in refused)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff" * 64, b"\x08"])
def test_bytes_that_are_no_graph_are_named_by_whoever_reads_them(folder, content):
    (folder / "model.onnx").write_bytes(content)
    for reader, read in readers(reseal(folder)).items():
        # An empty message is a graph, of no operators and no weights; it cannot be run.
        if content == b"" and reader not in ("exact", "shipped"):
            continue
        with pytest.raises(BundleError):
            read()


def test_a_missing_data_file_is_named(folder):
    """A manifest that does not list it opens."""
    raw = json.loads((folder / "manifest.json").read_text())
    del raw["files"]["model.onnx_data"]
    (folder / "manifest.json").write_text(json.dumps(raw))
    (folder / "model.onnx_data").unlink()
    for reader, read in readers(Bundle.open(folder)).items():
        if reader != "rounded":
            with pytest.raises(BundleError):
                read()


def swap_mask(graph) -> None:
    """Subtract the wrong way round, so that the graph loads and fails as it runs."""
    nodes = (node for node in graph.node if node.op_type == "Sub")
    source = next(node for node in nodes if "tokens" in node.input[0])
    source.input[0], source.input[1] = source.input[1], source.input[0]


def test_a_graph_that_fails_as_it_runs_is_named(folder, capfd):
    bundle = edited(folder, swap_mask)
    with open_session(folder) as session, pytest.raises(BundleError, match="cannot run") as no:
        session.generate(PROMPT)
    assert no.value.hint
    assert capfd.readouterr().err == ""  # the runtime would quote the graph's names there
    with pytest.raises(LlamaExportError):
        verify_bundle(bundle, settings=VerifySettings(quick=True))


def test_the_session_is_as_it_was_after_a_failed_run(folder, monkeypatch):
    session = OnnxTarget().open_session(StoredArtifact.of(Bundle.open(folder)))
    session.prefill(PROMPT[:5])

    def fail(_binding):
        message = "the kernel failed"
        raise RuntimeError(message)

    real = session._runtime
    session._runtime = type("Runtime", (), {"run_with_iobinding": staticmethod(fail)})()
    with pytest.raises(BundleError, match="over 2 tokens: the kernel failed"):
        session.prefill(PROMPT[5:7])
    session._runtime = real
    assert session.position == 5
    session.prefill(PROMPT[5:7])


def tensors(graph: dict, key: str, name: str) -> dict:
    return next(tensor for tensor in graph[key] if tensor["name"] == name)


MANIFESTS = {
    "another vocabulary": lambda g: tensors(g, "outputs", "logits")["shape"].__setitem__(2, 500),
    "logits of every row": lambda g: g.update(all_logits=True),
    "more heads": lambda g: [
        tensor["shape"].__setitem__(1, 4) for tensor in g["inputs"][2:] + g["outputs"][1:]
    ],
    "wider heads": lambda g: [
        tensor["shape"].__setitem__(3, 32) for tensor in g["inputs"][2:] + g["outputs"][1:]
    ],
    "one head more in one cache": lambda g: g["inputs"][2]["shape"].__setitem__(1, 3),
    "a cache of a known length": lambda g: g["inputs"][2]["shape"].__setitem__(2, 64),
    "a cache that is missing": lambda g: g["inputs"].pop(),
    "a layer that is missing": lambda g: [
        (g["inputs"].pop(), g["outputs"].pop()) for _ in ("key", "value")
    ],
    "no caches": lambda g: g.update(inputs=g["inputs"][:2]),
    "a cache of another name": lambda g: g["inputs"][2].update(name="past"),
    "caches in another order": lambda g: g["inputs"].reverse(),
    "float16 caches": lambda g: [each.update(dtype="float16") for each in g["inputs"][2:]],
    "a cache inside": lambda g: g.update(kv_cache="state"),
    "functions": lambda g: g.update(functions={"decode": 1}),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_says_something_else_than_the_artifact_is_named(folder, name):
    raw = json.loads((folder / "manifest.json").read_text())
    MANIFESTS[name](raw["graph"])
    (folder / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="graph"):
        open_session(folder)


def test_a_longer_context_than_the_artifact_has_is_named_where_it_ends(folder):
    raw = json.loads((folder / "manifest.json").read_text())
    raw["graph"]["max_context"] = 4096
    (folder / "manifest.json").write_text(json.dumps(raw))
    with open_session(folder) as session, pytest.raises(BundleError, match="cannot run"):
        session.logits([5] * 300)


@pytest.mark.parametrize("value", [float("-inf"), float("inf")])
def test_logits_that_are_no_numbers_end_the_text(folder, value):
    """One number of the last norm: the text would be garbage, with exit code 0."""
    import numpy as np

    proto = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    norm = next(each for each in proto.graph.initializer if each.name == "model.norm.weight")
    offset = next(int(each.value) for each in norm.external_data if each.key == "offset")
    data = bytearray((folder / "model.onnx_data").read_bytes())
    data[offset + 120 : offset + 124] = np.float32(value).tobytes()
    (folder / "model.onnx_data").write_bytes(data)
    with pytest.raises(BundleError, match="onnx_data is changed"):
        open_session(folder)
    with open_session(folder, verify=False) as session:
        for call in (
            lambda: session.generate(PROMPT),
            lambda: session.logits(PROMPT),
            lambda: list(session.stream(PROMPT)),
        ):
            with pytest.raises(BundleError, match="not finite numbers") as caught:
                call()
            assert "llama-export verify" in caught.value.hint


def test_a_graph_beside_another_manifest_of_ours_is_named(folder):
    """Logits of another shape than the manifest says do not get as far as a text."""
    bundle = Bundle.open(folder)
    spec = bundle.manifest.spec
    session = OnnxTarget().open_session(StoredArtifact(bundle.artifact, spec))
    session._spec = replace(spec, all_logits=True)
    with pytest.raises(BundleError, match=r"logits: expected float32 \(1, 3, 512\)"):
        session.prefill([1, 2, 3])
