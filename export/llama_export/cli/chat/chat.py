"""`llama-export chat`: talk with a bundle, in a terminal or in a pipe."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_export.cli.options import BundleArgument, Json, Threads, Verbose, open_console
from llama_export.cli.sampling_options import (
    MinP,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    chosen_sampling,
)

if TYPE_CHECKING:
    from llama_export.generation.conversation import Conversation
    from llama_export.generation.text_session import TextSession


class OverflowChoice(str, Enum):
    """What to do when the conversation is longer than the context."""

    ASK = "ask"
    STOP = "stop"
    DROP_OLDEST = "drop-oldest"


def chat(
    bundle: BundleArgument,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="The first message.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A file with the first message; '-': all of stdin."),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", "-s", help="How the model is to behave.")
    ] = None,
    load: Annotated[
        Path | None, typer.Option("--load", help="Go on with a saved conversation.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the conversation there at the end.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", "-n", min=1, help="The most tokens of an answer.", show_default="512"
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=1, help="Use at most so many positions.", show_default="all that the bundle has"
        ),
    ] = None,
    overflow: Annotated[
        OverflowChoice,
        typer.Option(help="When the context is full; 'ask' stops where nobody can be asked."),
    ] = OverflowChoice.ASK,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    threads: Threads = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Talk with a bundle; in a pipe, each line is a message."""
    console = open_console(verbose)
    from llama_export.cli.chat.input import pipe_lines, terminal_lines
    from llama_export.cli.chat.loop import ChatLoop, LoopSettings
    from llama_export.cli.chat.slash_commands import Commands
    from llama_export.cli.chat.wording import say, say_base_model, say_stand_in
    from llama_export.cli.prompt_source import read_text, refuse_both
    from llama_export.generation.sampling import Sampling
    from llama_export.generation.session_file import refuse_unwritable
    from llama_export.generation.text_session import TextSession

    def chosen(base: Sampling) -> Sampling:
        return chosen_sampling(
            base,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )

    chosen(Sampling())  # a wrong option is refused before anything is loaded
    refuse_both(prompt, file)
    if save is not None:
        refuse_unwritable(save)
    first = read_text(file) if file is not None else prompt
    interactive = sys.stdin.isatty()
    session = TextSession.open(bundle, threads=threads, max_context=context, verbose=verbose)
    conversation = _begun(session, load, system, max_tokens)
    conversation.sampling = chosen(conversation.sampling)
    commands = Commands(conversation, console)
    say_stand_in(console, session.stand_in)
    if not session.for_chat:
        say_base_model(console, session.name)
    if load is not None:
        commands.say_loaded(str(load))
    if interactive:
        say(console, f"{session.name}: type a message; /help lists the commands", "dim")
    settings = LoopSettings(
        interactive=interactive,
        as_json=as_json,
        ask=interactive and overflow is OverflowChoice.ASK,
        drop_oldest=overflow is OverflowChoice.DROP_OLDEST,
    )
    read_line = terminal_lines() if interactive else pipe_lines(sys.stdin.buffer)
    try:
        ChatLoop(commands, console, settings, read_line).run(first)
    finally:
        # Also after an error or Ctrl-C: what was said so far is whole.
        if save is not None:
            commands.conversation.save(save)


def _begun(
    session: TextSession, load: Path | None, system: str | None, max_tokens: int | None
) -> Conversation:
    """Return a new conversation or a saved one, with the options that were given."""
    from llama_export.generation.conversation import Conversation

    conversation = Conversation(session) if load is None else Conversation.load(session, load)
    if system is not None:
        conversation.system = system
    if max_tokens is not None:
        conversation.max_tokens = max_tokens
    return conversation
