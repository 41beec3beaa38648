"""The plan of a push: which files of an output go to the hub, once the licence allows it.

Sent are the bundles, the root's small files as they are in the bundles, the card, and what a person
put beside them by a name of a card or a licence; nothing else. Everything is refused here that can
be refused before the first byte is sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from llama_export.bundle.bundle import Bundle, hash_file
from llama_export.bundle.manifest import MANIFEST_NAME, FileEntry
from llama_export.bundle.ownership import HASH_OF, extra_files
from llama_export.bundle.root_files import (
    CARD_NAME,
    PERSONAL,
    RECORD_NAME,
    is_ours,
    read_record,
    record_of,
)
from llama_export.errors import BundleError, UsageError
from llama_export.exporting.plan import ExportPlan
from llama_export.exporting.publishing.card import CardFacts, render_card
from llama_export.exporting.publishing.licensing import (
    AskCard,
    Licensed,
    notices_among,
    require_terms,
)
from llama_export.exporting.publishing.repository import manifests_of, same_model, small_files
from llama_export.sources.licence import licence_folder, licence_notice
from llama_export.sources.source import WEIGHTS_FOLDER
from llama_export.sources.terms import Terms
from llama_export.sources.upload import OutgoingFile
from llama_export.targets import registry
from llama_quantize.checkpoint.files import RECORD_FILE, WEIGHTS_FILE
from llama_quantize.checkpoint.record import Record
from llama_quantize.printable import shown_name

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_HUB_ID = re.compile(rf"{_PART}/{_PART}")
_MOST_PERSONAL_BYTES = 2**20
_NOWHERE = Path("no folder")
_WEIGHTS_HINT = "leave --with-weights out, or export again"


@dataclass(frozen=True)
class PushRequest:
    """What a user asks of a push.

    Args:
        output: folder of an export.
        hub_id: `OWNER/NAME`.
        licence: identifier of the model's licence; None: as its files or its base say.
        with_weights: whether the quantised weights go along.
    """

    output: Path
    hub_id: str
    licence: str | None = None
    with_weights: bool = False


@dataclass(frozen=True)
class PushPlan:
    """What is sent.

    Args:
        files: files in the order of their sending.
        bundles: bundles among them.
        weights: folder of the weights that go along; None: none do.
        terms: terms of the licence.
    """

    files: tuple[OutgoingFile, ...]
    bundles: tuple[Bundle, ...]
    weights: Path | None
    terms: Terms

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(each.size_bytes for each in self.files)

    def check(self, progress: Callable[[int, int], None]) -> None:
        """Compare every byte with its hash.

        Raises:
            BundleError: a bundle, or the weights, changed since it was written.
        """
        done, total = 0, self.size_bytes

        def count(size_bytes: int) -> None:
            nonlocal done
            done = min(done + size_bytes, total)
            progress(done, total)

        for bundle in self.bundles:
            bundle.check_hashes(count)
        if self.weights is not None:
            _check_weights(self.weights, count)
        progress(total, total)


def require_hub_id(hub_id: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        UsageError: it is not `OWNER/NAME`.
    """
    if not _HUB_ID.fullmatch(hub_id) or "--" in hub_id or ".." in hub_id:
        message = f"{shown_name(repr(hub_id))} cannot be a repository; expected OWNER/NAME"
        raise UsageError(message, "letters, digits, '-', '_' and '.' make a name")


def require_pushable(request: PushRequest, plan: ExportPlan, ask: AskCard) -> Terms:
    """Return the licence's terms before an export; refuse what the push of it would refuse.

    Raises:
        UsageError: as `require_terms`.
    """
    require_hub_id(request.hub_id)
    named, description = plan.named, plan.model.description
    hub_id = named.hub_id or None
    # Of an alias that is only shown nothing was fetched, and its name says enough.
    folder = _NOWHERE if description is None else licence_folder(description.path)
    notices = licence_notice(named.name, hub_id, folder)
    personal = _personal_files(plan.output) if plan.output.is_dir() else {}
    found = Licensed(
        named.name,
        hub_id,
        notices_among({**notices, **personal}),
        personal.get(CARD_NAME),
        named.adapters,
    )
    return require_terms(request.hub_id, request.licence, found, ask)[0]


def plan_push(request: PushRequest, ask: AskCard) -> PushPlan:
    """Decide what is sent, and refuse what may not be.

    Args:
        request: request of a user.
        ask: returns what a page of the hub says.

    Raises:
        UsageError: the name, or what the licence asks for; or no licence is known.
        BundleError: there is no bundle, one is damaged, or they are of two models.
    """
    require_hub_id(request.hub_id)
    output = request.output
    bundles = _bundles(output)
    small, personal = small_files(bundles[0]), _personal_files(output)
    notices = notices_among({**small, **personal})
    info = bundles[0].manifest.model
    model = Licensed(info.name, info.hub_id, notices, personal.get(CARD_NAME), info.adapters)
    terms, base = require_terms(request.hub_id, request.licence, model, ask)
    facts = CardFacts(notices, terms, request.hub_id, base.languages)
    card = {CARD_NAME: render_card(manifests_of(bundles), facts)}
    root = {**card, **small, **personal}
    root[RECORD_NAME] = record_of({name: _entry_of(content) for name, content in root.items()})
    files = [_of_bytes(name, content) for name, content in root.items()]
    for bundle in bundles:
        files += _of_bundle(bundle)
    weights = output / WEIGHTS_FOLDER if request.with_weights else None
    if weights is not None:
        files += _of_weights(weights)
    return PushPlan(tuple(files), tuple(bundles), weights, terms)


