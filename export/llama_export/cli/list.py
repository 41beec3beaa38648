"""`llama-export list`: the models that have a name here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_export.cli.options import JSON, VERBOSE, open_console
from llama_export.cli.verb import Section, Verb

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.exporting.estimate import ExportEstimate
    from llama_export.sources.catalogue import KnownModel


def list_models(*, as_json: bool, verbose: bool) -> None:
    """List the models that have a name, with their size as int4 and the memory to run them."""
    open_console(verbose)
    from llama_export.cli.console import results
    from llama_export.cli.output import write_json
    from llama_export.sources.catalogue import known_models
    from llama_export.system.machine import Machine

    cores = Machine().cores()
    rows = [(model, _estimate(model, cores)) for model in known_models()]
    if as_json:
        write_json([_to_json(*row) for row in rows])
    else:
        results().print(model_table(rows))


def _estimate(model: KnownModel, cores: int) -> ExportEstimate:
    from llama_export.exporting.estimate import estimate
    from llama_export.exporting.request import DEFAULT_RECIPE
    from llama_export.targets import registry
    from llama_quantize.recipe import recipe

    return estimate(
        model.shape,
        registry.TARGETS,
        recipe(DEFAULT_RECIPE),
        None,
        {name: registry.get(name).Options() for name in registry.TARGETS},
        verify=True,
        cores=cores,
    )


def _to_json(model: KnownModel, found: ExportEstimate) -> dict[str, object]:
    from llama_export.exporting.estimate import QUOTED_CONTEXT

    return {
        "name": model.name,
        "hub_id": model.hub_id,
        "gated": model.gated,
        "parameters": found.num_parameters,
        "max_context": model.config.max_position_embeddings,
        "checkpoint_bytes": model.checkpoint_bytes,
        "recipe": found.recipe,
        "group_size": found.group_size,
        "targets": [
            {**target.to_json(), "run_bytes": target.run_bytes(QUOTED_CONTEXT)}
            for target in found.targets
        ],
    }


def model_table(rows: list[tuple[KnownModel, ExportEstimate]]) -> Table:
    """Lay the models out in a table, a row for each."""
    from rich import box
    from rich.table import Table

    from llama_export.exporting.estimate import QUOTED_CONTEXT
    from llama_export.system.byte_sizes import format_bytes

    first = rows[0][1]
    table = Table(
        title="Models for --model",
        title_justify="left",
        caption=f"Bundles are {first.recipe} in groups of {first.group_size}; to run takes about "
        f"that memory, at a context of {QUOTED_CONTEXT}. Both are of the target that takes most; "
        "--json has each. A gated model's licence is accepted once, on its page on the hub. Any "
        "other Llama works by its hub id, folder or file.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
    )
    table.add_column("model", no_wrap=True)
    for heading in ("weights", "gated", "download", "bundle", "to run"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model, found in rows:
        largest = max(target.bundle_bytes for target in found.targets)
        most = max(target.run_bytes(QUOTED_CONTEXT) for target in found.targets)
        table.add_row(
            model.name,
            _count(found.num_parameters),
            "yes" if model.gated else "no",
            format_bytes(model.checkpoint_bytes) if model.hub_id else "none",
            format_bytes(largest),
            format_bytes(most),
        )
    return table


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e8 else f"{number / 1e6:.1f} M"


LIST = Verb(
    "list", list_models, (Section("Options", (JSON, VERBOSE)),), examples=("llama-export list",)
)
