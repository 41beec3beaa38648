"""What a text must obey: a JSON schema, a regular expression, or the rules of a grammar.

It knows their texts and what a request may ask for. It knows no tokenizer, and not the library
that follows a grammar.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from llama_export.errors import UsageError

# Schemas come from strangers too: what is larger is refused before anything reads it.
MOST_CHARACTERS = 2**18
_MOST_VALUES, _MOST_LEVELS = 20_000, 64
_SCHEMA_HINT = 'give a JSON schema, such as {"type": "object", "properties": {...}}'


class GrammarKind(Enum):
    """What the text of a grammar is; the value is what a message calls it."""

    SCHEMA = "JSON schema"
    REGEX = "regular expression"
    RULES = "grammar"


@dataclass(frozen=True)
class Grammar:
    """What the whole of a text must obey; made by one of `schema`, `regex` and `rules`.

    Args:
        kind: what `text` is.
        text: the schema as JSON, the expression, or the rules.

    Raises:
        UsageError: the text is empty, or too long.
    """

    kind: GrammarKind
    text: str

    def __post_init__(self) -> None:
        """Refuse what nothing could be made of."""
        _require_text(f"the {self.kind.value}", self.text)

    @classmethod
    def schema(cls, schema: object) -> Grammar:
        """Ask for JSON.

        Args:
            schema: a JSON schema as Python has it, such as a pydantic model's
                `model_json_schema()`. An object's properties come in the schema's order.

        Raises:
            UsageError: it is no JSON schema, or too large.
        """
        given = {} if schema is True else schema
        if not isinstance(given, Mapping):
            message = f"the JSON schema: expected an object, found {schema!r:.80}"
            raise UsageError(message, _SCHEMA_HINT)
        _require_json(given)
        text = json.dumps(given, ensure_ascii=False, separators=(",", ":"), default=_as_dict)
        return cls(GrammarKind.SCHEMA, text)

    @classmethod
    def any_object(cls) -> Grammar:
        """Ask for any JSON object."""
        return cls.schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Ask for a text that a regular expression matches as a whole.

        Args:
            pattern: the expression, in the syntax of Rust's `regex`: it looks neither ahead nor
                back, and refers to no group.

        Raises:
            UsageError: it is empty or too long.
        """
        return cls(GrammarKind.REGEX, pattern)

    @classmethod
    def rules(cls, text: str) -> Grammar:
        """Ask for a text of a context-free language.

        Args:
            text: rules as Lark has them, with `start` the first, or as llama.cpp has them (GBNF),
                with `root`.

        Raises:
            UsageError: it is empty or too long.
        """
        return cls(GrammarKind.RULES, text)


def as_grammar(value: object) -> Grammar:
    """Return what a caller asks for: a `Grammar`, or a JSON schema.

    Raises:
        UsageError: it is neither.
    """
    return value if isinstance(value, Grammar) else Grammar.schema(value)


def requested_grammar(response_format: object) -> Grammar | None:
    """Return what a `response_format` of OpenAI's protocol asks for; None: any text.

    Args:
        response_format: None, or `{"type": "text"}`, `{"type": "json_object"}`, `{"type":
            "json_schema", "json_schema": {"schema": {...}}}`, or the last one with the schema
            beside its type, as `/v1/responses` has it.

    Raises:
        UsageError: it is something else, or its schema is none.
    """
    if response_format is None:
        return None
    match response_format:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return Grammar.any_object()
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return Grammar.schema(schema)
        case {"type": "json_schema", "schema": schema}:
            return Grammar.schema(schema)
    message = f"the form: expected a type that is known, found {response_format!r:.80}"
    hint = 'give "text", "json_object", or "json_schema" with {"json_schema": {"schema": {...}}}'
    raise UsageError(message, hint)


def ollama_grammar(wanted: object) -> Grammar | None:
    """Return what `format` of ollama's protocol asks for; None: any text.

    Args:
        wanted: None or "", "json", or a JSON schema.

    Raises:
        UsageError: it is something else.
    """
    if wanted is None or wanted == "":
        return None
    return Grammar.any_object() if wanted == "json" else Grammar.schema(wanted)


def _require_text(name: str, text: object) -> None:
    """Refuse what no grammar could be made of.

    Raises:
        UsageError: it is no text, empty, or too long.
    """
    if not isinstance(text, str):
        message = f"{name}: expected a text, found {text!r:.80}"
        raise UsageError(message)
    if not text.strip():
        message = f"{name} is empty"
        raise UsageError(message, "leave it out where any text will do")
    if len(text) > MOST_CHARACTERS:
        message = f"{name} has {len(text)} characters, expected at most {MOST_CHARACTERS}"
        raise UsageError(message, "ask for less at once")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        message = f"{name} holds a lone surrogate, which is no character"
        raise UsageError(message, "read it as UTF-8") from None


def _as_dict(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _require_json(schema: Mapping[object, object]) -> None:
    """Refuse values that are no JSON, and a schema that holds itself or more than is sensible.

    Raises:
        UsageError: the schema is one of these.
    """
    waiting: list[tuple[object, int]] = [(schema, 0)]
    count = 0
    while waiting:
        value, level = waiting.pop()
        count += 1
        if count > _MOST_VALUES or level > _MOST_LEVELS:
            message = (
                f"the JSON schema has more than {_MOST_VALUES} values or {_MOST_LEVELS} levels"
            )
            raise UsageError(message, "let parts refer to each other with $ref")
        waiting += [(each, level + 1) for each in _parts(value)]


def _parts(value: object) -> Iterator[object]:
    """Yield what a value of JSON holds.

    Raises:
        UsageError: it is no value of JSON.
    """
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if not odd:
            yield from value.values()
            return
        message = f"the JSON schema: expected texts as keys, found {odd[0]!r:.80}"
        raise UsageError(message, _SCHEMA_HINT)
    if isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, float) and not math.isfinite(value):
        message = f"the JSON schema: {value} is no number of JSON"
        raise UsageError(message, _SCHEMA_HINT)
    elif value is not None and not isinstance(value, str | int | float):
        message = f"the JSON schema: expected values of JSON, found {value!r:.80}"
        raise UsageError(message, _SCHEMA_HINT)
