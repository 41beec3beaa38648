"""Seal a bundle again after a test changed a file, so that no file's hash gives it away."""

from __future__ import annotations

from pathlib import Path

from llama_export.bundle.bundle import Bundle, seal
from llama_export.bundle.manifest import Manifest
from llama_export.targets import registry


def reseal(folder: Path, *, relabel: bool = False) -> Bundle:
    """With `relabel`, the manifest records the codes and scales that the artifact really holds."""
    old = Manifest.read(folder / "manifest.json")
    quantization = dict(old.quantization)
    if relabel:
        quantization["tensors"] = {
            name: {"codes_sha256": codes, "scales_sha256": scales}
            for name, (codes, scales) in registry.read_back(Bundle(folder, old)).items()
        }
    seal(
        folder,
        target=old.target,
        artifact=old.artifact,
        model=old.model,
        graph=old.graph,
        quantization=quantization,
        tokenizer=old.tokenizer,
        created_with=old.created_with,
    )
    return Bundle.open(folder)
