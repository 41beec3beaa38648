"""Keep the windows of a calibration in its folder, so that an interrupted run need not write again.

What they depend on is hashed into a key; the windows of another one are not taken. It knows nothing
of how windows come about.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from llama_export.calibration.options import CalibrationOptions
from llama_export.calibration.text_files import list_files
from llama_export.calibration.windows import CalibrationWindows
from llama_export.calibration.windows_file import read_windows, write_windows
from llama_export.llama.config import LlamaConfig
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_quantize.checkpoint.files import CALIBRATION_FILE, hash_into
from llama_quantize.strict_json import JsonFault, read_object

_FOLDER, _KEY_FILE = "windows", "key.json"


def windows_once(
    folder: Path, key: str, config: LlamaConfig, gather: Callable[[], CalibrationWindows]
) -> CalibrationWindows:
    """Return the windows that an earlier run kept, or gather them and keep them.

    Args:
        folder: existing folder of the calibration.
        key: hash of all that they depend on.
        config: shape of the model that they are for.
        gather: what makes them.

    Raises:
        CheckpointError: what was kept was changed.
        OSError: the disk is full, or the folder cannot be written.
    """
    kept = folder / _FOLDER
    if _key_of(kept) == key:
        return read_windows(kept, config)
    windows = gather()
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    write_windows(kept, windows)
    # It comes last: without it the folder does not count.
    fresh = kept / f"{_KEY_FILE}.new"
    fresh.write_text(json.dumps({"key": key}), encoding="utf-8")
    fresh.replace(kept / _KEY_FILE)
    return windows


def windows_file(folder: Path) -> Path:
    """Name the file of the windows that are kept in a calibration's folder."""
    return folder / _FOLDER / CALIBRATION_FILE


def text_key(form: ChatFormat, options: CalibrationOptions) -> str:
    """Hash what a model's windows depend on besides its weights: vocabulary, templates, texts.

    Raises:
        PromptError: a text cannot be read.
    """
    digest = hashlib.sha256()
    chosen = asdict(options) | {"files": [str(path) for path in options.files]}
    templates = {name: each.source for name, each in form.templates.items()}
    said = [chosen, templates, dict(form.token_names), sorted(map(str, form.arguments.items()))]
    digest.update(json.dumps(said).encode())
    for name, content in sorted(form.tokenizer.files().items()):
        digest.update(name.encode() + hashlib.sha256(content).digest())
    for path in list_files(options.files):
        digest.update(str(path).encode())
        hash_into(digest, path)
    return digest.hexdigest()


def _key_of(folder: Path) -> object:
    try:
        return read_object(folder / _KEY_FILE).get("key")
    except (OSError, JsonFault):
        return None
