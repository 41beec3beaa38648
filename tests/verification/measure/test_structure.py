"""What is read of a bundle without running it."""

from __future__ import annotations

from llama_export.verification.measure.structure import recorded_hashes


def test_hashes_are_read_from_a_manifest():
    tensors = {"a": {"codes_sha256": "1", "scales_sha256": "2"}}
    assert recorded_hashes({"recipe": "int4", "tensors": tensors}) == {"a": ("1", "2")}
    assert recorded_hashes({"recipe": "bf16"}) == {}
