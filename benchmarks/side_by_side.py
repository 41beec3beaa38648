"""Several engines on one machine, asked in turn: processes, questions, rounds and their figures.

All are loaded at once and asked one after another, round after round, so that a machine that drifts
drifts for all. A ratio is taken within a round; medians and ranges are over rounds. It knows how a
process is asked (`engines/protocol.py`); it does not know what an engine or a file is. Linux.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
from peer_setup import ROOT, Artifact

ENGINES = Path(__file__).resolve().parent / "engines"
DECODED = 16
QUESTIONS: Mapping[str, dict[str, Any]] = {
    "prefill 128": {"do": "prefill", "tokens": 128},
    "prefill 512": {"do": "prefill", "tokens": 512},
    "decode at 128": {"do": "decode", "context": 128, "tokens": DECODED},
    "decode at 1024": {"do": "decode", "context": 1024, "tokens": DECODED},
}
# Tokens a second by question and contestant, one for each round.
Speeds = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Contestant:
    """One engine with one artifact."""

    name: str
    python: Path
    script: str
    artifact: Artifact


class Running:
    """A contestant's process, loaded and waiting."""

    def __init__(self, contestant: Contestant, threads: int, log: Path) -> None:
        ours = contestant.script == "ours.py"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        if ours:
            paths = (str(ROOT / name) for name in ("export", "quantize"))
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = [str(contestant.python), str(ENGINES / contestant.script)]
        command += [str(contestant.artifact.path), str(threads)]
        pipe = subprocess.PIPE
        with log.open("wb") as messages:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=messages, text=True, env=environment
            )
        self._log = log
        self.loaded = self._answer()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Ask a question and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            message = f"an engine ended: {self._log.read_text(errors='replace')[-2000:]}"
            raise RuntimeError(message)
        answer: dict[str, Any] = json.loads(line)
        return answer


def run_contest(
    contestants: Sequence[Contestant], work: Path, *, threads: int, rounds: int
) -> tuple[dict[str, Any], Speeds]:
    """Load all contestants, ask them all, and end them.

    Args:
        contestants: contestants with distinct names.
        work: folder for the logs of the processes.
        threads: number of threads of every engine.
        rounds: number of times that each question is asked.

    Returns:
        The figures for the report, and the speeds from which they are computed.
    """
    say("loading")
    running = {
        one.name: Running(one, threads, work / f"{one.script}-{index}.log")
        for index, one in enumerate(contestants)
    }
    speeds, busy = interleave(running, rounds)
    peaks = {name: one.ask(QUESTIONS["prefill 512"]) for name, one in running.items()}
    for one in running.values():
        one.close()
    figures = {
        "rounds": rounds,
        "other_processes_cores": busy,
        "contestants": {
            one.name: {
                "export_s": round(one.artifact.took.elapsed_s, 1),
                "export_peak_anonymous_bytes": one.artifact.took.peak_anonymous_bytes,
                "export_peak_resident_bytes": one.artifact.took.peak_resident_bytes,
                "size_bytes": one.artifact.size_bytes,
                **running[one.name].loaded,
                "peak_resident_bytes": peaks[one.name]["peak_resident_bytes"],
                "tokens_per_s": {key: summary(speeds[key][one.name]) for key in QUESTIONS},
            }
            for one in contestants
        },
    }
    return figures, speeds


def interleave(
    running: Mapping[str, Running], rounds: int
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Ask all in turn, forwards and backwards; the first round is a warm-up and is not kept.

    Returns:
        Tokens a second by question and contestant, and the cores that others used in each round.
    """
    speeds: dict[str, dict[str, list[float]]] = {}
    busy = []
    for key, question in QUESTIONS.items():
        say(key)
        kept: dict[str, list[float]] = {name: [] for name in running}
        for turn in range(rounds + 1):
            before = cpu_seconds()
            names = list(running) if turn % 2 else list(running)[::-1]
            taken = {name: running[name].ask(question)["elapsed_s"] for name in names}
            if turn:
                for name, elapsed_s in taken.items():
                    kept[name].append(question["tokens"] / elapsed_s)
                busy.append(others_cores(before, sum(taken.values())))
        speeds[key] = kept
    return speeds, busy


def load_seconds(
    contestants: Sequence[Contestant], work: Path, *, threads: int, rounds: int
) -> dict[str, list[float]]:
    """Start and end all in turn, and return the time that each took to load its file.

    The files are in the system's cache; the import of a library is not counted.
    """
    say("loading, again and again")
    found: dict[str, list[float]] = {one.name: [] for one in contestants}
    for turn in range(rounds + 1):
        for one in contestants if turn % 2 else contestants[::-1]:
            running = Running(one, threads, work / "load.log")
            running.close()
            if turn:
                found[one.name].append(running.loaded["load_s"])
    return found


def ratios(speeds: Speeds, ours: str, peer: str) -> dict[str, dict[str, float]]:
    """Divide our speed by a peer's of the same round, for each question."""
    return {key: quotients(by[ours], by[peer]) for key, by in speeds.items()}


def quotients(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Divide round by round, and summarise."""
    return summary([a / b for a, b in zip(above, below, strict=True)])


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the range."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def cpu_seconds() -> tuple[float, float]:
    """Return the CPU time of the whole machine, and this benchmark's part of it."""
    whole = psutil.cpu_times()
    mine = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        times = process.cpu_times()
        # Of processes that have ended, their parent knows.
        mine += times.user + times.system + times.children_user + times.children_system
    return whole.user + whole.nice + whole.system, mine


def others_cores(before: tuple[float, float], elapsed_s: float) -> float:
    """Return the cores that other processes used since `before`, a result of `cpu_seconds`."""
    after = cpu_seconds()
    others_s = (after[0] - before[0]) - (after[1] - before[1])
    return round(max(0.0, others_s) / elapsed_s, 3)


def describe_machine(threads: int) -> dict[str, Any]:
    """Describe the machine, as it is before anything is loaded."""
    sys.path[:0] = [str(ROOT / name) for name in ("export", "quantize")]
    from llama_export.examine.bandwidth import BUFFER_BYTES, read_bandwidth

    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "processors": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "read_bandwidth": read_bandwidth(threads, BUFFER_BYTES, time.perf_counter).to_json(),
        "kernel": platform.release(),
        "transparent_huge_pages": setting.read_text().strip() if setting.exists() else "none",
        "python": platform.python_version(),
        "threads": threads,
    }


def say(text: str) -> None:
    """Print a line of progress."""
    click.echo(text, err=True)
