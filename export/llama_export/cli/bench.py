"""`llama-export bench`: how fast a bundle runs on this machine, and in how much memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.options import BUNDLE, JSON, NO_HASH, THREADS, VERBOSE, open_console
from llama_export.cli.verb import Section, Verb
from llama_export.examine import defaults

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.targets.session import Session

_CACHED_BYTES = 64_000_000
_PARTS = {"prompt_lengths": "--prompt-lengths", "contexts": "--contexts"}


def bench(
    *,
    bundle: Path,
    prompt_lengths: str | None,
    contexts: str | None,
    decode_tokens: int | None,
    repeat: int | None,
    threads: int | None,
    no_hash: bool,
    quick: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Measure loading, time to the first token, prefill, decode and memory."""
    console = open_console(verbose)
    from llama_export.bundle.bundle import Bundle
    from llama_export.bundle.unchanged import require_unchanged
    from llama_export.cli.console import results
    from llama_export.cli.output import write_json
    from llama_export.cli.terminal import TerminalProgress, show_note
    from llama_export.examine.bandwidth import buffer_bytes_for, read_bandwidth
    from llama_export.examine.bench import measure, parse_lengths, plan_bench
    from llama_export.system.machine import Machine
    from llama_export.targets import registry
    from llama_export.targets.stored import StoredArtifact

    opened = Bundle.open(bundle)
    registry.require_measurable(opened)
    target, artifact = registry.get(opened.manifest.target), StoredArtifact.of(opened)
    machine = Machine()
    lengths, at = (
        None if text is None else parse_lengths(option, text)
        for option, text in zip(_PARTS.values(), (prompt_lengths, contexts), strict=True)
    )
    plan = plan_bench(
        artifact.spec.max_context,
        prompt_lengths=lengths,
        contexts=at,
        decode_tokens=decode_tokens,
        repeat=repeat,
        quick=quick,
    )
    progress = TerminalProgress(console)
    unchanged = None if no_hash else require_unchanged(opened, progress)

    def load() -> Session:
        session = target.open_session(artifact, threads=threads, verbose=verbose)
        if unchanged is not None:
            unchanged.require_still()
        return session

    with progress.step("Measuring") as advance:
        found = measure(
            load,
            plan,
            machine,
            ordinary_tokens=_ordinary_tokens(opened.manifest.tokenizer),
            progress=advance,
        )
    # Only now: its buffer must not be in the memory that was measured.
    used_threads = threads or machine.physical_cores()
    with progress.step("Measuring the memory's speed"):
        buffer_bytes = buffer_bytes_for(machine.available_bytes())
        bandwidth = read_bandwidth(used_threads, buffer_bytes, machine.clock)
    parts = target.describe(artifact)
    manifest = opened.manifest
    report = {
        "format_version": 1,
        "bundle": {
            "folder": str(bundle),
            "model": manifest.model.name,
            "target": manifest.target,
            "recipe": manifest.quantization["recipe"],
            "group_size": manifest.quantization["group_size"],
            "size_bytes": opened.size_bytes,
        },
        "machine": {
            "cores": machine.cores(),
            "physical_cores": machine.physical_cores(),
            "memory_bytes": machine.memory_bytes(),
        },
        "settings": {
            "threads": used_threads,
            "threads_chosen_by": "the runtime's default" if threads is None else "--threads",
            "prompt_lengths": list(plan.prompt_lengths),
            "contexts": list(plan.contexts),
            "decode_tokens": plan.decode_tokens,
            "repeat": plan.repeat,
            "warm_up": 1,
        },
        **found.to_json(),
        "bandwidth": bandwidth.to_json(),
        "reads": [
            _reads(
                parts.read_bytes_per_token(each.context), each.tokens_per_s.median, bandwidth.best
            )
            | {"context": each.context}
            for each in found.decode
        ],
        "fits_caches": (fits_caches := parts.read_bytes_per_token(0) < _CACHED_BYTES),
        "notes": _notes(fits_caches=fits_caches),
    }
    if as_json:
        write_json(report)
    else:
        results().print(bench_table(report))
    if found.was_busy:
        cores = max(found.others_before, found.others_during)
        busy = f"other processes kept {cores:.1f} cores busy"
        show_note(console, f"{busy}; measure again when the machine is idle")


def _reads(bytes_per_token: int, tokens_per_s: float, bandwidth: float) -> dict[str, Any]:
    """Return what decoding reads, and its share of what the memory can give."""
    rate = bytes_per_token * tokens_per_s
    return {
        "bytes_per_token": bytes_per_token,
        "bytes_per_s": round(rate),
        "share_of_bandwidth": round(rate / bandwidth, 3),
    }


