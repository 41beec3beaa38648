"""What the ExecuTorch target refuses: by name, with what to do next, and before any long work."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import random
import shutil
import struct
from dataclasses import replace
from importlib import metadata

import pytest
from artifacts.executorch_artifacts import CONTEXT, demo_bundle, lower_to, tiny, workshop
from artifacts.tiny import TINY, UNTIED, write_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BackendUnavailableError, BundleError, LoweringError, UsageError
from llama_export.exporting.estimate import choose_context
from llama_export.generation.opening import open_session
from llama_export.system import quiet
from llama_export.targets import registry
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.reading.activations import rounded_inputs
from llama_export.targets.executorch.reading.describe import describe
from llama_export.targets.executorch.reading.flatbuffer import Table
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.read_back import read_back
from llama_export.targets.executorch.reading.weights import read_weights
from llama_export.targets.executorch.running import runtime
from llama_export.targets.executorch.running import session as session_module
from llama_export.targets.executorch.running.session import ExecutorchSession
from llama_export.targets.executorch.running.shared_table import check_shared_table
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.verify import VerifySettings, verify_bundle
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import QuantRecipe, QuantRule, recipe
from llama_quantize.scheme import Float, GroupedInt

pytest.importorskip("executorch", reason="needs the executorch extra")

__all__ = ["demo_bundle", "tiny", "workshop"]


# --- The toolkit ---


def test_a_missing_toolkit_is_named_with_its_extra(monkeypatch, tiny):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if "executorch" in name else real(name),
    )
    for call in (
        runtime.load_toolkit,
        lambda: registry.require_toolkit("executorch"),
        lambda: ExecutorchSession.open(tiny.stored),
    ):
        with pytest.raises(BackendUnavailableError, match="needs executorch, not installed") as no:
            call()
        assert "pip install" in no.value.hint
        assert "the extra 'executorch'" in no.value.hint


def test_a_folder_of_the_toolkits_name_is_no_toolkit(monkeypatch):
    """Every bundle's folder is called `executorch`, and the current folder may be on the path."""

    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    folder = importlib.machinery.ModuleSpec("executorch", None, is_package=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: folder)
    for call in (runtime.load_toolkit, lambda: registry.require_toolkit("executorch")):
        with pytest.raises(BackendUnavailableError) as no:
            call()
        assert "the extra 'executorch'" in no.value.hint


def test_a_program_longer_than_its_file_is_named_and_not_read(tiny, tmp_path):
    data = bytearray(tiny.path.read_bytes())
    data[16:24] = (2**45).to_bytes(8, "little")
    (tmp_path / "long.pte").write_bytes(data)
    with pytest.raises(BundleError, match="is damaged"):
        Pte.open(tmp_path / "long.pte")


def test_a_cache_of_another_name_is_named(tiny, tmp_path):
    data = tiny.path.read_bytes().replace(b"key_cache_0", b"key_cache_x")
    (tmp_path / "other.pte").write_bytes(data)
    with pytest.raises(BundleError, match="is damaged"):
        ExecutorchSession.open(StoredArtifact(tmp_path / "other.pte", tiny.spec))


