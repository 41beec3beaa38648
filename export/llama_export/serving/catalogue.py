"""The bundles that a server serves, by the names that a request may call them.

A bundle is called what its model is called; where two have the same model, by the path that was
given. It knows names and manifests; it does not know protocols.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from llama_export.bundle.graph_spec import STATE
from llama_export.bundle.manifest import Manifest
from llama_export.errors import UsageError
from llama_export.generation.defaults import ANSWER_TOKENS, COMPLETION_TOKENS
from llama_export.generation.text_session import TextSession
from llama_export.serving.engine import Engine
from llama_export.serving.refusals import ApiError
from llama_export.serving.settings import ServerSettings

_SHOWN = 20
_DRAWING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True)
class Opened:
    """A bundle that was opened to be served.

    Args:
        folder: its folder, as it was given.
        manifest: its manifest.
        session: a session on it.
        frees_interpreter: whether Python goes on in other threads while its runtime computes.
        draft_bytes_per_token: growth of the KV cache of what drafts for it, in each session.
    """

    folder: Path
    manifest: Manifest
    session: TextSession
    frees_interpreter: bool = True
    draft_bytes_per_token: int = 0


@dataclass(frozen=True)
class Served:
    """A bundle that is served.

    Args:
        id: what it is called.
        aliases: what it may be called as well.
        manifest: its manifest.
        engine: what answers with it.
        created: when its manifest was written, in seconds since 1970.
    """

    id: str
    aliases: frozenset[str]
    manifest: Manifest
    engine: Engine
    created: int

    @property
    def session(self) -> TextSession:
        """The session from which others are forked."""
        return self.engine.session

    @property
    def fingerprint(self) -> str:
        """A short name of these weights in this form."""
        return f"fp_{self.session.identity.sha256[:12]}"

    def facts(self, most_tokens: int) -> dict[str, object]:
        """Return which artifact it is, how long its texts may be, and how the model draws them.

        Args:
            most_tokens: largest number of new tokens that the server writes.
        """
        session = self.session
        usual = ANSWER_TOKENS if session.for_chat else COMPLETION_TOKENS
        return {
            "target": self.manifest.target,
            "recipe": str(self.manifest.quantization.get("recipe", "")),
            "size_bytes": total_bytes([self.manifest]),
            "context": session.max_context,
            "for_chat": session.for_chat,
            "runs_in": session.substitute_runtime or None,
            "max_tokens": {"usual": min(usual, most_tokens), "most": most_tokens},
            "drawing": {name: getattr(session.sampling, name) for name in _DRAWING},
        }


class Catalogue:
    """The served bundles.

    Args:
        opened: bundles in the order in which they are listed.
        settings: how the server answers.

    Raises:
        UsageError: a bundle is there twice.
    """

    def __init__(self, opened: Sequence[Opened], settings: ServerSettings) -> None:
        folders = [_whole(each.folder) for each in opened]
        for folder, times in Counter(folders).items():
            if times > 1:
                message = f"{folder} is given twice"
                raise UsageError(message, "give each bundle once")
        names = Counter(each.manifest.model.name for each in opened)
        self.served = tuple(
            _serve(each, place, settings, is_only=names[each.manifest.model.name] == 1)
            for each, place in zip(opened, distinct_ends(folders, names), strict=True)
        )

    def find(self, name: str) -> Served:
        """Return the bundle of a name; the only one needs none.

        Raises:
            ApiError: there is none of that name, or several are meant.
        """
        if not name and len(self.served) == 1:
            return self.served[0]
        if not name:
            message = f"model is missing: this server has {self._listed()}"
            raise ApiError(400, message, param="model", code="missing_parameter")
        # ollama's clients add a tag to a name that has none.
        for asked in (name, name.removesuffix(":latest")):
            found = [each for each in self.served if asked == each.id or asked in each.aliases]
            if len(found) == 1:
                return found[0]
        named = [each.id for each in self.served if each.manifest.model.name == name]
        if named:
            message = f"model {name!r:.80} may be {' or '.join(named)}: ask for one of them"
            raise ApiError(400, message, param="model", code="ambiguous_model")
        message = f"there is no model {name!r:.80}: this server has {self._listed()}"
        raise ApiError(404, message, param="model", code="model_not_found")

    def stop(self) -> None:
        """Let every answer end at its next step."""
        for each in self.served:
            each.engine.stop()

    def close(self) -> None:
        """Let go of every bundle."""
        for each in self.served:
            each.engine.close()

    def _listed(self) -> str:
        return ", ".join(each.id for each in self.served[:_SHOWN])


def _serve(opened: Opened, place: str, settings: ServerSettings, *, is_only: bool) -> Served:
    manifest = opened.manifest
    memory = manifest.memory or {}
    engine = Engine(
        opened.session,
        settings,
        bytes_per_token=memory.get("kv_bytes_per_token", 0) + opened.draft_bytes_per_token,
        cache_is_inside=manifest.spec.kv_cache == STATE,
        frees_interpreter=opened.frees_interpreter,
    )
    written = (opened.folder / "manifest.json").stat().st_mtime
    aliases = frozenset({place, opened.folder.as_posix()})
    name = manifest.model.name if is_only else place
    return Served(name, aliases, manifest, engine, int(written))


def _whole(folder: Path) -> Path:
    """Return a folder's whole path; a link keeps its own name."""
    return folder.resolve() if folder.name in ("", "..") else folder.absolute()


def distinct_ends(folders: Sequence[PurePath], taken: Collection[str]) -> list[str]:
    """Return the shortest ends of paths by which folders are told apart, with slashes.

    What stands before them is nothing that a client needs to know.

    Args:
        folders: whole paths, each another one.
        taken: names that mean something else.
    """
    most = max(len(folder.parts) for folder in folders)
    found: dict[PurePath, str] = {}
    for length in range(1, most + 1):
        ends = {folder: "/".join(folder.parts[-length:]) for folder in folders}
        times = Counter(ends.values())
        for folder, end in ends.items():
            if times[end] == 1 and (end not in taken or length == most):
                found.setdefault(folder, end)
    return [found[folder] for folder in folders]


def total_bytes(manifests: Iterable[Manifest]) -> int:
    """Return the size of bundles' files together."""
    return sum(entry.size_bytes for each in manifests for entry in each.files.values())
