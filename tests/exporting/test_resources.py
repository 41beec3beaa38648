"""What an export needs of this machine: refused for the disks, said for the memory."""

from __future__ import annotations

import logging

import pytest
from artifacts.estimates import estimated
from artifacts.small_bundle import FakeMachine, export_small

from llama_export.errors import OutputError
from llama_export.exporting.resources import look_for_resources
from llama_export.sources.catalogue import Download

pytestmark = pytest.mark.usefixtures("empty_cache")


def test_room_is_refused_for_the_disk_and_said_for_the_memory(tmp_path, caplog, monkeypatch):
    # The command line, if it ran before, took the notices for itself.
    monkeypatch.setattr(logging.getLogger("llama_export"), "propagate", True)
    found = estimated("3.2-1B")
    look_for_resources(found, tmp_path, FakeMachine()).require()
    assert caplog.records == []
    full = look_for_resources(found, tmp_path, FakeMachine(free_disk=found.disk_bytes - 1))
    with pytest.raises(
        OutputError, match=r"needs 1\.65 GB at .*, and 1\.65 GB are free"
    ) as refused:
        full.require()
    assert "--output" in refused.value.hint
    look_for_resources(found, tmp_path, FakeMachine(free_disk=found.disk_bytes)).require()
    tight = look_for_resources(found, tmp_path, FakeMachine(memory=4 * 10**9, available=10**9))
    tight.require()
    assert not tight.memory_is_hopeless
    assert tight.to_json()["fits"] is True
    assert "--no-verify" in caplog.text
    assert "about 2.68 GB of memory" in caplog.text
    hopeless = look_for_resources(found, tmp_path, FakeMachine(memory=2 * 10**9, available=10**9))
    assert hopeless.memory_is_hopeless
    assert hopeless.to_json()["fits"] is False


def test_a_full_disk_ends_an_export_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_export.system.machine.Machine.free_disk_bytes", lambda *_: 1_000_000)

    def open_source(_model):
        pytest.fail("nothing may be opened, let alone downloaded")

    monkeypatch.setattr("llama_export.exporting.pipeline.open_source", open_source)
    with pytest.raises(OutputError, match="are free"):
        export_small(tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_cache_on_another_disk_is_looked_at_alone(tmp_path, monkeypatch):
    found = estimated("3.2-1B")
    download = Download(found.download_bytes, tmp_path / "hub")
    free = {tmp_path / "out": found.disk_bytes, download.folder: found.download_bytes}

    class TwoDisks(FakeMachine):
        def free_disk_bytes(self, place):
            return free[place]

    def look():
        return look_for_resources(found, tmp_path / "out", TwoDisks(), download=download)

    with pytest.raises(OutputError, match="on the same disk"):
        look().require()
    monkeypatch.setattr("llama_export.exporting.resources._disk_of", lambda place: place.name)
    look().require()
    free[download.folder] -= 1
    with pytest.raises(OutputError, match=r"download of 3\.2-1B needs 2\.47 GB") as refused:
        look().require()
    assert "HF_HOME" in refused.value.hint


def test_a_full_cache_disk_ends_an_export_before_its_download(no_network, monkeypatch, tmp_path):
    from artifacts.small_bundle import Silent

    from llama_export.exporting.pipeline import ExportRequest, export_bundle

    pytest.importorskip("onnx", reason="needs the onnx extra")
    machine = FakeMachine(free_disk=estimated("3.2-3B").disk_bytes)
    monkeypatch.setattr("llama_export.exporting.plan.Machine", lambda: machine)
    monkeypatch.setattr(
        "llama_export.exporting.pipeline.fetch_named",
        lambda *_, **__: pytest.fail("nothing is fetched"),
    )
    with pytest.raises(OutputError, match="its download"):
        export_bundle(ExportRequest("3.2-3B", ("onnx",), tmp_path / "out"), Silent())
