"""The fuzzer itself: that its cases can be drawn again, and that it sees each kind of failure."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest import mock

import pytest
import torch
from artifacts.gguf_files import key_value, raw_gguf, tensor_info, text

from fuzzing import child, judge, lying_hub
from fuzzing.campaign import shares
from fuzzing.cases import Case, draw, replayed
from fuzzing.child import Outcome, Run, run_forked
from fuzzing.containers import HEADER, PICKLE, edited, parts
from fuzzing.edits import Edit, apply_all
from fuzzing.json_spans import find_spans
from fuzzing.judge import Seen
from fuzzing.minimise import minimise
from fuzzing.mutate_gguf import double_item, drop_item, find_pieces
from fuzzing.mutate_json import JSON_AWARE
from fuzzing.mutate_pickle import PICKLE_AWARE
from fuzzing.mutate_template import change_template, change_template_in_json
from fuzzing.mutate_wire import change_bytes, double_field, drop_field, find_fields
from fuzzing.staging import reseal
from fuzzing.surfaces import SURFACES
from llama_export.cli.main import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits its children")

JSON = b'{"a": [1, -2.5e3, "x\\"]"], "b": {"c": null, "d": {}}, "e": [], "f": true}'
TENSORS = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
# Two fields: a number, and a message that holds a text.
MESSAGE = b"\x08\x96\x01\x12\x07\x0a\x05hello"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
GGUF = raw_gguf(
    (
        key_value("general.architecture", 8, text("llama")),
        key_value("llama.block_count", 4, struct.pack("<I", 2)),
        key_value("llama.rope.freq_base", 6, struct.pack("<f", 1e4)),
        key_value("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
    ),
    (tensor_info("w", (4, 2), 0, 0), tensor_info("v", (4,), 0, 32)),
    bytes(48),
)
ARRAY = b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'}" + bytes(64)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Return a folder with a small stand-in for each file that is mutated."""
    folder = tmp_path_factory.mktemp("base")
    for surface in SURFACES.values():
        for file in surface.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stand_in(path.name))
    for name in ("config.json", "model.safetensors"):
        (folder / "ck" / name).write_bytes(stand_in(name))
    (folder / "hub.json").write_text(json.dumps(lying_hub.honest(folder / "ck")))
    return folder


def stand_in(name: str) -> bytes:
    if name == "tokenizer_config.json":
        return json.dumps({"chat_template": TEMPLATE}).encode()
    if name.endswith(".json"):
        return JSON
    if name.endswith((".bin", ".pth")):
        saved = io.BytesIO()
        torch.save({"w": torch.ones(2)}, saved)
        return saved.getvalue()
    if name.endswith(".gguf"):
        return GGUF
    if name.endswith(".safetensors"):
        return len(TENSORS).to_bytes(8, "little") + TENSORS + bytes(4)
    if name.endswith(".npz"):
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            archive.writestr("conversation.json", JSON)
            archive.writestr(
                "key.0.npy", b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': '<f4'}" + bytes(64)
            )
        return written.getvalue()
    known = {"tokenizer.model": b"IQ== 0\nIg== 1\n", "model.onnx": MESSAGE}
    return {**known, "chat_template.jinja": TEMPLATE.encode()}.get(name, bytes(range(99)))


