"""The words of a chat and of `generate`: figures, notes and help. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_export.cli.fitting import print_text, rows_of_terms

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.generation.decoding import GenerationStats
    from llama_export.generation.overflow import Overflow
    from llama_export.generation.sampling import Sampling

_COMMANDS = (
    (
        "/system TEXT",
        "say how the model is to behave; /system alone shows it, /system off ends it",
    ),
    ("/reset", "forget the conversation; the system message stays"),
    ("/retry", "answer the last message again, with other random numbers"),
    ("/undo", "take the last message and its answer back"),
    ("/save FILE", "write the conversation, with its cache, into a file"),
    (
        "/load FILE",
        "go on with a saved conversation; /load --text FILE with one of another bundle",
    ),
    ("/stats", "say how long the conversation is and how answers are drawn"),
    ("/quit", "end (Ctrl-D does too)"),
)
_MORE_HELP = """\
A line that ends in \\ goes on in the next one; \"\"\" begins and ends a message of several lines.
A message that begins with a slash is written with two: //usr. Ctrl-C stops an answer and keeps it.
"""

_ENDINGS = {
    "length": "cut at --max-tokens",
    "context full": "cut: the context is full",
    "interrupted": "stopped by you; what is there was kept",
}


def stats_line(stats: GenerationStats) -> str:
    """Write the figures of a single text in one line."""
    return (
        f"{stats.prompt_tokens} prompt tokens, first token after "
        f"{stats.time_to_first_token_s:.2f} s; {_tokens(stats, 'new token')}"
        f"{_speed(stats, ' at {:.1f} tokens/s')}{_drafts(stats)}; seed {stats.seed}; "
        f"stopped: {stats.stop_reason}"
    )


def answer_line(stats: GenerationStats, cached: int, max_context: int) -> str:
    """Write the figures of one answer, and how full the context is, in one line.

    Args:
        stats: figures of the answer.
        cached: number of tokens in the KV cache.
        max_context: number of tokens that it can hold.
    """
    line = (
        f"{_tokens(stats, 'token')}{_speed(stats, ', {:.1f} tok/s')}{_drafts(stats)}, "
        f"first token after {stats.time_to_first_token_s:.2f} s, context {cached} of {max_context}"
    )
    ending = _ENDINGS.get(stats.stop_reason)
    return f"{line} ({ending})" if ending else line


def overflow_hint(overflow: Overflow, *, interactive: bool) -> str:
    """Return what to do about a message that does not fit, in the command line's words.

    Args:
        overflow: how far it does not fit.
        interactive: whether somebody sits there, who can type /reset.
    """
    if overflow.too_long:
        return overflow.hint
    drop = "--overflow drop-oldest drops the oldest messages"
    begin = "/reset begins anew, " if interactive else ""
    return f"{begin}{drop}; or use {overflow.larger_context}"


def _tokens(stats: GenerationStats, word: str) -> str:
    return f"{stats.new_tokens} {word}{'' if stats.new_tokens == 1 else 's'}"


def _speed(stats: GenerationStats, words: str) -> str:
    """Write the speed of decoding; a single token has none, for it came from the prompt."""
    return words.format(stats.decode_tokens_per_s) if stats.new_tokens > 1 else ""


def _drafts(stats: GenerationStats) -> str:
    """Write how many drafted tokens the text went on with; nothing where none was drafted."""
    if not stats.drafted_tokens:
        return ""
    return f" ({stats.accepted_tokens} of {stats.drafted_tokens} drafted)"


def sampling_words(sampling: Sampling) -> str:
    """Write how tokens are drawn in one line."""
    values = vars(sampling) | {"seed": "fresh" if sampling.seed is None else sampling.seed}
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in values.items())


def say(console: Console, text: str, style: str = "") -> None:
    """Print a message on stderr in one style; on a terminal its lines break between words."""
    print_text(console, text, style=style)


def say_help(console: Console) -> None:
    """Print what a user may type."""
    say(console, f"{rows_of_terms(_COMMANDS, console.width)}\n{_MORE_HELP}")


def say_substitute_runtime(console: Console, substitute: str) -> None:
    """Print a note when something else than the artifact's runtime computes here.

    Args:
        console: where messages go.
        substitute: name of what computes; empty: the runtime does.
    """
    if substitute:
        text = f"note: {substitute} runs this artifact here, as its runtime would but slowly"
        say(console, f"{text}; the speed says nothing about a phone.")


def say_special_text(console: Console, names: Sequence[str]) -> None:
    """Print a note that names of special tokens are read as text; none: nothing."""
    if names:
        shown = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        read = "is read as text, and not as a special token"
        if len(names) > 1:
            read = "are read as text, and not as special tokens"
        say(console, f"note: {shown} {read}; --parse-special reads such names as tokens.")


def say_base_model(console: Console, name: str) -> None:
    """Print a note that a model was not trained to answer."""
    text = f"note: {name} is a base model. It goes on with a text, and was not trained to answer"
    say(console, f"{text}; an Instruct model is.")
