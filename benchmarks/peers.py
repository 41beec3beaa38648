"""Speed side by side: our bundle, onnxruntime-genai's own export, and llama.cpp, on one machine.

    python benchmarks/peers.py --tokenizer tokenizer.model --work /big/folder

Makes a full-size random 1B, exports it with every tool, loads all of them at once and asks them in
turn, round after round, so that a machine that drifts drifts for all. A ratio is taken within a
round; medians and ranges are over rounds. Results go to `benchmarks/results/`. Linux; needs 12 GB
of disk and 10 GB of memory, and a machine that does nothing else.
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
from typing import Annotated, Any

import psutil
import typer
from peer_report import write_report
from peer_setup import ROOT, Artifact, Workshop

ENGINES = Path(__file__).resolve().parent / "engines"
DECODED = 16
GENAI = "genai builder, int4 g32"
GENAI_LAST = "genai builder, last logits"
LLAMA_CPP = "llama.cpp, Q4_0 + Q8_0"
QUESTIONS: Mapping[str, dict[str, Any]] = {
    "prefill 128": {"do": "prefill", "tokens": 128},
    "prefill 512": {"do": "prefill", "tokens": 512},
    "decode at 128": {"do": "decode", "context": 128, "tokens": DECODED},
    "decode at 1024": {"do": "decode", "context": 1024, "tokens": DECODED},
}


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
        """Ask and wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Let the process end."""
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


def main(
    tokenizer: Annotated[Path, typer.Option(help="A Llama 3 tokenizer.model.")],
    work: Annotated[Path, typer.Option(help="Folder for environments and models; kept.")],
    like: Annotated[str, typer.Option(help="Shape of the random checkpoint.")] = "3.2-1B",
    rounds: Annotated[int, typer.Option(help="How often each question is asked.")] = 9,
    threads: Annotated[int, typer.Option(help="Of every engine.")] = 2,
    output: Annotated[Path, typer.Option(help="Gets JSON, a table and a plot.")] = (
        ROOT / "benchmarks" / "results"
    ),
) -> None:
    """Make, measure, and write the results."""
    workshop = Workshop(work.resolve(), tokenizer.resolve(), like, say)
    contestants = make_all(workshop)
    machine = describe_machine(threads)
    say("loading")
    running = {
        one.name: Running(one, threads, work / f"{one.script}-{index}.log")
        for index, one in enumerate(contestants)
    }
    speeds, busy = interleave(running, rounds)
    peaks = {name: one.ask(QUESTIONS["prefill 512"]) for name, one in running.items()}
    results = {
        "machine": machine,
        "shape": like,
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
        "ratios": ratios(speeds),
    }
    for one in running.values():
        one.close()
    write_report(output, results)
    say(f"written to {output}")


def make_all(workshop: Workshop) -> list[Contestant]:
    """Export with every tool."""
    grouped = {size: workshop.ours(size) for size in (32, 128)}
    side_files = grouped[32].path
    here, genai = Path(sys.executable), workshop.genai_python()
    return [
        Contestant("ours, g32", here, "ours.py", grouped[32]),
        Contestant("ours, g128", here, "ours.py", grouped[128]),
        Contestant("ours, g32, in genai", genai, "genai.py", grouped[32]),
        *(
            Contestant(name, genai, "genai.py", workshop.genai(side_files, last_logits=last))
            for name, last in ((GENAI, False), (GENAI_LAST, True))
        ),
        Contestant(
            LLAMA_CPP,
            workshop.llama_python(),
            "llama_cpp_python.py",
            workshop.llama_cpp(side_files),
        ),
    ]


def interleave(
    running: Mapping[str, Running], rounds: int
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Ask everybody in turn, forwards and backwards; the first round warms up and is not kept.

    Returns:
        Tokens a second by question and contestant, and how many cores others used in each round.
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
                after = cpu_seconds()
                others_s = (after[0] - before[0]) - (after[1] - before[1])
                busy.append(round(max(0.0, others_s) / sum(taken.values()), 3))
        speeds[key] = kept
    return speeds, busy


def ratios(speeds: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """Divide our speed by each peer's of the same round."""
    found: dict[str, Any] = {}
    for ours in ("ours, g32", "ours, g128"):
        for peer in (GENAI, GENAI_LAST, LLAMA_CPP):
            found[f"{ours} / {peer}"] = {
                key: summary([a / b for a, b in zip(by[ours], by[peer], strict=True)])
                for key, by in speeds.items()
            }
    for ours in ("ours, g32", "ours, g128"):
        pairs = zip(speeds["decode at 1024"][ours], speeds["decode at 128"][ours], strict=True)
        found[f"{ours}: decode at 1024 / at 128"] = summary([a / b for a, b in pairs])
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the range."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def cpu_seconds() -> tuple[float, float]:
    """Return the CPU time that the whole machine spent, and what this benchmark did of it."""
    whole = psutil.cpu_times()
    mine = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        times = process.cpu_times()
        mine += times.user + times.system
    return whole.user + whole.nice + whole.system, mine


def describe_machine(threads: int) -> dict[str, Any]:
    """Say what the figures were measured on, as it is before anything is loaded."""
    sys.path[:0] = [str(ROOT / name) for name in ("export", "quantize")]
    from llama_export.bandwidth import BUFFER_BYTES, read_bandwidth

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
    typer.echo(text, err=True)


if __name__ == "__main__":
    typer.run(main)
