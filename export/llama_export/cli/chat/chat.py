"""`llama-export chat`: talk with a bundle, in a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.options import BUNDLE, JSON, NO_HASH, PATH, THREADS, VERBOSE, open_console
from llama_export.cli.prompt_source import PROMPT, read_text, refuse_both, the_prompt
from llama_export.cli.sampling_options import PARSE_SPECIAL, SAMPLING, STOP, chosen_sampling
from llama_export.cli.speculation_options import SPECULATION, chosen_speculation
from llama_export.cli.streams import require_utf8, somebody_types, stdin_bytes
from llama_export.cli.verb import Section, Verb
from llama_export.generation.defaults import ANSWER_TOKENS

if TYPE_CHECKING:
    from llama_export.generation.conversation import Conversation
    from llama_export.generation.text_session import TextSession

# What to do when the conversation is longer than the context.
_ASK, _STOP, _DROP_OLDEST = "ask", "stop", "drop-oldest"


def chat(
    *,
    bundle: Path,
    words: str | None,
    prompt: str | None,
    file: Path | None,
    system: str | None,
    load: Path | None,
    save: Path | None,
    max_tokens: int | None,
    stop: tuple[str, ...],
    parse_special: bool,
    context: int | None,
    overflow: str,
    sampling: Mapping[str, object],
    speculation: Mapping[str, object],
    threads: int | None,
    no_hash: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Talk with a bundle; in a pipe, each line is a message."""
    console = open_console(verbose)
    from llama_export.cli.chat.input import pipe_lines, terminal_lines, typed_ahead_kept
    from llama_export.cli.chat.loop import ChatLoop, LoopSettings
    from llama_export.cli.chat.slash_commands import Commands
    from llama_export.cli.chat.wording import (
        sampling_words,
        say,
        say_base_model,
        say_substitute_runtime,
    )
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.generation.opening import open_session
    from llama_export.generation.sampling import Sampling
    from llama_export.generation.session_file import refuse_unwritable

    chosen_sampling(Sampling(), sampling)  # a wrong option is refused before anything is loaded
    prompt = the_prompt(words, prompt)
    drafts = chosen_speculation(speculation)
    refuse_both(prompt, file)
    for option, text in (("--prompt", prompt), ("--system", system)):
        require_utf8(text or "", option)
    if save is not None:
        refuse_unwritable(save)
    first = read_text(file) if file is not None else prompt
    interactive = somebody_types()
    read_line = terminal_lines() if interactive else pipe_lines(stdin_bytes())
    session = open_session(
        bundle,
        threads=threads,
        max_context=context,
        verbose=verbose,
        verify=not no_hash,
        steps=TerminalProgress(console),
        speculation=drafts,
    )
    conversation = _begun(session, load, system, max_tokens)
    conversation.stop, conversation.parse_special = stop, parse_special
    conversation.sampling = chosen_sampling(conversation.sampling, sampling)
    if verbose:
        say(console, f"drawn with {sampling_words(conversation.sampling)}", "dim")
    commands = Commands(conversation, console)
    say_substitute_runtime(console, session.substitute_runtime)
    if not session.for_chat:
        say_base_model(console, session.name)
    if load is not None:
        commands.say_loaded(str(load))
    if interactive:
        say(console, f"{session.name}: type a message; /help lists the commands", "dim")
    settings = LoopSettings(
        interactive=interactive,
        as_json=as_json,
        ask=interactive and overflow == _ASK,
        drop_oldest=overflow == _DROP_OLDEST,
    )
    try:
        with typed_ahead_kept() if interactive else nullcontext():
            ChatLoop(commands, console, settings, read_line).run(first)
    finally:
        # Also after an error or Ctrl-C: what was said so far is whole.
        if save is not None and commands.conversation.turns:
            commands.conversation.save(save)
        elif save is not None:
            say(console, f"note: nothing was said, so {save} was not written")


def _begun(
    session: TextSession, load: Path | None, system: str | None, max_tokens: int | None
) -> Conversation:
    """Return a new conversation or a saved one, with the options that were typed."""
    from llama_export.generation.conversation import Conversation

    conversation = Conversation(session) if load is None else Conversation.load(session, load)
    if system is not None:
        conversation.system = system
    if max_tokens is not None:
        conversation.max_tokens = max_tokens
    return conversation


CHAT = Verb(
    "chat",
    chat,
    (
        Section(
            "Conversation",
            (
                click.Option(["--prompt", "-p"], metavar="TEXT", help="The first message."),
                click.Option(
                    ["--file", "-f"],
                    type=PATH,
                    help="A file with the first message; '-': all of stdin.",
                ),
                click.Option(
                    ["--system", "-s"], metavar="TEXT", help="How the model is to behave."
                ),
                click.Option(
                    ["--load"], type=PATH, metavar="FILE", help="Go on with a saved conversation."
                ),
                click.Option(
                    ["--save"],
                    type=PATH,
                    metavar="FILE",
                    help="Write the conversation there at the end.",
                ),
                click.Option(
                    ["--max-tokens", "-n"],
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="The most tokens of an answer.",
                    show_default=str(ANSWER_TOKENS),
                ),
                STOP,
                PARSE_SPECIAL,
                click.Option(
                    ["--context"],
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="Use at most so many positions.",
                    show_default="all that the bundle has",
                ),
                click.Option(
                    ["--overflow"],
                    type=click.Choice([_ASK, _STOP, _DROP_OLDEST]),
                    default=_ASK,
                    metavar="WHAT",
                    help="When the context is full; 'ask' stops where nobody can be asked.",
                ),
            ),
        ),
        SAMPLING,
        SPECULATION,
        Section("Run", (THREADS, NO_HASH, JSON, VERBOSE)),
    ),
    positionals=(BUNDLE, PROMPT),
    gathered={"sampling": SAMPLING.options, "speculation": SPECULATION.options},
    examples=(
        "llama-export chat 3.2-1B-Instruct/onnx",
        'llama-export chat 3.2-1B-Instruct/onnx --system "Be brief." --save talk.chat',
    ),
)
