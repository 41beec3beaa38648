"""Random JSON schemas that a small model can fulfil within a few hundred tokens, from a seed."""

from __future__ import annotations

import random
from typing import Any

_NAMES = ("name", "age", "tags", "where", "is open", "größe", "a/b", "price", "x", 'quo"te', "名")
_WORDS = (
    "red",
    "green",
    "blue",
    "",
    "two words",
    "naïve",
    'a "quote"',
    "back\\slash",
    "日本",
    "\n",
)
_PATTERNS = (
    "[a-z]{1,8}",
    "[0-9]{4}-[0-9]{2}",
    "(yes|no|maybe)",
    "[A-Z][a-zé]{0,5}",
    "#[0-9a-f]{6}",
)
_FORMATS = ("date", "ipv4", "uuid")  # a time may have any number of digits


def random_schema(seed: int) -> dict[str, Any]:
    """Return an object's or an array's schema, which is a JSON schema of draft 2020-12."""
    source = random.Random(seed)
    made = _object(source, 2) if source.random() < 0.8 else _array(source, 2)
    if source.random() < 0.2:
        made = {**made, "$defs": {"part": _value(source, 0)}}
        if "properties" in made:
            made["properties"]["of"] = {"$ref": "#/$defs/part"}
            made["required"] = [*made["required"], "of"]
    return made


def _value(source: random.Random, levels: int) -> dict[str, Any]:
    makers = [_text, _text, _whole, _number, _choice, _plain]
    if levels:
        makers += [_object, _array, _either]
    return source.choice(makers)(source, levels)


def _object(source: random.Random, levels: int) -> dict[str, Any]:
    names = source.sample(_NAMES, source.randint(0, 4))
    properties = {name: _value(source, levels - 1) for name in names}
    required = [name for name in names if source.random() < 0.7]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _array(source: random.Random, levels: int) -> dict[str, Any]:
    least = source.randint(0, 2)
    made = {"type": "array", "items": _value(source, levels - 1), "minItems": least}
    made["maxItems"] = least + source.randint(0, 2)
    if made["maxItems"] and source.random() < 0.3:
        made["prefixItems"] = [_value(source, 0)]
    return made


def _either(source: random.Random, levels: int) -> dict[str, Any]:
    return {"anyOf": [_value(source, levels - 1), _value(source, levels - 1)]}


def _text(source: random.Random, levels: int) -> dict[str, Any]:
    kind = source.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": f"^{source.choice(_PATTERNS)}$"}
    if kind == 1:
        return {"type": "string", "format": source.choice(_FORMATS)}
    least = source.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + source.randint(0, 10)}


def _whole(source: random.Random, levels: int) -> dict[str, Any]:
    least = source.randint(-200, 200)
    made = {"type": "integer", "minimum": least, "maximum": least + source.randint(5, 2000)}
    return made | ({"multipleOf": source.choice((1, 2, 5))} if source.random() < 0.3 else {})


def _number(source: random.Random, levels: int) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "maximum": source.randint(1, 90), "multipleOf": 0.25}


def _choice(source: random.Random, levels: int) -> dict[str, Any]:
    values = [*_WORDS, 0, -1, 2.5, True, None, [], {"a": 1}]
    if source.random() < 0.3:
        return {"const": source.choice(values)}
    return {"enum": source.sample(values, source.randint(1, 5))}


def _plain(source: random.Random, levels: int) -> dict[str, Any]:
    return {"type": source.choice(("boolean", "null", ["boolean", "null"]))}
