"""Which licence files go into a bundle, decided from where the weights come from.

Quantised weights are still the licensor's work, so the bundle takes the checkpoint's own licence
files and a NOTICE with the attribution that the licence asks for. The module reads those files
and writes nothing; it gives no legal advice and knows nothing of bundles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from llama_export.bundle.manifest import path_fault
from llama_export.checkpoints.own_files import own_file
from llama_export.errors import CheckpointError
from llama_export.sources.blobs import SNAPSHOTS
from llama_export.sources.resolve import DEMO_FOLDER
from llama_quantize.printable import shown_name

NOTICE_NAME = "NOTICE"

_COPIED = re.compile(r"(LICEN[SC]E|USE_POLICY)([._-].*)?", re.IGNORECASE)
_THEIR_NOTICE = re.compile(r"NOTICE([._-].*)?", re.IGNORECASE)
_SIZE_LIMIT_BYTES = 2**20

_META_HUB_ID = re.compile(r"meta-llama/(?:Meta-)?Llama-(3(?:\.[123])?)-\d.*", re.IGNORECASE)
_META_TITLE = re.compile(r"^\W*(?:META )?LLAMA (3(?:\.[123])?) COMMUNITY LICENSE AGREEMENT")

# As section 1.b of each agreement words them; Llama 3's own says "Meta Llama 3".
_META_NAME = {"3": "Meta Llama 3", "3.1": "Llama 3.1", "3.2": "Llama 3.2", "3.3": "Llama 3.3"}
_META_ATTRIBUTION = (
    "{name} is licensed under the {name} Community License, "
    "Copyright © Meta Platforms, Inc. All Rights Reserved."
)
_META_BUILT_WITH = {"3": "Built with Meta Llama 3"}

_CHANGED = "The weights in this folder were quantised and converted by llama-export."
DEMO_TITLE = "llama-export demo model"
_DEMO = f"""{DEMO_TITLE}

The weights and the tokenizer in this folder are licensed under the Apache License, Version 2.0
(https://www.apache.org/licenses/LICENSE-2.0). They were trained from scratch on fairy tales whose
text is in the public domain.

{_CHANGED}
"""


def licence_folder(path: Path) -> Path:
    """Return the folder of a checkpoint's licence files: of a single file, the one around it.

    Of a file in the hub's cache it is the commit's, in which the file may lie deeper.
    """
    if path.is_dir():
        return path
    commits = (each for each in path.parents if each.parent.name == SNAPSHOTS)
    return next(commits, path.parent)


def licence_notice(name: str, hub_id: str | None, folder: Path) -> Mapping[str, bytes]:
    """Decide which licence files a bundle needs, and what they say.

    Copied are LICENSE*, LICENCE* and USE_POLICY* of the checkpoint. NOTICE is written: Meta's
    attribution when the hub id or the licence's title says that the weights are a Llama 3, 3.1,
    3.2 or 3.3; else where the licence is, or that none was found. A NOTICE of the checkpoint is
    kept below it; one that an earlier export wrote stays as it is.

    Args:
        name: name of the model, as the manifest has it.
        hub_id: repository on the hub; None: the weights did not come from one.
        folder: folder of the checkpoint; `resolve.DEMO_FOLDER` is the demo model's.

    Returns:
        The files' contents by name, in order of their names.

    Raises:
        CheckpointError: a licence file cannot be read, is too long to be one, has a name that a
            bundle cannot keep, or is a link out of the checkpoint.
    """
    copied = _read_files(folder, _COPIED)
    if folder.resolve() == DEMO_FOLDER.resolve():
        notice = _DEMO
    elif version := _meta_version(hub_id, copied):
        notice = _meta_notice(version, copied)
    else:
        notice = _other_notice(name, hub_id, copied)
    text = notice.encode("utf-8")
    for content in _read_files(folder, _THEIR_NOTICE).values():
        if _CHANGED.encode() in content:
            # Weights that we quantised earlier bring our own notice, which knew where from.
            text = content
        else:
            text += b"\n" + content.strip() + b"\n"
    return dict(sorted({**copied, NOTICE_NAME: text}.items()))


def _read_files(folder: Path, pattern: re.Pattern[str]) -> dict[str, bytes]:
    result: dict[str, bytes] = {}
    left_bytes = _SIZE_LIMIT_BYTES
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        for name in filter(pattern.fullmatch, names):
            place = own_file(folder / name)
            if place is None:
                continue  # a folder called LICENSES, say
            _require_name(folder, name)
            result[name] = _read(place, left_bytes)
            left_bytes -= len(result[name])
    except OSError as error:
        message = f"a licence file in {folder} cannot be read: {error.strerror or error}"
        raise CheckpointError(message, "check the permissions of the checkpoint") from error
    return result


def _require_name(folder: Path, name: str) -> None:
    """Refuse a name that the copy in a bundle could not have."""
    if fault := path_fault(name):
        message = f"{folder}: the name of the licence file {shown_name(name)} {fault}"
        raise CheckpointError(message, "rename it")


def _read(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        message = (
            f"{path} is no licence text: the licence files of a checkpoint take at most "
            f"{_SIZE_LIMIT_BYTES} bytes, and with it they take more"
        )
        raise CheckpointError(message, "rename it if it is something else")
    return content


def _meta_version(hub_id: str | None, copied: Mapping[str, bytes]) -> str:
    """Return "3", "3.1", "3.2" or "3.3"; empty when the weights are not known to be Meta's."""
    if hub_id is not None and (match := _META_HUB_ID.fullmatch(hub_id)):
        return match[1]
    for content in copied.values():
        if match := _META_TITLE.match(content.decode("utf-8", errors="replace")):
            return match[1]
    return ""


def _meta_notice(version: str, copied: Mapping[str, bytes]) -> str:
    name = _META_NAME[version]
    lines = [
        _META_ATTRIBUTION.format(name=name),
        "",
        _META_BUILT_WITH.get(version, "Built with Llama"),
        "",
        _CHANGED,
    ]
    if licences := _licences(copied):
        lines.append(f"The agreement is in {', '.join(licences)}.")
    else:
        address = f"https://www.llama.com/llama{version.replace('.', '_')}/license/"
        lines.append("The checkpoint held no copy of the agreement. Whoever passes this folder on")
        lines.append(f"must add one: {address}")
    return "\n".join(lines) + "\n"


def _other_notice(name: str, hub_id: str | None, copied: Mapping[str, bytes]) -> str:
    lines = [f"Model: {hub_id or name}", "", _CHANGED]
    if licences := _licences(copied):
        lines.append(f"The weights' own licence applies: {', '.join(licences)}.")
    else:
        lines.append("The weights' own licence applies. It was not found beside them: ask whoever")
        lines.append("gave you the weights before you pass this folder on.")
    return "\n".join(lines) + "\n"


def _licences(copied: Mapping[str, bytes]) -> list[str]:
    return [name for name in copied if not name.upper().startswith("USE_POLICY")]
