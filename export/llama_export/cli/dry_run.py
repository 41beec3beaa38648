"""What `--dry-run` prints: sizes, memory and time of an export, and which phones could hold it.

It lays a plan out; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llama_export.cli.durations import shown_duration
from llama_export.errors import LlamaExportError
from llama_export.exporting.estimate import ExportEstimate
from llama_export.exporting.judged_phones import JudgedPhones, judge_phones
from llama_export.exporting.phones import KnownPhones, known_phones
from llama_export.sources.source import WEIGHTS_FOLDER
from llama_export.system.byte_sizes import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.cli.push_options import PreparedPush
    from llama_export.exporting.calibration_cost import CalibrationCost
    from llama_export.exporting.plan import ExportPlan

_PHONE_NOTE = (
    "It fits: yes, within {sure.share:.1%} of the memory and {sure_limit}; perhaps, within "
    "{likely.share:.0%} and {likely_limit}, which the system may grant an app that asks for it. "
    "At most: the memory's peak divided by the bytes that a token reads at a context of {context}; "
    "~ marks a peak that is derived, - one that was not found, or a phone that it does not fit. "
    "The phones are as of {as_of}. This is arithmetic: nothing ran on a phone."
)

_WAITED_FOR_S = 60


def show_plan(plan: ExportPlan, push: PreparedPush | None, *, as_json: bool) -> None:
    """Print a plan on stdout, then refuse what cannot work.

    Args:
        plan: plan of an export.
        push: push that would follow it; None: none would.
        as_json: whether it is for a program.

    Raises:
        OutputError: the output exists, or a disk is too small.
        LlamaExportError: the machine's memory is too small.
    """
    from llama_export.cli.console import results
    from llama_export.cli.fitting import print_text, wrapped
    from llama_export.cli.output import write_json

    if as_json:
        pushed = {} if push is None else {"push": push.to_json(None)}
        write_json({**to_json(plan), **pushed})
    else:
        console = results()
        console.print(plan_table(plan))
        console.print(target_table(plan))
        contexts = set()
        for judged in _judged(plan):
            console.print(phone_table(judged))
            contexts.add(judged.context)
        if contexts:
            console.print(
                wrapped(_phone_note(known_phones(), contexts), console.width), soft_wrap=True
            )
        for note in plan.notes:
            print_text(console, f"note: {note}")
        if push is not None:
            where = f"{push.upload.address}, licence {push.licence}"
            seen = ", which nobody else would see" if push.push.private else ""
            print_text(console, f"note: it would then be pushed to {where}{seen}")
    plan.resources.require()
    if plan.resources.memory_is_hopeless:
        raise LlamaExportError(plan.resources.memory_fault, plan.resources.memory_hint)


def to_json(plan: ExportPlan) -> dict[str, object]:
    """Return the estimate, the machine's resources, and the phones by the target they would run.

    There are no phones for a model so small that arithmetic about them would say nothing.
    """
    return {
        "format_version": 2,
        "estimate": plan.estimate.to_json(),
        "notes": list(plan.notes),
        "resources": plan.resources.to_json(),
        "phones": [judged.to_json() for judged in _judged(plan)],
        "phones_as_of": known_phones().as_of.isoformat(),
        "share_sources": list(known_phones().share_sources),
    }


def _judged(plan: ExportPlan) -> Iterator[JudgedPhones]:
    return judge_phones(each.estimate for each in plan.targets)


def plan_table(plan: ExportPlan) -> Table:
    """Summarise what would be read, written and needed in all."""
    from rich.table import Table

    found, resources = plan.estimate, plan.resources
    table = Table(
        title=f"An export of {found.model}, not done",
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
    if resources.download is not None and resources.free_download_bytes is not None:
        pending = resources.download.size_bytes
        free = format_bytes(resources.free_download_bytes)
        rows["download"] = (
            f"{format_bytes(pending)} to {resources.download.folder}; {free} free"
            if pending
            else "none: it is in the hub's cache"
        )
    rows["output"] = str(resources.output)
    if found.weights_bytes:
        kept_in = resources.output / WEIGHTS_FOLDER
        rows["quantised weights"] = f"{format_bytes(found.weights_bytes)} in {kept_in}"
    free = format_bytes(resources.free_disk_bytes)
    rows["disk"] = f"{format_bytes(found.disk_bytes)}; {free} free"
    if resources.taken is not None:
        rows["in the way"] = resources.taken.message
    rows["memory, about"] = (
        f"{format_bytes(found.memory_bytes)}{' with the check' if found.verify else ''}; "
        f"{format_bytes(resources.available_bytes)} available"
    )
    without = ", without the download" if found.download_bytes else ""
    rows["time, about"] = f"{shown_duration(found.elapsed_s)}{without}"
    if found.calibration is not None:
        rows["calibration"] = calibration_line(found.calibration)
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def target_table(plan: ExportPlan) -> Table:
    """Lay the bundles out side by side: what each takes to make, and what it takes to run."""
    from rich.table import Table

    found = plan.estimate
    table = Table(title="Each bundle; memory and time are about right", title_justify="left")
    table.add_column("")
    for each in found.targets:
        table.add_column(each.target, justify="right")
    rows: dict[str, list[str]] = {
        "size": [format_bytes(each.bundle_bytes) for each in found.targets],
        "extra disk during export": [_or_none(each.scratch_bytes) for each in found.targets],
        "memory to make it": [format_bytes(each.memory_bytes) for each in found.targets],
        "time to make it": [shown_duration(each.elapsed_s) for each in found.targets],
        "memory when loaded": [
            format_bytes(each.footprint.resident_bytes) for each in found.targets
        ],
        "for each token": [
            format_bytes(each.footprint.kv_bytes_per_token) for each in found.targets
        ],
        "context": [str(each.max_context) for each in found.targets],
        "memory when it is full": [
            format_bytes(each.run_bytes(each.max_context)) for each in found.targets
        ],
    }
    together = [
        format_bytes(sum(each.bundle_bytes for each in found.targets)),
        _or_none(max(each.scratch_bytes for each in found.targets)),
        format_bytes(found.memory_bytes),
        shown_duration(found.elapsed_s),
    ]
    if len(found.targets) > 1:
        table.add_column("together", justify="right")
        for row, total in zip(rows.values(), together, strict=False):
            row.append(total)
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def phone_table(judged: JudgedPhones) -> Table:
    """List the phones that would run a bundle: which could hold it, and what bounds its speed."""
    from rich.table import Table

    context = judged.context
    table = Table(
        title=f"Phones that would run {judged.estimate.target}: "
        f"{format_bytes(judged.needed_bytes)} at a context of {context}, "
        f"{format_bytes(judged.read_bytes)} read for each token",
        title_justify="left",
    )
    table.add_column("")
    for heading in ("memory", "reads at most", "fits", "decodes at most"):
        table.add_column(heading, justify="right")
    for phone in judged.phones:
        speed = judged.bound(phone)
        mark = "~" if phone.derived else ""
        table.add_row(
            phone.name,
            f"{phone.memory_bytes // 2**30} GB",
            "-" if phone.bandwidth is None else f"{mark}{phone.bandwidth / 1e9:.1f} GB/s",
            phone.verdict(judged.needed_bytes),
            "-" if speed is None else f"{speed:.0f} tokens/s",
        )
    return table


def _phone_note(known: KnownPhones, contexts: set[int]) -> str:
    return _PHONE_NOTE.format(
        sure=known.sure,
        sure_limit=format_bytes(known.sure.limit_bytes),
        likely=known.likely,
        likely_limit=format_bytes(known.likely.limit_bytes),
        context=" or ".join(map(str, sorted(contexts))),
        as_of=known.as_of,
    )


def _or_none(size_bytes: int) -> str:
    return format_bytes(size_bytes) if size_bytes else "none"


def calibration_line(cost: CalibrationCost) -> str:
    """Return in a line what a calibration takes, and what takes less."""
    return (
        f"about {shown_duration(cost.elapsed_s)}, {format_bytes(cost.memory_bytes)} of memory, "
        f"{format_bytes(cost.scratch_bytes)} of disk; --quality fast does without"
    )


def long_calibration(found: ExportEstimate) -> str | None:
    """Announce a calibration that one waits for; None where there is none or it is short."""
    cost = found.calibration
    if cost is None or cost.elapsed_s < _WAITED_FOR_S:
        return None
    return f"the calibration takes {calibration_line(cost)}"