def _bundles(output: Path) -> list[Bundle]:
    """Open every bundle of an output.

    Raises:
        BundleError: there is none, one is damaged, or they are of two models.
    """
    if (output / MANIFEST_NAME).is_file():
        message = f"{output} is one bundle, and a repository is the folder around it"
        raise BundleError(message, f"push {output.resolve().parent}")
    places = [output / name for name in registry.TARGETS if (output / name).is_dir()]
    if not places:
        message = f"{output} holds no bundle; expected a folder such as {output / 'onnx'}"
        raise BundleError(message, "give the folder that the export wrote")
    bundles = [Bundle.open(place) for place in places]
    for one, other in combinations(bundles, 2):
        if not same_model(one.manifest, other.manifest):
            names = f"{one.folder.name} of {one.manifest.model.name}"
            names += f", {other.folder.name} of {other.manifest.model.name}"
            message = f"{output} holds bundles of two models: {names}"
            raise BundleError(message, "export each model to a folder of its own")
    return bundles


def _personal_files(output: Path) -> dict[str, bytes]:
    """Read what a person put at the root by a name of a card or a licence.

    Raises:
        UsageError: one is a link, or too long to be a card or a licence.
    """
    record = read_record(output)
    found: dict[str, bytes] = {}
    for path in sorted(output.iterdir()):
        if not PERSONAL.fullmatch(path.name) or is_ours(output, path.name, record):
            continue
        if path.is_symlink():
            message = f"{path} is a symbolic link, and a push follows none: what it leads to may "
            message += "not be meant for others"
            raise UsageError(message, "put a copy of the file there, or remove the link")
        if path.is_file():
            if path.stat().st_size > _MOST_PERSONAL_BYTES:
                message = f"{path} is longer than any card or licence"
                raise UsageError(message, "rename it if it is something else")
            found[path.name] = path.read_bytes()
    return found


def _entry_of(content: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(content).hexdigest(), len(content))


def _of_bytes(name: str, content: bytes) -> OutgoingFile:
    return OutgoingFile(name, content, len(content))


def _of_file(name: str, path: Path, entry: FileEntry) -> OutgoingFile:
    return OutgoingFile(name, path, entry.size_bytes, entry.sha256)


def _of_bundle(bundle: Bundle) -> list[OutgoingFile]:
    place = bundle.folder
    files = [
        _of_file(f"{place.name}/{name}", place / name, entry)
        for name, entry in bundle.manifest.files.items()
    ]
    manifest = place / MANIFEST_NAME
    return [*files, OutgoingFile(f"{place.name}/{MANIFEST_NAME}", manifest, _size(manifest))]


def _of_weights(folder: Path) -> list[OutgoingFile]:
    """List the files of kept weights that an export wrote.

    Raises:
        BundleError: there are none, or one that their record names is missing.
    """
    if not folder.is_dir():
        message = f"{folder} is not there, and --with-weights asks for it"
        raise BundleError(message, "leave it out, or export again with --keep-weights")
    hashes, extra = _weights_hashes(folder), set(extra_files(folder))
    paths = [path for path in sorted(folder.iterdir()) if path.name not in extra and path.is_file()]
    if missing := sorted(hashes.keys() - {path.name for path in paths}):
        message = f"{folder / missing[0]} is missing, or no plain file: {RECORD_FILE} names it"
        raise BundleError(message, _WEIGHTS_HINT)
    return [
        OutgoingFile(f"{folder.name}/{path.name}", path, _size(path), hashes.get(path.name))
        for path in paths
    ]


def _weights_hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file of kept weights that their record names, by its name."""
    record = Record.read(folder)
    beside = {
        key.removeprefix(HASH_OF): sha256
        for key, sha256 in record.metadata.items()
        if key.startswith(HASH_OF)
    }
    return {**beside, WEIGHTS_FILE: record.weights_sha256}


def _check_weights(folder: Path, count: Callable[[int], None]) -> None:
    """Compare the weights, and what lies beside them, with the hashes of their record."""
    for name, sha256 in _weights_hashes(folder).items():
        path = folder / name
        try:
            found = hash_file(path, count).sha256
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror or error}"
            raise BundleError(message, _WEIGHTS_HINT) from None
        if found != sha256:
            message = f"{path} is changed: expected sha256 {sha256[:12]}..., found {found[:12]}..."
            raise BundleError(message, _WEIGHTS_HINT)


def _size(path: Path) -> int:
    return path.stat().st_size
