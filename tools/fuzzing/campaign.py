"""A campaign: many cases over several processes, counted by surface, with the failures kept."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzzing.cases import Case, draw
from fuzzing.execution import Runner, set_up_process, warm_up
from fuzzing.judge import Verdict
from fuzzing.surface import Surface
from fuzzing.surfaces import SURFACES

# A child runs the cases of a chunk one after another.
_CHUNK, _SLOW_CHUNK = 25, 5


@dataclass(frozen=True)
class Failure:
    """A case that the product did not take as it must.

    Args:
        case: the case.
        verdict: what went wrong.
        trace: the traceback, where there was one.
    """

    case: Case
    verdict: Verdict
    trace: str = ""

    @property
    def signature(self) -> tuple[str, str, str]:
        """What failures of one cause have in common, as far as can be seen from outside."""
        return self.case.surface, self.verdict.kind, self.verdict.detail[:60]


@dataclass
class Tally:
    """What became of the cases of a surface."""

    kinds: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    wall_s: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the figures of some more cases."""
        self.kinds += other.kinds
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.wall_s += other.wall_s
        self.failures += other.failures


@dataclass(frozen=True)
class Chunk:
    """A run of cases for one process."""

    surface: str
    seed: int
    numbers: range


def shares(surfaces: Sequence[Surface], count: int) -> dict[str, int]:
    """Divide a number of cases among surfaces by their shares; each gets one at least."""
    whole = sum(surface.share for surface in surfaces)
    return {surface.name: max(1, round(count * surface.share / whole)) for surface in surfaces}


def targets_of(surfaces: Sequence[Surface]) -> set[str]:
    """Return the targets whose runtimes the surfaces need."""
    return {"onnx"} | {surface.target for surface in surfaces if surface.target}


def run(
    base: Path, surfaces: Sequence[Surface], seed: int, count: int, *, jobs: int
) -> Iterator[tuple[str, Tally]]:
    """Run cases and yield the figures of each part, by its surface.

    Args:
        base: folder of the fixtures.
        surfaces: surfaces.
        seed: seed of the campaign.
        count: number of cases in all.
        jobs: number of processes.
    """
    chunks = [
        Chunk(name, seed, range(start, min(start + size, number)))
        for name, number in shares(surfaces, count).items()
        for size in (_SLOW_CHUNK if SURFACES[name].is_slow else _CHUNK,)
        for start in range(0, number, size)
    ]
    with tempfile.TemporaryDirectory(prefix="llama-fuzz-") as work:
        set_up_process(Path(work) / "home")
        warm_up(targets_of(surfaces))
        forked = multiprocessing.get_context("fork")
        with forked.Pool(jobs, _begin_worker, (base, Path(work))) as pool:
            yield from pool.imap_unordered(_run_chunk, chunks)


# Of this worker; it keeps what the commands say of inputs without a mutation.
_runners: list[Runner] = []


def _begin_worker(base: Path, work: Path) -> None:
    _runners[:] = [Runner(base, work / f"worker-{multiprocessing.current_process().pid}")]


def _run_chunk(chunk: Chunk) -> tuple[str, Tally]:
    runner, tally = _runners[0], Tally()
    begun = time.perf_counter()
    surface = SURFACES[chunk.surface]
    cases = [draw(surface, chunk.seed, number, runner.base) for number in chunk.numbers]
    together = not surface.is_slow
    for case, (verdict, outcome) in zip(
        cases, runner.run_all(cases, together=together), strict=True
    ):
        tally.kinds[verdict.kind] += 1
        tally.slowest_s = max(tally.slowest_s, outcome.cpu_s)
        if verdict.failed:
            tally.failures.append(Failure(case, verdict, outcome.trace))
    tally.wall_s = time.perf_counter() - begun
    return chunk.surface, tally
