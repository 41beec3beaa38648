"""Judge a conversation with a model that was trained to, such as Llama Guard: safe, or which kind.

Such a model is asked with its own template, and answers `safe`, or `unsafe` and the keys of the
categories on the next line. How sure it is of that stands in the logits of its first word. This
module knows the words and the lines of categories; what else a prompt says is the template's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from llama_export.errors import ChatTemplateError, PromptError, UsageError
from llama_export.generation.defaults import THRESHOLD
from llama_export.generation.sampling import Sampling
from llama_export.generation.text_stream import Completion
from llama_export.llama.intermediates import FloatArray
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.tokenizer import Tokenizer

# Some models begin their answer with blank lines.
_MOST_BLANKS = 4
# All fourteen categories take 60.
_MOST_TOKENS = 100
_CATEGORY_LINE = re.compile(r"^(S\d{1,3}): *(\S.*?)\.?\s*$", re.MULTILINE)
# Letters alone, so that no template changes it.
_PROBE = "Aquestionofaprobe"
_KEY = re.compile(r"\bS\d{1,3}\b")


@dataclass(frozen=True)
class Labels:
    """The two words that an answer begins with."""

    safe: str = "safe"
    unsafe: str = "unsafe"


@dataclass(frozen=True)
class Classification:
    """What a model said of a conversation.

    Args:
        is_unsafe: whether the probability reaches the threshold.
        probability: probability of `unsafe`, out of both words.
        threshold: probability from which on it counts as unsafe.
        categories: names of the categories by their keys, such as S1; empty where it is safe.
        prompt_tokens: length of the prompt.
    """

    is_unsafe: bool
    probability: float
    threshold: float
    categories: Mapping[str, str]
    prompt_tokens: int

    def to_json(self) -> dict[str, object]:
        """Return every figure."""
        return {**vars(self), "categories": dict(self.categories)}


class Answering(Protocol):
    """What is asked of a session."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer of the model."""

    def logits(self, prompt: Sequence[int]) -> FloatArray:
        """Return the logits `[V]` of the token after some tokens."""

    def generate(
        self, prompt: Sequence[int], *, max_tokens: int, sampling: Sampling | None
    ) -> Completion:
        """Continue some tokens."""


def classify_prompt(
    session: Answering,
    token_ids: Sequence[int],
    categories: Mapping[str, str],
    *,
    threshold: float = THRESHOLD,
    labels: Labels | None = None,
) -> Classification:
    """Ask a model about a prompt that asks for a judgement.

    Args:
        session: session on the model.
        token_ids: the prompt, up to where the answer begins.
        categories: names of the categories that the prompt lists, by key.
        threshold: probability from which on it counts as unsafe, from 0 to 1.
        labels: words that answers begin with; None: Llama Guard's.

    Raises:
        UsageError: the threshold is no probability, the words begin with the same token, or a
            pruned head lacks one of them.
        PromptError: the prompt does not fit into the context.
    """
    require_probability("threshold", threshold)
    safe, unsafe = label_ids(session.tokenizer, labels or Labels())
    prompt = list(token_ids)
    logits = session.logits(prompt)
    require_kept(logits, safe[0], unsafe[0])
    for _ in range(_MOST_BLANKS):
        likeliest = int(logits.argmax())
        if likeliest in (safe[0], unsafe[0]) or session.tokenizer.decode([likeliest]).strip():
            break
        prompt.append(likeliest)
        logits = session.logits(prompt)
    probability = probability_of(float(logits[unsafe[0]]), float(logits[safe[0]]))
    found: Mapping[str, str] = {}
    if probability >= threshold:
        answer = session.generate(
            [*prompt, *unsafe], max_tokens=_MOST_TOKENS, sampling=Sampling(temperature=0.0)
        )
        found = named_categories(answer.text, categories)
    return Classification(probability >= threshold, probability, threshold, found, len(token_ids))


def label_ids(tokenizer: Tokenizer, labels: Labels) -> tuple[list[int], list[int]]:
    """Return the tokens of both words.

    Raises:
        UsageError: a word has no token, or both begin with the same one.
    """
    safe, unsafe = (tokenizer.encode(word) for word in (labels.safe, labels.unsafe))
    if not safe or not unsafe or safe[0] == unsafe[0]:
        message = (
            f"the words {labels.safe!r} and {labels.unsafe!r} must begin with tokens of their own"
        )
        raise UsageError(message, "choose other labels; Llama Guard's are safe and unsafe")
    return safe, unsafe


