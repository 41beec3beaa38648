"""What the server costs beside the Python session, and what its kept caches spare.

    python benchmarks/serving.py overhead BUNDLE
    python benchmarks/serving.py second-turn BUNDLE

Both load the same bundle, with the same threads, and are asked the same in turns; a ratio is taken
of two answers that follow each other. The server is a process of its own, as users run it, and is
asked over a socket of this machine. Linux, on a machine that does nothing else.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from serving_client import Server, Streamed, ask, free_port, our_server, served

import llama_export
from llama_export import Sampling, TextSession
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message

CHAT = "/v1/chat/completions"
QUESTIONS = (
    "Tell me about the history of Rome.",
    "Explain how a bicycle works, and why it does not fall over.",
    "Write a letter to a friend about a walk in the rain and what you saw on the way.",
    "How do I learn to cook? Give some advice, and name three dishes that are easy.",
)
GREEDY: Mapping[str, Any] = {"temperature": 0, "repetition_penalty": 1.0}
_SENTENCE = "The river rises in the hills, passes the old mill, and is joined by two streams. "


def ask_session(session: TextSession, messages: Sequence[Message], tokens: int) -> Streamed:
    """Answer with the Python session, with what its cache holds of the dialog."""
    begun = time.perf_counter()
    ids = session.chat_format.encode(Dialog(messages))
    shared = session.cache.shared_length(ids)
    session.rewind(shared)
    stream = session.stream(ids, max_tokens=tokens, sampling=Sampling(0, repetition_penalty=1.0))
    return Streamed(begun, tuple((time.perf_counter(), text) for text in stream))


def ask_server(server: Server, messages: Sequence[Message], tokens: int) -> Streamed:
    """Answer with the server."""
    dialog = [{"role": each.role, "content": each.content} for each in messages]
    body = {"messages": dialog, "max_tokens": tokens, **GREEDY}
    return ask(server, CHAT, {**body, "stream_options": {"include_usage": True}})


@click.group()
def main() -> None:
    """Measure the server."""


PATH = click.Path(path_type=Path, exists=True)
BUNDLE = click.argument("bundle", type=PATH)
THREADS = click.option("--threads", type=int, default=2, show_default=True)
ROUNDS = click.option("--rounds", type=int, default=5, show_default=True)


@main.command()
@BUNDLE
@THREADS
@ROUNDS
@click.option("--tokens", type=int, default=128, show_default=True)
def overhead(bundle: Path, threads: int, rounds: int, tokens: int) -> None:
    """Compare first token and decode with the Python session's."""
    session = llama_export.load(bundle, threads=threads)
    port = free_port()
    options = ["--threads", str(threads), "--cache-memory", "0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        served(our_server(bundle, port, options), port, Path(folder) / "log") as server,
    ):
        pairs = []
        for at in range(rounds + 1):
            for question in QUESTIONS:
                messages = [Message("user", question)]
                session.rewind(0)
                here = ask_session(session, messages, tokens)
                there = ask_server(server, messages, tokens)
                if here.text != there.text:
                    message = f"the server wrote {there.text!r}, and the session {here.text!r}"
                    raise RuntimeError(message)
                if at:  # the first round warms both up
                    pairs.append((here, there))
    first = [there.first_s - here.first_s for here, there in pairs]
    decode = [there.decode_s / here.decode_s for here, there in pairs]
    _print(
        {
            "answers": len(pairs),
            "tokens": len(pairs[0][0].pieces),
            "session_first_ms": 1e3 * statistics.median(here.first_s for here, _ in pairs),
            "first_token_later_ms": 1e3 * statistics.median(first),
            "session_decode_ms": 1e3 * statistics.median(here.decode_s for here, _ in pairs),
            "decode_ratio": statistics.median(decode),
            "decode_ratio_quartiles": statistics.quantiles(decode, n=4),
        }
    )


@main.command(name="second-turn")
@BUNDLE
@THREADS
@ROUNDS
@click.option("--tokens", type=int, default=1000, show_default=True, help="Of the first turn.")
def second_turn(bundle: Path, threads: int, rounds: int, tokens: int) -> None:
    """Time the first token of a long chat's second turn, with and without what is kept."""
    session = llama_export.load(bundle, threads=threads)
    port = free_port()
    log = tempfile.TemporaryDirectory()
    options = ["--threads", str(threads)]
    with log as folder, served(our_server(bundle, port, options), port, Path(folder, "log")) as it:
        rows = []
        for at in range(rounds + 1):
            # A number makes each round's chat another one from its first words on.
            one = Message("user", f"Text {at}. " + _until(session, tokens) + "What is it about?")
            session.rewind(0)
            cold_here = ask_session(session, [one], 16)
            cold = ask_server(it, [one], 16)
            dialog = [one, Message("assistant", cold.text), Message("user", "Say it in one word.")]
            warm_here = ask_session(session, dialog, 16)
            warm = ask_server(it, dialog, 16)
            if at:
                rows.append((cold_here, cold, warm_here, warm))
    cached = [row[3].usage["prompt_tokens_details"]["cached_tokens"] for row in rows]
    _print(
        {
            "prompt_tokens": rows[-1][3].usage["prompt_tokens"],
            "cached_tokens": statistics.median(cached),
            **{
                f"{name}_first_ms": 1e3 * statistics.median(row[place].first_s for row in rows)
                for place, name in enumerate(
                    ("session_cold", "server_cold", "session_second", "server_second")
                )
            },
        }
    )


def _until(session: TextSession, tokens: int) -> str:
    """Return a text of about so many tokens."""
    each = len(session.encode(_SENTENCE))
    return _SENTENCE * max(tokens // each, 1)


def _print(figures: Mapping[str, Any]) -> None:
    print(json.dumps(figures, indent=2, default=float))  # noqa: T201


if __name__ == "__main__":
    main()
