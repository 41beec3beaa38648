"""What an export returns: the published bundles, with each one's verification. It does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_export.bundle.bundle import Bundle
    from llama_export.verification.rows import VerifyReport


@dataclass(frozen=True)
class ExportedBundle:
    """One target's result."""

    bundle: Bundle
    report: VerifyReport | None


@dataclass(frozen=True)
class ExportResult:
    """All results of one export.

    Args:
        output: folder of the bundles.
        bundles: bundles in the order of their making, at least one.
        elapsed_s: seconds that it took.
        width_notes: what became of the weights that no group divides.
        root_notes: what is not at the output's root, and why.
    """

    output: Path
    bundles: tuple[ExportedBundle, ...]
    elapsed_s: float
    width_notes: tuple[str, ...] = ()
    root_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user must know of how the model was read and stored."""
        model = self.bundles[0].bundle.manifest.model
        return (*model.notes, *self.width_notes, *self.root_notes)

    def __repr__(self) -> str:
        made = ", ".join(each.bundle.manifest.target for each in self.bundles)
        return f"<ExportResult {self.output}: {made} in {self.elapsed_s:.1f} s>"

    def to_json(self) -> dict[str, Any]:
        """Return what was written, and each bundle's verification."""
        return {
            "output": str(self.output),
            "elapsed_s": round(self.elapsed_s, 2),
            "notes": list(self.notes),
            "bundles": [
                {
                    "target": exported.bundle.manifest.target,
                    "folder": str(exported.bundle.folder),
                    "size_bytes": exported.bundle.size_bytes,
                    "verification": exported.report.to_json() if exported.report else None,
                }
                for exported in self.bundles
            ],
        }
