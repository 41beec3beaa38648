"""`llama-export inspect`: what is inside a bundle, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.misspelt import no_bundle
from llama_export.cli.options import JSON, PATH, VERBOSE, open_console
from llama_export.cli.verb import Positional, Section, Verb
from llama_quantize.recipe import quality_and_method

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console
    from rich.table import Table

    from llama_export.examine.inspection import Inspection, TensorGroup


def inspect(*, folder: Path, hashes: bool, as_json: bool, verbose: bool) -> None:
    """Show what is inside a bundle: parts, inputs and outputs, files, origin."""
    console = open_console(verbose)
    from llama_export.cli.console import results
    from llama_export.cli.output import write_json

    found = _look(folder, console, hashes=hashes)
    if as_json:
        write_json(found.to_json())
        return
    output = results()
    for table in tables(found):
        output.print(table)


def _look(folder: Path, console: Console, *, hashes: bool) -> Inspection:
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.examine.inspection import inspect_folder

    if not hashes:
        return inspect_folder(folder)
    with TerminalProgress(console).step("Hashing the files") as advance:
        return inspect_folder(folder, check_hashes=True, progress=advance)


def tables(found: Inspection) -> Iterator[Table]:
    """Lay an inspection out in tables of at most 80 columns."""
    from rich.table import Table

    from llama_export.system.byte_sizes import format_bytes

    overview = Table(title=found.folder, title_justify="left", show_header=False)
    overview.add_column("", no_wrap=True)
    overview.add_column("", overflow="fold")
    for key, value in _facts(found).items():
        overview.add_row(key, value)
    yield overview
    sizes = Table("part", title="What takes the space", title_justify="left")
    sizes.add_column("size", justify="right")
    sizes.add_column("share", justify="right")
    for part in found.parts:
        share = part.size_bytes / found.size_bytes
        sizes.add_row(part.kind, format_bytes(part.size_bytes), f"{share:.1%}")
    sizes.add_section()
    sizes.add_row("together", format_bytes(found.size_bytes), "100.0%")
    yield sizes
    if found.inputs:
        yield _signature(found)
    files = Table("file", title="Files", title_justify="left")
    files.add_column("size", justify="right")
    files.add_column("what")
    for file in found.files:
        files.add_row(file.name, format_bytes(file.size_bytes), file.purpose)
    yield files


def _signature(found: Inspection) -> Table:
    from rich.table import Table

    signature = Table("", "name", title="Inputs and outputs", title_justify="left")
    signature.add_column("type")
    signature.add_column("shape")
    for label, groups in (
        ("in", found.inputs),
        ("out", found.outputs),
        ("kept", found.states),
    ):
        for group in groups:
            signature.add_row(label, group.names, group.dtype, _shape(group))
    return signature


def _shape(group: TensorGroup) -> str:
    return "[" + ", ".join(str(size) for size in group.shape) + "]"


def _how_it_was_read(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the adapters in a model, the options that it was read with, and its notes."""
    adapters = [each["hub_id"] or each["name"] for each in model.get("adapters", ())]
    options = [f"{key} {value}" for key, value in model.get("reading", {}).items()]
    rows = {
        "adapters": ", ".join(adapters),
        "read with": ", ".join(options),
        "notes": "; ".join(model.get("notes", ())),
    }
    return {key: text for key, text in rows.items() if text}


