"""Text that cannot break a schema or a grammar: guides over one bundle's own tokenizer.

llguidance follows the grammar, byte by byte; here is which bytes each token id stands for, what it
may cost, and what a refusal says. It knows no session, and draws no token.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from llama_export.errors import BackendUnavailableError, TokenizerError, UsageError
from llama_export.generation.grammar import Grammar, GrammarKind
from llama_export.generation.schema_faults import place_of_fault
from llama_export.llama.intermediates import FloatArray
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.printable import clipped

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

# Between the parts of JSON: a blank, or a line break and its indent. A weak model that may write
# any number of blanks writes nothing else.
_JSON_BLANKS = r"[ ]|\n[ ]{0,20}"
# Grammars that are kept compiled; one takes some kilobytes as a rule, and 100 MB at the very most.
_MOST_KEPT = 16
_HINTS = {
    GrammarKind.SCHEMA: (
        "change the schema, or let its unknown keywords and formats be ignored with "
        '"x-guidance": {"lenient": true} at its top'
    ),
    GrammarKind.REGEX: "use the syntax of Rust's regex, which looks neither ahead nor back",
    GrammarKind.RULES: "use Lark's syntax with a rule `start`, or llama.cpp's GBNF with `root`",
}
# A list of all special tokens, which are hundreds.
_OTHER_TOKENS = re.compile(r"; following special tokens are available: \u27e6.*\u27e7")
_LONGEST_FAULT = 800
# What llguidance says where a grammar goes on, and no token does.
_NO_TOKEN = "NoExtensionBias"
_TOO_COMPLEX = "ask for fewer choices at once, or for shorter repetitions"


def require_llguidance() -> None:
    """Refuse to follow a grammar where llguidance is missing.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    if importlib.util.find_spec("llguidance") is None:
        message = "text that obeys a schema or a grammar needs llguidance, which is not installed"
        raise BackendUnavailableError(
            message, "pip install 'llama-export[structured]', or llguidance alone"
        )


def check_grammar(grammar: Grammar) -> None:
    """Refuse a grammar that cannot be followed, before anything is loaded.

    Special tokens that rules name are only known once there is a tokenizer.

    Raises:
        BackendUnavailableError: llguidance is not installed.
        UsageError: the grammar is wrong, or uses what is not supported.
    """
    fault = _fault(grammar)
    if fault:
        raise _refused(grammar, fault)


def rehearse(grammar: Grammar) -> None:
    """Do what following a grammar costs at first, over bytes and not over a vocabulary.

    The library's limits do not bound what it costs to compile a grammar: intersected patterns can
    take minutes and gigabytes. Whoever takes grammars from strangers calls this where it can be
    ended from outside.

    Raises:
        BackendUnavailableError: llguidance is not installed.
        UsageError: the grammar is wrong, or cannot be followed.
    """
    check_grammar(grammar)
    from llguidance import LLMatcher, LLTokenizer

    text = _library_form(grammar)
    matcher = LLMatcher(LLTokenizer("byte"), text, log_level=0, limits=_limits())
    if matcher.is_error():  # it names special tokens, which bytes do not have
        return
    matcher.compute_bitmask()
    if matcher.is_error():
        raise _refused(grammar, _first_line(matcher.get_error()))


class GrammarGuide:
    """A `Guide` that lets through what its grammar allows; for one text.

    Args:
        matcher: follows the grammar, from its beginning.
        grammar: the grammar, for messages.
    """

    def __init__(self, matcher: LLMatcher, grammar: Grammar) -> None:
        self._matcher, self._grammar = matcher, grammar

    @property
    def is_over(self) -> bool:
        """Whether the text is whole, so that nothing may follow."""
        return self._matcher.is_stopped()

    @property
    def is_whole(self) -> bool:
        """Whether the text obeys the grammar as it is; more may follow."""
        return self._matcher.is_accepting()

    def look(self, logits: FloatArray) -> FloatArray:
        """Return logits `[V]` in which what may not follow is -inf; the given ones stay.

        Raises:
            UsageError: following the grammar costs too much here, or no token can go on.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._require_sound()
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").view(np.bool_)
        result: FloatArray = np.where(allowed, logits, np.float32(-np.inf))
        if result.max() == -np.inf:
            raise self._dead_end()
        return result

    def take(self, token: int) -> None:
        """Go on by a token that was drawn.

        Raises:
            UsageError: following the grammar costs too much here.
        """
        self._matcher.consume_token(token)
        self._require_sound()

    def _dead_end(self) -> UsageError:
        message = f"no token of this model goes on as the {self._grammar.kind.value} asks"
        return UsageError(message, "ask for text that the model's vocabulary can write")

    def _require_sound(self) -> None:
        if self._matcher.is_error():
            fault = _first_line(self._matcher.get_error())
            if fault == _NO_TOKEN:
                raise self._dead_end()
            kind = self._grammar.kind.value
            message = f"the {kind} cannot be followed any further: {fault}"
            raise UsageError(message, _TOO_COMPLEX)


class GrammarCompiler:
    """Makes guides over one vocabulary; forks of a session share it, on any thread.

    A grammar is compiled once, and the vocabulary is read when the first guide is wanted.

    Args:
        tokenizer: tokenizer of the model.
        stop_token_ids: ids that end a text, and stand for none of it.
        drawable: ids that the model can draw; others are in no grammar.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop_token_ids: Collection[int], drawable: Collection[int]
    ) -> None:
        self._tokenizer, self._stops = tokenizer, sorted(stop_token_ids)
        self._drawable = drawable
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def guide(self, grammar: Grammar) -> GrammarGuide:
        """Return a guide for one text.

        Raises:
            BackendUnavailableError: llguidance is not installed.
            UsageError: the grammar is wrong, or uses what is not supported.
        """
        require_llguidance()
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = _vocabulary(self._tokenizer, self._stops, self._drawable)
            matcher = self._compiled.pop(grammar, None)
        # Outside of the lock: what takes long to compile keeps nobody else waiting.
        if matcher is None:
            matcher = self._compile(grammar, self._vocabulary)
        with self._lock:
            self._compiled[grammar] = matcher
            if len(self._compiled) > _MOST_KEPT:
                self._compiled.popitem(last=False)
            return GrammarGuide(matcher.deep_copy(), grammar)

    @staticmethod
    def _compile(grammar: Grammar, vocabulary: LLTokenizer) -> LLMatcher:
        from llguidance import LLMatcher

        text = _library_form(grammar)
        matcher = LLMatcher(vocabulary, text, log_level=0, limits=_limits())
        if matcher.is_error():
            raise _refused(grammar, matcher.get_error())
        return matcher


