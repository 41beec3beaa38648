"""An output as one repository: which bundles are in it, and what belongs at its root.

The root has what clients look for that are given the repository's name alone: config, tokenizer,
licence and the card. All but the card are copies out of one bundle. The module writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.bundle import Bundle, content_fault
from llama_export.bundle.manifest import Manifest
from llama_export.bundle.model_info import ModelInfo
from llama_export.bundle.root_files import CARD_NAME, PERSONAL
from llama_export.checkpoints.companions import GENERATION_CONFIG_FILE, TOKENIZER_CONFIG_FILE
from llama_export.checkpoints.hugging_face_files import CONFIG_FILE
from llama_export.errors import BundleError
from llama_export.exporting.publishing.card import CardFacts, render_card
from llama_export.sources.terms import terms_of
from llama_export.targets import registry

_COPIED = frozenset(
    {
        CONFIG_FILE,
        GENERATION_CONFIG_FILE,
        TOKENIZER_CONFIG_FILE,
        "tokenizer.json",
        "tokenizer.model",
    }
)


@dataclass(frozen=True)
class Root:
    """What belongs at the root of an output.

    Args:
        contents: content of each file by its name.
        notes: what a user must know of what is left out.
    """

    contents: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def root_of(output: Path, made: Mapping[str, Path]) -> Root:
    """Gather the root's files once an export has made its bundles.

    Args:
        output: output of the export.
        made: folder of each bundle that it made, by target; it is not in place yet.

    Raises:
        BundleError: a bundle that was just made is damaged.
    """
    newest = Bundle.open(next(iter(made.values()))).manifest
    bundles: list[Bundle] = []
    notes: list[str] = []
    for name in registry.TARGETS:
        if name in made:
            bundles.append(Bundle.open(made[name]))
        elif (output / name).is_dir():
            try:
                found = Bundle.open(output / name)
            except BundleError as error:
                notes.append(f"{output / name} is left out of {CARD_NAME}: {error.message}")
                continue
            if same_model(found.manifest, newest):
                bundles.append(found)
            else:
                said = f"it is of {found.manifest.model.name}, and not of the model just exported"
                if found.manifest.model.name == newest.model.name:
                    said = f"it is of another {newest.model.name} than the one just exported"
                notes.append(f"{output / name} is left out of {CARD_NAME}: {said}")
    small = small_files(bundles[0])
    notices = {name: content for name, content in small.items() if PERSONAL.fullmatch(name)}
    card = render_card(manifests_of(bundles), CardFacts(notices, terms_of(notices)))
    return Root({CARD_NAME: card, **small}, tuple(notes))


def manifests_of(bundles: Sequence[Bundle]) -> list[Manifest]:
    """Return the manifest of each bundle."""
    return [bundle.manifest for bundle in bundles]


def small_files(bundle: Bundle) -> dict[str, bytes]:
    """Read what a bundle has that belongs at the root as well.

    Raises:
        BundleError: a file is not what the manifest says.
    """
    manifest = bundle.manifest
    found: dict[str, bytes] = {}
    for name, entry in manifest.files.items():
        wanted = name in _COPIED or name == manifest.tokenizer["file"] or PERSONAL.fullmatch(name)
        if not wanted or name == CARD_NAME:
            continue
        if fault := content_fault(bundle.folder / name, entry, None):
            message = f"{bundle.folder / name} {fault}"
            raise BundleError(message, "the bundle was changed or is damaged: export it again")
        found[name] = (bundle.folder / name).read_bytes()
    return found


def same_model(one: Manifest, other: Manifest) -> bool:
    """Return whether two bundles are of one model; how each was quantised does not matter.

    A local model's name and config stay as they were when it is trained on. Then the codes tell
    them apart, where both bundles chose them alike.
    """
    if _identity(one.model) != _identity(other.model):
        return False
    if _is_pinned(one.model) or _recipe(one) != _recipe(other):
        return True
    tensors = other.quantization["tensors"]
    return all(tensors.get(key, each) == each for key, each in one.quantization["tensors"].items())


def _identity(model: ModelInfo) -> tuple[object, ...]:
    read = model.reading
    return model.name, model.hub_id, model.revision, model.config, model.adapters, model.file, read


def _is_pinned(model: ModelInfo) -> bool:
    revisions = [model.revision, *(each.revision for each in model.adapters)]
    return None not in revisions


def _recipe(manifest: Manifest) -> tuple[object, ...]:
    said = manifest.quantization
    return said["recipe"], said["group_size"], said.get("calibration")
