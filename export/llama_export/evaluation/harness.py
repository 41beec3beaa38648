"""A bundle as a model of lm-eval's harness.

It answers what a task asks: how likely a continuation is, how likely a whole text is, and what the
model writes. Texts become tokens as lm-eval's own adapter for transformers makes them, so that the
numbers can be held against those of a checkpoint. It knows lm-eval's requests and a session; it
chooses no task and adds nothing up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from llama_export.errors import PromptError, UsageError
from llama_export.evaluation.perplexity import first_token
from llama_export.generation.sampling import Sampling
from llama_export.generation.scoring import TokenScorer, rolling_windows
from llama_export.generation.text_session import TextSession
from llama_export.generation.validation import as_messages
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.tokenizer import encode_text

_SYSTEM = "system"
# Most tokens of an answer, where a task does not say.
_GENERATED_TOKENS = 256
_SEED = 1234  # of lm-eval, for tasks that draw their answers
_DRAWING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_NO_MATTER = ("until", "do_sample", "max_gen_toks", *_DRAWING)

# Texts, context, continuation: a request as `TemplateLM` passes it on.
_Scored = tuple[tuple[str, str], list[int], list[int]]


class BundleLM(TemplateLM):
    """A session that answers lm-eval's requests; it takes the session's cache over.

    Args:
        session: session whose head is whole.
        on_progress: function that takes how many requests of a kind are done, and of how many.

    Raises:
        TokenizerError: no token can stand before a text.
    """

    def __init__(self, session: TextSession, on_progress: Callable[[int, int], None]) -> None:
        super().__init__()
        self._session = session
        self._scorer = TokenScorer(session.cache)
        self._on_progress = on_progress
        self.shortened = 0
        """Number of requests whose context lost its beginning, because it did not fit."""

    @property
    def tokenizer_name(self) -> str:
        """Return what a cache of prompts is told apart by."""
        return str(self._session.identity)

    @property
    def eot_token_id(self) -> int:
        """Return the token that ends a text."""
        found = self._session.tokenizer.eos_token_id
        return self.prefix_token_id if found is None else found

    @property
    def prefix_token_id(self) -> int:
        """Return the token before a text that has no context."""
        return first_token(self._session)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        """Encode a text; the names of special tokens become their ids, as in transformers."""
        tokenizer = self._session.tokenizer
        if add_special_tokens is False:
            return tokenizer.encode_rendered(string)
        return encode_text(tokenizer, string, parse_special=True)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether it is the greedy one."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self,
        requests: Sequence[_Scored],
        **kwargs: object,
    ) -> list[tuple[float, bool]]:
        # In this order each request has the most in common with the one before it.
        order = sorted(range(len(requests)), key=lambda at: [*requests[at][1], *requests[at][2]])
        found: dict[int, tuple[float, bool]] = {}
        for at in order:
            texts, context, continuation = requests[at]
            room = self._session.max_context + 1
            self.shortened += len(context) + len(continuation) > room
            scores = self._scorer.score(context, continuation)
            found[at] = scores.total, scores.is_greedy
            self.cache_hook.add_partial("loglikelihood", texts, found[at])
            self._on_progress(len(found), len(requests))
        return [found[at] for at in range(len(requests))]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[float]:
        """Return the log-likelihood of each whole text, in windows of the context's length."""
        found: list[float] = []
        for request in requests:
            windows = rolling_windows(
                self.tok_encode(request.args[0]),
                prefix=self.prefix_token_id,
                length=self._session.max_context,
            )
            found.append(sum(self._scorer.score(*window).total for window in windows))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
            self._on_progress(len(found), len(requests))
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """Return what the model writes after each prompt.

        Raises:
            PromptError: a task wants longer answers than the context holds.
            UsageError: a task wants answers drawn in a way that is not known here.
        """
        prompts = [self.tok_encode(request.args[0]) for request in requests]
        found: dict[int, str] = {}
        for at in sorted(range(len(requests)), key=lambda each: prompts[each]):
            request = requests[at]
            found[at] = self._write(prompts[at], request.args[1], str(request.task_name))
            self.cache_hook.add_partial("generate_until", request.args, found[at])
            self._on_progress(len(found), len(requests))
        return [found[at] for at in range(len(requests))]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Write a dialog by the bundle's own template, as lm-eval does with transformers'.

        Without a generation prompt the last message is one that is to be gone on with. A system
        message that the template refuses is left out.
        """
        try:
            return self._render(chat_history, add_generation_prompt)
        except PromptError:
            others = [each for each in chat_history if each["role"] != _SYSTEM]
            if len(others) == len(chat_history):
                raise
            return self._render(others, add_generation_prompt)

    def _render(self, history: list[dict[str, str]], add_generation_prompt: bool) -> str:
        dialog = Dialog(as_messages(history), add_generation_prompt=add_generation_prompt)
        text = self._session.chat_format.render(dialog)
        return text if add_generation_prompt else _open_ended(text, history[-1]["content"])

    def _write(self, prompt: list[int], wanted: Mapping[str, Any], task: str) -> str:
        options = normalize_gen_kwargs(dict(wanted), default_max_gen_toks=_GENERATED_TOKENS)
        until = wanted.get("until") or []
        stop = [each for each in ([until] if isinstance(until, str) else until) if each]
        most, room = options["max_gen_toks"], self._session.max_context
        if most >= room:
            message = f"{task} wants answers of {most} tokens, and the context has room for {room}"
            raise PromptError(message, "score a bundle with a larger context")
        if len(prompt) > room - most:
            self.shortened += 1
            prompt = prompt[most - room :]
        completion = self._session.generate(
            prompt, max_tokens=most, sampling=_sampling(options, task), stop=stop
        )
        return self._text(completion.token_ids, stop)

    def _text(self, token_ids: Sequence[int], stop: Sequence[str]) -> str:
        """Decode an answer up to where it ends; special tokens are none of it."""
        tokenizer = self._session.tokenizer
        special = frozenset(tokenizer.special_tokens.values())
        text = tokenizer.decode([token for token in token_ids if token not in special])
        for each in stop:
            text = text.split(each)[0]
        return text


def _sampling(options: Mapping[str, Any], task: str) -> Sampling:
    """Return how a task wants its answers drawn.

    Raises:
        UsageError: it wants something that is not known here.
    """
    beams = options.get("num_beams", 1)
    unknown = sorted(set(options) - {*_NO_MATTER, "num_beams"})
    if unknown or beams != 1:
        name = unknown[0] if unknown else "num_beams"
        message = f"{task} asks for {name} = {options[name]!r:.80}, which is not known here"
        raise UsageError(
            message, "take the key out of its generation_kwargs, or leave the task out"
        )
    if not options.get("do_sample"):
        return Sampling(temperature=0, seed=_SEED)
    drawn = {name: options[name] for name in _DRAWING if options.get(name) is not None}
    return Sampling(
        **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0} | drawn, seed=_SEED
    )


def _open_ended(text: str, last: str) -> str:
    """Cut a dialog behind its last message, so that the model goes on with it.

    Raises:
        PromptError: the template did not write that message as it is.
    """
    before, found, _ = text.rpartition(last.strip())
    if not found:
        message = (
            "the chat template changes the beginning of an answer, so it cannot be gone on with"
        )
        raise PromptError(message, "score the task without --chat-template")
    # Blanks at its end are kept where the template kept them.
    whole = last.lstrip()
    return before + (whole if text[len(before) :].startswith(whole) else found)
