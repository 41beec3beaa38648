"""A bundle that writes text: what `llama_export.load` returns.

Every call is given its whole text, and no call changes what another one returns; what the KV cache
already holds of a text is not read again. The module brings a session, a tokenizer and a sampler
together, and knows nothing of terminals. A conversation that remembers its turns is in
`conversation`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from llama_export.bundle.manifest import Manifest
from llama_export.errors import PromptError, UsageError
from llama_export.generation.cached_session import CachedSession
from llama_export.generation.classification import (
    Classification,
    Labels,
    classify_prompt,
    write_prompt,
)
from llama_export.generation.decoding import Generation, Guide
from llama_export.generation.defaults import COMPLETION_TOKENS, THRESHOLD
from llama_export.generation.grammar import Grammar, as_grammar
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.generation.sampling import Sampling
from llama_export.generation.session_file import BundleIdentity
from llama_export.generation.speculation import begin_text
from llama_export.generation.structured import GrammarCompiler, GrammarGuide
from llama_export.generation.text_stream import Completion, TextStream
from llama_export.generation.validation import as_messages, as_prompt, require_whole
from llama_export.llama.config import LlamaConfig
from llama_export.llama.intermediates import FloatArray
from llama_export.targets import registry
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.tokenizer import encode_text

# Either a text, which gets the tokenizer's prefix in front, or token ids, taken as they are.
Prompt = str | Sequence[int]
# What a new text must be: JSON that obeys a schema, or a text that obeys a `Grammar`.
Schema = Mapping[str, object] | Grammar


class TextSession(CachedSession):
    """A loaded bundle with one KV cache; a context manager that closes itself.

    Once it is closed, every call that needs the artifact is refused with a `UsageError`.

    Args:
        cache: KV cache of the artifact.
        chat_format: how its dialogs are written, with its tokenizer.
        manifest: manifest of the bundle.
        for_chat: whether the model was trained to answer.
        sampling: how the model wants its tokens drawn.
    """

    def __init__(
        self,
        cache: PrefixCache,
        chat_format: ChatFormat,
        manifest: Manifest,
        *,
        for_chat: bool,
        sampling: Sampling,
    ) -> None:
        super().__init__(cache, BundleIdentity.of(manifest))
        self.chat_format = chat_format
        self.tokenizer = chat_format.tokenizer
        self.name = manifest.model.name
        self.for_chat = for_chat
        self.sampling = sampling
        self._manifest = manifest
        stops = manifest.tokenizer["stop_token_ids"]
        self._grammars = GrammarCompiler(self.tokenizer, stops, cache.drawable_ids)

    def __enter__(self) -> TextSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        held = f"{self.position} of {self.max_context} tokens"
        return f"<TextSession {self.identity.name}: {'closed' if self.is_closed else held}>"

    @property
    def config(self) -> LlamaConfig:
        """The model's shape."""
        return LlamaConfig.from_hf(self._manifest.model.config, where="manifest.json")

    @property
    def substitute_runtime(self) -> str:
        """What runs the artifact here in place of its runtime; empty where that runs it."""
        found = registry.get(self._manifest.target).substitute_runtime()
        return "" if found is None else found.name

    @property
    def larger_context(self) -> str:
        """Where more positions are to be had, for the hint of an error."""
        most = self._manifest.spec.max_context
        if self.max_context < most:
            return f"a larger --context (max_context in Python): this bundle has {most} positions"
        return "an export with a larger --max-context, if the model has more"

    def encode(self, prompt: Prompt, *, parse_special: bool = False) -> list[int]:
        """Return a prompt's token ids.

        Args:
            prompt: a text, which gets the tokenizer's prefix in front, or token ids.
            parse_special: whether names of special tokens in a text become these tokens.

        Raises:
            PromptError: the prompt is empty, or neither a text nor token ids.
            TokenizerError: the text holds a lone surrogate.
        """
        given = as_prompt(prompt)
        if isinstance(given, str):
            return encode_text(self.tokenizer, given, parse_special=parse_special)
        return given

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int = COMPLETION_TOKENS,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        parse_special: bool = False,
        guide: Guide | None = None,
        on_end: Callable[[Completion], None] | None = None,
    ) -> TextStream:
        """Continue a text, piece by piece.

        A session writes one text at a time: any other call on it ends this one.

        Args:
            prompt: the whole text so far, or its token ids.
            max_tokens: largest number of new tokens.
            sampling: how tokens are drawn; None: as the model wants it, with a fresh seed.
            stop: texts before the first of which the new text ends.
            parse_special: as `encode` has it.
            guide: what each token has to obey, for this text alone; None: nothing.
            on_end: function to call with the completion, when the stream ends in any way.

        Raises:
            PromptError: the prompt is empty, longer than the context, or no prompt at all.
            UsageError: an option is out of its range, or the session is closed.
        """
        self.end_stream()
        require_whole("max_tokens", max_tokens)
        token_ids = self.encode(prompt, parse_special=parse_special)
        if len(token_ids) > self.max_context:
            message = (
                f"the prompt is {len(token_ids)} tokens long, and the context has room for "
                f"{self.max_context}"
            )
            raise PromptError(message, f"shorten it, or use {self.larger_context}")
        self.cache.keep_prefix_of(token_ids)  # refuses a closed session
        generation = Generation(
            begin_text(self.cache, max_tokens),
            token_ids,
            sampling=sampling or self.sampling,
            stop_token_ids=self._manifest.tokenizer["stop_token_ids"],
            max_tokens=max_tokens,
            vocab_size=self.tokenizer.vocab_size,
            guide=guide,
        )
        # A first blank that SentencePiece would drop is a part of what a grammar asks for.
        goes_on = isinstance(prompt, str) or isinstance(guide, GrammarGuide)
        self._stream = TextStream(
            generation, self.tokenizer, stop=stop, continues=goes_on, on_end=on_end
        )
        return self._stream

    def generate(
        self,
        prompt: Prompt,
        *,
        max_tokens: int = COMPLETION_TOKENS,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        parse_special: bool = False,
        schema: Schema | None = None,
        guide: Guide | None = None,
    ) -> Completion:
        """Continue a text at once; arguments and errors are those of `stream`, and of `guide`.

        In place of a `guide`, `schema` is what the new text has to be: JSON that obeys a JSON
        schema, or a text that obeys a `Grammar`. What `max_tokens` or a stop text cuts short, as
        its `stop_reason` says, is not whole.
        """
        if schema is not None:
            if guide is not None:
                message = "there are two things to obey: a schema and a guide"
                raise UsageError(message, "give one of them")
            guide = self.guide(schema)
        return self.stream(
            prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stop,
            parse_special=parse_special,
            guide=guide,
        ).finish()

    def guide(self, schema: Schema) -> GrammarGuide:
        """Return what makes one text obey a schema; it is compiled once, for forks too.

        Args:
            schema: a JSON schema, or a `Grammar`.

        Raises:
            BackendUnavailableError: llguidance is not installed.
            UsageError: the schema is wrong, or uses what is not supported.
        """
        return self._grammars.guide(as_grammar(schema))

    def chat(
        self,
        messages: Sequence[Message | Mapping[str, object]],
        *,
        max_tokens: int = COMPLETION_TOKENS,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        tools: Sequence[Mapping[str, object]] = (),
        template_arguments: Mapping[str, object] | None = None,
        schema: Schema | None = None,
    ) -> Completion:
        """Answer the last message of a dialog, which is given whole.

        The model's own chat template writes it. A base model has none: it goes on with the texts.

        Args:
            messages: messages, each a `Message` or a mapping `{"role": ..., "content": ...}`.
            max_tokens: largest number of tokens of the answer.
            sampling: how tokens are drawn; None: as the model wants it, with a fresh seed.
            stop: texts before the first of which the answer ends.
            tools: JSON schemas of functions that the model may call.
            template_arguments: more variables of the template, such as `date_string`.
            schema: what the answer has to be, as `generate` has it.

        Raises:
            PromptError: there is no message, the template refuses one, or they do not fit.
            ChatTemplateError: the template is no Jinja, or was stopped.
            UsageError: an option is out of its range, or the session is closed.
        """
        dialog = Dialog(as_messages(messages), tools=tools, arguments=template_arguments or {})
        ids = self.chat_format.encode(dialog)
        return self.generate(
            ids, max_tokens=max_tokens, sampling=sampling, stop=stop, schema=schema
        )

    def classify(
        self,
        messages: Sequence[Message | Mapping[str, object]],
        *,
        threshold: float = THRESHOLD,
        labels: Labels | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> Classification:
        """Judge the last message of a dialog, with a model that was trained to: Llama Guard.

        Args:
            messages: messages of the user and the assistant, as `chat` takes them.
            threshold: probability from which on it counts as unsafe, from 0 to 1.
            labels: words that answers begin with; None: Llama Guard's.
            template_arguments: more variables of the template, such as `categories` or
                `excluded_category_keys`.

        Raises:
            PromptError: as `chat`; or the model's template lists no categories.
            ChatTemplateError, UsageError: as `chat`; or the threshold is no probability.
        """
        token_ids, categories = write_prompt(
            self.chat_format, as_messages(messages), template_arguments
        )
        return classify_prompt(self, token_ids, categories, threshold=threshold, labels=labels)

    def logits(self, prompt: Prompt) -> FloatArray:
        """Return the logits `[V]` of the token after a text, as an array of your own.

        Args:
            prompt: the text, or its token ids.

        Raises:
            PromptError: the prompt is empty, or longer than the context.
            UsageError: the session is closed.
        """
        self.end_stream()
        token_ids = self.encode(prompt)
        shared = self.cache.keep_prefix_of(token_ids)
        result: FloatArray = self.cache.prefill(token_ids[shared:])[: self.tokenizer.vocab_size]
        return result.copy()

    def fork(self) -> TextSession:
        """Return a second session with a copy of the cache; the weights are shared.

        Each of them is closed by itself.
        """
        self.end_stream()
        other = copy.copy(self)
        other.cache = self.cache.fork()
        return other
