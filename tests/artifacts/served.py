"""A server on a free port of this machine, in a thread, for tests that ask it as a client does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_export.bundle.manifest import Manifest
from llama_export.generation.opening import open_session
from llama_export.serving.catalogue import Catalogue, Opened
from llama_export.serving.settings import ServerSettings
from llama_export.targets import registry


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Args:
        port: port of 127.0.0.1.
        catalogue: what it serves.
        lines: what it logged.
    """

    port: int
    catalogue: Catalogue
    lines: list[object]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def opened(folder: Path, **options: object) -> Opened:
    manifest = Manifest.read(folder / "manifest.json")
    session = open_session(folder, threads=1, **options)
    frees = registry.get(manifest.target).frees_interpreter
    return Opened(folder, manifest, session, frees_interpreter=frees)


@contextmanager
def running(*folders: Path, settings: ServerSettings | None = None) -> Iterator[Running]:
    """Serve bundles within the block."""
    for name in ("starlette", "uvicorn", "prometheus_client"):
        pytest.importorskip(name, reason="needs the extra serve")
    import uvicorn

    from llama_export.serving.app import make_app

    chosen = settings or ServerSettings()
    catalogue = Catalogue([opened(folder) for folder in folders], chosen)
    lines: list[object] = []
    config = uvicorn.Config(
        make_app(catalogue, chosen, lines.append),
        log_config=None,
        log_level="critical",
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    with socket.create_server((chosen.host, 0)) as taken:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        yield Running(taken.getsockname()[1], catalogue, lines)
        catalogue.stop()
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the server does not end"
