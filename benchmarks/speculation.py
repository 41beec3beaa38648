"""Measure what drafts bring: texts that copy, and ordinary answers, with and without.

    python benchmarks/speculation.py BUNDLE [--draft BUNDLE] [--rounds 3] [--tokens 160]

Each prompt is answered in turns without and with drafts, greedily, and a ratio is taken of two
turns that follow each other. Beside the wall clock stands the processors' time of this process,
which other programs disturb less. Where both texts differ, a run of several rows has rounded
another way; the speeds are those of each one's own text. The bundle must give each position's
logits (`--all-logits`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import llama_export
from llama_export import Sampling, TextSession
from llama_export.generation.speculation import Speculator

_CODE = '''def area(width, height):
    """Return the area of a rectangle."""
    return width * height


def perimeter(width, height):
    """Return the perimeter of a rectangle."""
    return 2 * (width + height)


def is_square(width, height):
    """Whether all the sides are equal."""
    return width == height
'''
_NOTES = """The meeting began at nine. Anna showed the new bridge, which will be 120 metres long and
will open in May. Peter asked for the price, and Anna said that it is four million. The town will
pay one half and the county the other. The next meeting is on the third of March."""
COPYING = {
    "repeat code": f"Repeat this code exactly, and nothing else:\n\n{_CODE}",
    "edit code": f"Rename width to w in this code, and write all of it:\n\n{_CODE}",
    "correct text": f"Correct the mistakes in this text, and write all of it:\n\n{_NOTES}",
    "sum up": f"Sum this text up in its own words:\n\n{_NOTES}",
}
CHAT = {
    "history": "Tell me about the history of Rome.",
    "bicycle": "Explain how a bicycle works.",
    "letter": "Write a short letter to a friend about a walk in the rain.",
    "advice": "How do I learn to cook? Give some advice.",
    "poem": "Write a poem about the sea.",
    "why": "Why is the sky blue?",
}


@dataclass(frozen=True)
class Turn:
    """One answer: its seconds a token after the first, and what was drafted."""

    wall_s: float
    cpu_s: float
    tokens: tuple[int, ...]
    drafted: int
    accepted: int


@dataclass(frozen=True)
class Row:
    """What drafts bring for one prompt: medians over the rounds."""

    group: str
    name: str
    wall_ratio: float
    cpu_ratio: float
    tokens: int
    drafted: int
    accepted: int
    same_text: bool


def answer(session: TextSession, text: str, tokens: int, speculator: Speculator | None) -> Turn:
    """Answer a prompt from an empty cache."""
    session.rewind(0)
    session.cache.speculator = speculator
    ids = session.chat_format.encode(_dialog(text))
    stream = session.stream(ids, max_tokens=tokens, sampling=Sampling(0, repetition_penalty=1.0))
    next(stream)
    begun, cpu = time.perf_counter(), time.process_time()
    done = stream.finish()
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    count = max(len(done.token_ids) - 1, 1)
    stats = done.stats
    return Turn(
        wall / count, cpu / count, done.token_ids, stats.drafted_tokens, stats.accepted_tokens
    )


def _dialog(text: str):  # noqa: ANN202 - the class is imported where it is used
    from llama_export.tokenizer.chat.chat_format import Dialog
    from llama_export.tokenizer.chat.messages import Message

    return Dialog([Message("user", text)])


def compare(session: TextSession, *, rounds: int, tokens: int) -> Iterator[Row]:
    """Answer every prompt with drafts and without, and yield its medians.

    One session does both: of two in one process, the second one can be slower by a quarter.
    """
    drafts = session.cache.speculator
    answer(session, "Name a river.", tokens, None)  # the first run plans its memory
    for group, prompts in (("chat", CHAT), ("copying", COPYING)):
        for name, text in prompts.items():
            pairs = [
                (answer(session, text, tokens, None), answer(session, text, tokens, drafts))
                for _ in range(rounds)
            ]
            last = pairs[-1]
            yield Row(
                group,
                name,
                statistics.median(one.wall_s / other.wall_s for one, other in pairs),
                statistics.median(one.cpu_s / other.cpu_s for one, other in pairs),
                len(last[1].tokens),
                last[1].drafted,
                last[1].accepted,
                last[0].tokens == last[1].tokens,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table; `--json` writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(arguments)
    session = llama_export.load(
        chosen.bundle, threads=chosen.threads, lookup=chosen.draft is None, draft=chosen.draft
    )
    rows = []
    heading = "group    prompt        wall   cpu  tokens  accepted of drafted  same text"
    print(heading)  # noqa: T201
    for row in compare(session, rounds=chosen.rounds, tokens=chosen.tokens):
        rows.append(row)
        line = (
            f"{row.group:8} {row.name:12} {row.wall_ratio:5.2f} {row.cpu_ratio:5.2f} "
            f"{row.tokens:7} {row.accepted:9} of {row.drafted:<8} "
            f"{'yes' if row.same_text else 'no'}"
        )
        print(line, flush=True)  # noqa: T201
    for group in ("chat", "copying"):
        ratios = [(row.wall_ratio, row.cpu_ratio) for row in rows if row.group == group]
        wall, cpu = (statistics.median(each) for each in zip(*ratios, strict=True))
        least = min(each for _, each in ratios)
        line = f"{group:8} median: {wall:.2f} wall, {cpu:.2f} cpu; least {least:.2f} cpu"
        print(line)  # noqa: T201
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
