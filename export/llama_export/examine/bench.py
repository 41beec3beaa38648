"""Measure a session: loading, time to the first token, prefill, decode at several contexts, memory.

It drives a `Session` and takes its readings from a `Host`, so that any target can be measured and
a test can provide both. It does not know what a good figure is, and it knows no runtime.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from llama_export.errors import UsageError
from llama_export.examine import defaults
from llama_export.system.machine import CpuTimes, others_busy_cores
from llama_export.targets.session import Session, require_finite

# Other processes that keep more than this of one core busy make the figures doubtful.
BUSY_CORES = 0.15
_LOOK_S = 0.5
_MOST_DIGITS = 9

Progress = Callable[[int, int], None]


class Host(Protocol):
    """The readings that a measurement takes; `machine.Machine` provides them."""

    def clock(self) -> float:
        """Return seconds, for differences only."""

    def wait(self, seconds: float) -> None:
        """Do nothing for a while."""

    def cpu_times(self) -> CpuTimes:
        """Return the processor time spent so far."""

    def load_average(self) -> float:
        """Return the mean number of running processes over the last minute."""

    def resident_bytes(self) -> int:
        """Return what this process holds in memory."""

    def peak_resident_bytes(self) -> int:
        """Return the most that it ever held."""


@dataclass(frozen=True)
class BenchPlan:
    """What is measured.

    Args:
        prompt_lengths: numbers of tokens of the prompts that an empty cache is filled with.
        contexts: numbers of positions in the cache when decoding begins.
        decode_tokens: number of tokens decoded for one sample.
        repeat: number of samples of each figure that count; one more comes first.
    """

    prompt_lengths: tuple[int, ...] = defaults.PROMPT_LENGTHS
    contexts: tuple[int, ...] = defaults.CONTEXTS
    decode_tokens: int = defaults.DECODE_TOKENS
    repeat: int = defaults.REPEAT


@dataclass(frozen=True)
class Spread:
    """The samples of one figure, summarised."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Summarise samples; there is at least one."""
        return cls(statistics.median(samples), min(samples), max(samples))


@dataclass(frozen=True)
class PrefillFigures:
    """The figures of one length of prompt.

    Args:
        tokens: length of the prompt.
        first_token_s: seconds until the first token was chosen.
        tokens_per_s: speed of reading the prompt.
    """

    tokens: int
    first_token_s: Spread
    tokens_per_s: Spread


@dataclass(frozen=True)
class DecodeFigures:
    """The figures of decoding at one context.

    Args:
        context: number of positions in the cache when decoding begins.
        tokens_per_s: speed of decoding.
    """

    context: int
    tokens_per_s: Spread


@dataclass(frozen=True)
class BenchResult:
    """All figures of one artifact.

    Args:
        load_s: seconds until the session was ready, the first one in this process.
        resident_before_bytes: memory of the whole process before loading.
        resident_bytes: memory of the whole process after loading.
        peak_resident_bytes: largest memory of the whole process, over its life.
        first_call_tokens: length of the very first prompt.
        first_call_s: seconds that reading it took, more than later ones take.
        prefill: figures by length of prompt.
        decode: figures by context.
        others_before: number of cores that other processes kept busy before the measurement.
        others_during: the same number during the measurement.
        load_average: mean number of running processes over the last minute.
    """

    load_s: float
    resident_before_bytes: int
    resident_bytes: int
    peak_resident_bytes: int
    first_call_tokens: int
    first_call_s: float
    prefill: tuple[PrefillFigures, ...]
    decode: tuple[DecodeFigures, ...]
    others_before: float
    others_during: float
    load_average: float

    @property
    def was_busy(self) -> bool:
        """Whether other processes took enough to make the figures doubtful."""
        return max(self.others_before, self.others_during) > BUSY_CORES

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "was_busy": self.was_busy}


