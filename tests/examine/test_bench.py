"""Bench: figures from a fake session and a fake clock, bad requests, and the command itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from artifacts.opened import footprint_of
from artifacts.small_bundle import FakeMachine, export_small

from bench_vectors import KEYS, key_paths
from llama_export.errors import UsageError
from llama_export.examine.bandwidth import SMALLEST_BUFFER_BYTES, buffer_bytes_for, read_bandwidth
from llama_export.examine.bench import BenchPlan, Spread, measure, parse_lengths, plan_bench
from llama_export.system.machine import CpuTimes, Machine, others_busy_cores

LOAD_S, TOKEN_S, STEP_S = 2.0, 0.01, 0.1


class TimedSession:
    """Takes time on a fake clock: by token, by cached position, and more for what is new to it."""

    def __init__(self, machine: FakeMachine, cold_s: float) -> None:
        self.machine = machine
        self.cold_s = cold_s
        self.position = 0
        self.calls: list[tuple[int, int]] = []
        self.tokens: set[int] = set()
        self.closed = False

    def prefill(self, input_ids):
        call = (self.position, len(input_ids))
        if call not in self.calls:
            self.machine.work(self.cold_s)
        self.calls.append(call)
        self.tokens |= set(input_ids)
        if len(input_ids) > 1:
            self.machine.work(len(input_ids) * TOKEN_S)
        else:
            self.machine.work(STEP_S + self.position * 1e-4)
        self.position += len(input_ids)
        return np.arange(10.0, dtype=np.float32)

    def rewind(self, position: int) -> None:
        assert position <= self.position
        self.position = position

    def close(self) -> None:
        self.closed = True


def run(machine: FakeMachine, plan: BenchPlan, cold_s: float = 0.0):
    session = TimedSession(machine, cold_s)

    def load():
        machine.work(LOAD_S)
        machine.resident += 500
        return session

    steps = []
    found = measure(
        load, plan, machine, ordinary_tokens=9, progress=lambda *done: steps.append(done)
    )
    assert session.closed
    return found, session, steps


PLAN = BenchPlan(prompt_lengths=(20, 40), contexts=(10, 30), decode_tokens=4, repeat=3)


def test_the_figures_are_those_of_the_clock():
    found, session, steps = run(FakeMachine(), PLAN, cold_s=3.0)
    assert found.load_s == pytest.approx(LOAD_S)
    assert (found.resident_before_bytes, found.resident_bytes) == (1_000, 1_500)
    assert found.peak_resident_bytes == 7_500
    assert found.first_call_s == pytest.approx(20 * TOKEN_S + 3.0)
    assert [row.tokens for row in found.prefill] == [20, 40]
    assert found.prefill[1].first_token_s.median == pytest.approx(40 * TOKEN_S)
    assert found.prefill[1].tokens_per_s.most == pytest.approx(1 / TOKEN_S)
    assert [row.context for row in found.decode] == [10, 30]
    seconds = sum(STEP_S + (30 + step) * 1e-4 for step in range(4))
    assert found.decode[1].tokens_per_s.median == pytest.approx(4 / seconds)
    assert steps[-1] == (16, 16)
    assert max(session.tokens) < 10


def test_the_warm_up_is_not_counted_and_the_context_is_filled_once():
    found, session, _ = run(FakeMachine(), PLAN, cold_s=3.0)
    # What is slow for being new stands alone, or is in no spread.
    for row in found.prefill:
        assert row.first_token_s.most == pytest.approx(row.tokens * TOKEN_S)
    for row in found.decode:
        assert row.tokens_per_s.least == pytest.approx(row.tokens_per_s.most)
    assert [call for call in session.calls if call == (0, 30)] == [(0, 30)]
    assert len([call for call in session.calls if call == (30, 1)]) == PLAN.repeat + 1
    assert {start for start, length in session.calls if length > 1} == {0}


@pytest.mark.parametrize(
    ("before", "during", "busy"), [(0.0, 0.0, False), (0.5, 0.0, True), (0.0, 0.5, True)]
)
def test_a_busy_machine_is_noticed(before, during, busy):
    machine = FakeMachine(others_before=before, others_during=during)
    found, _, _ = run(machine, PLAN)
    assert found.others_before == pytest.approx(before, abs=0.01)
    assert found.others_during == pytest.approx(during, abs=0.15)
    assert found.was_busy is busy
    assert found.to_json()["was_busy"] is busy


def test_our_own_work_is_not_the_others():
    before, after = CpuTimes(0, 0, 0), CpuTimes(10, 19, 18)
    assert others_busy_cores(before, after) == pytest.approx(0.1)
    assert others_busy_cores(after, after) == 0
    assert others_busy_cores(before, CpuTimes(10, 5, 6)) == 0


def test_spread():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    "text", ["0", "128,0", "-1", "", ",", "1.5", "many", "128;256", "9" * 5000]
)
def test_lengths_that_are_none(text):
    with pytest.raises(UsageError, match="--contexts: expected whole numbers above 0"):
        parse_lengths("--contexts", text)


def test_lengths_are_read_once_each():
    assert parse_lengths("--contexts", " 128, 512,128 ") == (128, 512)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompt_lengths": (301,)}, "--prompt-lengths: the artifact has room for 1 to 300"),
        ({"prompt_lengths": (0,)}, "found 0"),
        ({"contexts": (285,)}, "--contexts: the artifact has room for 1 to 284, with 16 tokens"),
        ({"contexts": ()}, "found nothing"),
        ({"repeat": 0}, "--repeat: expected at least 1"),
        ({"decode_tokens": 0}, "--decode-tokens: expected at least 1"),
        ({"decode_tokens": 300}, "--decode-tokens: expected less than the artifact's context"),
    ],
)
def test_what_the_artifact_has_no_room_for(asked, message):
    with pytest.raises(UsageError, match=message):
        plan_bench(300, **asked)


def test_what_was_not_asked_for_fits():
    assert plan_bench(8192) == BenchPlan((128, 512), (128, 1024), 16, 5)
    assert plan_bench(300) == BenchPlan((128,), (128,), 16, 5)
    assert plan_bench(20) == BenchPlan((20,), (4,), 16, 5)
    assert plan_bench(8192, quick=True) == BenchPlan((128,), (128,), 8, 2)
    assert plan_bench(8192, quick=True, repeat=4).repeat == 4
    assert plan_bench(300, contexts=(284,)).contexts == (284,)


def test_bandwidth_is_bytes_over_seconds():
    times = iter([0.0, 1.0, 1.0, 3.0, 3.0, 3.5])
    found = read_bandwidth(2, 2**20, lambda: next(times), passes=3)
    assert (found.best, found.median, found.worst) == (2**21, 2**20, 2**19)
    assert found.to_json()["buffer_bytes"] == 2**20


def test_the_buffer_leaves_memory_to_others():
    assert buffer_bytes_for(100 * 2**30) == 512 * 2**20
    assert buffer_bytes_for(2**30) == 256 * 2**20
    assert buffer_bytes_for(0) == SMALLEST_BUFFER_BYTES


def test_a_real_machine_answers(tmp_path):
    machine = Machine()
    assert 0 < machine.resident_bytes() <= machine.peak_resident_bytes() * 1.01
    assert machine.peak_resident_bytes() < machine.memory_bytes()
    assert 0 < machine.available_bytes() <= machine.memory_bytes()
    assert 1 <= machine.physical_cores() <= machine.cores() == os.cpu_count()
    assert machine.free_disk_bytes(tmp_path / "not" / "there") > 0
    first, second = machine.cpu_times(), machine.cpu_times()
    assert second.at_s >= first.at_s
    assert second.busy_s >= first.busy_s > 0
    assert machine.load_average() >= 0


def test_a_container_has_its_own_memory(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("llama_export.system.machine._CGROUP_LIMIT", limit)
    whole = Machine().memory_bytes()
    for text, expected in (("max\n", whole), ("1000000\n", 1_000_000), (f"{whole * 2}\n", whole)):
        limit.write_text(text)
        assert Machine().memory_bytes() == expected
    assert Machine().available_bytes() <= whole


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    return export_small(tmp_path_factory.mktemp("bench"), max_context=300) / "onnx"


@pytest.fixture
def small_buffer(monkeypatch):
    monkeypatch.setattr("llama_export.examine.bandwidth.BUFFER_BYTES", 2**20)
    monkeypatch.setattr("llama_export.examine.bandwidth.SMALLEST_BUFFER_BYTES", 2**20)


@pytest.mark.onnx
def test_the_command_reports_json(command, bundle, small_buffer):
    from llama_export.bundle.bundle import Bundle

    code, out, _ = command("bench", bundle, "--quick", "--threads", "1", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["settings"]["threads"] == 1
    assert report["settings"]["threads_chosen_by"] == "--threads"
    assert key_paths(report) == list(KEYS)
    assert [row["tokens"] for row in report["prefill"]] == [128]
    assert report["load_s"] > 0
    assert report["peak_resident_bytes"] >= report["resident_bytes"] * 0.99
    (reads,) = report["reads"]
    parts = footprint_of(Bundle.open(bundle))
    assert reads["bytes_per_token"] == parts.read_bytes_per_token(128)
    speed = report["decode"][0]["tokens_per_s"]["median"]
    share = reads["bytes_per_token"] * speed / report["bandwidth"]["best_bytes_per_s"]
    assert reads["share_of_bandwidth"] == pytest.approx(share, abs=0.001)
    assert report["was_busy"] in (True, False)
    assert any("caches" in note for note in report["notes"])
    assert report["fits_caches"] is True


@pytest.mark.onnx
def test_the_command_prints_a_table_in_80_columns(command, bundle, small_buffer):
    code, out, _ = command("bench", bundle, "--prompt-lengths", "16", "--contexts", "8,32")
    assert code == 0
    for words in ("load", "prompt of 16, prefill", "decode at 32", "default"):
        assert words in out
    # So small a model decodes from the caches; the caption says why there is no share.
    assert "% of bandwidth" not in out
    assert "left blank" in " ".join(out.split())
    assert "load_s" not in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.onnx
def test_a_model_beyond_the_caches_has_its_share(command, bundle, small_buffer, monkeypatch):
    monkeypatch.setattr("llama_export.cli.bench._CACHED_BYTES", 1)
    code, out, _ = command("bench", bundle, "--quick")
    assert code == 0
    assert "% of bandwidth" in out
    assert "left blank" not in " ".join(out.split())


@pytest.mark.onnx
def test_a_busy_machine_is_said_on_stderr(command, bundle, small_buffer, monkeypatch):
    monkeypatch.setattr("llama_export.examine.bench.others_busy_cores", lambda *_: 1.7)
    code, out, err = command("bench", bundle, "--quick", "--json")
    assert (code, json.loads(out)["was_busy"]) == (0, True)
    assert "other processes kept 1.7 cores busy" in err
    monkeypatch.setattr("llama_export.examine.bench.others_busy_cores", lambda *_: 0.0)
    assert "busy" not in command("bench", bundle, "--quick", "--json")[2]


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "0"], "--threads"),
        (["--threads", "100000"], "--threads"),
        (["--contexts", "0"], "--contexts"),
        (["--contexts", "8192"], "room for 1 to 284"),
        (["--prompt-lengths", "0"], "--prompt-lengths"),
        (["--prompt-lengths", "301"], "room for 1 to 300"),
        (["--decode-tokens", "0"], "--decode-tokens"),
        (["--repeat", "0"], "--repeat"),
    ],
)
def test_a_bad_request_is_a_usage_error(command, bundle, options, message):
    code, out, err = command("bench", bundle, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.onnx
def test_bench_imports_no_torch(bundle):
    code = (
        "import sys; sys.argv = ['llama-export', 'bench', sys.argv[1], '--quick', '--json',"
        " '--prompt-lengths', '4', '--contexts', '4']\n"
        "from llama_export.cli import app\n"
        "try:\n    app.main()\nexcept SystemExit as stopped:\n    assert not stopped.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    paths = os.pathsep.join(str(root / name) for name in ("export", "quantize"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
