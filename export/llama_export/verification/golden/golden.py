"""golden.json: what an artifact answers, call by call, on the machine that exported it.

A phone makes the same calls and compares. For each call the file has the likeliest tokens after its
last one with their logarithms of probability, and that of all other tokens together. It knows the
file's form; it runs and judges nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llama_export.bundle.bundle import Bundle, content_fault
from llama_export.bundle.json_object import JsonObject, is_integer
from llama_export.errors import BundleError, UsageError
from llama_quantize.strict_json import JsonFault, parse_object

GOLDEN_NAME = "golden.json"
FORMAT_VERSION = 1
PROMPT, REWIND = "prompt", "rewind"
# Five digits of each logarithm, and a phone's float32.
SUM_SPREAD = 1e-3

_MOST_BYTES = 2**21
_MOST_CALLS, _MOST_IDS, _MOST_TOP = 1024, 4096, 64
_LOWEST = -1e5
_HINT = "export the bundle again"


@dataclass(frozen=True)
class Call:
    """One call of an artifact.

    Args:
        text: text that is read, `PROMPT` or `REWIND`.
        first: position of the first token that is read; what the cache holds from there on is
            forgotten.
        at: position of the last token that is read.
    """

    text: str
    first: int
    at: int


@dataclass(frozen=True)
class Answer:
    """What an artifact answers to a call.

    Args:
        call: the call.
        top: places of the largest logits, the likeliest first, with their logarithms of
            probability.
        rest_logprob: that of all other places together; None: there are no others.
    """

    call: Call
    top: tuple[tuple[int, float], ...]
    rest_logprob: float | None


@dataclass(frozen=True)
class GoldenLimits:
    """How far a phone may be from the golden data.

    Args:
        kl_mean: mean KL over the calls, in nats.
        kl_worst: KL of one call.
        margin: distance of the two likeliest tokens, in nats, beyond which the first must be the
            phone's as well.
    """

    kl_mean: float
    kl_worst: float
    margin: float


@dataclass(frozen=True)
class Golden:
    """A bundle's golden data.

    Args:
        target: name of the target.
        runtime: what ran the artifact, with its version.
        prompt_ids: tokens of the first text.
        rewind_to: number of its tokens with which the second text begins.
        rewind_ids: tokens that follow there.
        limits: how far a phone may be off.
        positions: answers in the order of the calls.
    """

    target: str
    runtime: str
    prompt_ids: tuple[int, ...]
    rewind_to: int
    rewind_ids: tuple[int, ...]
    limits: GoldenLimits
    positions: tuple[Answer, ...]

    def ids_of(self, call: Call) -> tuple[int, ...]:
        """Return the tokens that a call reads."""
        text = self.prompt_ids
        if call.text == REWIND:
            text = (*self.prompt_ids[: self.rewind_to], *self.rewind_ids)
        return text[call.first : call.at + 1]

    def to_bytes(self) -> bytes:
        """Return the file's content: always the same, with an answer a line."""
        limits = self.limits
        head: dict[str, object] = {
            "format_version": FORMAT_VERSION,
            "target": self.target,
            "runtime": self.runtime,
            "prompt_ids": list(self.prompt_ids),
            "rewind": {"to": self.rewind_to, "ids": list(self.rewind_ids)},
            "limits": {
                "kl_mean": limits.kl_mean,
                "kl_worst": limits.kl_worst,
                "margin": limits.margin,
            },
        }
        lines = [f" {json.dumps(key)}: {_line(value)},\n" for key, value in head.items()]
        answers = ",\n".join(f"  {_line(_answer_json(each))}" for each in self.positions)
        return f'{{\n{"".join(lines)} "positions": [\n{answers}\n ]\n}}\n'.encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes, where: str = GOLDEN_NAME) -> Golden:
        """Parse a golden.json.

        Raises:
            BundleError: it is no JSON, of a newer format, or a field is wrong.
        """
        try:
            raw = parse_object(content, most_bytes=_MOST_BYTES)
        except JsonFault as fault:
            message = f"{where} cannot be read as JSON: {fault}"
            raise BundleError(message, _HINT) from None
        faults: list[str] = []
        top = JsonObject(raw, "", faults)
        found = _parse(top)
        if not faults:
            faults += _call_faults(found)
        if faults:
            message = f"{where}: {'; '.join(faults[:8])}"
            raise BundleError(message, _HINT)
        return found


