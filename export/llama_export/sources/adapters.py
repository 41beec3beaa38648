"""Find the adapters that a user names, and the model that they are laid over.

An adapter may itself be named as the model; then it says what its base is. It fetches adapters,
which are small, and of their base nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from llama_export.bundle.model_info import AdapterInfo
from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.checkpoints.lora_config import AdapterConfig, is_adapter
from llama_export.checkpoints.unrecognised import fault_of_folder
from llama_export.errors import CheckpointError, HubError, UsageError
from llama_export.sources.repository import fetch
from llama_export.sources.resolve import NamedModel, model_name, name_model
from llama_quantize.printable import shown_name

_PINNED = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@[\w./-]+", re.ASCII)
# Unsloth's copies in 4 bits of a 16-bit model.
_FOUR_BIT = re.compile(r"(.+?)(-unsloth)?-bnb-4bit")


@dataclass(frozen=True)
class _Found:
    folder: Path
    info: AdapterInfo


def name_with_adapters(
    model: str,
    reading: ReadOptions = AS_IT_IS,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> NamedModel:
    """Find what `--model` names, and lay adapters over it.

    Args:
        model: name of a model, or of an adapter, whose base is then looked for.
        reading: how the user wants it to be read; adapters and base are names here.
        revision: branch, tag or commit of what `model` names.
        token: token of the hub; None: HF_TOKEN or the cached login.

    Returns:
        The model below. Its adapters are folders, in the order of their merging.

    Raises:
        UsageError: a base is named, and no adapter that could need one.
        CheckpointError: an adapter or its base cannot be found.
        HubError, GatedModelError, OutputError, UnsupportedModelError: as `fetch` and
            `AdapterConfig.read`.
    """
    named = replace(name_model(model, revision=revision), revision=revision)
    own = _as_adapter(named, token)
    if own is None and reading.base is not None:
        message = f"--base is for an adapter, and {shown_name(model, 200)} is a model of its own"
        hint = "leave --base out; --adapter lays an adapter over the model"
        raise UsageError(message, hint)
    others = [_find(each, token) for each in reading.adapters]
    if own is None:
        found = others
        name = "+".join([named.name, *(each.info.name for each in others)])
    else:
        found = [own, *others]
        name = "+".join(each.info.name for each in found)
        named = _base_of(own, reading.base)
    # How it is read may change the shape that is known of an alias.
    named = replace(named, reading=reading, is_alias=named.is_alias and reading == AS_IT_IS)
    if not found:
        return named
    folders = tuple(str(each.folder) for each in found)
    return replace(
        named,
        name=model_name(name),
        adapters=tuple(each.info for each in found),
        reading=replace(reading, base=None, adapters=folders),
    )


def _as_adapter(named: NamedModel, token: str | None) -> _Found | None:
    """Return the adapter that a model's name means; None: it means a model."""
    if named.path is not None:
        if not (named.path.is_dir() and is_adapter(named.path)):
            return None
        return _Found(named.path, AdapterInfo(named.name))
    if named.is_alias or named.picked:
        return None
    found = fetch(named.hub_id, revision=named.revision, token=token, weights=False)
    if not is_adapter(found.path):
        return None
    found = fetch(named.hub_id, revision=named.revision, token=token)
    return _Found(found.path, AdapterInfo(named.name, named.hub_id, found.commit))


def _find(adapter: str, token: str | None) -> _Found:
    """Find an adapter that is named as such: a folder, or a repository on the hub.

    A repository may be followed by `@` and a revision.

    Raises:
        CheckpointError: it is neither, or holds no adapter.
    """
    name, _, revision = adapter.partition("@") if _PINNED.fullmatch(adapter) else (adapter, "", "")
    hint = "name the folder that save_pretrained of peft wrote, or its id on the hub"
    try:
        named = replace(name_model(name, revision=revision or None), revision=revision or None)
    except HubError:
        message = f"--adapter: there is no adapter called {shown_name(repr(adapter), 300)}"
        raise CheckpointError(message, hint) from None
    found = _as_adapter(named, token)
    if found is not None:
        return found
    fault = None if named.path is None or not named.path.is_dir() else fault_of_folder(named.path)
    what = f" {fault.text}:" if fault else ""
    message = f"--adapter: {shown_name(adapter, 300)}{what or ' is no adapter:'} it has no "
    message += "adapter_config.json beside its weights"
    raise CheckpointError(message, fault.hint if fault else hint)


def _no_adapter(base: NamedModel) -> NamedModel:
    if base.path is not None and base.path.is_dir() and is_adapter(base.path):
        message = f"the base {shown_name(str(base.path), 300)} is an adapter itself"
        hint = "name that one with --model, and the adapter over it with --adapter"
        raise CheckpointError(message, hint)
    return base


def _base_of(own: _Found, asked: str | None) -> NamedModel:
    """Find the model that an adapter is laid over.

    Raises:
        CheckpointError: it is not said, or not here.
    """
    config = AdapterConfig.read(own.folder)
    if asked is not None:
        return _no_adapter(name_model(asked))
    shown, place = shown_name(config.base, 200), shown_name(str(own.folder), 300)
    hint = "name the model that it was trained on, with --base"
    if not config.base:
        message = f"the adapter {place} does not say which model it was trained on"
        raise CheckpointError(message, hint)
    if match := _FOUR_BIT.fullmatch(config.base):
        message = (
            f"the adapter {place} was trained on {shown}, a copy in 4 bits, which lost what the "
            "16-bit model still has"
        )
        raise CheckpointError(message, f"name the 16-bit model: --base {shown_name(match[1], 200)}")
    try:
        base = name_model(config.base)
    except (CheckpointError, HubError) as error:
        message = f"the adapter {place} was trained on {shown}, which is not here: {error.message}"
        raise CheckpointError(message, hint) from None
    if base.path is None:
        return replace(base, revision=config.revision)
    if own.info.hub_id is not None:
        message = f"the adapter {place} names {shown} as its base, a place on its maker's machine"
        raise CheckpointError(message, hint)
    return _no_adapter(base)