def require_kept(logits: FloatArray, *token_ids: int) -> None:
    """Refuse words that a pruned head cannot write.

    Args:
        logits: logits `[V]`, -inf where the head has no row.
        token_ids: tokens that the words begin with.

    Raises:
        UsageError: the head lacks one of them.
    """
    if lacking := [each for each in token_ids if math.isinf(logits[each])]:
        message = f"the head was pruned, and has no row for token {lacking[0]} of these labels"
        raise UsageError(message, "export again with --head-tokens for both labels")


def listed_categories(prompt: str) -> dict[str, str]:
    """Return the names of the categories that a prompt lists, a line each, by key.

    Raises:
        PromptError: it lists none, so it is no prompt of a model that judges.
    """
    found = dict(_CATEGORY_LINE.findall(prompt))
    if not found:
        message = "the model's chat template lists no categories such as `S1: Violent Crimes.`"
        raise PromptError(message, "classify needs a bundle of Llama Guard; `chat` takes others")
    return found


def named_categories(answer: str, categories: Mapping[str, str]) -> dict[str, str]:
    """Return the categories that an answer names, in its order; an unlisted key is its own name."""
    return {key: categories.get(key, key) for key in _KEY.findall(answer)}


def probability_of(one: float, other: float) -> float:
    """Return the probability of the first of two logits."""
    difference = other - one
    # exp overflows beyond 709.
    return 0.0 if difference > 700 else 1 / (1 + math.exp(difference))


def require_probability(name: str, value: float) -> None:
    """Refuse what is no probability.

    Raises:
        UsageError: it is below 0, above 1, or no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        message = f"{name}: expected a number from 0 to 1, found {value!r:.80}"
        raise UsageError(message)


def calibrated_threshold(
    probabilities: Sequence[float], unsafe: Sequence[bool], most_false_alarms: float
) -> float:
    """Choose the lowest threshold at which few enough safe examples count as unsafe.

    Args:
        probabilities: probability of `unsafe` of each example.
        unsafe: whether each is unsafe in truth.
        most_false_alarms: largest share of the safe examples that may count as unsafe.

    Raises:
        UsageError: the share is no probability, no example is safe, or no threshold does it.
    """
    require_probability("most_false_alarms", most_false_alarms)
    pairs = zip(probabilities, unsafe, strict=True)
    safe = sorted((p for p, is_unsafe in pairs if not is_unsafe), reverse=True)
    if not safe:
        message = "a threshold is chosen by safe examples, and there are none"
        raise UsageError(message, "add examples with unsafe = false, some hundred of them")
    allowed = math.floor(most_false_alarms * len(safe))
    if allowed >= len(safe):
        return 0.0
    # Just above the first example that must not count as unsafe.
    threshold = math.nextafter(safe[allowed], 2.0)
    if threshold > 1:
        certain = sum(each == 1 for each in safe)
        message = (
            f"no threshold lets {most_false_alarms:g} of the safe examples at most count as "
            f"unsafe: the model is certain that {certain} of {len(safe)} are"
        )
        raise UsageError(message, "see whether these examples are safe, or allow more")
    return threshold


def write_prompt(
    chat_format: ChatFormat,
    messages: Sequence[Message],
    arguments: Mapping[str, object] | None = None,
) -> tuple[list[int], dict[str, str]]:
    """Ask for a judgement of a conversation with the model's own template.

    Some templates read a message's text, others its parts; what a template reads is found out with
    a message of a known text.

    Args:
        chat_format: how the model's dialogs are written.
        messages: the conversation; its last message is judged.
        arguments: more variables of the template, such as `categories`.

    Returns:
        The prompt's tokens, and the categories that it lists, by key.

    Raises:
        PromptError: the template lists no categories, or refuses the conversation.
        ChatTemplateError: the template is no Jinja, or was stopped.
    """
    given = dict(arguments or {})
    as_parts = _reads_parts(chat_format, given)
    said = [replace(each, content=_parts(each.text)) if as_parts else each for each in messages]
    dialog = Dialog(said, arguments=given)
    return chat_format.encode(dialog), listed_categories(chat_format.render(dialog))


def _reads_parts(chat_format: ChatFormat, arguments: Mapping[str, object]) -> bool:
    """Whether a template writes the text of a message's parts, and not a plain text."""

    def writes(content: str | list[dict[str, object]]) -> bool:
        dialog = Dialog([Message("user", content)], arguments=arguments)
        try:
            return _PROBE in chat_format.render(dialog)
        except (PromptError, ChatTemplateError):
            return False

    return not writes(_PROBE) and writes(_parts(_PROBE))


def _parts(text: str) -> list[dict[str, object]]:
    return [{"type": "text", "text": text}]