def _facts(found: Inspection) -> dict[str, str]:
    """Choose what a reader wants to see first."""
    from llama_export.system.byte_sizes import format_bytes

    model, how, graph = found.model, found.quantization, found.graph
    revision = (model.get("revision") or "")[:12]
    place = "/".join(filter(None, (model.get("hub_id"), model.get("file"))))
    origin = " at ".join(filter(None, (place, revision)))
    group = f", groups of {how['group_size']}" if how.get("group_size") else ""
    # Calibrated codes have less of it than others, and answer better.
    told = how.get("sqnr_db") and not how.get("calibration")
    sqnr = f", SQNR {how['sqnr_db']:.1f} dB" if told else ""
    facts = {
        "model": str(model.get("name", "unknown")) + (f" ({origin})" if origin else ""),
        **_how_it_was_read(model),
        "recipe": f"{how['recipe']}{group}, {how['bits_per_weight']:.2f} bits a weight{sqnr}",
    }
    if made := how.get("calibration"):
        method = quality_and_method(made["method"])
        on = f"{made['tokens']} tokens, ids sha256 {made['ids_sha256'][:12]}"
        facts["calibrated"] = f"{method} on {on}"
    if graph:
        logits = "every position" if graph["all_logits"] else "the last position"
        facts |= {
            "target": f"{graph['target']}, {graph['artifact']}",
            "context": f"{graph['max_context']} tokens; logits of {logits}",
            **({"delegate": _delegate(graph)} if graph["delegate"] else {}),
            **({"functions": _functions(graph["functions"])} if graph["functions"] else {}),
            "KV cache": f"{format_bytes(graph['kv_bytes_per_token'])} a token, "
            f"{format_bytes(graph['kv_bytes_per_token'] * graph['max_context'])} when full",
            "read for a token": f"{format_bytes(graph['read_bytes_per_token'])}, and the KV cache",
        }
    if found.tokenizer:
        ids, names = found.tokenizer["stop_token_ids"], found.tokenizer["stop_token_names"]
        stops = ", ".join(
            f"{token} {name or ''}".strip() for token, name in zip(ids, names, strict=True)
        )
        facts["tokens"] = f"{found.tokenizer['vocab_size']} in {found.tokenizer['file']}"
        facts["stops at"] = stops
    facts |= _for_apps(found)
    if found.created_with:
        facts["made with"] = ", ".join(f"{name} {v}" for name, v in found.created_with.items())
    facts["licence"] = found.licence
    facts["hashes"] = found.hashes + (" (--hashes checks them)" if "not" in found.hashes else "")
    if found.unlisted:
        facts["not in the manifest"] = ", ".join(found.unlisted)
    return facts


def _for_apps(found: Inspection) -> dict[str, str]:
    """Show what a manifest says for apps: the memory to run it, and whether turns are data."""
    from llama_export.system.byte_sizes import format_bytes

    facts = {}
    if found.memory:
        resident = format_bytes(found.memory["resident_bytes"])
        facts["memory"] = f"about {resident} when loaded, and the KV cache"
    if found.chat:
        reason = found.chat["reason"]
        facts["chat turns"] = "in the manifest" if reason is None else f"none: {reason}"
    return facts


def _functions(functions: Mapping[str, int]) -> str:
    """Name the functions, and the number of tokens that a call of each takes."""
    named = (f"{name} ({size} tokens)" for name, size in functions.items())
    return ", ".join(named).replace("(1 tokens)", "(1 token)")


def _delegate(graph: Mapping[str, Any]) -> str:
    """Describe what computes inside a `.pte`, how much of it, and whether that runs here."""
    from llama_export.cli.terminal import where_it_runs

    report = graph["delegate"]
    outside = sum(report["outside"].values())
    return (
        f"{report['name']}, {where_it_runs(runs_here=graph['runs_here'])}: "
        f"{report['delegate_calls']} calls with {report['products_inside']} of "
        f"{report['products']} products, {outside} other operators"
    )


INSPECT = Verb(
    "inspect",
    inspect,
    (
        Section(
            "Options",
            (
                click.Option(
                    ["--hashes"], is_flag=True, help="Read every file and compare its hash."
                ),
                JSON,
                VERBOSE,
            ),
        ),
    ),
    positionals=(
        Positional(
            click.Argument(["folder"], type=PATH),
            "A bundle, or the weights/ of an export.",
            no_bundle,
        ),
    ),
    examples=("llama-export inspect 3.2-1B/onnx",),
)
