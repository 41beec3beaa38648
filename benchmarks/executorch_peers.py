"""Our `.pte` beside `export_llm`'s and llama.cpp's GGUF: size, export, loading, speed.

    python benchmarks/executorch_peers.py --tokenizer tokenizer.model --work /big/folder

All are made from one full-size random checkpoint and run on one machine, asked in turn
(`side_by_side.py`). What was made before is kept, with the figures of its making, until `--remake`
names it: ours, int8-head, int4-head, llama-cpp or all. Results go to `benchmarks/results/`.

It says nothing of quality, since the weights are random, or of phones: this is ExecuTorch's Python
runtime, on Linux. Needs the extra `executorch`, 14 GB of disk and 10 GB of memory, and a machine
that does nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from executorch_setup import ALL, CONTEXT, INT4_HEAD, INT8_HEAD, NAMES, ExecutorchWorkshop, Made
from peer_report import Report, write_report
from peer_setup import ROOT
from side_by_side import (
    Contestant,
    Speeds,
    describe_machine,
    load_seconds,
    quotients,
    ratios,
    run_contest,
    say,
    summary,
)

OURS, OURS_PLAIN = "ours", "ours, without our session"
ALIKE = "export_llm, int8 head"
DEFAULT_HEAD = "export_llm, its int4 head"
LLAMA_CPP = "llama.cpp, Q4_0 + Q8_0"
PEERS = (ALIKE, DEFAULT_HEAD, LLAMA_CPP)
NOTES = f"""\
Alike in ours and *{ALIKE}*: int4 weights in groups of 32 and an int8 head with a scale for each \
row, both with activations rounded to int8 for each token; an int8 table; a float32 cache of \
{CONTEXT} positions; logits of the last position; one method for prefill and decode; the same \
ExecuTorch. *{DEFAULT_HEAD}* is what `export_llm` does by itself: a head of little more than half \
the bytes, all of which are read for each token.

Not alike: `export_llm` ran with `use_hqq=False`. By default it searches scales, and a trial of \
that was stopped after 580 s; ours searches them too. Its table and its head are two copies. Its \
checkpoint was rewritten from Hugging Face's layout beforehand, and the int8 head rounded there; \
neither is in its export's time. Its export writes a `.pte`, ours a bundle with tokenizer and \
checksums, of which only the `.pte` is in the size. llama.cpp keeps its cache in float16, and its \
file holds a tokenizer. *{OURS}* runs in our session, which moves packed weights into huge pages; \
*{OURS_PLAIN}* is the same file in the very lines that run `export_llm`'s.

Before load is what Python and the libraries hold: ExecuTorch's runtime for Python imports torch. \
Load time is a median of loads in turn, with the file in the system's cache and without imports. \
Each export was measured once; others used at most {{busy:.2f}} cores meanwhile."""


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--tokenizer", type=PATH, required=True, help="A Llama 3 tokenizer.model.")
@click.option("--work", type=PATH, required=True, help="Folder for environments and models; kept.")
@click.option("--like", default="3.2-1B", show_default=True, help="Shape of the random checkpoint.")
@click.option(
    "--rounds", type=int, default=9, show_default=True, help="How often each question is asked."
)
@click.option(
    "--loads",
    type=int,
    default=5,
    show_default=True,
    help="How often each file is loaded for its time.",
)
@click.option("--threads", type=int, default=2, show_default=True, help="Of every engine.")
@click.option("--remake", multiple=True, help=f"Make again: {', '.join(NAMES)} or {ALL}.")
@click.option(
    "--output",
    type=PATH,
    default=ROOT / "benchmarks" / "results",
    show_default=True,
    help="Gets JSON, a table and a plot.",
)
def main(
    tokenizer: Path,
    work: Path,
    like: str,
    rounds: int,
    loads: int,
    threads: int,
    remake: tuple[str, ...],
    output: Path,
) -> None:
    """Make what is missing, measure, and write the results."""
    again = list(remake)
    unknown = sorted(set(again) - {*NAMES, ALL})
    if unknown:
        message = f"--remake: expected {', '.join(NAMES)} or {ALL}, found {', '.join(unknown)}"
        raise click.UsageError(message)
    work = work.resolve()
    workshop = ExecutorchWorkshop(work, tokenizer.resolve(), like, say, again)
    made = make_all(workshop)
    contestants = enter(workshop, made)
    results = compare(contestants, work, threads=threads, rounds=rounds, loads=loads)
    for name, one in made.items():
        results["contestants"][name]["others_cores_in_export"] = one.others_cores
    title = f"ExecuTorch side by side: random {like}"
    notes = NOTES.format(busy=max(one.others_cores for one in made.values()))
    write_report(output, {"shape": like, **results}, Report("executorch", title, notes))
    say(f"written to {output}")


def make_all(workshop: ExecutorchWorkshop) -> Mapping[str, Made]:
    """Export with every tool."""
    ours = workshop.ours_pte()
    return {
        OURS: ours,
        ALIKE: workshop.export_llm(INT8_HEAD),
        DEFAULT_HEAD: workshop.export_llm(INT4_HEAD),
        LLAMA_CPP: workshop.gguf(ours.artifact.path),
    }


def enter(workshop: ExecutorchWorkshop, made: Mapping[str, Made]) -> list[Contestant]:
    """Pair every artifact with its engine."""
    here, llama = Path(sys.executable), workshop.llama_python()
    plain = (here, "executorch_pte.py")
    engines = {OURS: (here, "ours.py"), LLAMA_CPP: (llama, "llama_cpp_python.py")}
    contestants = [
        Contestant(name, *engines.get(name, plain), one.artifact) for name, one in made.items()
    ]
    ours = made[OURS].artifact
    file = replace(ours, path=ours.path / "model.pte")
    return [contestants[0], Contestant(OURS_PLAIN, *plain, file), *contestants[1:]]


def compare(
    contestants: Sequence[Contestant], work: Path, *, threads: int, rounds: int, loads: int
) -> dict[str, Any]:
    """Measure, and divide ours by each of the others."""
    machine = describe_machine(threads)
    loaded = load_seconds(contestants, work, threads=threads, rounds=loads)
    figures, speeds = run_contest(contestants, work, threads=threads, rounds=rounds)
    for name, seconds in loaded.items():
        found = figures["contestants"][name]
        found["loads_s"] = summary(seconds)
        found["load_s"] = found["loads_s"]["median"]
    return {"machine": machine, **figures, "ratios": divide(speeds, loaded)}


def divide(speeds: Speeds, loaded: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return ours divided by each other's of the same round; for load times, less is better."""
    found: dict[str, Any] = {
        f"{one} / {peer}": ratios(speeds, one, peer) for one in (OURS, OURS_PLAIN) for peer in PEERS
    }
    for peer in PEERS:
        found[f"load time, {OURS} / {peer}"] = quotients(loaded[OURS], loaded[peer])
    return found


if __name__ == "__main__":
    main()
