"""How a checkpoint was read, as bundles and quantised weights keep it, and as it is read again.

It turns options into what is recorded and back; it opens nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from llama_export.bundle.model_info import ModelInfo, parse_reading
from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.errors import CheckpointError
from llama_quantize.checkpoint.files import RECORD_FILE
from llama_quantize.printable import clipped, printable
from llama_quantize.strict_json import JsonFault, parse_object

READING = "reading"
"""Key of the metadata of quantised weights that says how their checkpoint was read."""

# Adapters and their base are models of their own, which a manifest names.
_RECORDED = ("rope_factor", "merge_adaptors", "requantize", "accept_loss", "head_tokens")
_MOST_NOTE, _MOST_NOTES = 2000, 64


def recorded(options: ReadOptions) -> dict[str, float | bool | list[str]]:
    """Return the options that a user set, of those that a bundle records, as JSON has them."""
    found = {
        each.name: getattr(options, each.name)
        for each in fields(options)
        if each.name in _RECORDED and getattr(options, each.name) != getattr(AS_IT_IS, each.name)
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def noted(notes: Iterable[str]) -> tuple[str, ...]:
    """Return notes as a manifest can hold them."""
    lines = [clipped(printable(note, keep=""), _MOST_NOTE) for note in notes]
    return tuple(dict.fromkeys(filter(None, lines)))[:_MOST_NOTES]


def read_again(asked: ReadOptions, info: ModelInfo) -> ReadOptions:
    """Return how a checkpoint is read that is compared with a bundle: as it was for the bundle.

    Args:
        asked: what the user says now, which counts where it says anything.
        info: what the bundle's manifest says.
    """
    then = info.reading
    factor = asked.rope_factor or then.get("rope_factor")
    return replace(
        asked,
        rope_factor=None if factor is None else float(factor),
        merge_adaptors=asked.merge_adaptors or bool(then.get("merge_adaptors")),
        requantize=asked.requantize or bool(then.get("requantize")),
        accept_loss=asked.accept_loss or bool(then.get("accept_loss")),
        head_tokens=asked.head_tokens or tuple(then.get("head_tokens", ())),
    )


def reading_text(info: ModelInfo) -> str:
    """Return how a model was read, for the metadata of quantised weights; "" for nothing."""
    found = info.how_it_was_read()
    return json.dumps(found, sort_keys=True) if found else ""


def how_it_was_read(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return adapters, options and notes from the metadata of quantised weights.

    Raises:
        CheckpointError: as `parse_reading_text`.
    """
    text = metadata.get(READING)
    return {} if text is None else parse_reading_text(text, RECORD_FILE).how_it_was_read()


def parse_reading_text(text: str, where: str) -> ModelInfo:
    """Read what `reading_text` wrote; name and origin of the result mean nothing.

    Raises:
        CheckpointError: it is no such text.
    """
    faults: list[str] = []
    raw: Mapping[str, Any] = {}
    try:
        raw = parse_object(text)
    except JsonFault as error:
        faults.append(str(error))
    info = parse_reading(raw, "", faults)
    if faults:
        message = f"{where}: metadata.{READING} is damaged: {'; '.join(faults)}"
        raise CheckpointError(message, f"correct it, or take {READING} out of the metadata")
    return info