@pytest.mark.parametrize("name", SURFACES)
def test_the_same_seed_draws_the_same_cases(base, name):
    first, again, other = (
        [draw(SURFACES[name], seed, number, base) for number in range(30)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    for case in first:
        assert case.content(base) != (base / case.path).read_bytes()
        written = json.dumps([case.to_json()])
        assert replayed(written) == [case]


def test_every_surface_gets_its_share():
    counts = shares(list(SURFACES.values()), 40_000)
    assert abs(sum(counts.values()) - 40_000) < len(counts)
    assert min(counts.values()) > 50
    assert set(shares(list(SURFACES.values()), 1).values()) == {1}


def test_spans_are_the_values_of_the_text():
    spans = find_spans(JSON)
    values = [json.loads(JSON[span.start : span.end]) for span in spans]
    assert values[0] == json.loads(JSON)
    assert values[1:5] == [[1, -2500.0, 'x"]'], 1, -2500.0, 'x"]']
    assert len(spans) == 10
    with pytest.raises(ValueError, match="no JSON"):
        find_spans(b'{"a": }')


@pytest.mark.parametrize("mutate", set(JSON_AWARE))
def test_a_json_mutation_changes_many_things(mutate):
    done = [apply_all(mutate(JSON, Random(seed)), JSON) for seed in range(60)]
    assert len(set(done)) > 5
    if mutate.__name__ == "delete_member":
        assert all(len(find_spans(content)) < 10 for content in done if content != b"null")


def test_fields_of_a_message_are_found_and_lengths_kept():
    fields = find_fields(MESSAGE)
    assert [MESSAGE[field.value : field.end] for field in fields] == [
        b"\x96\x01",
        b"\x0a\x05hello",
        b"hello",
    ]
    assert find_fields(b"\x12\x7f") == ()
    for mutate in (change_bytes, drop_field, double_field):
        for seed in range(40):
            content = apply_all(mutate(MESSAGE, Random(seed)), MESSAGE)
            assert content == b"" or find_fields(content), (mutate, seed, content)


def test_a_part_is_edited_and_what_stands_around_it_kept_true():
    tensors = stand_in("x.safetensors")
    done = edited("x.safetensors", tensors, [Edit(2, 1, b"weight", HEADER)])
    assert parts("x.safetensors", done)[HEADER] == TENSORS.replace(b"w", b"weight", 1)
    assert done.endswith(bytes(4))
    saved = edited("x.npz", stand_in("x.npz"), [Edit(0, 99, b"{}", "conversation.json")])
    assert parts("x.npz", saved)["conversation.json"] == b"{}"  # reading it checks the checksum
    found = Edit(1, 2, b"-", find=b'"a"')
    assert found.apply(b'x"a"y') == b'x"-y'
    assert found.apply(b"none") == b"none"
    assert Edit(0, 0, b"ab", times=3).apply(b"c") == b"abababc"


def test_pieces_of_a_gguf_header_are_found_and_counts_kept():
    pieces = find_pieces(GGUF)
    texts = [GGUF[each.start + 8 : each.end] for each in pieces if each.kind == "text"]
    assert texts[:2] == [b"general.architecture", b"llama"]
    assert texts[-2:] == [b"w", b"v"]
    counts = {kind: sum(each.kind == kind for each in pieces) for kind in ("key", "tensor")}
    assert counts == {"key": 4, "tensor": 2}
    for mutate, more in (drop_item, -1), (double_item, 1):
        for seed in range(20):
            found = find_pieces(apply_all(mutate(GGUF, Random(seed)), GGUF))
            assert sum(each.kind in counts for each in found) == 6 + more
    assert find_pieces(b"GGUF") == find_pieces(b"GGML" + bytes(99)) == ()


def test_a_pickle_is_edited_inside_its_archive():
    whole = stand_in("x.pth")
    inside = parts("x.pth", whole)[PICKLE]
    done = edited("x.pth", whole, [Edit(inside.index(b"w"), 1, b"v", PICKLE)])
    assert torch.load(io.BytesIO(done))["v"].tolist() == [1, 1]
    changed = {apply_all(each(inside, Random(3)), inside) for each in PICKLE_AWARE}
    assert len(changed - {inside}) > 1


def test_a_template_is_changed_in_its_own_file_and_in_json():
    settings = stand_in("tokenizer_config.json")
    for seed in range(40):
        edits = change_template_in_json(settings, Random(seed))
        assert isinstance(json.loads(apply_all(edits, settings))["chat_template"], str)
    plain = {apply_all(change_template(TEMPLATE.encode(), Random(n)), b"") for n in range(40)}
    assert len(plain) > 20


def test_a_case_is_made_as_small_as_it_can_be():
    edits = (Edit(0, 1, b"x"), Edit(4, 8, b"abcdefgh"), Edit(20, 0, b"z"))
    case = Case("st", "export", "ck/model.safetensors", edits)
    smaller = minimise(case, lambda each: any(b"f" in edit.insert for edit in each.edits))
    assert smaller.edits == (Edit(9, 1, b"f"),)


def test_a_resealed_bundle_has_the_hash_of_what_is_there(tmp_path):
    from artifacts.sample_bundle import write_bundle

    from llama_export.bundle.bundle import Bundle
    from llama_export.errors import BundleError

    bundle = write_bundle(tmp_path / "b")
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError):
        Bundle.open(bundle).check_hashes()
    reseal(bundle, "model.onnx")
    Bundle.open(bundle).check_hashes()


def seen(outcome: Outcome, tmp_path: Path, **changes) -> Seen:
    """Return what is judged: an inspection of a manifest, unless something else is chosen."""
    case = changes.pop("case", Case("manifest-onnx", "inspect", "onnx/manifest.json", ()))
    (tmp_path / "onnx").mkdir(exist_ok=True)
    whole = Seen(case, outcome, tmp_path, b"same", b"{}", b"{}", lambda: b"1", lambda: b"1")
    return replace(whole, **changes)


FINE = Outcome(0, 0, 0.1, b"same", b"")
NAMED = Outcome(8, 0, 0.1, b"", b"error: it is damaged\nwhat to do: copy it again\n")


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (FINE, judge.UNCHANGED),
        (replace(FINE, stdout=b"other"), judge.SOUND),
        (NAMED, judge.NAMED),
        (replace(NAMED, code=17), judge.UNPROVED),
        (replace(NAMED, code=1), judge.TRACE),
        (replace(NAMED, code=70), judge.TRACE),
        (replace(NAMED, stderr=b""), judge.TRACE),
        (replace(NAMED, fault="x.py:1 KeyError"), judge.TRACE),
        (replace(NAMED, stderr=b"Traceback (most recent call last):"), judge.TRACE),
        (replace(NAMED, code=None, signal=signal.SIGSEGV), judge.CRASH),
        (replace(NAMED, code=None, signal=signal.SIGXCPU), judge.SLOW),
        (replace(NAMED, cpu_s=6.0), judge.SLOW),
        (replace(NAMED, code=18), judge.MEMORY),
        (replace(NAMED, stderr=b"error: \x1b]0;x\x07"), judge.ESCAPE),
        (replace(FINE, stdout="\u202egnp".encode()), judge.ESCAPE),
        (replace(NAMED, stderr=b"error: " + lying_hub.TOKEN.encode()), judge.ESCAPE),
        (replace(NAMED, stderr=b"error: " + b"A" * 3000), judge.LONG),
    ],
)
def test_each_kind_of_ending_is_told_apart(tmp_path, outcome, kind):
    assert judge.judge(seen(outcome, tmp_path)).kind == kind


