"""Parts of OpenAI's answers that its protocols share: ids, usage, chances of tokens.

It knows shapes; it does not know HTTP.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llama_export.serving.catalogue import Served
from llama_export.serving.guides import TokenChance
from llama_export.serving.job import Job, TextEnd
from llama_export.serving.refusals import ApiError
from llama_export.serving.transport import sse
from llama_export.tokenizer.tokenizer import Tokenizer

_DONE = b"data: [DONE]\n\n"
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Heading:
    """What every part of one answer repeats.

    Args:
        prefix: beginning of its id.
        served: the bundle that answers.
    """

    prefix: str
    served: Served
    id: str = field(init=False)
    created: int = field(init=False)

    def __post_init__(self) -> None:
        """Choose an id."""
        object.__setattr__(self, "id", new_id(self.prefix))
        object.__setattr__(self, "created", int(time.time()))

    def to_json(self, kind: str) -> dict[str, object]:
        """Return it for an object of a kind, such as "chat.completion"."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.served.id,
            "system_fingerprint": self.served.fingerprint,
        }


def new_id(prefix: str) -> str:
    """Return an id that was never there."""
    return f"{prefix}{secrets.token_hex(12)}"


def finish_reason(end: TextEnd) -> str:
    """Return OpenAI's word for why a text ended."""
    return "length" if end.is_cut else "stop"


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens of a whole request.

    Args:
        prompt: tokens of its prompts, each once.
        cached: how many of them needed no reading.
        written: tokens of all texts.
        drafted: how many tokens were run ahead of the texts, with speculation.
        accepted: how many of these the texts went on with.
    """

    prompt: int
    cached: int
    written: int
    drafted: int = 0
    accepted: int = 0

    @classmethod
    def of(cls, job: Job) -> Usage:
        """Count the tokens of a request's texts, of those that broke off too."""
        figures = dict(job.figures)  # the worker may add to them meanwhile
        firsts = [each for index, each in figures.items() if index % job.request.choices == 0]
        return cls(
            sum(each.prompt_tokens for each in firsts),
            sum(each.reused_tokens for each in firsts),
            sum(each.new_tokens for each in figures.values()),
            sum(each.drafted_tokens for each in figures.values()),
            sum(each.accepted_tokens for each in figures.values()),
        )

    def to_json(self) -> dict[str, object]:
        """Return it as completions have it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.written,
            "total_tokens": self.prompt + self.written,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


def stream_end(heading: Mapping[str, object], usage: Usage | None) -> bytes:
    """Return the end of a stream of completions: numbers of tokens, where wanted, and the mark."""
    if usage is None:
        return _DONE
    return sse({**heading, "choices": [], "usage": usage.to_json()}) + _DONE


def stream_fault(error: ApiError) -> bytes:
    """Return an error as the end of a stream of completions."""
    return sse(error.to_json()) + _DONE


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """Return the text of a token by itself; U+FFFD where it is a part of a character."""
    name = tokenizer.token_name(token_id)
    if name is not None:
        return name
    decoder = tokenizer.stream_decoder(continues=True)
    return decoder.push(token_id) + decoder.flush()


def chat_logprobs(tokenizer: Tokenizer, chances: Sequence[TokenChance]) -> dict[str, object]:
    """Return chances of tokens as a chat's answer has them."""
    content = [
        {
            **_entry(tokenizer, each.token_id, each.logprob),
            "top_logprobs": [_entry(tokenizer, *pair) for pair in each.likeliest],
        }
        for each in chances
    ]
    return {"content": content, "refusal": None}


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, object]:
    text = token_text(tokenizer, token_id)
    # Of a part of a character there is no text; which bytes it has, no tokenizer here says.
    known = None if _REPLACEMENT in text else list(text.encode())
    return {"token": text, "logprob": logprob, "bytes": known}


def text_logprobs(
    tokenizer: Tokenizer, chances: Sequence[TokenChance], offset: int
) -> tuple[dict[str, object], int]:
    """Return chances of tokens as a completion has them, and the offset of the next token.

    Args:
        tokenizer: tokenizer of the model.
        chances: chances of some tokens.
        offset: number of characters before them.
    """
    tokens, offsets = [], []
    for each in chances:
        tokens.append(token_text(tokenizer, each.token_id))
        offsets.append(offset)
        offset += len(tokens[-1])
    found = {
        "tokens": tokens,
        "token_logprobs": [each.logprob for each in chances],
        "top_logprobs": [
            {token_text(tokenizer, token): logprob for token, logprob in each.likeliest}
            for each in chances
        ],
        "text_offset": offsets,
    }
    return found, offset
