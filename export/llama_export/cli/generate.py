"""`llama-export generate`: write text with a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.grammar_options import FORM, chosen_grammar, say_cut
from llama_export.cli.options import BUNDLE, JSON, NO_HASH, PATH, THREADS, VERBOSE, open_console
from llama_export.cli.prompt_source import PROMPT, read_prompt, the_prompt
from llama_export.cli.sampling_options import PARSE_SPECIAL, SAMPLING, STOP, chosen_sampling
from llama_export.cli.speculation_options import SPECULATION, chosen_speculation
from llama_export.cli.verb import Section, Verb
from llama_export.generation.defaults import COMPLETION_TOKENS

if TYPE_CHECKING:
    from llama_export.generation.text_stream import TextStream
    from llama_export.generation.tools import Tools


def generate(
    *,
    bundle: Path,
    words: str | None,
    prompt: str | None,
    file: Path | None,
    chat: bool,
    max_tokens: int,
    stop: tuple[str, ...],
    parse_special: bool,
    form: Mapping[str, object],
    tools: Path | None,
    sampling: Mapping[str, object],
    speculation: Mapping[str, object],
    threads: int | None,
    no_hash: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Write text with a bundle, token by token."""
    console = open_console(verbose)
    from llama_export.cli.chat.wording import (
        sampling_words,
        say,
        say_base_model,
        say_special_text,
        say_substitute_runtime,
        stats_line,
    )
    from llama_export.cli.offered_tools import read_definitions, write_reply
    from llama_export.cli.output import write_json
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.generation.opening import open_session
    from llama_export.generation.sampling import Sampling
    from llama_export.generation.tools import Tools
    from llama_export.tokenizer.chat.chat_format import Dialog
    from llama_export.tokenizer.chat.messages import Message
    from llama_export.tokenizer.tokenizer import special_names_in

    chosen_sampling(Sampling(), sampling)  # a wrong option is refused before anything is loaded
    grammar = chosen_grammar(form)
    text = read_prompt(the_prompt(words, prompt), file)
    definitions = read_definitions(tools, chat=chat)
    drafts = chosen_speculation(speculation)
    session = open_session(
        bundle,
        threads=threads,
        verbose=verbose,
        verify=not no_hash,
        steps=TerminalProgress(console),
        speculation=drafts,
    )
    say_substitute_runtime(console, session.substitute_runtime)
    if chat and not session.for_chat:
        say_base_model(console, session.name)
    if not parse_special:
        say_special_text(console, special_names_in(session.tokenizer, text))
    drawn = chosen_sampling(session.sampling, sampling)
    if verbose:
        say(console, f"drawn with {sampling_words(drawn)}", "dim")
    offered = Tools(session.chat_format, definitions) if definitions else None
    prompt_ids: str | list[int] = text
    if chat:
        dialog = Dialog([Message("user", text)], tools=definitions)
        prompt_ids = session.chat_format.encode(dialog, parse_special=parse_special)
    stream = session.stream(
        prompt_ids,
        max_tokens=max_tokens,
        sampling=drawn,
        stop=stop,
        parse_special=parse_special,
        guide=None if grammar is None else session.guide(grammar),
    )
    if as_json:
        write_json(_as_json(stream, text, offered))
    else:
        # What has a form is read by a program: nothing stands before it.
        write_reply(stream, "" if chat or grammar else text, offered)
    stats = stream.completion.stats
    say(console, stats_line(stats), "dim")
    if grammar is not None:
        say_cut(console, grammar, stats.stop_reason)


def _as_json(stream: TextStream, prompt: str, offered: Tools | None) -> dict[str, object]:
    done = stream.finish()
    record: dict[str, object] = {"prompt": prompt, "text": done.text, "token_ids": done.token_ids}
    if offered is not None:
        reply = offered.read(done)
        record |= {"text": reply.text, "tool_calls": [call.to_json() for call in reply.calls]}
    return record | {"stats": done.stats.to_json()}


GENERATE = Verb(
    "generate",
    generate,
    (
        Section(
            "Prompt",
            (
                click.Option(
                    ["--prompt", "-p"], metavar="TEXT", help="Text to go on from; '-' reads stdin."
                ),
                click.Option(
                    ["--file", "-f"], type=PATH, help="A file with the text to go on from."
                ),
                click.Option(
                    ["--chat"],
                    is_flag=True,
                    help="Send the prompt as a user's message (Instruct models).",
                ),
                click.Option(
                    ["--tools"],
                    type=PATH,
                    metavar="FILE",
                    help="With --chat: a JSON file of functions that the model may call. Its calls "
                    "are written, not run.",
                ),
                click.Option(
                    ["--max-tokens", "-n"],
                    type=click.IntRange(min=1),
                    default=COMPLETION_TOKENS,
                    metavar="N",
                    help="The most new tokens.",
                ),
                STOP,
                PARSE_SPECIAL,
            ),
        ),
        FORM,
        SAMPLING,
        SPECULATION,
        Section("Run", (THREADS, NO_HASH, JSON, VERBOSE)),
    ),
    positionals=(BUNDLE, PROMPT),
    gathered={
        "form": FORM.options,
        "sampling": SAMPLING.options,
        "speculation": SPECULATION.options,
    },
    examples=(
        'llama-export generate 3.2-1B/onnx --prompt "Once upon a time"',
        "llama-export generate 3.2-1B/onnx --file story.txt --seed 1 -n 500",
        "llama-export generate 3.2-1B/onnx --chat -p 'Describe a cat.' --json-schema cat.json",
    ),
)
