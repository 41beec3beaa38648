"""quantization.json: what the weights file holds, and where its numbers come from.

Storage is in the rules' schemes; the methods beside them, the calibration and the metadata are the
origin, which no reader needs. Version 1 kept one bit of the method inside the scheme and is still
read. This module knows JSON and no tensor.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_quantize.checkpoint.files import HINT, RECORD_FILE, WEIGHTS_FILE
from llama_quantize.checkpoint.summary import (
    QuantSummary,
    TensorStats,
    db_from_json,
    db_to_json,
    is_count,
)
from llama_quantize.checkpoint.taken import rules_taken
from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name
from llama_quantize.recipe import QuantRecipe
from llama_quantize.scheme import GroupedInt
from llama_quantize.strict_json import JsonFault, read_object

FORMAT = "llama-quantize"
FORMAT_VERSION = 2
_MOST_BYTES = 8 * 2**20  # 0.1 MB for an 8B model
# Version 1 told the two methods of its time apart by a flag of the scheme.
_VERSION_1_METHODS = {True: "clip_search", False: "nearest"}


@dataclass(frozen=True)
class Record:
    """The content of quantization.json.

    Args:
        recipe: rules that made the weights.
        summary: size and error of each tensor, and how many tensors each rule took.
        tied: names that are stored nowhere and mean another tensor.
        metadata: strings kept with the weights, such as where they came from.
        calibration: what decided the statistics of inputs; None: no method asked for any.
        weights_sha256: hash of the weights file.
        weights_bytes: size of the weights file.
    """

    recipe: QuantRecipe
    summary: QuantSummary
    tied: Mapping[str, str]
    metadata: Mapping[str, str]
    calibration: Mapping[str, str] | None
    weights_sha256: str
    weights_bytes: int

    def write(self, folder: Path) -> None:
        """Write the record; it comes last, because a folder without it is not a checkpoint.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        data = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "recipe": self.recipe.to_json(),
            "hits": list(self.summary.hits),
            "bits_per_weight": round(self.summary.bits_per_weight, 6),
            "sqnr_db": db_to_json(self.summary.sqnr_db),
            "tensors": [stats.to_json() for stats in self.summary.stats],
            "tied": dict(self.tied),
            "metadata": dict(self.metadata),
            "calibration": None if self.calibration is None else dict(self.calibration),
            "weights": {
                "file": WEIGHTS_FILE,
                "sha256": self.weights_sha256,
                "size_bytes": self.weights_bytes,
            },
        }
        text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8")

    def require_size(self, folder: Path) -> None:
        """Compare the size of the weights file in a folder.

        Raises:
            QuantizationError: it is missing, or of another size.
        """
        path = folder / WEIGHTS_FILE
        size_bytes = path.stat().st_size if path.is_file() else 0
        if size_bytes != self.weights_bytes:
            message = f"{path}: expected {self.weights_bytes} bytes, found {size_bytes}"
            raise QuantizationError(message, HINT)

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read the record of a folder, of version 1 or 2.

        Raises:
            QuantizationError: there is none, it is damaged, or of a newer format.
        """
        path = folder / RECORD_FILE
        try:
            header = read_object(path, most_bytes=_MOST_BYTES)
        except FileNotFoundError as error:
            message = f"{folder} is not a quantised checkpoint: it has no {path.name}"
            raise QuantizationError(message, HINT) from error
        except (JsonFault, OSError) as error:
            message = f"{path} is damaged: {error}"
            raise QuantizationError(message, HINT) from error
        found = header.get("format"), header.get("format_version")
        if found == (FORMAT, 1):
            header = _from_version_1(header)
        elif found != (FORMAT, FORMAT_VERSION):
            message = (
                f"{path}: expected format {FORMAT} 1 or {FORMAT_VERSION}, "
                f"found {shown_name(str(found[0]))} {shown_name(str(found[1]))}"
            )
            raise QuantizationError(message, "upgrade, or " + HINT)
        return cls._parse(path, header)

    @classmethod
    def _parse(cls, path: Path, data: Mapping[str, object]) -> Record:
        match data:
            case {
                "recipe": recipe,
                "hits": [*hits],
                "sqnr_db": (int() | float() | None) as sqnr_db,
                "tensors": [*tensors],
                "tied": dict(tied),
                "metadata": dict(metadata),
                "calibration": (dict() | None) as calibration,
                "weights": {"file": file, "sha256": str(sha256), "size_bytes": int(size_bytes)},
            } if (
                file == WEIGHTS_FILE
                and all(map(_strings, (tied, metadata, calibration or {})))
                and all(map(is_count, (*hits, size_bytes)))
                and not isinstance(sqnr_db, bool)
            ):
                rules = QuantRecipe.from_json(recipe)
                stats = tuple(TensorStats.from_json(tensor) for tensor in tensors)
                _require_own_names(stats, path)
                counts = tuple(hit for hit in hits if isinstance(hit, int))
                return cls(
                    recipe=replace(rules, taken=_taken(rules, stats, counts, path)),
                    summary=QuantSummary(stats, db_from_json(sqnr_db), counts),
                    tied=tied,
                    metadata=metadata,
                    calibration=calibration,
                    weights_sha256=sha256,
                    weights_bytes=size_bytes,
                )
        message = f"{path} is damaged: a field is missing or has the wrong type"
        raise QuantizationError(message, HINT)


def _require_own_names(stats: tuple[TensorStats, ...], path: Path) -> None:
    names = Counter(each.name for each in stats)
    if twice := [name for name, count in names.items() if count > 1]:
        message = f"{path} is damaged: the tensor {shown_name(twice[0])} stands in it twice"
        raise QuantizationError(message, HINT)


def _taken(
    recipe: QuantRecipe, stats: tuple[TensorStats, ...], hits: tuple[int, ...], path: Path
) -> Mapping[str, int]:
    try:
        return rules_taken(recipe, stats, hits)
    except QuantizationError as error:
        message = f"{path} is damaged: {error.message}"
        raise QuantizationError(message, HINT) from error


def _strings(data: Mapping[object, object]) -> bool:
    return all(isinstance(text, str) for pair in data.items() for text in pair)


def _from_version_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """Move the method out of the schemes; other faults are left for the parser to refuse.

    Raises:
        QuantizationError: a rule does not have the form of version 1.
    """
    upgraded = {**data, "calibration": None}
    match data:
        case {"recipe": {"name": name, "rules": [*rules]}, "tensors": [*tensors]}:
            upgraded["recipe"] = {"name": name, "rules": [_rule_2(rule) for rule in rules]}
            methods = _methods_by_form(QuantRecipe.from_json(upgraded["recipe"]))
            upgraded["tensors"] = [_tensor_2(tensor, methods) for tensor in tensors]
    return upgraded


def _rule_2(rule: object) -> object:
    match rule:
        case {
            "pattern": pattern,
            "scheme": {"clip_search": bool(searched), **scheme},
            **rest,
        } if not rest:
            method = _VERSION_1_METHODS[searched]
            return {"pattern": pattern, "scheme": scheme, "method": method}
        case {"pattern": _, "scheme": {"type": "float"}}:
            return rule
    message = f"not a rule of a recipe of version 1: {shown_name(repr(rule), 200)}"
    raise QuantizationError(message, HINT)


def _methods_by_form(recipe: QuantRecipe) -> dict[str, str]:
    rules = [rule for rule in reversed(recipe.rules) if isinstance(rule.scheme, GroupedInt)]
    return {rule.scheme.label: rule.method for rule in rules}


def _tensor_2(tensor: object, methods: Mapping[str, str]) -> object:
    match tensor:
        case {"name": str(name), "label": str(label), **rest}:
            return {"name": name, "label": label, "method": methods.get(label), **rest}
    return tensor
