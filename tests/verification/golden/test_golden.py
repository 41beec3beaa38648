"""Golden data: the right engine passes, each fault of an engine turns a report red."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.phone import FAULTS, Phone, report_of
from artifacts.small_bundle import Silent

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.manifest import FileEntry
from llama_export.errors import BundleError, UsageError
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.targets import registry
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.golden.compare import golden_rows, judge_report
from llama_export.verification.golden.device_report import parse_device_report, read_device_report
from llama_export.verification.golden.golden import Golden, GoldenLimits, read_golden
from llama_export.verification.golden.record import (
    add_golden,
    golden_limits,
    measure_again,
    plan_calls,
    record,
)
from llama_export.verification.rows import VerifyReport, informed, judged
from llama_export.verification.samples import Text

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]

LIMITS = registry.get("onnx").limits
# As the export's check judges the demo's ONNX bundle.
JUDGED = VerifyReport(
    target="onnx",
    model="demo",
    settings={},
    rows=(judged("activation", "kl_shipped_emulated", "KL", 1e-4, 3.25e-4),),
    measurements={},
)


@pytest.fixture(scope="module")
def bundle(demo_bundle, tmp_path_factory) -> Bundle:  # noqa: F811
    folder = tmp_path_factory.mktemp("golden") / "onnx"
    return add_golden(Bundle.open(Path(shutil.copytree(demo_bundle, folder))), JUDGED)


@pytest.fixture(scope="module")
def golden(bundle) -> Golden:
    return read_golden(bundle)


def open_session(bundle: Bundle):
    target = registry.get(bundle.manifest.target)
    return closing(target.open_session(StoredArtifact.of(bundle)))


def report_with(bundle: Bundle, kind: type[Phone]) -> dict:
    with open_session(bundle) as session:
        return report_of(bundle.folder, kind(session))


def judged_of(golden: Golden, report: dict) -> VerifyReport:
    return judge_report(golden, parse_device_report(report, "report.json"), "demo")


@pytest.fixture(scope="module")
def right(bundle) -> dict:
    return report_with(bundle, Phone)


def test_the_file_is_one_of_the_bundle_s(bundle):
    assert Bundle.open(bundle.folder).check_hashes() == ()
    assert "golden.json" in bundle.manifest.files
    # As an estimate counts them.
    assert bundle.manifest.files["golden.json"].size_bytes == pytest.approx(36_500, rel=0.03)


def test_the_same_bundle_gives_the_same_bytes(bundle, demo_bundle, tmp_path):  # noqa: F811
    folder = shutil.copytree(demo_bundle, tmp_path / "onnx")
    again = add_golden(Bundle.open(Path(folder)), JUDGED)
    assert again.manifest == bundle.manifest
    assert again.path("golden.json").read_bytes() == bundle.path("golden.json").read_bytes()


def test_there_are_a_prefill_steps_a_rewind_and_two_pieces(golden):
    calls = [answer.call for answer in golden.positions]
    assert len(calls) == 64
    assert len(golden.prompt_ids) == 96
    assert [(call.first, call.at) for call in calls[-2:]] == [(0, 46), (47, 95)]
    assert calls[0].at == 31
    steps = [call for call in calls if call.first == call.at]
    assert len(steps) == 61
    rewound = [call for call in calls if call.text == "rewind"]
    assert len(rewound) == len(golden.rewind_ids) == 13
    assert rewound[0].first == golden.rewind_to == 48
    # The other tokens are others.
    assert golden.prompt_ids[48] != golden.rewind_ids[0]


@pytest.mark.parametrize("length", [12, 13, 20, 50, 96])
def test_the_calls_fit_any_context(length):
    prefilled, steps = length // 3, length // 2
    back = prefilled + steps // 3
    calls = list(plan_calls(length, prefilled, steps, back, min(13, length - back)))
    held = 0
    for call in calls:
        assert 0 <= call.first <= held
        assert call.first <= call.at < length
        held = call.at + 1
    assert held == length


def test_a_context_that_is_too_short_has_none():
    class Short:
        max_context = 8

    assert record(Short(), Text("x", (), (1, 2), ""), GoldenLimits(1, 1, 1), "onnx", "x") is None


def test_the_engine_that_is_right_passes(golden, right):
    report = judged_of(golden, right)
    assert report.passed
    assert report.row("golden_kl_mean").value < 1e-6
    assert report.settings["device_model"] == "Test phone"


@pytest.mark.parametrize("fault", FAULTS)
def test_an_engine_s_fault_is_red_and_its_place_named(bundle, golden, fault):
    report = judged_of(golden, report_with(bundle, FAULTS[fault]))
    assert report.verdict == "failed"
    note = report.row("golden_kl_worst").note
    assert "first out of bounds: position" in note
    expected = {"a stale row": "position 49 of the rewind text, call 51"}.get(fault, "")
    assert expected in note


def test_this_machine_measures_what_a_phone_would(bundle, golden, right):
    with open_session(bundle) as session:
        measured = measure_again(session, golden)
    assert all(row.passed for row in golden_rows(golden, measured, "session"))
    for mine, phone in zip(measured, right["positions"], strict=True):
        assert mine.best == phone["best"]
        assert mine.logprobs == pytest.approx(phone["logprobs"], abs=1e-4)


def changed(report: dict, change) -> dict:
    found = copy.deepcopy(report)
    change(found["positions"])
    return found


def set_at(number: int, **values):
    return lambda positions: positions[number].update(values)


WRONG = {
    "one call less": (lambda positions: positions.pop(), "golden_calls"),
    "one call more": (lambda positions: positions.append(positions[0]), "golden_calls"),
    "two calls exchanged": (
        lambda positions: positions.insert(0, positions.pop(1)),
        "golden_calls",
    ),
    "a place less": (lambda positions: positions[5]["logprobs"].pop(), "golden_calls"),
    "not a number": (
        lambda positions: positions[9]["logprobs"].__setitem__(3, None),
        "golden_sums",
    ),
    "half of the probability": (
        lambda positions: positions[9].update(logprobs=[x - 0.7 for x in positions[9]["logprobs"]]),
        "golden_sums",
    ),
    "infinitely likely": (set_at(9, rest_logprob=1e300), "golden_sums"),
    "no rest": (set_at(9, rest_logprob=None), "golden_sums"),
    "no likeliest token": (set_at(9, best=None), "golden_sums"),
    "another likeliest token": (
        lambda positions: [x.update(best=7) for x in positions],
        "golden_top1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_report_that_is_wrong_is_red(golden, right, name):
    change, key = WRONG[name]
    report = judged_of(golden, changed(right, change))
    assert report.verdict == "failed"
    assert report.row(key).passed is False
    assert "first out of bounds" in report.row(key).note


def test_a_token_may_change_where_two_are_near(golden, right):
    """Within the margin another likeliest token is rounding, and beyond it a fault."""
    margins = [answer.top[0][1] - answer.top[1][1] for answer in golden.positions]
    near = margins.index(min(margins))
    far = margins.index(max(margins))
    assert margins[near] < golden.limits.margin < margins[far]
    second = golden.positions[near].top[1][0]
    assert judged_of(golden, changed(right, set_at(near, best=second))).passed
    second = golden.positions[far].top[1][0]
    assert not judged_of(golden, changed(right, set_at(far, best=second))).passed


def test_limits_are_those_that_the_artifact_was_judged_by():
    assert golden_limits(LIMITS, JUDGED) == GoldenLimits(3.25e-4, 3.25e-3, 0.161)
    rows = (
        informed("activation", "kl_shipped_emulated", "KL", 1e-4),
        judged("lowering", "kl_shipped", "KL", 1e-4, 1e-3),
    )
    report = VerifyReport("onnx", "demo", {}, rows, {})
    assert golden_limits(LIMITS, report).kl_mean == 1e-3
    # The evaluator is not Core ML.
    assert golden_limits(registry.get("coreml").limits, report).kl_mean == 1e-3
    rows = (*report.rows[:1], judged("lowering", "kl_shipped", "KL", 0, 1e-8))
    exact = VerifyReport("onnx", "demo", {}, rows, {})
    assert golden_limits(LIMITS, exact).kl_mean == 1e-5
    assert golden_limits(registry.get("coreml").limits, exact).kl_mean == 1e-3


DAMAGE = [
    (("format_version",), 2, "format_version must be 1"),
    (("prompt_ids",), [], "prompt_ids must be a list"),
    (("prompt_ids",), ["a"], "prompt_ids must be a list of token ids"),
    (("limits", "kl_mean"), -1, "limits.kl_mean"),
    (("rewind", "to"), 97, "rewind.to is beyond the prompt"),
    (("rewind", "ids"), None, "rewind.ids"),
    (("positions",), [], "positions are none"),
    (("positions", 0, "text"), "other", "text must be prompt or rewind"),
    (("positions", 0, "from"), 3, "positions[0] reads 3 to 31"),
    (("positions", 1, "at"), 500, "positions[1] reads 32 to 500"),
    (("positions", 0, "top"), [], "top must be a list"),
    (("positions", 0, "top"), [[1, 2.0]], "top must be a list"),
    (("positions", 0, "top"), [[1, -2.0], [1, -3.0]], "top must be a list"),
    (("positions", 0, "top"), [[1]], "top must be a list"),
    (("positions", 0, "rest_logprob"), "x", "rest_logprob"),
    (("positions", 0, "rest_logprob"), -0.2, "top must be probabilities that add up to 1"),
    (("positions", 0, "top"), [[1, -1e5]], "top must be probabilities that add up to 1"),
    (("target",), 5, "target must be a text"),
    (("runtime",), None, "runtime must be a text"),
]


@pytest.mark.parametrize(("place", "value", "word"), DAMAGE)
def test_damaged_golden_data_are_named(bundle, place, value, word):
    raw = json.loads(bundle.path("golden.json").read_bytes())
    owner = raw
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    with pytest.raises(BundleError) as caught:
        Golden.from_bytes(json.dumps(raw).encode())
    assert word in caught.value.message


def test_golden_data_are_written_as_they_were_read(bundle, golden):
    assert golden.to_bytes() == bundle.path("golden.json").read_bytes()
    with pytest.raises(BundleError, match=r"golden\.json cannot be read as JSON"):
        Golden.from_bytes(b"{")


REPORT_DAMAGE = [
    (("format_version",), 2, "format_version must be 1"),
    (("device",), [], "device must be an object"),
    (("device",), {"model": 5}, "device must be at most 16 short texts"),
    (("manifest_sha256",), None, "manifest_sha256"),
    (("positions",), None, "positions must be a list"),
    (("positions", 0, "at"), "x", "positions[0].at"),
    (("positions", 0, "logprobs"), 5, "positions[0].logprobs"),
    (("positions", 0, "logprobs"), ["x"], "positions[0].logprobs"),
    (("positions", 0, "rest_logprob"), "x", "positions[0].rest_logprob"),
    (("positions", 0, "best"), 1.5, "positions[0].best"),
]


@pytest.mark.parametrize(("place", "value", "word"), REPORT_DAMAGE)
def test_a_damaged_report_is_named(right, place, value, word):
    raw = copy.deepcopy(right)
    owner = raw
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    with pytest.raises(UsageError) as caught:
        parse_device_report(raw, "report.json")
    assert word in caught.value.message


def test_a_report_that_is_no_file_or_no_json_is_named(bundle, tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(UsageError, match=r"report\.json cannot be read: No such file"):
        read_device_report(path, bundle)
    path.write_text("# a page")
    with pytest.raises(UsageError, match=r"report\.json cannot be read as JSON: ") as caught:
        read_device_report(path, bundle)
    assert caught.value.hint == "give the JSON file that the app wrote"


@pytest.fixture
def verify(bundle, command, tmp_path):
    def call(report: object, *arguments: object):
        path = tmp_path / "report.json"
        path.write_text(report if isinstance(report, str) else json.dumps(report))
        return command("verify", bundle.folder, "--device-report", path, *arguments)

    return call


def test_the_command_judges_a_phone(verify, right, tmp_path):
    code, out, _ = verify(right, "--json", "--html", tmp_path / "page.html")
    report = json.loads(out)
    assert (code, report["verdict"], report["settings"]["runtime"]) == (0, "passed", "in memory")
    assert len(report["sections"]["device"]) == 5
    assert "Test phone" in (tmp_path / "page.html").read_text("utf-8")
    code, out, _ = verify(changed(right, WRONG["one call less"][0]))
    assert code == 1
    assert "golden calls that were not measured" in out


def test_golden_data_of_another_model_are_refused(bundle, golden):
    """The artifact would be asked for logits that it has not."""
    top = ((10**6, math.log(0.5)), (1, math.log(0.5)))
    answer = dataclasses.replace(golden.positions[0], top=top, rest_logprob=None)
    other = dataclasses.replace(golden, positions=(answer,))
    with open_session(bundle) as session, pytest.raises(BundleError, match="found 1000000"):
        measure_again(session, other)


def test_golden_data_that_nobody_wrote_so_long_are_not_read(bundle, monkeypatch):
    files = {**bundle.manifest.files, "golden.json": FileEntry("0" * 64, 2**40)}
    long = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))
    with pytest.raises(BundleError, match="longer than 2097152 bytes"):
        read_golden(long)


def test_the_command_refuses_what_is_no_report_on_this_bundle(verify, right, command, tmp_path):
    code, _, err = verify(right | {"manifest_sha256": "0" * 64})
    assert (code, "speaks of another bundle" in err) == (2, True)
    code, _, err = verify("{")
    assert (code, "give the JSON file that the app wrote" in err) == (2, True)
    code, _, err = verify(right, "--quick", "--checkpoint", "demo")
    assert (code, "leave --checkpoint and --quick out" in err) == (2, True)
    code, _, err = verify(right, "--threads", "2", "--revision", "main")
    assert (code, "leave --revision and --threads out" in err) == (2, True)


def test_a_bundle_without_golden_data_is_refused(demo_bundle, right, command, tmp_path):  # noqa: F811
    path = tmp_path / "report.json"
    path.write_text(json.dumps(right))
    code, _, err = command("verify", demo_bundle, "--device-report", path)
    assert code == 2
    assert "has no golden.json" in err


def test_changed_golden_data_are_refused(bundle, right, command, tmp_path):
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "onnx"))
    path = folder / "golden.json"
    path.write_bytes(path.read_bytes().replace(b'"kl_mean":0.000325', b'"kl_mean":9.000325'))
    report = tmp_path / "report.json"
    report.write_text(json.dumps(right))
    code, _, err = command("verify", folder, "--device-report", report)
    assert code == 8
    assert "golden.json is changed" in err


def test_an_export_that_is_checked_records_them(tmp_path, demo_bundle):  # noqa: F811
    request = ExportRequest("demo", ("onnx",), tmp_path / "out", max_context=128)
    bundle = export_bundle(request, Silent()).bundles[0].bundle
    golden = read_golden(bundle)
    assert bundle.manifest.files == Bundle.open(bundle.folder).manifest.files
    assert golden.runtime.startswith("onnxruntime 1.")
    assert 1e-4 < golden.limits.kl_mean < 1e-3
    # That one was not checked.
    assert "golden.json" not in Bundle.open(demo_bundle).manifest.files


class FewLogits:
    """A session whose head was pruned to five tokens."""

    max_context = 40

    def __init__(self) -> None:
        self.ids: list[int] = []

    def rewind(self, position: int) -> None:
        del self.ids[position:]

    def prefill(self, ids) -> np.ndarray:
        self.ids += ids
        return np.array([len(self.ids) % 7, sum(self.ids) % 5, 2, 0, 1], np.float32)


def test_a_pruned_head_has_fewer_places_and_no_rest():
    text = Text("x", (1,), (4, 9, 2, 8, 5), "")
    golden = record(FewLogits(), text, GoldenLimits(1e-4, 1e-3, 0.1), "onnx", "x")
    assert {len(answer.top) for answer in golden.positions} == {5}
    assert {answer.rest_logprob for answer in golden.positions} == {None}
    again = Golden.from_bytes(golden.to_bytes())
    rows = golden_rows(again, measure_again(FewLogits(), again), "session")
    assert [row.passed for row in rows] == [True] * 5


class Certain(FewLogits):
    """A session of forty logits, of which one is all the probability that float64 can tell."""

    def prefill(self, ids) -> np.ndarray:
        self.ids += ids
        return np.eye(1, 40, len(self.ids) % 7, dtype=np.float32)[0] * 2000


def test_a_rest_without_any_probability_is_a_rest_still():
    golden = record(
        Certain(), Text("x", (1,), (4, 9, 2), ""), GoldenLimits(1e-4, 1e-3, 1), "onnx", "x"
    )
    rows = golden_rows(golden, measure_again(Certain(), golden), "session")
    assert [row.passed for row in rows] == [True] * 5


@pytest.mark.slow
@pytest.mark.executorch
@pytest.mark.coreml
@pytest.mark.parametrize("target", ["executorch", "coreml"])
def test_the_other_targets_tell_right_from_wrong(tmp_path, target):
    pytest.importorskip({"coreml": "coremltools"}.get(target, target))
    request = ExportRequest("demo", (target,), tmp_path / "out", max_context=512)
    bundle = export_bundle(request, Silent()).bundles[0].bundle
    golden = read_golden(bundle)
    assert judged_of(golden, report_with(bundle, Phone)).passed
    for fault, kind in FAULTS.items():
        assert not judged_of(golden, report_with(bundle, kind)).passed, fault


ODD = (
    None,
    True,
    -1,
    0,
    2.5,
    10**39,
    1e300,
    "",
    "x" * 5000,
    "\ud800",
    [],
    [1],
    [[1, -1.0]],
    {},
    {"x": 1},
)


def places(raw: object, where: tuple = ()):
    """Yield the place of every value in parsed JSON; of long lists the first two items."""
    yield where
    if isinstance(raw, (dict, list)):
        for key in raw if isinstance(raw, dict) else range(min(len(raw), 2)):
            yield from places(raw[key], (*where, key))


def replaced(raw: dict):
    """Yield a document with every value replaced by every odd one."""
    for place in places(raw):
        for odd in ODD if place else ():
            other = copy.deepcopy(raw)
            owner = other
            for key in place[:-1]:
                owner = owner[key]
            owner[place[-1]] = odd
            yield other


def test_golden_data_of_any_shape_are_read_or_named(bundle, right):
    raw = json.loads(bundle.path("golden.json").read_bytes())
    raw["positions"] = raw["positions"][:2]
    read = 0
    for other in replaced(raw):
        try:
            found = Golden.from_bytes(json.dumps(other).encode())
        except BundleError:
            continue
        read += 1
        report = parse_device_report(right | {"positions": right["positions"][:2]}, "x")
        assert judge_report(found, report, "demo").to_json()
    assert read


def test_a_report_of_any_shape_is_judged_or_named(golden, right):
    short = dataclasses.replace(golden, positions=golden.positions[:2])
    judged_ones = 0
    for other in replaced(right | {"positions": right["positions"][:2]}):
        try:
            report = parse_device_report(other, "x")
        except UsageError:
            continue
        judged_ones += 1
        assert judge_report(short, report, "demo").to_json()
    assert judged_ones
