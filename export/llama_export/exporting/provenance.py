"""What a bundle and its artifact say about the model that they were made from.

It gathers facts of the source, the weights and the installed packages; it writes nothing.
"""

from __future__ import annotations

import platform

from llama_export.exporting.plan import TargetPlan
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import expected_shapes
from llama_export.sources.manifest_fields import first_token, group_size_of
from llama_export.sources.source import Source
from llama_export.system.installed import installed_version
from llama_export.targets import registry
from llama_export.targets.target import ArtifactMetadata
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_export.version import __version__
from llama_quantize.checkpoint.weights import QuantizedWeights

# The form that Hugging Face's clients read, in Swift too.
_CLIENTS_FILE = "tokenizer.json"


def artifact_metadata(source: Source, weights: QuantizedWeights, notice: str) -> ArtifactMetadata:
    """Gather what an artifact may say about itself.

    Args:
        source: model that it is made from.
        weights: quantised weights that it will hold.
        notice: text of the bundle's NOTICE.
    """
    info, group_size = source.info, group_size_of(weights)
    groups = "" if group_size is None else f" in groups of {group_size}"
    return ArtifactMetadata(
        name=info.name,
        hub_id=info.hub_id,
        revision=info.revision,
        notice=notice,
        tokenizer_file=_client_file(source.tokenizer),
        bos_token_id=first_token(source.tokenizer, source.config),
        stop_token_ids=tuple(sorted(source.config.eos_token_id)),
        quantization=f"{weights.recipe.name} weights{groups}",
        weights_bytes=weights.size_bytes,
        version=__version__,
        head_tokens=source.config.head_tokens,
        generation=source.generation_config(),
    )


def memory_needed(
    each: TargetPlan, config: LlamaConfig, weights: QuantizedWeights
) -> dict[str, int]:
    """Return what a manifest says of the memory that running a target's artifact takes."""
    shapes = expected_shapes(config)
    schemes = {name: weights.scheme(name) for name in shapes}
    context, options = each.estimate.max_context, each.options
    return each.target.predict(config, shapes, schemes, context, options).memory()


def _client_file(tokenizer: Tokenizer) -> str:
    """Name the file that clients read: tokenizer.json, unless none says the same as the other."""
    return _CLIENTS_FILE if _CLIENTS_FILE in tokenizer.files() else tokenizer.file


def versions_used(target: str) -> dict[str, str]:
    """Return the versions of what makes a target's bundle, by package name."""
    versions = {"llama-export": __version__, "python": platform.python_version()}
    packages = ("torch", "safetensors", *registry.get(target).toolkits)
    installed = {distribution: installed_version(distribution) for distribution in packages}
    return versions | {name: value for name, value in installed.items() if value}
