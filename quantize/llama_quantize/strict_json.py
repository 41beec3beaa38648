"""Read JSON that somebody else wrote: bounded, finite, and with one meaning only.

A key given twice, NaN, infinity, a number of more digits than any field has, and nesting that no
format needs are refused, because readers disagree about them or fall over them. It knows no key
and no file format; whoever calls it turns a `JsonFault` into an error of its own.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from llama_quantize.printable import clipped

# A tokenizer.json of 256,000 tokens is 33 MB; everything else is far smaller.
MOST_BYTES = 128 * 2**20
# Of tokenizer.json, the deepest format that is read: 9. Python itself gives up near 1000.
MOST_LEVELS = 64
# transformers writes 10^30 for "no limit"; 10^300 would not even fit into a float.
_MOST_DIGITS = 40
_NAME_LENGTH = 80


class JsonFault(ValueError):
    """Text that is no JSON, or no JSON that can be trusted; the message says where and why."""


def parse_json(content: bytes | str, *, most_bytes: int = MOST_BYTES) -> object:
    """Parse one JSON value, in time linear in its length.

    Args:
        content: text, or its bytes in UTF-8.
        most_bytes: length from which it is refused.

    Raises:
        JsonFault: it is too long, not UTF-8, not JSON, or not to be trusted.
    """
    if len(content) > most_bytes:
        message = f"it is longer than {most_bytes} bytes"
        raise JsonFault(message)
    try:
        value = json.loads(
            content.decode("utf-8") if isinstance(content, bytes) else content,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except RecursionError:
        message = "it is nested too deep"
        raise JsonFault(message) from None
    except UnicodeDecodeError as error:
        message = f"it is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}"
        raise JsonFault(message) from None
    except ValueError as error:
        raise JsonFault(clipped(str(error))) from None
    if _deeper_than(value, MOST_LEVELS):
        message = f"it is nested deeper than {MOST_LEVELS} levels"
        raise JsonFault(message)
    return value


def parse_object(content: bytes | str, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Parse a JSON object, as `parse_json`.

    Raises:
        JsonFault: as `parse_json`, or it is another kind of value.
    """
    value = parse_json(content, most_bytes=most_bytes)
    if not isinstance(value, dict):
        message = f"expected a JSON object, found {type(value).__name__}"
        raise JsonFault(message)
    return value


def read_object(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Read a file that holds one JSON object; no more than the limit is read of it.

    Raises:
        JsonFault: as `parse_object`, or a device or pipe stands in the file's place.
        OSError: the file cannot be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Opening a pipe waits until somebody writes to it.
        message = "it is a device or a pipe, not a file"
        raise JsonFault(message)
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    return parse_object(content, most_bytes=most_bytes)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                message = f"the key {clipped(repr(name), _NAME_LENGTH)} is given twice"
                raise ValueError(message)
            seen.add(name)
    return result


def _no_constant(name: str) -> object:
    message = f"{name} is not a JSON number"
    raise ValueError(message)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        message = f"{clipped(digits, _NAME_LENGTH)} is too large for a number"
        raise ValueError(message)
    return value


def _short(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        message = f"a whole number of {len(digits)} digits is too large"
        raise ValueError(message)
    return int(digits)


def _deeper_than(value: object, levels: int) -> bool:
    """Look at one level after another, so that looking needs no stack of its own."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
