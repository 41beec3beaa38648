"""Find the model that `--model` names: the demo, an alias, a local model or a hub one.

It knows names. What is fetched of a repository, and how, is `repository`'s business.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.model_info import AdapterInfo
from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.checkpoints.formats import is_checkpoint
from llama_export.checkpoints.gguf.files import model_stem
from llama_export.checkpoints.hugging_face_files import no_folder
from llama_export.checkpoints.unrecognised import fault_of_file
from llama_export.errors import CheckpointError, HubError
from llama_export.sources.repository import PICK, Progress, fetch
from llama_quantize.printable import printable, shown_name

DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[1] / "demo"

ALIASES: Mapping[str, str] = {
    "3.2-1B": "meta-llama/Llama-3.2-1B",
    "3.2-1B-Instruct": "meta-llama/Llama-3.2-1B-Instruct",
    "3.2-3B": "meta-llama/Llama-3.2-3B",
    "3.2-3B-Instruct": "meta-llama/Llama-3.2-3B-Instruct",
    "3.1-8B": "meta-llama/Llama-3.1-8B",
    "3.1-8B-Instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "3-8B": "meta-llama/Meta-Llama-3-8B",
    "3-8B-Instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M",
    "smollm2-135m-instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M",
    "smollm2-360m-instruct": "HuggingFaceTB/SmolLM2-360M-Instruct",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B",
    "smollm2-1.7b-instruct": "HuggingFaceTB/SmolLM2-1.7B-Instruct",
}

_SEPARATORS = "/\\:"
_MOST_CHARACTERS = 120
_NAMELESS = "model"
_PART = r"[A-Za-z0-9][\w.-]*"
# Ollama writes the hub's name before it; a tag or a file picks one of several models in GGUF.
_ON_HUB = re.compile(
    rf"(?:(?:hf\.co|huggingface\.co)/)?(?P<id>{_PART}/{_PART})"
    rf"(?::(?P<tag>{_PART})|/(?P<file>[^\\:]+\.gguf))?",
    re.ASCII | re.IGNORECASE,
)
_FILE_NAME = re.compile(r"[^/\\:]+\.(gguf|safetensors|bin|pth|pt)", re.IGNORECASE)
# What a browser shows of a repository, or of a file in it.
_PAGE = re.compile(
    rf"https?://(?:www\.)?(?:hf\.co|huggingface\.co)/({_PART}/{_PART})"
    r"(?:/(?:blob|resolve)/[^/]+(/[^\\:?#]+\.gguf))?(?:[/?#].*)?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are, and where they came from.

    Args:
        name: alias, name of the folder or file (as `model_name` returns it), name of the
            repository, or `demo`.
        path: folder or file of the checkpoint.
        hub_id: repository on the hub; None: the demo or a local model.
        revision: commit of the repository; None: as `hub_id`.
        adapters: adapters that are laid over it.
        file: path in the repository of the file that it is; None: it is a folder, or local.
    """

    name: str
    path: Path
    hub_id: str | None
    revision: str | None
    adapters: tuple[AdapterInfo, ...] = ()
    file: str | None = None


