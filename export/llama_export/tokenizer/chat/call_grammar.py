"""A grammar that lets a model write one call of an offered tool, in its own form, and nothing else.

The grammar is Lark's, as llguidance reads it, with a JSON schema for each tool. The module makes a
text; it neither compiles it nor knows what draws tokens by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llama_export.tokenizer.chat.call_form import CallForm, Kind

_TAGS, _MARK = ("<tool_call>", "</tool_call>"), "[TOOL_CALLS]"
# As templates write JSON: one blank behind commas and colons, so that blanks have an end.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_DEFINITIONS = ("$defs", "definitions")
# Where one of these stands beside the properties, others may be meant to be there.
_OPEN = frozenset({"$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties"}) | {
    "additionalProperties",
    "unevaluatedProperties",
}


@dataclass(frozen=True)
class CallableTool:
    """What a grammar needs of a tool.

    Args:
        name: its name, of letters, digits, underscores, hyphens and full stops.
        parameters: JSON schema of its arguments, an object.
    """

    name: str
    parameters: Mapping[str, object]


def call_grammar(
    form: CallForm, tools: Sequence[CallableTool], special_tokens: Mapping[str, int]
) -> str:
    """Return a grammar of one call.

    Args:
        form: form in which the model writes calls.
        tools: tools that may be called, at least one.
        special_tokens: ids of the tokenizer's special tokens by name; a mark that is one of them is
            written as such.
    """
    names = [f"call_{index}" for index in range(len(tools))]
    before, after = _around(form, special_tokens)
    rules = [f"start: {before}call{after}", f"call: {' | '.join(names)}"]
    for name, tool in zip(names, tools, strict=True):
        if form.kind is Kind.PYTHONIC:
            rules += _pythonic(name, tool)
        else:
            rules.append(f"{name}: {_json(_call_schema(form, tool))}")
    return "\n".join(["%llguidance {}", *rules]) + "\n"


def _around(form: CallForm, special_tokens: Mapping[str, int]) -> tuple[str, str]:
    """Return what a grammar has before and after a call."""
    if form.kind is Kind.JSON:
        return "", ""
    if form.kind is Kind.PYTHONIC:
        return '"[" ', ' "]"'
    marks = (_MARK,) if form.kind is Kind.MARKED else _TAGS
    begin, *end = (
        f"<[{special_tokens[each]}]>" if each in special_tokens else _text(each) for each in marks
    )
    return (f'{begin} "\\n" ', f' "\\n" {end[0]}') if end else (f'{begin} " [" ', ' "]"')


def _call_schema(form: CallForm, tool: CallableTool) -> dict[str, object]:
    """Return the schema of a call, in which the tool's own one has moved."""
    key = form.arguments_key
    moved = _moved(_closed(tool.parameters), f"#/properties/{key}")
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, key: moved},
        "required": ["name", key],
        "additionalProperties": False,
    }


def _closed(schema: Mapping[str, object]) -> Mapping[str, object]:
    """Return a schema that allows no arguments but those that it describes; an empty one: none."""
    typed = {"type": "object", **schema}
    if schema and ("properties" not in schema or _OPEN & schema.keys()):
        return typed
    return {**typed, "additionalProperties": False}


def _moved(value: object, place: str) -> object:
    """Return a schema whose references to itself lead to where it now is."""
    if isinstance(value, Mapping):
        return {key: _reference(key, each, place) for key, each in value.items()}
    return [_moved(each, place) for each in value] if isinstance(value, list) else value


def _reference(key: str, value: object, place: str) -> object:
    if key == "$ref" and isinstance(value, str) and value.startswith("#"):
        return place + value[1:]
    return _moved(value, place)


def _pythonic(rule: str, tool: CallableTool) -> Iterator[str]:
    """Return the rules of a call such as `weather(city="Köln", days=2)`.

    The required arguments come first, and those that need not be there may follow, in the schema's
    order. Values are JSON, whose `true` and `null` are read as Python's.
    """
    properties = tool.parameters.get("properties")
    described = properties if isinstance(properties, Mapping) else {}
    required = tool.parameters.get("required")
    needed = [name for name in described if isinstance(required, list) and name in required]
    others = [name for name in described if name not in needed]
    shared = {key: tool.parameters[key] for key in _DEFINITIONS if key in tool.parameters}
    rules = {name: f"{rule}_{index}" for index, name in enumerate(described)}
    for name, schema in described.items():
        own = schema if isinstance(schema, Mapping) else {}
        yield f"{rules[name]}: {_text(name + '=')} {_json({**own, **shared})}"
    first = ' ", " '.join(rules[name] for name in needed)
    more = "".join(f' (", " {rules[name]})?' for name in others)
    if needed or not others:
        arguments = first + more
    else:
        # Whichever comes first has no comma before it.
        ends = (
            rules[name] + "".join(f' (", " {rules[each]})?' for each in others[index + 1 :])
            for index, name in enumerate(others)
        )
        arguments = f"({' | '.join(ends)})?"
    yield f'{rule}: {_text(tool.name + "(")} {arguments} ")"'


def _text(text: str) -> str:
    return json.dumps(text)


def _json(schema: Mapping[str, object]) -> str:
    return f"%json {json.dumps({'x-guidance': _SPACING, **schema})}"