def test_silence_needs_no_stderr(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with quiet.silenced():
        pass


def test_a_bundle_for_another_delegate_is_no_damaged_one(demo_bundle, monkeypatch):
    bundle = Bundle.open(demo_bundle)
    counts = {"delegate_calls": 1, "products": 1, "products_inside": 1, "outside": {}}
    graph = {**bundle.manifest.graph, "delegate": {"name": "vulkan", **counts}}
    lowered = replace(bundle, manifest=replace(bundle.manifest, graph=graph, runs_here=False))
    monkeypatch.setattr(Bundle, "open", lambda _folder: lowered)
    for call in (
        lambda: verify_bundle(lowered, settings=VerifySettings(quick=True)),
        lambda: open_session(demo_bundle),
    ):
        with pytest.raises(
            BackendUnavailableError, match="lowered for vulkan, and cannot run here"
        ):
            call()


@pytest.mark.parametrize("version", ["1.3.1", "1.40.0", "2.0", "1.5.0a0"])
def test_another_version_of_the_toolkit_is_named(monkeypatch, version):
    monkeypatch.setattr(metadata, "version", lambda _name: version)
    with pytest.raises(BackendUnavailableError, match=f"executorch {version} is installed") as no:
        runtime.load_toolkit()
    assert "executorch==1.4.*" in no.value.hint


# --- Files ---


def opened(path, spec):
    return lambda: ExecutorchSession.open(StoredArtifact(path, spec))


def test_a_file_of_another_schema_is_named(tiny, tmp_path):
    data = tiny.path.read_bytes()
    path = tmp_path / "model.pte"
    path.write_bytes(data[:4] + b"ET13" + data[8:])
    with pytest.raises(BundleError, match="is of the schema ET13; this version reads ET12") as no:
        ExecutorchSession.open(StoredArtifact(path, tiny.spec))
    assert "executorch 1.4" in no.value.hint


def test_files_that_are_no_programs_are_named(tiny, tmp_path):
    path = tmp_path / "model.pte"
    for content in (b"", b"x", b"\0" * 4096, b"GGUF" * 100, b"ET12" * 4, bytes(range(256)) * 9):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"model\.pte is no ExecuTorch program") as no:
            ExecutorchSession.open(StoredArtifact(path, tiny.spec))
        assert no.value.hint
    data = tiny.path.read_bytes()
    path.write_bytes(data[:8] + b"\0" * 4 + data[12:])
    with pytest.raises(BundleError, match="no extended header"):
        ExecutorchSession.open(StoredArtifact(path, tiny.spec))
    with pytest.raises(BundleError, match="cannot be read: Is a directory"):
        ExecutorchSession.open(StoredArtifact(tmp_path, tiny.spec))
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        ExecutorchSession.open(StoredArtifact(tmp_path / "absent.pte", tiny.spec))


def test_a_file_that_was_cut_is_named_wherever_it_was_cut(tiny, tmp_path):
    data, program = tiny.path.read_bytes(), len(Pte.open(tiny.path).program)
    path = tmp_path / "model.pte"
    cuts = (10, 63, 64, program // 2, program - 1, program, len(data) // 2, len(data) - 1)
    for cut in cuts:
        path.write_bytes(data[:cut])
        with pytest.raises(BundleError, match=r"model\.pte is (damaged|no ExecuTorch)") as no:
            ExecutorchSession.open(StoredArtifact(path, tiny.spec))
        assert "export the bundle again" in no.value.hint
    path.write_bytes(data)
    assert ExecutorchSession.open(StoredArtifact(path, tiny.spec)).position == 0


def test_a_bundle_with_a_cut_artifact_is_refused_by_the_command(demo_bundle, tmp_path, command):
    import shutil

    folder = tmp_path / "executorch"
    shutil.copytree(demo_bundle, folder)
    data = (folder / "model.pte").read_bytes()
    (folder / "model.pte").write_bytes(data[:-1000])
    code, out, error = command("generate", folder, "--prompt", "The", "--temperature", "0")
    assert code == BundleError.exit_code
    assert out == ""
    assert "model.pte" in error


# --- What cannot be lowered, before anything is lowered ---

FLOAT_TABLE = QuantRecipe(
    "float table",
    (
        QuantRule(r"model\.embed_tokens\.weight", Float("bfloat16")),
        QuantRule(r"lm_head\.weight", GroupedInt(8, None), "nearest"),
        *(rule for rule in recipe("int4").rules if "embed" not in rule.pattern),
    ),
)


def groups_of(bits: int, size: int | None) -> QuantRecipe:
    rules = recipe("int4").rules
    return QuantRecipe("other", (QuantRule(r".*_proj\.weight", GroupedInt(bits, size)), *rules[1:]))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (recipe("bf16"), r"q_proj\.weight is stored as (torch\.)?bfloat16"),
        (recipe("fp16"), r"q_proj\.weight is stored as (torch\.)?float16"),
        (groups_of(4, 16), "has groups of 16 in rows of 128"),
        (groups_of(8, 32), "has int8 codes in groups of 32; XNNPACK wants one scale a row"),
    ],
    ids=["bf16", "fp16", "int4 groups of 16", "int8 groups"],
)
def test_a_recipe_without_a_kernel_is_refused(workshop, tmp_path, chosen, message):
    weights = workshop.weights(TINY, chosen)
    with pytest.raises(LoweringError, match=message) as no:
        lower_to(tmp_path, TINY, weights)
    assert "--quantize int4" in no.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_token_table_that_the_lookup_cannot_read_is_refused(workshop, tmp_path):
    weights = workshop.weights(UNTIED, FLOAT_TABLE)
    with pytest.raises(LoweringError, match="the token table is stored as bfloat16") as no:
        lower_to(tmp_path, UNTIED, weights)
    assert "--quantize int4" in no.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_quantiser_itself_has_no_groups_of_16():
    with pytest.raises(QuantizationError, match="group size 16"):
        recipe("int4", 16)