def _ordinary_tokens(tokenizer: Mapping[str, Any]) -> int:
    """Return how many ids, the first ones, are tokens of text.

    Llama 3 has its control tokens after them, and other vocabularies have a few before.
    """
    bos, size = tokenizer["bos_token_id"], int(tokenizer["vocab_size"])
    return int(bos) if bos is not None and 2 * bos > size else size


def _notes(*, fits_caches: bool) -> list[str]:
    notes = [
        "load is the first one in this process; whether the files were in the system's cache "
        "is not known",
        "reads for each token are bytes of the files and of the KV cache; a runtime that packs its "
        "weights reads more",
    ]
    if fits_caches:
        notes.append(
            "the weights may fit into the processor's caches: a share of bandwidth would say "
            "nothing, and is left blank"
        )
    return notes


def bench_table(report: dict[str, Any]) -> Table:
    """Lay the figures out in a table, with the median and the spread of each."""
    from rich.table import Table

    from llama_export.system.byte_sizes import format_bytes

    bundle, settings = report["bundle"], report["settings"]
    table = Table(
        title=f"{bundle['folder']}: {bundle['model']}, {bundle['recipe']}, "
        f"{settings['threads']} threads ({settings['threads_chosen_by']})",
        title_justify="left",
        caption="; ".join(report["notes"]) + ".",
        caption_justify="left",
    )
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("least to most", justify="right")
    table.add_row("load", f"{report['load_s']:.2f} s", "")
    table.add_row("memory after loading", format_bytes(report["resident_bytes"]), "")
    table.add_row("memory at its peak", format_bytes(report["peak_resident_bytes"]), "")
    first = f"first call, {report['first_call_tokens']} tokens"
    table.add_row(first, f"{report['first_call_s']:.3f} s", "")
    for row in report["prefill"]:
        time, speed = row["first_token_s"], row["tokens_per_s"]
        label = f"prompt of {row['tokens']}"
        table.add_row(
            f"{label}, to the first token",
            f"{time['median']:.3f} s",
            f"{time['least']:.3f} to {time['most']:.3f}",
        )
        table.add_row(f"{label}, prefill", *_speeds(speed))
    for row, reads in zip(report["decode"], report["reads"], strict=True):
        table.add_row(f"decode at {row['context']}", *_speeds(row["tokens_per_s"]))
        table.add_row(
            "  reads for each token",
            format_bytes(reads["bytes_per_token"]),
            "" if report["fits_caches"] else f"{reads['share_of_bandwidth']:.0%} of bandwidth",
        )
    speed = report["bandwidth"]
    table.add_row(
        "memory read, best",
        f"{speed['best_bytes_per_s'] / 1e9:.1f} GB/s",
        f"from {speed['worst_bytes_per_s'] / 1e9:.1f}",
    )
    table.add_row(
        "other processes",
        f"{max(report['others_before'], report['others_during']):.2f} cores",
        "busy" if report["was_busy"] else "idle enough",
    )
    return table


def _speeds(speed: dict[str, float]) -> tuple[str, str]:
    return f"{speed['median']:.1f} tokens/s", f"{speed['least']:.1f} to {speed['most']:.1f}"


def _listed(lengths: tuple[int, ...]) -> str:
    return ",".join(map(str, lengths))


BENCH = Verb(
    "bench",
    bench,
    (
        Section(
            "What is measured",
            (
                click.Option(
                    ["--prompt-lengths"],
                    metavar="N,N",
                    help="Tokens of the prompts.",
                    show_default=_listed(defaults.PROMPT_LENGTHS),
                ),
                click.Option(
                    ["--contexts"],
                    metavar="N,N",
                    help="Positions in the cache to decode at.",
                    show_default=_listed(defaults.CONTEXTS),
                ),
                click.Option(
                    ["--decode-tokens"],
                    type=int,
                    metavar="N",
                    help="Tokens to decode for one sample.",
                    show_default=str(defaults.DECODE_TOKENS),
                ),
                click.Option(
                    ["--repeat"],
                    type=int,
                    metavar="N",
                    help="Samples of each figure.",
                    show_default=str(defaults.REPEAT),
                ),
                click.Option(["--quick"], is_flag=True, help="One length, fewer samples."),
            ),
        ),
        Section("Run", (THREADS, NO_HASH, JSON, VERBOSE)),
    ),
    positionals=(BUNDLE,),
    examples=("llama-export bench 3.2-1B/onnx", "llama-export bench 3.2-1B/onnx --quick --json"),
)
