"""A lowered artifact on disk, and the weights that are read back out of its bytes.

It knows a path, a signature and hashes; it does not know how any target stores a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BundleError
from llama_export.llama.config_bounds import head_faults
from llama_export.llama.intermediates import FloatArray
from llama_export.llama.own_keys import read_own_keys


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact in its folder.

    Args:
        path: file, or for a Core ML package the folder, that the runtime loads.
        spec: signature of the artifact, from the manifest.
        model: config of the model, from the manifest; empty when it is not known.
    """

    path: Path
    spec: GraphSpec
    model: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle) -> StoredArtifact:
        """Return a bundle's artifact.

        Raises:
            BundleError: the manifest's graph is damaged.
        """
        return cls(bundle.artifact, bundle.manifest.spec, bundle.manifest.model.config)

    @property
    def head_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that the logits stand for; empty: each stands for its own index.

        Raises:
            ConfigError, UnsupportedModelError: the manifest's config is damaged, or a newer one.
            BundleError: its ids are not in order, not in the vocabulary, or not as many as logits.
        """
        ids: tuple[int, ...] = read_own_keys(self.model, "manifest.json").get("head_tokens", ())
        faults = head_faults(ids, self.vocab_size, tied=False)
        if ids and len(ids) != self._num_logits:
            faults.append(f"{len(ids)} head_tokens for {self._num_logits} logits")
        if faults:
            message = f"manifest.json: {'; '.join(faults)}"
            raise BundleError(message, "export the bundle again")
        return ids

    @property
    def vocab_size(self) -> int:
        """Number of ids that may be read: the config's where the head was pruned, else of logits.

        Raises:
            ConfigError, UnsupportedModelError: as `head_tokens`.
        """
        known = self.model.get("vocab_size")
        pruned = read_own_keys(self.model, "manifest.json").get("head_tokens")
        return known if pruned and isinstance(known, int) else self._num_logits

    @property
    def _num_logits(self) -> int:
        return int(self.spec.outputs[0].shape[-1])


@dataclass(frozen=True)
class StoredWeights:
    """Weights of an artifact, read from its own bytes.

    A weight that the artifact holds twice, in two different forms, comes out twice, the second time
    with the place in its name.

    Args:
        quantized: SHA-256 of codes and of scales by the weight's name, in the form that
            `QuantizedTensor.codes_sha256` and `.scales_sha256` document.
        floats: SHA-256 of norms and float matrices by the weight's name, as float32, row by row.
        rotary: rotary tables, float32 `[C, D/2]`; the cosines' names begin with "cos ", the sines'
            with "sin ". A table that is computed in the graph, and not stored, is empty.
    """

    quantized: Mapping[str, tuple[str, str]]
    floats: Mapping[str, str]
    rotary: Mapping[str, FloatArray]
