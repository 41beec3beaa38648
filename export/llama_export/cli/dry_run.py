"""What `--dry-run` prints: sizes, memory and time of an export, and which phones could hold it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from llama_export.errors import LlamaExportError

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.exporting.phones import Phone
    from llama_export.exporting.pipeline import ExportPlan

_PHONE_NOTE = (
    "It fits: yes, within {sure:.1%} of the memory and 3.3 GB; perhaps, within {likely:.0%} and "
    "8 GB, which an app may get that asks for it. At most: the memory's peak divided by the bytes "
    "that a token reads at a context of {context}; ~ marks a peak that is derived, - one that was "
    "not found, or a phone that it does not fit. This is arithmetic: nothing ran on a phone."
)


# Smaller models decode from the processor's caches: the memory's speed says nothing of them.
_SMALLEST_BYTES = 50_000_000


def show_plan(plan: ExportPlan, *, as_json: bool) -> None:
    """Print a plan on stdout, then refuse what cannot work.

    Raises:
        OutputError: the output exists, or a disk is too small.
        LlamaExportError: the machine's memory is too small.
    """
    from rich.console import Console

    if as_json:
        click.echo(json.dumps(to_json(plan), indent=2))
    else:
        console = Console()
        console.print(plan_table(plan))
        if _suits_phones(plan):
            console.print(phone_table(plan))
    plan.room.require()
    if plan.room.memory_is_hopeless:
        raise LlamaExportError(plan.room.memory_fault, plan.room.memory_hint)


def to_json(plan: ExportPlan) -> dict[str, object]:
    """Return the estimate, the room for it, and the phones, of the first target.

    There are no phones for a model so small that arithmetic about them would say nothing.
    """
    from llama_export.exporting.estimate import QUOTED_CONTEXT
    from llama_export.exporting.phones import PHONES, SHARE_SOURCES

    target = plan.estimate.targets[0]
    needed = target.run_bytes(_context(plan))
    read = target.footprint.read_bytes_per_token(_context(plan))
    return {
        "format_version": 1,
        "estimate": plan.estimate.to_json(),
        "room": plan.room.to_json(),
        "phones": {
            "context": min(QUOTED_CONTEXT, plan.estimate.targets[0].max_context),
            "needed_bytes": needed,
            "read_bytes_per_token": read,
            "share_sources": list(SHARE_SOURCES),
            "rows": [
                {
                    "name": phone.name,
                    "memory_bytes": phone.memory_bytes,
                    "app_bytes": [phone.sure_bytes, phone.likely_bytes],
                    "memory_kind": phone.memory_kind,
                    "bandwidth_bytes_per_s": phone.bandwidth,
                    "bandwidth_is_derived": phone.derived,
                    "fits": phone.verdict(needed),
                    "tokens_per_s_bound": _bound(phone, needed, read),
                    "sources": list(phone.sources),
                }
                for phone in (PHONES if _suits_phones(plan) else ())
            ],
        },
    }


def plan_table(plan: ExportPlan) -> Table:
    """Summarise what would be written and needed."""
    from rich.markup import escape
    from rich.table import Table

    from llama_export.sources.source import WEIGHTS_FOLDER
    from llama_export.system.byte_sizes import format_bytes

    found, room = plan.estimate, plan.room
    table = Table(
        title=f"An export of {escape(found.model)}, not done",
        title_justify="left",
        show_header=False,
    )
    table.add_column("")
    table.add_column("")
    recipe = found.recipe + (f", groups of {found.group_size}" if found.group_size else "")
    rows = {
        "parameters": f"{found.num_parameters / 1e9:.2f} billion"
        if found.num_parameters >= 1e8
        else f"{found.num_parameters / 1e6:.1f} million",
        "recipe": recipe,
    }
    if room.download is not None and room.free_download_bytes is not None:
        pending, free = room.download.size_bytes, format_bytes(room.free_download_bytes)
        rows["download"] = (
            f"{format_bytes(pending)} to {escape(str(room.download.folder))}; {free} free"
            if pending
            else "none: it is in the hub's cache"
        )
    for target in found.targets:
        bundle = format_bytes(target.bundle_bytes)
        rows[f"{target.target} bundle"] = f"{bundle} in {escape(str(room.output / target.target))}"
    if found.weights_bytes:
        rows["quantised weights"] = (
            f"{format_bytes(found.weights_bytes)} in {escape(str(room.output / WEIGHTS_FOLDER))}"
        )
    rows["disk"] = f"{format_bytes(found.disk_bytes)}; {format_bytes(room.free_disk_bytes)} free"
    if room.taken is not None:
        rows["in the way"] = escape(room.taken.message)
    rows["memory, about"] = (
        f"{format_bytes(found.memory_bytes)}{' with the check' if found.verify else ''}; "
        f"{format_bytes(room.available_bytes)} available"
    )
    rows["time, about"] = (
        f"{_duration(found.elapsed_s)}{', without the download' if found.download_bytes else ''}"
    )
    for target in found.targets:
        kv = target.footprint.kv_bytes_per_token
        rows[f"to run {target.target}, about"] = (
            f"{format_bytes(target.footprint.resident_bytes)} loaded, and {format_bytes(kv)} "
            f"for each token: {format_bytes(target.run_bytes(target.max_context))} when the "
            f"context of {target.max_context} is full"
        )
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def phone_table(plan: ExportPlan) -> Table:
    """List the phones: which could hold the first target's bundle, and what bounds its speed."""
    from rich.table import Table

    from llama_export.exporting.phones import LIKELY_SHARE, PHONES, SURE_SHARE
    from llama_export.system.byte_sizes import format_bytes

    target = plan.estimate.targets[0]
    needed = target.run_bytes(_context(plan))
    read = target.footprint.read_bytes_per_token(_context(plan))
    table = Table(
        title=f"Phones: {format_bytes(needed)} at a context of {_context(plan)}, "
        f"{format_bytes(read)} read for each token",
        title_justify="left",
        caption=_PHONE_NOTE.format(sure=SURE_SHARE, likely=LIKELY_SHARE, context=_context(plan)),
        caption_justify="left",
    )
    table.add_column("")
    for heading in ("memory", "reads at most", "fits", "decodes at most"):
        table.add_column(heading, justify="right")
    for phone in PHONES:
        speed = _bound(phone, needed, read)
        mark = "~" if phone.derived else ""
        table.add_row(
            phone.name,
            f"{phone.memory_bytes // 2**30} GB",
            "-" if phone.bandwidth is None else f"{mark}{phone.bandwidth / 1e9:.1f} GB/s",
            phone.verdict(needed),
            "-" if speed is None else f"{speed:.0f} tokens/s",
        )
    return table


def _bound(phone: Phone, needed_bytes: int, read_bytes: int) -> float | None:
    """Return the bound on a phone's decoding; None where it cannot run at all."""
    return None if phone.verdict(needed_bytes) == "no" else phone.tokens_per_s(read_bytes)


def _suits_phones(plan: ExportPlan) -> bool:
    return plan.estimate.targets[0].bundle_bytes >= _SMALLEST_BYTES


def _context(plan: ExportPlan) -> int:
    from llama_export.exporting.estimate import QUOTED_CONTEXT

    return min(QUOTED_CONTEXT, plan.estimate.targets[0].max_context)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