def parse_lengths(option: str, text: str) -> tuple[int, ...]:
    """Parse a list of lengths, such as "128,512".

    Args:
        option: name of the option, for the message.
        text: the list.

    Raises:
        UsageError: the list is empty, or holds something else than whole numbers above 0.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(map(_is_length, words)):
        message = f"{option}: expected whole numbers above 0, separated by commas, found {text!r}"
        raise UsageError(message, f"for example {option} 128,512")
    return tuple(dict.fromkeys(int(word) for word in words))


def _is_length(word: str) -> bool:
    # Python itself refuses to read a number of some thousand digits.
    return word.isdecimal() and len(word) <= _MOST_DIGITS and int(word) > 0


def plan_bench(
    max_context: int,
    *,
    prompt_lengths: tuple[int, ...] | None = None,
    contexts: tuple[int, ...] | None = None,
    decode_tokens: int | None = None,
    repeat: int | None = None,
    quick: bool = False,
) -> BenchPlan:
    """Fill in what was not asked for with what the artifact has room for.

    Args:
        max_context: number of positions of the artifact.
        prompt_lengths: lengths of the prompts; None: those of 128 and 512 that fit.
        contexts: contexts to decode at; None: those of 128 and 1024 that fit.
        decode_tokens: number of tokens of a sample; None: 16, or 8 if quick.
        repeat: number of samples; None: 5, or 2 if quick.
        quick: whether to measure one length with fewer samples where nothing was asked for.

    Raises:
        UsageError: a length is beyond the artifact's context, or a count is below 1.
    """
    if repeat is None:
        repeat = defaults.QUICK_REPEAT if quick else defaults.REPEAT
    usual = defaults.QUICK_DECODE_TOKENS if quick else defaults.DECODE_TOKENS
    steps = usual if decode_tokens is None else decode_tokens
    for option, count in (("--repeat", repeat), ("--decode-tokens", steps)):
        if count < 1:
            message = f"{option}: expected at least 1, found {count}"
            raise UsageError(message)
    room = max_context - steps
    if room < 1:
        message = f"--decode-tokens: expected less than the artifact's context of {max_context}, "
        raise UsageError(message + f"found {steps}", "measure fewer steps")
    if prompt_lengths is None:
        prompt_lengths = _fitting(
            defaults.QUICK_LENGTHS if quick else defaults.PROMPT_LENGTHS, max_context
        )
    if contexts is None:
        contexts = _fitting(defaults.QUICK_LENGTHS if quick else defaults.CONTEXTS, room)
    _require_fit("--prompt-lengths", prompt_lengths, max_context, "")
    _require_fit("--contexts", contexts, room, f", with {steps} tokens to decode")
    return BenchPlan(prompt_lengths, contexts, steps, repeat)


def measure(
    open_session: Callable[[], Session],
    plan: BenchPlan,
    host: Host,
    *,
    ordinary_tokens: int,
    progress: Progress,
) -> BenchResult:
    """Load a session and measure it.

    Args:
        open_session: function that loads the artifact.
        plan: what to measure; it must fit the artifact.
        host: source of the readings.
        ordinary_tokens: number of ids, the first ones, from which the prompts are drawn; they are
            always the same.
        progress: function to call with the number of samples done, and of all samples.
    """
    started = host.cpu_times()
    host.wait(_LOOK_S)
    before = host.cpu_times()
    resident_before = host.resident_bytes()
    begun = host.clock()
    with closing(open_session()) as session:
        load_s = host.clock() - begun
        resident = host.resident_bytes()
        prompts = _Prompts(ordinary_tokens)
        total = (plan.repeat + 1) * (len(plan.prompt_lengths) + len(plan.contexts))
        count = _Counter(progress, total)
        first_call_s = _first_token_s(session, prompts.of(plan.prompt_lengths[0]), host)
        # No figure counts it: what computes no numbers has no speed.
        session.rewind(0)
        require_finite(session.prefill(prompts.of(1)))
        prefill = tuple(
            _prefill(session, prompts.of(length), plan, host, count)
            for length in plan.prompt_lengths
        )
        decode = tuple(
            _decode(session, prompts.of(context), plan, host, count) for context in plan.contexts
        )
    return BenchResult(
        load_s=load_s,
        resident_before_bytes=resident_before,
        resident_bytes=resident,
        peak_resident_bytes=host.peak_resident_bytes(),
        first_call_tokens=plan.prompt_lengths[0],
        first_call_s=first_call_s,
        prefill=prefill,
        decode=decode,
        others_before=round(others_busy_cores(started, before), 3),
        others_during=round(others_busy_cores(before, host.cpu_times()), 3),
        load_average=round(host.load_average(), 2),
    )


class _Prompts:
    """Prompts of any length: the beginnings of one sequence of ordinary tokens."""

    def __init__(self, ordinary_tokens: int) -> None:
        self._ordinary_tokens = ordinary_tokens

    def of(self, length: int) -> list[int]:
        random = np.random.default_rng(0)
        return [int(token) for token in random.integers(0, self._ordinary_tokens, length)]


class _Counter:
    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)


def _first_token_s(session: Session, prompt: Sequence[int], host: Host) -> float:
    """Time a prefill of an empty cache until its first token is chosen."""
    session.rewind(0)
    begun = host.clock()
    session.prefill(prompt).argmax()
    return host.clock() - begun


def _prefill(
    session: Session, prompt: Sequence[int], plan: BenchPlan, host: Host, count: _Counter
) -> PrefillFigures:
    samples = []
    for _ in range(plan.repeat + 1):
        samples.append(_first_token_s(session, prompt, host))
        count.step()
    counted = samples[1:]
    speeds = [len(prompt) / max(sample, 1e-9) for sample in counted]
    return PrefillFigures(len(prompt), Spread.of(counted), Spread.of(speeds))


def _decode(
    session: Session, prompt: Sequence[int], plan: BenchPlan, host: Host, count: _Counter
) -> DecodeFigures:
    """Fill the cache once, then decode from there again and again."""
    session.rewind(0)
    first = int(session.prefill(prompt).argmax())
    speeds = []
    for _ in range(plan.repeat + 1):
        session.rewind(len(prompt))
        token = first
        begun = host.clock()
        for _ in range(plan.decode_tokens):
            token = int(session.prefill([token]).argmax())
        speeds.append(plan.decode_tokens / max(host.clock() - begun, 1e-9))
        count.step()
    return DecodeFigures(len(prompt), Spread.of(speeds[1:]))


def _fitting(lengths: tuple[int, ...], room: int) -> tuple[int, ...]:
    return tuple(length for length in lengths if length <= room) or (room,)


def _require_fit(option: str, lengths: tuple[int, ...], room: int, why: str) -> None:
    wrong = [length for length in lengths if not 1 <= length <= room]
    if wrong or not lengths:
        found = ", ".join(map(str, wrong)) or "nothing"
        message = f"{option}: the artifact has room for 1 to {room}{why}, found {found}"
        raise UsageError(message, "measure less, or export with a larger --max-context")