def read_golden(bundle: Bundle) -> Golden:
    """Read a bundle's golden data, whose hash is compared first.

    Raises:
        UsageError: the bundle has none.
        BundleError: the file is changed, or not what this version reads.
    """
    entry = bundle.manifest.files.get(GOLDEN_NAME)
    if entry is None:
        message = f"{bundle.folder} has no {GOLDEN_NAME}: its export was not checked, or is older"
        raise UsageError(message, "export the model again, without --no-verify")
    if entry.size_bytes > _MOST_BYTES:
        message = f"{bundle.folder}: {GOLDEN_NAME} is longer than {_MOST_BYTES} bytes"
        raise BundleError(message, _HINT)
    path = bundle.path(GOLDEN_NAME)
    if fault := content_fault(path, entry, None):
        message = f"{bundle.folder}: {GOLDEN_NAME} {fault}"
        raise BundleError(message, "copy the bundle again, or export it again")
    return Golden.from_bytes(path.read_bytes(), str(path))


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _answer_json(answer: Answer) -> dict[str, object]:
    return {
        "text": answer.call.text,
        "from": answer.call.first,
        "at": answer.call.at,
        "top": [list(each) for each in answer.top],
        "rest_logprob": answer.rest_logprob,
    }


def _parse(top: JsonObject) -> Golden:
    version = top.integer("format_version", minimum=1)
    if version != FORMAT_VERSION:
        top.fault("format_version", f"{FORMAT_VERSION}, which this llama-export reads")
    rewind, limits = top.child("rewind"), top.child("limits")
    for key in ("kl_mean", "kl_worst", "margin"):
        limits.number(key, 0.0)
    return Golden(
        target=_text(top, "target"),
        runtime=_text(top, "runtime"),
        prompt_ids=_ids(top, "prompt_ids"),
        rewind_to=rewind.integer("to"),
        rewind_ids=_ids(rewind, "ids"),
        limits=GoldenLimits(*(_float(limits, key) for key in ("kl_mean", "kl_worst", "margin"))),
        positions=tuple(map(_answer, top.children("positions", _MOST_CALLS))),
    )


def _text(owner: JsonObject, key: str) -> str:
    value = owner.raw.get(key)
    if not isinstance(value, str):
        owner.fault(key, "a text")
        return ""
    return value


def _ids(owner: JsonObject, key: str) -> tuple[int, ...]:
    value = owner.raw.get(key)
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_IDS:
        owner.fault(key, f"a list of at least one token id, and at most {_MOST_IDS}")
        return ()
    if not all(is_integer(each) and each >= 0 for each in value):
        owner.fault(key, "a list of token ids")
        return ()
    return tuple(value)


def _float(owner: JsonObject, key: str) -> float:
    value = owner.raw.get(key)
    return float(value) if isinstance(value, float | int) else 0.0


def _answer(raw: JsonObject) -> Answer:
    text = raw.raw.get("text")
    if text not in (PROMPT, REWIND):
        raw.fault("text", f"{PROMPT} or {REWIND}")
    call = Call(str(text), raw.integer("from"), raw.integer("at"))
    if not raw.is_null("rest_logprob"):
        raw.number("rest_logprob", _LOWEST, 0.1)
    rest = None if raw.is_null("rest_logprob") else _float(raw, "rest_logprob")
    answer = Answer(call, _top(raw), rest)
    if answer.top and abs(_total(answer) - 1) > SUM_SPREAD:
        raw.fault("top", "probabilities that add up to 1 with rest_logprob")
    return answer


def _total(answer: Answer) -> float:
    rest = 0.0 if answer.rest_logprob is None else math.exp(min(answer.rest_logprob, 1.0))
    return sum(math.exp(logprob) for _, logprob in answer.top) + rest


def _top(raw: JsonObject) -> tuple[tuple[int, float], ...]:
    value: Any = raw.raw.get("top")
    if (
        not isinstance(value, list)
        or not 0 < len(value) <= _MOST_TOP
        or not all(_is_place(each) for each in value)
        or len({each[0] for each in value}) != len(value)
    ):
        raw.fault("top", f"a list of at most {_MOST_TOP} pairs of a place and a logarithm")
        return ()
    return tuple((place, float(logprob)) for place, logprob in value)


def _is_place(pair: object) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    place, logprob = pair
    is_number = is_integer(logprob) or isinstance(logprob, float)
    return is_integer(place) and place >= 0 and is_number and _LOWEST <= logprob <= 0.1


def _call_faults(golden: Golden) -> Sequence[str]:
    """Name what cannot be called: positions outside the texts, or beyond what was read."""
    faults, held = [], 0
    if golden.rewind_to > len(golden.prompt_ids):
        faults.append("rewind.to is beyond the prompt")
    if not golden.positions:
        faults.append("positions are none")
    for number, answer in enumerate(golden.positions):
        call = answer.call
        if call.first > held or len(golden.ids_of(call)) != call.at + 1 - call.first:
            faults.append(
                f"positions[{number}] reads {call.first} to {call.at}, which is not there"
            )
            break
        held = call.at + 1
    return faults
