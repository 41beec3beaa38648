"""Turn what differs beside an artifact into rows: each names the file, the key and both values.

It knows rows; it reads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llama_export.verification.measure.beside import Beside
from llama_export.verification.measure.differences import Difference
from llama_export.verification.rows import (
    NO_CHECKPOINT,
    NO_WEIGHTS,
    Row,
    informed,
    judged,
    unchecked,
)

_FILES = "files"
_MOST_NAMED = 3
_CHAT, _GENERATION = "tokenizer_config.json", "generation_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_SOURCE = {
    "side_tokenizer": ("token ids that a tokenizer's file gives otherwise", "the tokenizer"),
    "side_chat": (
        "differences of the chat template and the tokens' names",
        "the chat template",
    ),
    "side_dialogs": (
        "dialogs whose prompt or ids are not the model's, of ten",
        "how dialogs are written",
    ),
    "side_generation": ("differences of generation_config.json", "how it generates"),
    "side_licence": ("licence files that are not the model's", "the licence"),
    "manifest_model": ("differences of the manifest's model", "the manifest's model"),
}


def beside_rows(beside: Beside) -> list[Row]:
    """Judge the files beside the artifact, the manifest, and the artifact's own words."""
    rows = [
        _row("side_config", "differences of config.json", beside.config),
        _row("side_clients", "differences of the settings of clients", beside.clients),
        _row("side_others", "files that clients would read, and no export writes", beside.others),
        _row("manifest_tokenizer", "differences of the manifest's tokenizer", beside.tokenizer),
    ]
    for key, name, found in (
        ("manifest_graph", "differences of the manifest's graph from the artifact's", beside.graph),
        ("artifact_said", "differences of the artifact's own words on the model", beside.said),
    ):
        if found is None:
            rows.append(unchecked(_FILES, key, name, "this target's artifacts say nothing of it"))
        else:
            rows.append(_row(key, name, found))
    key, name = "manifest_quantization", "differences of the manifest's quantization"
    if beside.quantization is None:
        note = f"{NO_WEIGHTS}; that the manifest describes them is not proved"
        rows.append(unchecked(_FILES, key, name, note))
    else:
        rows.append(_row(key, name, beside.quantization))
    return [*rows, *_app_rows(beside), *_source_rows(beside)]


def _app_rows(beside: Beside) -> list[Row]:
    """Judge the two keys that apps read; an older export's manifest has neither."""
    parts = (
        ("manifest_memory", "differences of the manifest's memory", beside.memory),
        ("manifest_chat", "differences of the manifest's turns from the template's", beside.chat),
    )
    return [
        informed(_FILES, key, name, 0, "an older export did not say")
        if found is None
        else _row(key, name, found)
        for key, name, found in parts
    ]


def _source_rows(beside: Beside) -> list[Row]:
    """Judge what only a source can tell: the checkpoint, or what was kept with the weights."""
    if beside.files is None or beside.model is None:
        return [
            unchecked(
                _FILES, key, name, f"{NO_CHECKPOINT}; that {what} is the model's is not proved"
            )
            for key, (name, what) in _SOURCE.items()
        ]
    parts: Mapping[str, Sequence[Difference]] = {
        "side_tokenizer": _of(beside.files, lambda name: name in _TOKENIZERS),
        "side_chat": _of(beside.files, lambda name: name == _CHAT),
        "side_generation": _of(beside.files, lambda name: name == _GENERATION),
        "side_licence": _of(
            beside.files, lambda name: name not in (*_TOKENIZERS, _CHAT, _GENERATION)
        ),
        "manifest_model": beside.model,
    }
    note = f"compared with {beside.origin}"
    rows = [_row(key, _SOURCE[key][0], found, note) for key, found in parts.items()]
    key = "side_dialogs"
    if beside.dialogs is None:
        return [*rows, unchecked(_FILES, key, _SOURCE[key][0], "its template was not kept")]
    return [*rows, _row(key, _SOURCE[key][0], beside.dialogs, note)]


def _of(
    files: Mapping[str, Sequence[Difference]], wanted: Callable[[str], bool]
) -> list[Difference]:
    return [each for name, found in files.items() if wanted(name) for each in found]


def _row(key: str, name: str, found: Sequence[Difference], note: str = "") -> Row:
    if found:
        more = len(found) - _MOST_NAMED
        named = "; ".join(map(str, found[:_MOST_NAMED]))
        note = named + (f"; and {more} more" if more > 0 else "")
    return judged(_FILES, key, name, len(found), 0, note)
