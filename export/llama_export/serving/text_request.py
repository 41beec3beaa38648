"""What a request asks for, whatever protocol it came in; and the parameters that all share.

It knows names and ranges; it does not know sessions, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llama_export.errors import PromptError, UsageError
from llama_export.generation.grammar import Grammar
from llama_export.generation.tools import Tools
from llama_export.serving.fields import Fields
from llama_export.serving.refusals import refuse_as, refuse_unsupported
from llama_export.serving.settings import MOST_CHOICES, MOST_STOPS, MOST_TOOLS, MOST_TOP_LOGPROBS
from llama_export.tokenizer.chat.chat_format import Dialog

MOST_SEED = 2**63 - 1
_MOST_TEMPERATURE = 100.0
_MOST_TOP_K = 2**24
# A whole dialog, a text, or token ids.
Prompt = Dialog | str | tuple[int, ...]
# What no answer depends on.
HARMLESS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
SAMPLING = frozenset({"temperature", "top_p", "min_p", "top_k", "repetition_penalty", "seed"})


@dataclass(frozen=True)
class Form:
    """The form that an answer must have.

    Args:
        grammar: what it must obey.
        param: name of the parameter that asks for it.
    """

    grammar: Grammar
    param: str


def read_form(param: str, given: object, read: Callable[[object], Grammar | None]) -> Form | None:
    """Read the form of an answer.

    Args:
        param: name of the parameter.
        given: its value.
        read: returns the grammar of a value; None: any text will do.

    Raises:
        ApiError: the value is no form that is known.
    """
    try:
        grammar = read(given)
    except (PromptError, UsageError) as error:
        refuse_as(param, error)
    return None if grammar is None else Form(grammar, param)


@dataclass(frozen=True)
class TextRequest:
    """Texts that a client wants.

    Args:
        prompts: what is to be gone on from, or answered.
        max_tokens: largest number of new tokens of each text; None: `usual_tokens`.
        usual_tokens: the same where nothing was asked for, at most what the server allows; None:
            that.
        drawing: fields of `Sampling` that were given; the model's own hold for the rest.
        stop: texts before the first of which each text ends.
        choices: number of texts for each prompt.
        top_logprobs: number of the likeliest tokens to report beside each one; None: report none.
        form: form that the answer must have; None: any.
        tools: tools that the model may call; None: none.
    """

    prompts: tuple[Prompt, ...]
    max_tokens: int | None = None
    usual_tokens: int | None = None
    drawing: Mapping[str, float | int] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    choices: int = 1
    top_logprobs: int | None = None
    form: Form | None = None
    tools: Tools | None = None


def read_drawing(fields: Fields) -> dict[str, float | int]:
    """Read how tokens are drawn.

    Raises:
        ApiError: a value is out of its range.
    """
    found: dict[str, float | int | None] = {
        "temperature": fields.number("temperature", 0, _MOST_TEMPERATURE),
        "top_p": fields.number("top_p", 1e-9, 1),
        "min_p": fields.number("min_p", 0, 1),
        "top_k": fields.whole("top_k", 0, _MOST_TOP_K),
        "repetition_penalty": fields.number("repetition_penalty", 1e-3, 1e3),
        "seed": fields.whole("seed", 0, MOST_SEED),
    }
    return {key: value for key, value in found.items() if value is not None}


def read_stop(fields: Fields) -> tuple[str, ...]:
    """Read the texts that end an answer.

    Raises:
        ApiError: they are something else.
    """
    return fields.texts("stop", MOST_STOPS)


def read_choices(fields: Fields) -> int:
    """Read how many texts are wanted.

    Raises:
        ApiError: it is no such number.
    """
    return fields.whole("n", 1, MOST_CHOICES) or 1


def read_top_logprobs(fields: Fields, key: str) -> int:
    """Read how many of the likeliest tokens are wanted.

    Raises:
        ApiError: it is no such number.
    """
    return fields.whole(key, 0, MOST_TOP_LOGPROBS) or 0


def refuse_unread(fields: Fields) -> None:
    """Refuse what would change the answer and is not read.

    Raises:
        ApiError: names the parameter.
    """
    for key in ("frequency_penalty", "presence_penalty"):
        if fields.number(key, -2, 2):
            refuse_unsupported(key, "give repetition_penalty instead, or 0")
    if fields.child("logit_bias").raw:
        refuse_unsupported("logit_bias", "leave it out")
    if fields.items("functions", MOST_TOOLS):
        refuse_unsupported("functions", "give tools instead")
    if fields.raw.get("function_call", "auto") not in ("auto", "none"):
        refuse_unsupported("function_call", "give tool_choice instead")
