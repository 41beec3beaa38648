"""A real, tiny bundle for tests that read one, and a machine whose readings a test chooses."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from artifacts.tiny import TINY, write_checkpoint

from llama_export.system.machine import CpuTimes


class Silent:
    """No progress."""

    @contextmanager
    def step(self, _label):
        yield lambda _done, _total: None


def export_small(folder: Path, config=TINY, **choices) -> Path:
    """Export a random model to `folder/out` without a check, and return that."""
    from llama_export.exporting.pipeline import ExportRequest, export_bundle

    checkpoint = write_checkpoint(folder / "tiny", config)
    request = ExportRequest(
        str(checkpoint), ("onnx",), folder / "out", verify=False, force=True, **choices
    )
    return export_bundle(request, Silent()).output


@dataclass
class FakeMachine:
    """A clock that a fake session moves, and memory, disk and processors as wished."""

    now_s: float = 0.0
    memory: int = 16_000_000_000
    available: int = 12_000_000_000
    free_disk: int = 500_000_000_000
    # Cores that others keep busy, before a measurement and during it.
    others_before: float = 0.0
    others_during: float = 0.0
    own_s: float = 0.0
    busy_s: float = 0.0
    resident: int = 1_000
    readings: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.busy_s += seconds * self.others_before

    def work(self, seconds: float) -> None:
        """Let this process compute on one core."""
        self.now_s += seconds
        self.own_s += seconds
        self.busy_s += seconds * (1 + self.others_during)

    def cpu_times(self) -> CpuTimes:
        return CpuTimes(self.now_s, self.busy_s, self.own_s)

    def load_average(self) -> float:
        return 0.5

    def resident_bytes(self) -> int:
        return self.resident

    def peak_resident_bytes(self) -> int:
        return 5 * self.resident

    def cores(self) -> int:
        return 2

    def memory_bytes(self) -> int:
        return self.memory

    def available_bytes(self) -> int:
        return self.available

    def free_disk_bytes(self, _place: Path) -> int:
        return self.free_disk
