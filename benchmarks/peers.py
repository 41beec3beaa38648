"""Speed side by side: our bundle, onnxruntime-genai's own export, and llama.cpp, on one machine.

    python benchmarks/peers.py --tokenizer tokenizer.model --work /big/folder

Makes a full-size random 1B, exports it with every tool, and asks all of them in turn
(`side_by_side.py`). Results go to `benchmarks/results/`. Linux; needs 12 GB of disk and 10 GB of
memory, and a machine that does nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from peer_report import Report, write_report
from peer_setup import ROOT, Workshop
from side_by_side import (
    Contestant,
    Speeds,
    describe_machine,
    quotients,
    ratios,
    run_contest,
    say,
)

GENAI = "genai builder, int4 g32"
GENAI_LAST = "genai builder, last logits"
LLAMA_CPP = "llama.cpp, Q4_0 + Q8_0"
OURS = ("ours, g32", "ours, g128")
NOTES = (
    "Not alike: genai's builder makes a 4-bit head and table, ours and llama.cpp's have 8 bits. By "
    "default its graph computes the head for every position of a prefill; *last logits* is its "
    "option `prune_lm_head`. llama.cpp keeps its cache in float16, the others in float32. Groups "
    "of 128 are ours alone: no peer was given them."
)


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--tokenizer", type=PATH, required=True, help="A Llama 3 tokenizer.model.")
@click.option("--work", type=PATH, required=True, help="Folder for environments and models; kept.")
@click.option("--like", default="3.2-1B", show_default=True, help="Shape of the random checkpoint.")
@click.option(
    "--rounds", type=int, default=9, show_default=True, help="How often each question is asked."
)
@click.option("--threads", type=int, default=2, show_default=True, help="Of every engine.")
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
    threads: int,
    output: Path,
) -> None:
    """Make, measure, and write the results."""
    workshop = Workshop(work.resolve(), tokenizer.resolve(), like, say)
    contestants = make_all(workshop)
    machine = describe_machine(threads)
    figures, speeds = run_contest(contestants, work, threads=threads, rounds=rounds)
    results = {"machine": machine, "shape": like, **figures, "ratios": compare(speeds)}
    write_report(output, results, Report("peers", f"Speed side by side: random {like}", NOTES))
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


def compare(speeds: Speeds) -> dict[str, Any]:
    """Divide our speed by each peer's of the same round, and by our own at a shorter context."""
    found: dict[str, Any] = {
        f"{ours} / {peer}": ratios(speeds, ours, peer)
        for ours in OURS
        for peer in (GENAI, GENAI_LAST, LLAMA_CPP)
    }
    long, short = speeds["decode at 1024"], speeds["decode at 128"]
    for ours in OURS:
        found[f"{ours}: decode at 1024 / at 128"] = quotients(long[ours], short[ours])
    return found


if __name__ == "__main__":
    main()
