"""Our server beside `llama_cpp.server` of llama-cpp-python: one client, and four at once.

    python benchmarks/serving_peer.py BUNDLE --gguf FILE --llama-python ENVIRONMENT/bin/python

ENVIRONMENT has `llama-cpp-python[server]`; FILE is a GGUF of the same shape as the bundle. Both
servers are loaded at once and asked in turns, round after round; a ratio is taken within a round.
Every prompt is a new one, so that no cache spares anything. Linux, on a machine that does nothing
else.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from serving_client import Server, Streamed, ask, free_port, others_cores, our_server, served

COMPLETIONS = "/v1/completions"
_SENTENCE = "The river rises in the hills, passes the old mill, and is joined by two streams. "
OURS, PEER = "llama-export serve", "llama_cpp.server"


@dataclass(frozen=True)
class Measured:
    """What some clients saw who asked at the same time.

    Args:
        first_s: median of the seconds to the first token.
        stream_tokens_per_s: median speed of one stream, after its first token.
        all_tokens_per_s: tokens of all clients, by the whole time.
    """

    first_s: float
    stream_tokens_per_s: float
    all_tokens_per_s: float


def ask_at_once(server: Server, clients: int, round_at: int, tokens: int) -> Measured:
    """Let so many clients ask at once, each another text."""
    bodies = [
        {
            "prompt": f"{round_at}.{each}: " + 7 * _SENTENCE,
            "max_tokens": tokens,
            "temperature": 0,
        }
        for each in range(clients)
    ]
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        found = list(threads.map(lambda body: ask(server, COMPLETIONS, body), bodies))
    elapsed_s = time.perf_counter() - begun
    for each in found:
        if each.finish_reason != "length":
            message = f"an answer ended by itself: {each.text!r}"
            raise RuntimeError(message)
    return Measured(
        statistics.median(each.first_s for each in found),
        statistics.median(_speed(each, tokens) for each in found),
        clients * tokens / elapsed_s,
    )


def _speed(answer: Streamed, tokens: int) -> float:
    """Return the tokens a second after the first: a piece may have more than one."""
    return (tokens - 1) / (answer.pieces[-1][0] - answer.pieces[0][0])


def _ratios(ours: list[Measured], theirs: list[Measured]) -> Mapping[str, Any]:
    def of(name: str) -> dict[str, float]:
        quotients = [
            getattr(one, name) / getattr(other, name)
            for one, other in zip(ours, theirs, strict=True)
        ]
        return {
            "ours": statistics.median(getattr(each, name) for each in ours),
            "theirs": statistics.median(getattr(each, name) for each in theirs),
            "ratio": statistics.median(quotients),
            "least": min(quotients),
            "most": max(quotients),
        }

    return {name: of(name) for name in ("first_s", "stream_tokens_per_s", "all_tokens_per_s")}


FILE = click.Path(path_type=Path, exists=True)


@click.command()
@click.argument("bundle", type=FILE)
@click.option("--gguf", type=FILE, required=True, help="The same shape for llama.cpp.")
@click.option("--llama-python", type=FILE, required=True, help="Python that has its server.")
@click.option("--threads", type=int, default=2, show_default=True, help="Of each server.")
@click.option("--rounds", type=int, default=7, show_default=True)
@click.option("--tokens", type=int, default=64, show_default=True, help="Of an answer.")
def main(
    bundle: Path, gguf: Path, llama_python: Path, threads: int, rounds: int, tokens: int
) -> None:
    """Measure both, and print the medians and ratios."""
    ports = {OURS: free_port(), PEER: free_port()}
    commands = {
        OURS: our_server(bundle, ports[OURS], ["--threads", str(threads)]),
        PEER: [
            *(str(llama_python.absolute()), "-m", "llama_cpp.server", "--model", str(gguf)),
            *("--port", str(ports[PEER]), "--n_ctx", "2048"),
            *("--n_threads", str(threads), "--n_threads_batch", str(threads)),
            # Or a request ends the one that is answered.
            *("--interrupt_requests", "false"),
        ],
    }
    found: dict[int, dict[str, list[Measured]]] = {1: {}, 4: {}}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = {
            name: stack.enter_context(served(command, ports[name], Path(folder, str(at))))
            for at, (name, command) in enumerate(commands.items())
        }
        others = others_cores([each.pid for each in servers.values()], 3)
        for at in range(rounds + 1):
            for clients, measured in found.items():
                for name, server in servers.items():
                    one = ask_at_once(server, clients, 10 * at + clients, tokens)
                    if at:  # the first round warms both up
                        measured.setdefault(name, []).append(one)
    figures = {
        "rounds": rounds,
        "threads": threads,
        "other_processes_cores": round(others, 2),
        **{
            f"{clients} clients": _ratios(measured[OURS], measured[PEER])
            for clients, measured in found.items()
        },
    }
    print(json.dumps(figures, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
