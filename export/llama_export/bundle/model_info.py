"""What a manifest says of the model behind a bundle: its name, its origin, and how it was read.

It knows the fields and checks their form; it opens no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llama_export.bundle.json_object import JsonObject

_REVISION = re.compile(r"[0-9a-f]{7,64}")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_ABSOLUTE = re.compile(r"[/\\~]|[A-Za-z]:[/\\]")
NAME = re.compile(r"(?!" + _ABSOLUTE.pattern + r")[^\x00-\x1f\x7f\ud800-\udfff]{1,500}")
"""A name: visible, short, and no path."""

_NOTE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,2000}")
# Inside the repository: no `..`, no drive letter, no backslash.
_FILE = re.compile(
    r"(?=.{1,200}$)(?:(?!\.\.?/)[^/\\:\x00-\x1f\x7f\ud800-\udfff]+/)*"
    r"[^/\\:\x00-\x1f\x7f\ud800-\udfff]+\.gguf",
    re.IGNORECASE,
)
_MOST_ADAPTERS = 64
_MOST_NOTES = 64
_MOST_FACTOR = 1e6
_MOST_TEXTS, _MOST_TEXT = 256, 1000
# Only there where they say something, so that other bundles keep their bytes.
_OPTIONAL = ("adapters", "reading", "notes", "file")


@dataclass(frozen=True)
class AdapterInfo:
    """Which adapter was merged into a model; ids are None for a local one."""

    name: str
    hub_id: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Which model a bundle was made from.

    Args:
        name: name of the model.
        hub_id: repository on the hub, of the base if there are adapters; None: a local model.
        revision: commit of the repository; None: as `hub_id`.
        config: `LlamaConfig.to_hf()`.
        adapters: adapters that were merged into it, in their order.
        reading: what the user said of how it is read, by the names of `ReadOptions`.
        notes: what a user must know of how it was read.
        file: path in the repository of the model in GGUF, or of its first part; None: another
            format, or a local model.
    """

    name: str
    hub_id: str | None
    revision: str | None
    config: Mapping[str, Any]
    adapters: tuple[AdapterInfo, ...] = ()
    reading: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    file: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, as `parse_model` takes it."""
        raw = asdict(self)
        return {key: value for key, value in raw.items() if value or key not in _OPTIONAL}

    def how_it_was_read(self) -> dict[str, Any]:
        """Return adapters, options, notes and file, as far as there are any."""
        return {key: value for key, value in self.to_json().items() if key in _OPTIONAL}


def parse_model(model: JsonObject) -> ModelInfo:
    """Check the fields of a manifest's `model`; faults go to the object's list."""
    model.only(ModelInfo.__dataclass_fields__)
    return ModelInfo(
        name=model.text("name", NAME, "a name, not a path"),
        hub_id=_hub_id(model),
        revision=_revision(model),
        config=model.child("config").raw,
        adapters=tuple(map(_adapter, _listed(model, "adapters", _MOST_ADAPTERS))),
        reading=_reading(model.child("reading")) if "reading" in model.raw else {},
        notes=_notes(model),
        file=model.text("file", _FILE, "the path of a GGUF file") if "file" in model.raw else None,
    )


def parse_reading(raw: Mapping[str, Any], where: str, faults: list[str]) -> ModelInfo:
    """Check what stands alone, as `how_it_was_read` returns it."""
    empty: dict[str, Any] = {"name": "model", "hub_id": None, "revision": None, "config": {}}
    for key in raw.keys() - set(_OPTIONAL):
        faults.append(f"{where}{key:.80} is not a key of this format")
    return parse_model(JsonObject({**raw, **empty}, where, faults))


def _hub_id(owner: JsonObject) -> str | None:
    return None if owner.is_null("hub_id") else owner.text("hub_id", _HUB_ID, "owner/name")


def _revision(owner: JsonObject) -> str | None:
    return None if owner.is_null("revision") else owner.text("revision", _REVISION, "hex")


def _listed(owner: JsonObject, key: str, most: int) -> list[JsonObject]:
    found = owner.children(key, most) if key in owner.raw else []
    if key in owner.raw and not owner.raw[key]:
        owner.fault(key, "absent where there are none")
    return found


def _adapter(each: JsonObject) -> AdapterInfo:
    each.only(AdapterInfo.__dataclass_fields__)
    name = each.text("name", NAME, "a name, not a path")
    return AdapterInfo(name, _hub_id(each), _revision(each))


def _reading(reading: JsonObject) -> Mapping[str, Any]:
    if not reading.raw:
        reading.fault("", "absent where nothing was said")
    known = ("rope_factor", "merge_adaptors", "requantize", "accept_loss", "head_tokens")
    reading.only(known)
    for key in reading.raw:
        if key == "rope_factor":
            reading.number(key, 1, _MOST_FACTOR)
        elif key == "head_tokens":
            _texts(reading, key)
        else:
            reading.boolean(key)
    return reading.raw


def _texts(reading: JsonObject, key: str) -> None:
    found = reading.raw[key]
    right = isinstance(found, list) and 1 <= len(found) <= _MOST_TEXTS
    if not right or not all(
        isinstance(each, str) and 1 <= len(each) <= _MOST_TEXT for each in found
    ):
        reading.fault(key, f"a list of 1 to {_MOST_TEXTS} texts of at most {_MOST_TEXT} characters")


def _notes(model: JsonObject) -> tuple[str, ...]:
    notes = model.raw.get("notes", ())
    if notes == ():
        return ()
    right = isinstance(notes, list) and 1 <= len(notes) <= _MOST_NOTES
    if right and all(isinstance(each, str) and _NOTE.fullmatch(each) for each in notes):
        return tuple(notes)
    model.fault("notes", f"a list of 1 to {_MOST_NOTES} lines of text")
    return ()
