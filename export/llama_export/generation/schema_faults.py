"""Where in a JSON schema a fault is: the smallest part that has the same fault by itself.

The library that reads schemas says what is wrong, and not where. It knows the keywords that hold
schemas, and asks whoever gave it a schema what is wrong with a part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Parts that are looked at: a schema of thousands is answered in a moment, then without a place.
_MOST_PARTS = 200
# Characters that are read for it, of all the parts together: a quarter of a second.
_MOST_READ = 2**22
_LISTED = ("prefixItems", "anyOf", "oneOf", "allOf")
_SINGLE = ("items", "additionalProperties", "not", "contains", "propertyNames")
_DEFINITIONS = ("$defs", "definitions")
_NAMED = ("properties", "patternProperties", *_DEFINITIONS)


def place_of_fault(text: str, fault_of: Callable[[str], str]) -> str:
    """Return where the fault of a schema is, as a JSON pointer; "" where that is not known.

    Args:
        text: the schema, as JSON.
        fault_of: function that returns what is wrong with a schema; "" for nothing.
    """
    schema = json.loads(text)
    fault = _plain(fault_of(text))
    shared = {key: schema[key] for key in _DEFINITIONS if key in schema}
    place, left, unread = "", _MOST_PARTS, _MOST_READ
    descends = bool(fault)
    while descends:
        descends = False
        for name, part in _parts(schema):
            text = json.dumps({**shared, **part}, ensure_ascii=False)
            left, unread = left - 1, unread - len(text)
            if left < 0 or unread < 0:
                return place
            if _plain(fault_of(text)) == fault:
                place, schema, descends = f"{place}/{name}", part, True
                break
    return place


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the schemas that a schema holds, with the rest of their pointers."""
    # What is referred to comes first: a fault there is in each part that refers to it.
    for key, value in sorted(schema.items(), key=lambda each: each[0] not in _DEFINITIONS):
        inner: list[tuple[str, object]] = []
        if key in _NAMED and isinstance(value, Mapping):
            inner = [(f"{key}/{_escaped(name)}", each) for name, each in value.items()]
        elif key in _LISTED and isinstance(value, list):
            inner = [(f"{key}/{index}", each) for index, each in enumerate(value)]
        elif key in _SINGLE:
            inner = [(key, value)]
        for name, each in inner:
            if isinstance(each, Mapping):
                yield name, each


def _plain(fault: str) -> str:
    """Leave out where the library was when it met a fault behind a reference."""
    return "\n".join(
        line for line in fault.splitlines() if not line.lstrip().startswith("while processing")
    )


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
