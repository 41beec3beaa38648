"""Record a bundle's golden data, and make the calls again: its own session, as it is shipped.

The text is the one that a verification reads: a prefill, single steps, a rewind with other tokens
behind it, and the whole text in two pieces. Each is a way in which an app's engine goes wrong. The
limits are those that the artifact itself was judged by. It compares nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np

from llama_export.bundle.bundle import Bundle, add_files
from llama_export.errors import BundleError
from llama_export.llama.intermediates import FloatArray
from llama_export.targets import registry
from llama_export.targets.limits import Limits
from llama_export.targets.session import Session
from llama_export.targets.stored import StoredArtifact
from llama_export.targets.target import Target
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.golden.device_report import Measured
from llama_export.verification.golden.golden import (
    GOLDEN_NAME,
    PROMPT,
    REWIND,
    Answer,
    Call,
    Golden,
    GoldenLimits,
)
from llama_export.verification.rows import VerifyReport
from llama_export.verification.samples import Text, built_in_text

_TOP = 32
_PROMPT_TOKENS, _FEWEST_TOKENS, _REWOUND_TOKENS = 96, 12, 13
# Logarithms of probability to five digits: their own error is a thousandth of the least limit.
_DIGITS = 5
# Of artifacts that do not round: a phone's float kernels were not measured, and may be faster ones.
_LEAST_KL = 1e-5
_LEAST_REST = 1e-300


def add_golden(bundle: Bundle, report: VerifyReport) -> Bundle:
    """Record a checked bundle's golden data into it, and return the bundle with them.

    A bundle whose context is too short for the calls stays as it is.

    Args:
        bundle: sealed bundle whose artifact runs here.
        report: verification of the bundle, whose limits are the phone's too.

    Raises:
        BundleError: the artifact cannot be run.
        OutputError: the file cannot be written.
    """
    target = registry.get(bundle.manifest.target)
    tokenizer = load_tokenizer(bundle.path(bundle.manifest.tokenizer["file"]))
    limits = golden_limits(target.limits, report)
    artifact = StoredArtifact.of(bundle)
    with closing(target.open_session(artifact)) as session:
        golden = record(
            session, built_in_text(tokenizer), limits, target.name, _runtime(target, bundle)
        )
    if golden is None:
        return bundle
    return Bundle(bundle.folder, add_files(bundle, {GOLDEN_NAME: golden.to_bytes()}))


def golden_limits(limits: Limits, report: VerifyReport) -> GoldenLimits:
    """Return how far a phone may be off: as far as the artifact from PyTorch that rounds alike.

    A phone's processor rounds alike too, and adds up in another order. Where it is not known how
    the artifact rounds, it is as far as from PyTorch that does not round.

    Args:
        limits: limits of the target.
        report: verification of the bundle.
    """
    judged = (report.row(key).threshold for key in ("kl_shipped_emulated", "kl_shipped"))
    known = (limit for limit in judged if limit is not None and math.isfinite(limit))
    # Where another program than the runtime computed the data, the runtime may differ from it.
    mean = max(next(known, limits.shipped_kl.value), limits.runtime_kl.value, _LEAST_KL)
    worst = mean * limits.shipped_prefill_kl.value / limits.shipped_kl.value
    # Two tokens as likely as each other, so far apart, change places at a KL of `worst`.
    return GoldenLimits(*(float(f"{x:.3g}") for x in (mean, worst, math.sqrt(8 * worst))))


def record(
    session: Session, text: Text, limits: GoldenLimits, target: str, runtime: str
) -> Golden | None:
    """Make the calls and keep the answers; None: the context is too short for them.

    Args:
        session: artifact as shipped; it is rewound.
        text: text to read.
        limits: how far a phone may be off.
        target: name of the target.
        runtime: what runs the artifact, with its version.
    """
    length = min(_PROMPT_TOKENS, session.max_context)
    if length < _FEWEST_TOKENS:
        return None
    prefilled, steps = length // 3, length // 2
    back = prefilled + steps // 3
    rewound = min(_REWOUND_TOKENS, length - back)
    taken = text.take(length + rewound)
    unanswered = Golden(target, runtime, taken[:length], back, taken[length:], limits, positions=())
    calls = list(plan_calls(length, prefilled, steps, back, rewound))
    logits = answers_of(session, unanswered, calls)
    answers = [_answer(call, row) for call, row in zip(calls, logits, strict=True)]
    return Golden(target, runtime, taken[:length], back, taken[length:], limits, tuple(answers))


def plan_calls(length: int, prefilled: int, steps: int, back: int, rewound: int) -> Iterator[Call]:
    """Yield the calls in their order.

    Args:
        length: number of tokens of the prompt.
        prefilled: number of its tokens that the first call reads.
        steps: number of single steps after it.
        back: number of positions that the rewind leaves.
        rewound: number of single steps after the rewind.
    """
    yield Call(PROMPT, 0, prefilled - 1)
    for at in range(prefilled, prefilled + steps):
        yield Call(PROMPT, at, at)
    for at in range(back, back + rewound):
        yield Call(REWIND, at, at)
    # Of an odd size, because kernels work on even numbers of rows.
    cut = length // 2 - (1 - length // 2 % 2)
    yield Call(PROMPT, 0, cut - 1)
    yield Call(PROMPT, cut, length - 1)


def answers_of(session: Session, golden: Golden, calls: Sequence[Call]) -> Iterator[FloatArray]:
    """Yield the logits `[V]` after each call."""
    for call in calls:
        session.rewind(call.first)
        yield session.prefill(golden.ids_of(call))


def measure_again(session: Session, golden: Golden) -> list[Measured]:
    """Make the golden calls in this machine's runtime, and return what a phone would.

    Args:
        session: artifact as shipped; it is rewound.
        golden: golden data of the bundle.

    Raises:
        BundleError: the data speak of logits that the artifact has not, or a logit is not finite.
        PromptError: they speak of tokens or positions that it has not.
    """
    calls = [answer.call for answer in golden.positions]
    rows = answers_of(session, golden, calls)
    return [_measured(each, row) for each, row in zip(golden.positions, rows, strict=True)]


def _measured(answer: Answer, logits: FloatArray) -> Measured:
    logprobs = log_probabilities(logits)
    places = [place for place, _ in answer.top]
    if max(places) >= len(logprobs):
        message = f"{GOLDEN_NAME}: expected places of {len(logprobs)} logits, found {max(places)}"
        raise BundleError(message, "it belongs to another model: export the bundle again")
    return Measured(
        at=answer.call.at,
        logprobs=tuple(float(logprobs[place]) for place in places),
        rest_logprob=_rest(np.delete(logprobs, places)),
        best=int(logprobs.argmax()),
    )


def log_probabilities(logits: FloatArray) -> FloatArray:
    """Return the logarithms of probability, float64 `[V]`, of logits `[V]`.

    Raises:
        BundleError: a logit is not finite.
    """
    values = np.asarray(logits, np.float64)
    if not np.isfinite(values).all():
        message = "the artifact's logits are not finite numbers"
        raise BundleError(message, "`llama-export verify` says where")
    shifted = values - values.max()
    found: FloatArray = shifted - np.log(np.exp(shifted).sum())
    return found


def _answer(call: Call, logits: FloatArray) -> Answer:
    logprobs = log_probabilities(logits)
    # The likeliest first; of equal ones the smaller place.
    order = np.argsort(-logprobs, kind="stable")
    top = [(int(place), round(float(logprobs[place]), _DIGITS)) for place in order[:_TOP]]
    rest = _rest(logprobs[order[_TOP:]])
    return Answer(call, tuple(top), None if rest is None else round(rest, _DIGITS))


def _rest(logprobs: FloatArray) -> float | None:
    """Return the logarithm of what some places have together; None: there are none."""
    # So unlikely that float64 has no number for it is not the same as not there.
    return math.log(max(float(np.exp(logprobs).sum()), _LEAST_REST)) if len(logprobs) else None


def _runtime(target: Target, bundle: Bundle) -> str:
    substitute = target.substitute_runtime()
    if substitute is not None:
        return substitute.name
    name = target.toolkits[-1]
    return f"{name} {bundle.manifest.created_with.get(name, '')}".strip()
