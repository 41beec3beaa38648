"""Find where two JSON values, or the contents of two files, differ.

Each difference names its file, its key, and both values. It knows no file's meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llama_quantize.printable import clipped
from llama_quantize.strict_json import JsonFault, parse_json

_MOST_SHOWN = 60


@dataclass(frozen=True)
class Difference:
    """One place where something is not what it should be.

    Args:
        file: name of the file in the bundle.
        key: path of the key in it, or the line; empty for the file as a whole.
        expected: value that it should have.
        found: value that it has.
    """

    file: str
    key: str
    expected: object
    found: object

    def __str__(self) -> str:
        place = f"{self.file}, {self.key}" if self.key else self.file
        expected, found = _around(self.expected, self.found)
        return f"{place}: expected {expected}, found {found}"


def differing_content(
    name: str, expected: bytes, found: bytes | None, file: str = ""
) -> Iterator[Difference]:
    """Yield where a file's content differs; of JSON the values are compared, not the spelling.

    Args:
        name: name of the file, whose ending says what it holds.
        expected: content that it should have.
        found: content that it has; None: there is no such file.
        file: file to name in a difference; empty: `name`.
    """
    if found is None:
        yield Difference(file or name, "", "a file of the model", None)
    elif found != expected and name.endswith(".json"):
        try:
            value = parse_json(found)
        except JsonFault as fault:
            yield Difference(file or name, "", "valid JSON", str(fault))
            return
        yield from differing_values(file or name, "", parse_json(expected), value)
    elif found != expected:
        yield _differing_line(file or name, expected, found)


def differing_values(file: str, key: str, expected: object, found: object) -> Iterator[Difference]:
    """Yield where two JSON values differ; 1, 1.0 and true are three values.

    Args:
        file: file that holds the value.
        key: path of the value in it.
        expected: value that should be there.
        found: value that is there.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in {**expected, **found}:
            inner = f"{key}.{name}" if key else str(name)
            if name in expected and name in found:
                yield from differing_values(file, inner, expected[name], found[name])
            else:
                yield Difference(file, inner, *(_given(each, name) for each in (expected, found)))
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from differing_values(file, f"{key}[{index}]", *pair)
    elif type(expected) is not type(found) or expected != found:
        yield Difference(file, key, expected, found)


def _given(values: Mapping[str, object], name: str) -> object:
    """Return the value of a key, and of a key that is there with null another than of none."""
    return values[name] if values.get(name) is not None else "null" if name in values else None


def _differing_line(file: str, expected: bytes, found: bytes) -> Difference:
    wanted, got = (content.splitlines() for content in (expected, found))
    pairs = zip(wanted, got, strict=False)
    shorter = min(len(wanted), len(got))
    line = next((number for number, (a, b) in enumerate(pairs) if a != b), shorter)
    shown = [
        lines[line].decode("utf-8", "replace") if line < len(lines) else None
        for lines in (wanted, got)
    ]
    return Difference(file, f"line {line + 1}", *shown)


def _around(expected: object, found: object) -> tuple[str, str]:
    """Show two values in short; of two long texts, the part where they begin to differ."""
    if isinstance(expected, str) and isinstance(found, str):
        pairs = zip(expected, found, strict=False)
        shorter = min(len(expected), len(found))
        first = next((place for place, (a, b) in enumerate(pairs) if a != b), shorter)
        if first > _MOST_SHOWN // 2:
            start = first - _MOST_SHOWN // 4
            expected, found = (f"...{text[start:]}" for text in (expected, found))
    return _shown(expected), _shown(found)


def _shown(value: object) -> str:
    return "nothing" if value is None else clipped(repr(value), _MOST_SHOWN)
