"""The command line: reads options, calls one function, shows its result.

Heavy modules are imported inside the commands, so that `--help` answers at once. Results go to
stdout, progress and messages to stderr; every error ends here, with its own exit code.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from llama_export import __version__
from llama_export.errors import LlamaExportError, PromptError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="llama-export",
    help="Turn a Llama checkpoint into a small quantised model that runs elsewhere, and prove it.",
    epilog="Example: llama-export --target onnx --model 3.2-1B",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

BundleArgument = Annotated[
    Path, typer.Argument(help="A bundle: a folder with a manifest.json.", show_default=False)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Let the libraries' own messages through.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=os.cpu_count(), help="Threads of the runtime.", show_default="one a core"
    ),
]


class Recipe(str, Enum):
    """What `--quantize` takes."""

    int4 = "int4"
    int8 = "int8"
    bf16 = "bf16"
    fp16 = "fp16"


class InterruptedBySignal(BaseException):
    """SIGINT or SIGTERM: unwinds through every clean-up, and ends with 128 + the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def _version(show: bool) -> None:
    if show:
        typer.echo(f"llama-export {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def export(
    context: typer.Context,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="onnx or all; repeat it, or separate by commas."),
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
        typer.Option(help="Positions that a conversation may have.", show_default="8192"),
    ] = None,
    accuracy_level: Annotated[
        int, typer.Option(help="ONNX int4 products: 4 computes in int8, 1 in float32 (slow).")
    ] = 4,
    all_logits: Annotated[
        bool, typer.Option("--all-logits", help="Give every position's logits, not the last's.")
    ] = False,
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
    console = _console(verbose)
    from llama_export.targets.registry import LoweringOptions, parse_targets
    from llama_export.terminal import TerminalProgress, export_table, next_steps, show_report

    targets = parse_targets(target)
    options = LoweringOptions(_accuracy_level(accuracy_level), all_logits)
    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.pipeline import ExportRequest, VerificationFailedError, export_bundle
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
    next_steps(console, result.bundles[0].bundle.folder)


@app.command()
def generate(
    bundle: BundleArgument,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Text to go on from; '-' reads stdin."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a user's message (Instruct models).")
    ] = False,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, help="The most new tokens.")
    ] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Draw from this share of the probability.")] = 0.95,
    top_k: Annotated[int, typer.Option(help="Draw from this many tokens; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same text.")] = 0,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Write text with a bundle, token by token."""
    console = _console(verbose)
    from llama_export.bundle import Bundle
    from llama_export.chat import Message, encode_dialog
    from llama_export.generate import Generation, Sampling
    from llama_export.targets.registry import open_session
    from llama_export.terminal import write_text
    from llama_export.tokenizer import StreamDecoder, Tokenizer

    sampling = Sampling(temperature, top_p, top_k, seed)
    text = _read_prompt(prompt)
    opened = Bundle.open(bundle)
    tokenizer = Tokenizer.load(opened.folder / opened.manifest.tokenizer["file"])
    if chat:
        input_ids = encode_dialog(tokenizer, [Message("user", text)])
    else:
        input_ids = [tokenizer.bos_token_id, *tokenizer.encode(text)]
    session = open_session(opened, threads=threads, verbose=verbose)
    generation = Generation(
        session,
        input_ids,
        sampling=sampling,
        stop_token_ids=opened.manifest.tokenizer["stop_token_ids"],
        max_tokens=max_tokens,
        vocab_size=tokenizer.vocab_size,
    )
    decoder = StreamDecoder(tokenizer)
    write_text("" if chat else text)
    try:
        for new_token in generation:
            write_text(decoder.push(new_token))
    except InterruptedBySignal:
        write_text("\n")
        raise
    write_text(decoder.flush() + "\n")
    stats = generation.stats
    console.print(
        f"[dim]{stats.prompt_tokens} prompt tokens, first token after "
        f"{stats.time_to_first_token_s:.2f} s; {stats.new_tokens} new tokens at "
        f"{stats.decode_tokens_per_s:.1f} tokens/s; stopped: {stats.stop_reason}[/]",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def verify(
    bundle: BundleArgument,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="The model it was made from.", show_default="demo for the demo"),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="The quantised weights.", show_default="BUNDLE/../weights"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few positions only.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare a bundle with the eager model; exit code 1 when it fails."""
    console = _console(verbose)
    from llama_export.bundle import Bundle
    from llama_export.terminal import TerminalProgress, show_report

    progress = TerminalProgress(console)
    with progress.step("Starting PyTorch"):
        from llama_export.sources import reference_for
        from llama_export.verify import verify_bundle
    with progress.step(f"Opening {bundle}"):
        opened = Bundle.open(bundle)
        reference = reference_for(opened, checkpoint, weights)
    with progress.step("Checking against the eager model") as advance:
        report = verify_bundle(
            opened,
            weights=reference.weights,
            checkpoint=reference.checkpoint,
            quick=quick,
            progress=advance,
        )
    show_report(report, as_json=as_json)
    raise typer.Exit(0 if report.passed else 1)


def _accuracy_level(level: int) -> int:
    if level not in (1, 4):
        message = f"--accuracy-level: expected 1 (float32) or 4 (int8), found {level}"
        raise UsageError(message)
    return level


def _read_prompt(prompt: str | None) -> str:
    """Return the prompt, or all of stdin.

    Raises:
        PromptError: there is none, or stdin is not UTF-8.
    """
    from llama_export.terminal import read_stdin

    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        message = "there is no prompt"
        raise PromptError(message, 'give --prompt "Once upon a time", or pipe a text in')
    return read_stdin()


def _console(verbose: bool) -> Console:
    from rich.console import Console

    from llama_export.terminal import quieten, show_notices

    if not verbose:
        quieten()
    console = Console(stderr=True)
    show_notices(console)
    return console


def _raise_interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    raise InterruptedBySignal(number)


def main() -> None:
    """Run the command line; every user's mistake becomes a message, a hint and an exit code."""
    signal.signal(signal.SIGINT, _raise_interrupted)
    signal.signal(signal.SIGTERM, _raise_interrupted)
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe that is not UTF-8 shows '?', and does not end the story.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except LlamaExportError as error:
        _fail(error.message, error.hint, error.exit_code)
    except InterruptedBySignal as interrupted:
        _fail("interrupted; nothing was left half written", "", interrupted.exit_code)
    except OSError as error:
        # What no module expected: a name too long, a closed terminal, a device that is full.
        _fail(f"the system refused: {error}", "check the path and the disk", 10)
    except ValueError as error:
        from llama_quantize.errors import QuantizationError

        if not isinstance(error, QuantizationError):
            raise
        _fail(error.message, error.hint, 9)


def _fail(message: str, hint: str, exit_code: int) -> NoReturn:
    from rich.console import Console

    from llama_export.terminal import show_error

    show_error(Console(stderr=True), message, hint)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
