"""What a bundle and its artifact say about the model that they were made from.

It gathers facts of the source, the weights and the installed packages; it writes nothing.
"""

from __future__ import annotations

import math
import platform
from typing import Any

from llama_export.sources.source import Source
from llama_export.system.installed import installed_version
from llama_export.targets import registry
from llama_export.targets.target import ArtifactMetadata
from llama_export.tokenizer.chat_format import stop_token_ids
from llama_export.version import __version__
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.scheme import shared_group_size
from llama_quantize.tensor import QuantizedTensor

# The form that Hugging Face's clients read, in Swift too; it is in every bundle.
_TOKENIZER_FILE = "tokenizer.json"


def artifact_metadata(source: Source, weights: QuantizedWeights, notice: str) -> ArtifactMetadata:
    """Gather what an artifact may say about itself.

    Args:
        source: model that it is made from.
        weights: quantised weights that it will hold.
        notice: text of the bundle's NOTICE.
    """
    info, group_size = source.info, _group_size(weights)
    groups = "" if group_size is None else f" in groups of {group_size}"
    return ArtifactMetadata(
        name=info.name,
        hub_id=info.hub_id,
        revision=info.revision,
        notice=notice,
        tokenizer_file=_TOKENIZER_FILE,
        bos_token_id=source.tokenizer.bos_token_id,
        stop_token_ids=tuple(stops_of(source)),
        quantization=f"{weights.recipe.name} weights{groups}",
        weights_bytes=weights.size_bytes,
        version=__version__,
    )


def stops_of(source: Source) -> list[int]:
    """Return the tokens that end a text: the tokenizer's, and those of the model's config."""
    return sorted({*stop_token_ids(source.tokenizer), *source.config.eos_token_id})


def versions_used(target: str) -> dict[str, str]:
    """Return the versions of what makes a target's bundle, by package name."""
    versions = {"llama-export": __version__, "python": platform.python_version()}
    packages = ("torch", "safetensors", *registry.get(target).toolkits)
    installed = {distribution: installed_version(distribution) for distribution in packages}
    return versions | {name: value for name, value in installed.items() if value}


def describe_quantization(weights: QuantizedWeights) -> dict[str, Any]:
    """Describe for the manifest how the weights were made, and what they are to the bit."""
    quantised = {name: weights.get(name) for name in weights.names()}
    sqnr_db = weights.summary.sqnr_db
    return {
        "recipe": weights.recipe.name,
        "group_size": _group_size(weights),
        "bits_per_weight": round(weights.summary.bits_per_weight, 4),
        "sqnr_db": round(sqnr_db, 2) if math.isfinite(sqnr_db) else None,
        "tensors": {
            name: {"codes_sha256": tensor.codes_sha256(), "scales_sha256": tensor.scales_sha256()}
            for name, tensor in quantised.items()
            if isinstance(tensor, QuantizedTensor)
        },
    }


def _group_size(weights: QuantizedWeights) -> int | None:
    return shared_group_size(weights.scheme(name) for name in weights.names())