@pytest.mark.parametrize(
    ("surface", "kind"),
    [("art-executorch", judge.RUNTIME), ("raw-executorch", judge.CRASH), ("st", judge.CRASH)],
)
def test_a_runtime_that_dies_of_a_sealed_artifact_is_counted_by_itself(tmp_path, surface, kind):
    case = Case(surface, "generate", "executorch/model.pte", ())
    died = replace(NAMED, code=None, signal=signal.SIGABRT)
    assert judge.judge(seen(died, tmp_path, case=case)).kind == kind


def test_what_must_not_be_taken_is_a_wrong_success(tmp_path):
    unsealed = Case("raw-onnx", "generate", "onnx/model.onnx", ())
    assert judge.judge(seen(FINE, tmp_path, case=unsealed)).kind == judge.WRONG
    assert judge.judge(seen(FINE, tmp_path, mutated=b'{"a":1,"a":2}')).kind == judge.WRONG
    for name in ("weights", "ck"):
        (tmp_path / name).mkdir()
    artifact = Case("verify-onnx", "verify", "onnx/model.onnx", ())
    assert judge.judge(seen(FINE, tmp_path, case=artifact)).kind == judge.UNCHANGED
    other = seen(FINE, tmp_path, case=artifact, numbers=lambda: b"2")
    assert judge.judge(other).kind == judge.WRONG
    beside = Case("verify-side-onnx", "verify", "onnx/config.json", ())
    one = seen(FINE, tmp_path, case=beside, original=b'{"a": 1}', mutated=b'{ "a":1}')
    assert judge.judge(one).kind == judge.UNCHANGED
    assert judge.judge(replace(one, mutated=b'{"a":1.0}')).kind == judge.WRONG
    assert judge.judge(replace(one, outcome=replace(NAMED, code=1))).kind == judge.RED


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F16", 2), ("F32", 4)])
def test_weights_that_are_no_numbers_are_a_wrong_success(tmp_path, dtype, size):
    header = {"a": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}
    header["b"] = {"dtype": dtype, "shape": [2], "data_offsets": [4, 4 + 2 * size]}
    raw = json.dumps(header).encode()
    before = len(raw).to_bytes(8, "little") + raw + b"\xff" * 4 + bytes(size)
    weights = tmp_path / "out" / "weights" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    (tmp_path / "out" / "onnx").mkdir()
    for name in ("ck", "onnx"):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "onnx").rmdir()
    case = Case("st", "export", "ck/model.safetensors", ())
    for last, kind in (bytes(size), judge.SOUND), (b"\xff" * size, judge.WRONG):
        weights.write_bytes(before + last)
        verdict = judge.judge(replace(seen(FINE, tmp_path, case=case), folder=tmp_path))
        assert verdict.kind == kind