def test_an_artifact_that_cannot_be_is_not_written_by_the_command(tmp_path, command):
    folder = write_checkpoint(tmp_path / "tiny")
    arguments = ("-t", "executorch", "-m", folder, "-o", tmp_path / "out")
    for more, code, words in (
        (("--quantize", "bf16"), LoweringError.exit_code, "bfloat16"),
        (("--max-context", 0), 2, "expected 1 to 16384"),
        (("--max-context", 16385), 2, "found 16385"),
        (("--kv-cache", "both"), 2, "expected state or io, found 'both'"),
        (("--kv-dtype", "int8"), 2, "expected float32 or float16, found 'int8'"),
        (("--delegate", "qnn"), 2, "expected xnnpack, vulkan or coreml, found 'qnn'"),
        (("--delegate", "vulkan", "--kv-cache", "io"), 2, "keeps a float32 KV cache inside"),
    ):
        found, out, error = command(*arguments, *more, columns=200)
        assert (found, out) == (code, ""), error
        assert words in error
        assert not (tmp_path / "out" / "executorch").exists()


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(tiny, demo_bundle, command, threads):
    for call in (
        lambda: runtime.load_method(tiny.path, threads=threads),
        lambda: ExecutorchSession.open(tiny.stored, threads=threads),
    ):
        with pytest.raises(UsageError, match=f"expected at least 1, found {threads}"):
            call()
    code, _, error = command("generate", demo_bundle, "--prompt", "x", "--threads", threads)
    assert code == 2
    assert "threads" in error


def test_the_context_is_one_to_the_models_own():
    limit = TINY.max_position_embeddings
    assert choose_context("executorch", limit, None) == 2048
    assert choose_context("executorch", CONTEXT, None) == CONTEXT
    assert choose_context("executorch", limit, limit) == limit
    for asked in (0, -5, limit + 1):
        with pytest.raises(UsageError, match=f"expected 1 to {limit}.*found {asked}"):
            choose_context("executorch", limit, asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_cache": "both"}, "--kv-cache: expected state or io, found 'both'"),
        ({"kv_dtype": "bfloat16"}, "--kv-dtype: expected float32 or float16, found 'bfloat16'"),
        ({"delegate": "qnn"}, "--delegate: expected xnnpack, vulkan or coreml, found 'qnn'"),
        ({"delegate": "vulkan", "kv_cache": "io"}, "--delegate vulkan keeps a float32 KV cache"),
        ({"delegate": "coreml", "all_logits": True}, "--delegate coreml keeps"),
        ({"delegate": "vulkan", "kv_dtype": "float16"}, "--delegate vulkan keeps"),
    ],
)
def test_options_that_no_artifact_has_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        registry.get("executorch").check(ExecutorchOptions(**changes))


