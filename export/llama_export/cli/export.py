"""The plain form of the command line: `llama-export --target onnx --model 3.2-1B`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from llama_export.cli.dry_run import show_plan
from llama_export.cli.options import Json, Verbose, open_console
from llama_export.errors import UsageError
from llama_export.version import __version__


class Recipe(str, Enum):
    """What `--quantize` takes."""

    int4 = "int4"
    int8 = "int8"
    bf16 = "bf16"
    fp16 = "fp16"


class KvCache(str, Enum):
    """What `--kv-cache` takes."""

    state = "state"
    io = "io"


class KvDtype(str, Enum):
    """What `--kv-dtype` takes."""

    float32 = "float32"
    float16 = "float16"


class Functions(str, Enum):
    """What `--functions` takes."""

    main = "main"
    prefill_and_decode = "prefill+decode"


class DeploymentTarget(str, Enum):
    """What `--deployment-target` takes."""

    ios17 = "iOS17"
    ios18 = "iOS18"


class Delegate(str, Enum):
    """What `--delegate` takes."""

    xnnpack = "xnnpack"
    vulkan = "vulkan"
    coreml = "coreml"


def _version(show: bool) -> None:
    if show:
        typer.echo(f"llama-export {__version__}")
        raise typer.Exit


def export(
    context: typer.Context,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", help="onnx, executorch, coreml or all; repeat it, or use commas."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="3.2-1B, a hub id, a folder, or demo."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Gets one bundle a target.", show_default="./MODEL"),
    ] = None,
    quantize: Annotated[
        Recipe | None,
        typer.Option(help="Recipe of the weights.", show_default="int4"),
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(help="Weights that share a scale: 32, 64, 128 or 256.", show_default="32"),
    ] = None,
    max_context: Annotated[
        int | None,
        typer.Option(
            help="Positions that a conversation may have.",
            show_default="onnx: 8192, executorch and coreml: 2048",
        ),
    ] = None,
    accuracy_level: Annotated[
        int, typer.Option(help="ONNX int4 products: 4 computes in int8, 1 in float32 (slow).")
    ] = 4,
    all_logits: Annotated[
        bool, typer.Option("--all-logits", help="Give every position's logits, not the last's.")
    ] = False,
    kv_cache: Annotated[
        KvCache | None,
        typer.Option(
            help="Keep the KV cache inside (state), or take and give it (io).",
            show_default="onnx: io, executorch and coreml: state",
        ),
    ] = None,
    kv_dtype: Annotated[
        KvDtype, typer.Option(help="ExecuTorch: type of the KV cache. Core ML's is always float16.")
    ] = KvDtype.float32,
    delegate: Annotated[
        Delegate,
        typer.Option(help="ExecuTorch: what computes; vulkan and coreml are not run here."),
    ] = Delegate.xnnpack,
    share_table: Annotated[
        bool, typer.Option(help="ExecuTorch: store a tied token table once.")
    ] = True,
    functions: Annotated[
        Functions, typer.Option(help="Core ML: one of any length, or two of fixed shapes.")
    ] = Functions.main,
    deployment_target: Annotated[
        DeploymentTarget,
        typer.Option(help="Core ML: iOS17 (macOS 14) takes fp16 weights and --kv-cache io."),
    ] = DeploymentTarget.ios18,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub repository.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Hub token.", show_default="HF_TOKEN, or the saved login")
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option(help="Keep the quantised weights in OUTPUT/weights.")
    ] = True,
    verify: Annotated[bool, typer.Option(help="Check the artifact before it is published.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it would take: size, memory, time.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Export a model. Without a command, this is what `--target` and `--model` do."""
    if context.invoked_subcommand is not None:
        return
    if not target or model is None:
        message = "an export needs both --target and --model"
        raise UsageError(message, "llama-export --target onnx --model 3.2-1B")
    console = open_console(verbose)
    from llama_export.cli.terminal import TerminalProgress, export_table, next_steps, show_report
    from llama_export.targets import registry
    from llama_export.targets.options import with_chosen

    targets = registry.parse_targets(target)
    typed = [name for name in context.params if _is_typed(context, name)]
    registry.require_wanted(typed, targets)
    values = {name: context.params[name] for name in typed}
    chosen = {n: v.value if isinstance(v, Enum) else v for n, v in values.items()}
    options = {name: with_chosen(registry.get(name).Options(), chosen) for name in targets}
    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.exporting.pipeline import (
            ExportRequest,
            VerificationFailedError,
            export_bundle,
            plan_export,
        )
    request = ExportRequest(
        model=model,
        targets=targets,
        output=output,
        recipe=None if quantize is None else quantize.value,
        group_size=group_size,
        max_context=max_context,
        options=options,
        revision=revision,
        token=token,
        keep_weights=keep_weights,
        verify=verify,
        force=force,
    )
    if dry_run:
        show_plan(plan_export(request), as_json=as_json)
        return
    try:
        result = export_bundle(request, progress)
    except VerificationFailedError as failed:
        show_report(failed.report, as_json=as_json)
        console.print(f"[bold red]{failed}[/]; it was not published. --no-verify keeps it.")
        raise typer.Exit(1) from None
    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=2))
        return
    Console().print(export_table(result))
    first = result.bundles[0].bundle
    next_steps(console, first.folder, runs_here=first.manifest.runs_here)


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
