"""What the tests of the hub share: nothing of this machine, and no waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.hub import REPOSITORY, nothing_of_this_machine

from llama_export.sources import download as download_module
from llama_export.sources.repository import fetch


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No token, no proxy, no cache of this machine, no waiting."""
    monkeypatch.setattr(download_module, "_FIRST_WAIT_S", 0.001)
    with nothing_of_this_machine(monkeypatch, tmp_path):
        yield


@pytest.fixture
def get(hub, tmp_path):
    """Fetch from the module's own `hub` into an empty cache."""

    def get(**options) -> Path:
        options = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache", **options}
        return fetch(REPOSITORY, **options).path

    return get