def test_options_that_there_are_pass():
    for changes in ({}, {"kv_cache": "io", "kv_dtype": "float16"}, {"share_table": False}):
        registry.get("executorch").check(ExecutorchOptions(**changes))


# --- Damage ---

ENDS = (b"\xff" * 8, b"\0" * 8, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f")
DAMAGE = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(ENDS)),
)


def damaged(data: bytes, places: list[tuple[int, int]], damages) -> bytes:
    """Overwrite bytes; where is a share of the places, one after the other."""
    changed = bytearray(data)
    total = sum(length for _, length in places)
    for share, value in damages:
        at = int(share * total)
        for start, length in places:
            if at < length:
                changed[start + at : start + at + len(value)] = value
                break
            at -= length
    return bytes(changed[: len(data)])


@settings(
    max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damages=st.lists(DAMAGE, min_size=1, max_size=4))
def test_damage_ends_in_an_error_of_ours_or_in_nothing(tiny, tmp_path, damages):
    """Of the program and the delegates any bytes change: nothing else is raised, nothing hangs."""
    pte = Pte.open(tiny.path)
    delegates = [pte.segments[segment] for _, segment in pte.delegates]
    places = [(0, len(pte.program))]
    places += [(pte.segments_at + each.offset, each.size_bytes) for each in delegates]
    path = tmp_path / "model.pte"
    path.write_bytes(damaged(tiny.path.read_bytes(), places, damages))
    for read in (
        lambda: read_weights(Pte.open(path)),
        lambda: read_back(path),
        lambda: rounded_inputs(path),
        lambda: describe(StoredArtifact(path, tiny.spec)),
        lambda: check_shared_table(Pte.open(path)),
    ):
        caught = None
        try:
            read()
        except BundleError as error:
            caught = error
        assert caught is None or ("model.pte" in caught.message and caught.hint)


@settings(max_examples=300, deadline=1000)
@given(
    data=st.binary(max_size=200),
    start=st.integers(-8, 210),
    field=st.integers(0, 40),
    form=st.sampled_from("bBhHiIqQ"),
)
def test_any_bytes_read_as_tables_end_in_a_value_error_or_in_nothing(data, start, field, form):
    try:
        table = Table.root(data, start)
        table.number(field, form)
        table.text(field)
        table.numbers(field, form)
        inner = table.table(field)
        nested = list(table.tables(field))
        for each in (*nested[:3], *((inner,) if inner else ())):
            each.text(field)
    except ValueError:
        pass


# --- What the manifest says, and when a file is looked at ---


def logits_of(rows) -> dict:
    return {"name": "logits", "dtype": "float32", "shape": rows}


OTHER_SIGNATURES = {
    "a longer context": {"max_context": 4096},
    "another vocabulary": {"outputs": [logits_of([1, 999])]},
    "a vocabulary that varies": {"outputs": [logits_of([1, "sequence_length"])]},
    "two outputs": {"outputs": [logits_of([1, 512]), {**logits_of([1, 512]), "name": "more"}]},
    "caches outside": {"kv_cache": "io"},
    "every row": {"all_logits": True},
    "one token a call": {
        "inputs": [
            {"name": "tokens", "dtype": "int64", "shape": [1, 1]},
            {"name": "input_pos", "dtype": "int64", "shape": [1]},
        ]
    },
    "other names": {
        "inputs": [
            {"name": "ids", "dtype": "int64", "shape": [1, "sequence_length"]},
            {"name": "input_pos", "dtype": "int64", "shape": [1]},
        ]
    },
    "one input": {"inputs": [{"name": "tokens", "dtype": "int64", "shape": [1, 1]}]},
    "functions": {"functions": {"forward": 1}},
}