def test_text_from_no_numbers_is_a_wrong_success(tmp_path):
    case = Case("art-onnx", "generate", "onnx/model.onnx", ())
    none = seen(FINE, tmp_path, case=case, numbers=lambda: judge.NO_NUMBERS.encode())
    assert judge.judge(none).kind == judge.WRONG


def test_leftovers_are_seen(tmp_path):
    (tmp_path / "out").mkdir()
    assert judge.judge(seen(NAMED, tmp_path)).kind == judge.NAMED
    (tmp_path / "out" / ".onnx.partial-7").mkdir()
    assert judge.judge(seen(NAMED, tmp_path)).kind == judge.LEFT
    (tmp_path / "out" / ".onnx.partial-7").rmdir()
    (tmp_path / lying_hub.LEAK).touch()
    assert judge.judge(seen(NAMED, tmp_path)).kind == judge.ESCAPE


def fail() -> None:
    {}["x"]


def fault_of_ours() -> None:
    """Let the command line meet something that it has no name for."""
    with mock.patch("llama_export.cli.app.app.make_context", fail_with_arguments):
        main()


def fail_with_arguments(*_arguments: object) -> None:
    fail()


def spin() -> None:
    while True:
        pass


def write_both() -> None:
    sys.stdout.write("out\n")
    os.write(2, b"err")
    sys.exit(5)


def test_a_child_dies_alone_and_says_of_what(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(child, "CPU_LIMIT_S", 1)
    bodies = (write_both, fail, fault_of_ours, lambda: os.kill(os.getpid(), signal.SIGSEGV), fail)
    runs = [Run((), tmp_path / str(number), inside=body) for number, body in enumerate(bodies)]
    wrote, failed, ours, died = run_forked(runs)  # the last one did not begin
    assert (wrote.code, wrote.stdout, wrote.stderr) == (5, b"out\n", b"err")
    assert (failed.code, failed.fault) == (99, "KeyError")
    assert ours.code == 70
    assert ours.fault.startswith("llama_export/cli/boundary.py:")
    assert ours.fault.endswith(" KeyError")
    assert "in fail" in ours.trace
    assert (died.code, died.signal) == (None, signal.SIGSEGV)
    (slow,) = run_forked([Run((), tmp_path / "slow", inside=spin)])
    assert slow.signal == signal.SIGXCPU


def test_the_command_line_itself_runs_in_the_child(tmp_path):
    runs = [Run(("--version",), tmp_path / "a"), Run(("inspect", "nowhere"), tmp_path / "b")]
    version, refused = run_forked(runs)
    assert (version.code, version.stdout[:13]) == (0, b"llama-export ")
    assert refused.code == 8
    assert b"error:" in refused.stderr