def resolve_model(
    model: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> ModelSource:
    """Find a model by name, downloading it where needed.

    The first that fits counts: `demo`; an alias; what is written as a path (`./x`, `/x`, `~/x`,
    `x/`); an existing folder, or file of a checkpoint; an alias as others spell it, such as
    `Llama-3.2-1b` or `llama3.2:1b`; a hub id `organisation/name`, of which `:Q8_0` or
    `/path/NAME.gguf` picks one of several models in GGUF. So a folder called `demo` or `3.2-1B` is
    meant only by `./demo` or `./3.2-1B`.

    Args:
        model: name, as `--model` takes it.
        revision: branch, tag or commit of the repository; None: the default branch.
        token: token of the hub; None: HF_TOKEN or the cached login.
        progress: called with the bytes done and the bytes in all.

    Raises:
        HubError: the name is unknown, or the download failed.
        GatedModelError: the licence is not accepted, or there is no token.
        CheckpointError: the folder does not exist.
        OutputError: the download cannot be written.
    """
    named = name_model(model, revision=revision)
    return fetch_named(named, revision=revision, token=token, progress=progress)


@dataclass(frozen=True)
class NamedModel:
    """What a name means, before anything is fetched.

    Args:
        name: as `ModelSource.name`.
        path: folder or file of the checkpoint; None: it is on the hub.
        hub_id: repository on the hub; empty: it is a local model.
        is_alias: whether the name is one of `ALIASES`, whose shape is known.
        revision: branch, tag or commit of the repository; None: the default branch.
        reading: how it is read; adapters are folders.
        adapters: which adapters these are.
        picked: tag or path of the one model in GGUF that is meant; empty: the only one.
    """

    name: str
    path: Path | None
    hub_id: str
    is_alias: bool = False
    revision: str | None = None
    reading: ReadOptions = AS_IT_IS
    adapters: tuple[AdapterInfo, ...] = ()
    picked: str = ""

    @property
    def on_hub(self) -> str:
        """What is meant on the hub, as `fetch` takes it."""
        return f"{self.hub_id}{PICK}{self.picked}" if self.picked else self.hub_id


def name_model(model: str, *, revision: str | None = None) -> NamedModel:
    """Find what `--model` names, as `resolve_model` does, but fetch nothing.

    Raises:
        HubError: the name is unknown, or a local model was given a revision.
        CheckpointError: the folder does not exist, or may not be read.
    """
    if model in ALIASES:
        return NamedModel(model, None, ALIASES[model], is_alias=True)
    path = _local_path(model)
    if path is None and (alias := _spelt_otherwise(model)) is not None:
        return NamedModel(alias, None, ALIASES[alias], is_alias=True)
    if path is not None:
        if revision is not None:
            kind = "folder" if path.is_dir() else "file"
            message = f"--revision {revision} is for hub models, and {model} is a local {kind}"
            raise HubError(message, "leave --revision out")
        if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
            message = f"the checkpoint folder {path} may not be read"
            raise CheckpointError(message, "check its permissions")
        return NamedModel(
            DEMO if model == DEMO else model_name(model_stem(path.resolve().name)), path, ""
        )
    match = _ON_HUB.fullmatch(model)
    if match is None:
        raise _unknown(model)
    if match["file"] and os.path.isdir(os.path.dirname(model)):  # noqa: PTH112, PTH120
        raise no_folder(Path(model))  # a file of this machine, misspelt
    picked = match["tag"] or match["file"] or ""
    return NamedModel(match["id"].partition("/")[2], None, match["id"], picked=picked)


def model_name(text: str) -> str:
    """Return a folder's name as every file of a bundle can hold it.

    Args:
        text: name of a folder or file, in which the system allows almost anything.

    Returns:
        At most 120 visible characters; `-` stands for what is no part of a name everywhere.
    """
    visible = "".join(
        "-" if letter in _SEPARATORS or printable(letter, keep="") != letter else letter
        for letter in text
    )
    return visible.strip().lstrip("~")[:_MOST_CHARACTERS].strip() or _NAMELESS


def fetch_named(
    named: NamedModel,
    *,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
) -> ModelSource:
    """Download a model where needed, as `resolve_model` does.

    Args:
        named: what `name_model` found.
        revision: branch, tag or commit of the repository; None: the default branch.
        token: token of the hub; None: HF_TOKEN or the cached login.
        progress: called with the bytes done and the bytes in all.

    Raises:
        HubError, GatedModelError, OutputError: as `resolve_model`.
    """
    if named.path is not None:
        return ModelSource(named.name, named.path, None, None, named.adapters)
    found = fetch(named.on_hub, revision=revision, token=token, progress=progress)
    place = found.path, named.hub_id, found.commit
    return ModelSource(named.name, *place, named.adapters, found.file or None)


def _local_path(model: str) -> Path | None:
    if model == DEMO:
        if not is_checkpoint(DEMO_FOLDER):
            message = f"the demo model is missing from this installation: {DEMO_FOLDER}"
            raise CheckpointError(message, "install llama-export again")
        return DEMO_FOLDER
    if _PAGE.fullmatch(model):
        return None
    written_as_path = model.startswith((".", "/", "~", "\\")) or model.endswith(("/", "\\"))
    # A name without an organisation is none of the hub's.
    written_as_path = written_as_path or _FILE_NAME.fullmatch(model) is not None
    # Only a `~` that was typed as such: Path drops the `./` of `./~name`.
    path = Path(os.path.expanduser(model))  # noqa: PTH111
    # os.path, because to Path a name that is too long is an error, not a name of nothing.
    if model and (os.path.isdir(path) or (os.path.isfile(path) and is_checkpoint(path))):  # noqa: PTH112, PTH113
        return path
    is_file = bool(model) and os.path.isfile(path)  # noqa: PTH113
    if is_file or written_as_path or path.is_absolute():
        raise no_folder(path, fault_of_file(path) if is_file else None)
    return None


def _spelt_otherwise(model: str) -> str | None:
    """Return the alias that a name means in other letters, or as other programs spell it."""
    return {name.lower(): name for name in ALIASES}.get(_plain(model))


def _plain(model: str) -> str:
    lowered = model.lower().replace(":", "-")
    return lowered.removeprefix("meta-").removeprefix("llama-").removeprefix("llama")


def _unknown(model: str) -> HubError:
    message = f"there is no model called {shown_name(repr(model))}"
    if page := _PAGE.fullmatch(model):
        named = f"{page[1]}{page[2] or ''}"
        return HubError(message, f"name the repository by its id: --model {shown_name(named, 300)}")
    known = (DEMO, *ALIASES)
    lowered = {name.lower(): name for name in known}
    wanted = _plain(model)
    close = difflib.get_close_matches(wanted, lowered, n=1)
    if close:
        message += f"; did you mean {lowered[close[0]]}?"
    hint = "llama-export list shows the models that have a name; any other is named by its hub id, "
    hint += f"such as {ALIASES['3.2-1B']}, or by its folder"
    return HubError(message, hint)