class _TokenBytes:
    """A tokenizer as llguidance wants one; the names are the library's.

    Args:
        tokenizer: tokenizer of the model.
        stops: ids that end a text.
        drawable: ids that the model can draw.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, stops: list[int], drawable: Collection[int]) -> None:
        decoder = tokenizer.stream_decoder(continues=True)
        known = set(drawable)
        self.tokens = [
            decoder.bytes_of(each) if each in known else b"" for each in range(tokenizer.vocab_size)
        ]
        # A stop token is never a part of the text, not even one whose name could be.
        special = {*tokenizer.special_tokens.values(), *stops} & known
        self.special_token_ids = sorted(special)
        self.eos_token_id = stops[0] if stops else None
        self._tokenizer = tokenizer
        self.library: LLTokenizer | None = None

    def __call__(self, text: str) -> list[int]:
        """Encode text that the grammar leaves no choice about; the library cannot take an error."""
        with contextlib.suppress(TokenizerError):
            ids = self._tokenizer.encode(text, continues=True)
            # Some tokenizers change their text, or put a blank before it.
            if b"".join([self.tokens[each] for each in ids]) == text.encode("utf-8"):
                return ids
        return [] if self.library is None else self.library.greedy_tokenize(text)


def _vocabulary(tokenizer: Tokenizer, stops: list[int], drawable: Collection[int]) -> LLTokenizer:
    from llguidance import LLTokenizer

    pieces = _TokenBytes(tokenizer, stops, drawable)
    # It reads whatever has the wrapper's names (`is_tokenizer_wrapper`); its type wants its own.
    made = LLTokenizer(pieces, eos_token=stops or None)  # type: ignore[arg-type]
    pieces.library = made
    return made


def _limits() -> LLParserLimits:
    """Return what a grammar of a stranger may cost: up to some 40 ms a step, and 100 MB."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_lexer_states=50_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def _library_form(grammar: Grammar) -> str:
    """Write a grammar as llguidance takes it.

    Raises:
        UsageError: it is one of llama.cpp's, and damaged.
    """
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if grammar.kind is GrammarKind.SCHEMA:
        defaults = {"whitespace_pattern": _JSON_BLANKS}
        # The library fills up the options that are left out; its type wants all of them.
        return LLMatcher.grammar_from_json_schema(grammar.text, defaults=defaults)  # type: ignore[arg-type]
    if grammar.kind is GrammarKind.REGEX:
        return LLMatcher.grammar_from_regex(grammar.text)
    if "::=" not in grammar.text:
        return LLMatcher.grammar_from_lark(grammar.text)
    try:
        return LLMatcher.grammar_from_lark(gbnf_to_lark(grammar.text))
    except Exception as error:  # noqa: BLE001 - the library's reader raises bare ones
        raise _refused(grammar, str(error)) from None


def _fault(grammar: Grammar) -> str:
    """Return what is wrong with a grammar, whatever the tokenizer; "" for nothing."""
    require_llguidance()
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(
        _library_form(grammar), limits=_limits()
    )
    return messages[0] if failed else ""


def _refused(grammar: Grammar, fault: str) -> UsageError:
    place = ""
    if grammar.kind is GrammarKind.SCHEMA:
        place = place_of_fault(grammar.text, lambda text: _fault(Grammar(grammar.kind, text)))
    where = f" at {place}" if place else ""
    message = f"the {grammar.kind.value} cannot be followed{where}: {_shown(fault)}"
    return UsageError(message, _HINTS[grammar.kind])


def _shown(fault: str) -> str:
    # A fault of an expression quotes all of it.
    plain = _OTHER_TOKENS.sub("", fault.replace("<non-verbose/>", "")).strip()
    return clipped(plain, _LONGEST_FAULT)


def _first_line(text: str) -> str:
    return _shown(text).partition("\n")[0]