@pytest.mark.parametrize("name", OTHER_SIGNATURES)
def test_a_manifest_that_says_something_else_than_the_program_is_named(tiny, name, monkeypatch):
    def never(*_given, **_options):
        pytest.fail("the runtime was given it")

    monkeypatch.setattr(session_module, "load_method", never)
    spec = GraphSpec.from_json({**tiny.spec.to_json(), **OTHER_SIGNATURES[name]})
    with pytest.raises(BundleError, match=r"manifest\.json: the graph"):
        ExecutorchSession.open(StoredArtifact(tiny.path, spec))


def test_one_flipped_bit_of_a_program_is_named_before_the_runtime_has_it(
    demo_bundle, tmp_path, monkeypatch
):
    """It ended the process: a `.pte` is trusted by what maps it."""

    def never(*_given, **_options):
        pytest.fail("the runtime was given it")

    folder = shutil.copytree(demo_bundle, tmp_path / "bundle")
    monkeypatch.setattr(session_module, "load_method", never)
    good = (folder / "model.pte").read_bytes()
    rnd = random.Random(3)
    for at in (8071, *(rnd.randrange(len(good)) for _ in range(5))):
        damaged = bytearray(good)
        damaged[at] ^= 1 << rnd.randrange(8)
        (folder / "model.pte").write_bytes(damaged)
        with pytest.raises(BundleError, match=r"model\.pte is changed"):
            open_session(folder)


def test_whatever_the_binding_raises_as_it_runs_is_the_bundles(tiny):
    session = ExecutorchSession.open(tiny.stored)
    session.prefill([1, 2, 3])

    def fail(_inputs):
        message = "index out of range"
        raise IndexError(message)

    real, session._program._method = session._program._method, fail
    with pytest.raises(BundleError, match="cannot run the program: index out of range"):
        session.prefill([4])
    session._program._method = real
    assert session.position == 3


@pytest.mark.parametrize("damage", ["name", "memory"])
def test_what_the_runtime_ends_the_process_over_is_named(tiny, tmp_path, damage):
    """It asserts that a method has a name, and that its memory can be had."""
    data = bytearray(tiny.path.read_bytes())
    last = Pte.open(tiny.path).methods[-1]
    if damage == "name":
        place = last.text_place(0)
        data[place - 4 : place] = bytes(4)
    else:
        place, count = last.vector(8)
        data[place : place + 8 * count] = (b"\xff" * 7 + b"\x80") * count
    (tmp_path / "model.pte").write_bytes(data)
    with pytest.raises(BundleError, match=r"has no name|plans .* bytes of memory"):
        ExecutorchSession.open(StoredArtifact(tmp_path / "model.pte", tiny.spec))


def test_the_runtime_checks_a_programs_offsets_itself(tiny, tmp_path, monkeypatch):
    """A list that leads out of the file, which our own reader did not look at."""
    data = bytearray(tiny.path.read_bytes())
    chains = Pte.open(tiny.path).method("forward").place(6)
    data[chains + 3] = 0x7F
    (tmp_path / "model.pte").write_bytes(data)
    with pytest.raises(BundleError, match="ExecuTorch cannot load"):
        runtime.load_method(tmp_path / "model.pte", threads=None)


def test_lists_that_share_their_bytes_are_not_read_for_ever():
    """A kilobyte of tables, each of which is the same list of the same tables."""
    count = 2000
    vtable, table = 0, 8
    start = table + 8
    data = bytearray(start + 4 + 4 * count)
    struct.pack_into("<HHH", data, vtable, 6, 8, 4)  # one field, at 4
    struct.pack_into("<iI", data, table, table - vtable, start - table - 4)
    struct.pack_into("<I", data, start, count)
    for at in range(start + 4, len(data), 4):
        struct.pack_into("<I", data, at, (table - at) % 2**32)
    root = Table(bytes(data), table)
    for _ in range(10**6 // count):
        assert len(root.numbers(0, "I")) == count
    with pytest.raises(ValueError, match="elements together"):
        root.numbers(0, "I")
