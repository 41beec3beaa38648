"""Many clients at once: whether each stream is its solo run's, and whether memory stays flat.

    python benchmarks/serving_load.py BUNDLE [--clients 32] [--minutes 3] [--cache-memory 0]

Every request has a seed, and is first asked alone. Then all clients ask at once, for minutes, and
each stream is compared with that run. With kept caches (`--cache-memory 512`, as the server is
started) a beginning that was read in other portions may round another way, so a text may differ:
without them none may. Linux.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from serving_client import Server, ask, free_port, our_server, served

COMPLETIONS = "/v1/completions"
BEGINNINGS = (
    "Once upon a time",
    "The king had three sons, and the youngest of them",
    "In the middle of the forest there was a house in which an old woman lived with her cat. One",
    "There was a miller who had nothing but his mill",
)
_SAMPLES_S = 1.0
# Of the time: what the buffers and pools of a process need until they are as large as they get.
_WARM_UP = 0.25


def make_requests(count: int) -> list[dict[str, Any]]:
    """Return requests of several lengths, drawn in several ways, each with its own seed."""
    draw = random.Random(18)
    return [
        {
            "prompt": draw.choice(BEGINNINGS) + " " * (at % 2) + "and" * (at % 3),
            "max_tokens": draw.choice((4, 16, 48, 96)),
            "temperature": draw.choice((0, 0.7, 1.2)),
            "top_p": draw.choice((0.9, 1)),
            "seed": at,
            "stop": draw.choice(([], ["king"], ["\n\n", "the end"])),
        }
        for at in range(count)
    ]


@dataclass
class Seen:
    """What the clients saw."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def keep_asking(
    server: Server,
    requests: Sequence[Mapping[str, Any]],
    alone: Sequence[tuple[str, str]],
    seen: Seen,
    until: float,
    client: int,
) -> None:
    """Ask one request after the other, and compare each stream with its run alone."""
    draw = random.Random(client)
    while time.monotonic() < until:
        at = draw.randrange(len(requests))
        try:
            found = ask(server, COMPLETIONS, requests[at])
        except (OSError, RuntimeError) as error:
            seen.counts["failed"] += 1
            seen.wrong.append(f"request {at}: {error}")
            continue
        same = (found.text, found.finish_reason) == alone[at]
        seen.counts["equal" if same else "different"] += 1
        if not same:
            seen.wrong.append(f"request {at}: {found.text!r} in place of {alone[at]!r}")


PATH = click.Path(path_type=Path, exists=True)


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--clients", type=int, default=32, show_default=True)
@click.option("--minutes", type=float, default=3.0, show_default=True)
@click.option("--requests", type=int, default=64, show_default=True, help="Different ones.")
@click.option("--cache-memory", type=int, default=0, show_default=True, help="Of the server, MB.")
@click.option("--parallel", type=int, default=4, show_default=True, help="Of the server.")
def main(
    bundle: Path, clients: int, minutes: float, requests: int, cache_memory: int, parallel: int
) -> None:
    """Ask with many clients at once, and say what differed and what memory it took."""
    port = free_port()
    options = ["--cache-memory", str(cache_memory), "--parallel", str(parallel)]
    chosen = make_requests(requests)
    seen, memory = Seen(), []
    log = tempfile.TemporaryDirectory()
    with log as folder, served(our_server(bundle, port, options), port, Path(folder, "log")) as it:
        first = [ask(it, COMPLETIONS, each) for each in chosen]
        alone = [(each.text, each.finish_reason) for each in first]
        begun = time.monotonic()
        until = begun + 60 * minutes
        threads = [
            threading.Thread(target=keep_asking, args=(it, chosen, alone, seen, until, at))
            for at in range(clients)
        ]
        for each in threads:
            each.start()
        while time.monotonic() < until:
            memory.append((time.monotonic() - begun, it.anonymous_bytes))
            time.sleep(_SAMPLES_S)
        for each in threads:
            each.join()
    warm = [size for at, size in memory if at >= _WARM_UP * 60 * minutes]
    figures = {
        "clients": clients,
        "minutes": minutes,
        **dict(seen.counts),
        "first": seen.wrong[:3],
        "anonymous_mb": [round(size / 2**20) for _, size in memory[:: max(len(memory) // 20, 1)]],
        "anonymous_mb_warm": round(warm[0] / 2**20, 1),
        "anonymous_mb_most": round(max(warm) / 2**20, 1),
        "growth": round(max(warm) / warm[0] - 1, 4),
    }
    print(json.dumps(figures, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
