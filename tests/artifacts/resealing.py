"""Seal a bundle again after a test changed a file, so that no file's hash gives it away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from artifacts.opened import stored_in

from llama_export.bundle.bundle import Bundle, seal
from llama_export.bundle.manifest import Manifest


def reseal(folder: Path, *, relabel: bool = False) -> Bundle:
    """With `relabel`, the manifest records the codes and scales that the artifact really holds."""
    old = Manifest.read(folder / "manifest.json")
    quantization = dict(old.quantization)
    if relabel:
        quantization["tensors"] = {
            name: {"codes_sha256": codes, "scales_sha256": scales}
            for name, (codes, scales) in stored_in(Bundle(folder, old)).quantized.items()
        }
    seal(folder, replace(old, quantization=quantization))
    return Bundle.open(folder)
