"""`llama-export classify`: let a model that was trained to judge a conversation do so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.options import BUNDLE, JSON, NO_HASH, PATH, THREADS, VERBOSE, open_console
from llama_export.cli.prompt_source import PROMPT, read_prompt, the_prompt
from llama_export.cli.verb import Section, Verb
from llama_export.errors import UsageError
from llama_export.generation.defaults import MOST_FALSE_ALARMS, THRESHOLD

if TYPE_CHECKING:
    from llama_export.generation.classification import Classification
    from llama_export.generation.examples import Example
    from llama_export.generation.text_session import TextSession


def classify(
    *,
    bundle: Path,
    words: str | None,
    prompt: str | None,
    file: Path | None,
    answer: str | None,
    exclude: tuple[str, ...],
    threshold: float | None,
    calibrate: Path | None,
    most_false_alarms: float | None,
    threads: int | None,
    no_hash: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Judge a message, or the answer to it, with a bundle of Llama Guard."""
    prompt = the_prompt(words, prompt)
    _refuse_useless(
        calibrate,
        most_false_alarms,
        {"--prompt": prompt, "--file": file, "--answer": answer, "--threshold": threshold},
    )
    console = open_console(verbose)
    from llama_export.cli.chat.wording import say_substitute_runtime
    from llama_export.cli.output import write_json, write_text
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.generation.classification import calibrated_threshold
    from llama_export.generation.examples import read_examples
    from llama_export.generation.opening import open_session
    from llama_export.tokenizer.chat.messages import Message

    examples = None if calibrate is None else read_examples(calibrate)
    text = "" if examples is not None else read_prompt(prompt, file)
    session = open_session(
        bundle,
        threads=threads,
        verbose=verbose,
        verify=not no_hash,
        steps=TerminalProgress(console),
    )
    say_substitute_runtime(console, session.substitute_runtime)
    arguments = {"excluded_category_keys": list(exclude)} if exclude else {}
    if examples is not None:
        with TerminalProgress(console).step("Judging the examples") as advance:
            found = _judge_examples(session, examples, arguments, advance)
        chosen = calibrated_threshold(
            found,
            [each.is_unsafe for each in examples],
            MOST_FALSE_ALARMS if most_false_alarms is None else most_false_alarms,
        )
        record = {"threshold": chosen, "examples": len(found)}
        write_json(record) if as_json else write_text(f"{chosen!r}\n")
        return
    messages = [Message("user", text)]
    if answer is not None:
        messages.append(Message("assistant", answer))
    judged = session.classify(
        messages,
        threshold=THRESHOLD if threshold is None else threshold,
        template_arguments=arguments,
    )
    write_json(judged.to_json()) if as_json else write_text(_in_words(judged))


def _refuse_useless(
    calibrate: Path | None, most_false_alarms: float | None, of_one: Mapping[str, object]
) -> None:
    """Refuse an option that is of no use to what is asked: one judgement, or a threshold.

    Args:
        calibrate: file of examples; None: one message is judged.
        most_false_alarms: what was typed of the option.
        of_one: what was typed of the options that one judgement has.

    Raises:
        UsageError: there is such an option.
    """
    if calibrate is None:
        if most_false_alarms is not None:
            message = "--most-false-alarms is for --calibrate, which was not given"
            raise UsageError(message, "leave --most-false-alarms out, or give --calibrate")
        return
    for option, value in of_one.items():
        if value is not None:
            message = f"--calibrate judges the examples of a file; {option} is for one judgement"
            raise UsageError(message, f"leave {option} out, or --calibrate")


def _judge_examples(
    session: TextSession,
    examples: Sequence[Example],
    arguments: Mapping[str, object],
    advance: Callable[[int, int], None],
) -> list[float]:
    """Return the probability of each example."""
    found = []
    for count, example in enumerate(examples, start=1):
        judged = session.classify(example.messages, template_arguments=arguments)
        found.append(judged.probability)
        advance(count, len(examples))
    return found


def _in_words(judged: Classification) -> str:
    """Write the model's answer as it would, and how sure it is."""
    word = "unsafe" if judged.is_unsafe else "safe"
    lines = [f"{word} (probability of unsafe {judged.probability:.4f})"]
    lines += [f"{key} {name}" if name != key else key for key, name in judged.categories.items()]
    return "\n".join(lines) + "\n"


CLASSIFY = Verb(
    "classify",
    classify,
    (
        Section(
            "Conversation",
            (
                click.Option(
                    ["--prompt", "-p"], metavar="TEXT", help="The user's message; '-' reads stdin."
                ),
                click.Option(["--file", "-f"], type=PATH, help="A file with the user's message."),
                click.Option(
                    ["--answer", "-a"],
                    metavar="TEXT",
                    help="The answer to it, which is then judged in its place.",
                ),
            ),
        ),
        Section(
            "Judgement",
            (
                click.Option(
                    ["--threshold"],
                    type=click.FloatRange(0, 1),
                    metavar="P",
                    help="The probability from which on it counts as unsafe.",
                    show_default=str(THRESHOLD),
                ),
                click.Option(
                    ["--exclude", "-x"],
                    multiple=True,
                    metavar="KEY",
                    help="A category that is allowed, such as S13; may be given again.",
                ),
                click.Option(
                    ["--calibrate"],
                    type=PATH,
                    help="Choose a threshold by examples: lines of JSON with text and unsafe.",
                ),
                click.Option(
                    ["--most-false-alarms"],
                    type=click.FloatRange(0, 1),
                    metavar="SHARE",
                    help="With --calibrate: share of safe examples that may count as unsafe.",
                    show_default=str(MOST_FALSE_ALARMS),
                ),
            ),
        ),
        Section("Run", (THREADS, NO_HASH, JSON, VERBOSE)),
    ),
    positionals=(BUNDLE, PROMPT),
    examples=(
        'llama-export classify guard/onnx --prompt "How do I pick a lock?"',
        "llama-export classify guard/onnx --calibrate examples.jsonl",
    ),
)
