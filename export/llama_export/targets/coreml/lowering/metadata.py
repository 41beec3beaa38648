"""What Xcode and Swift clients read about a package: descriptions, licence, advice, identifiers.

It knows Core ML's description of a model; it knows no graph and no weights.
"""

from __future__ import annotations

from typing import Any

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.targets.coreml import signature
from llama_export.targets.coreml.options import DEFAULT_COMPUTE_UNITS, CoremlOptions
from llama_export.targets.target import ArtifactMetadata

# swift-transformers fetches the tokenizer of the repository that stands under this key.
_HUB_KEY = "co.huggingface.exporters.name"
_PREFIX = "llama_export."
# An app may not map more without them.
_LARGE_BYTES = 2_000_000_000
ENTITLEMENTS = (
    "com.apple.developer.kernel.increased-memory-limit",
    "com.apple.developer.kernel.extended-virtual-addressing",
)

_DESCRIPTIONS = {
    signature.INPUT_IDS: "Token ids, int32 [1, tokens].",
    signature.CAUSAL_MASK: (
        "Added to the attention scores, float16 [1, 1, rows, total]: 0 shows a slot, a large "
        "negative number hides it. total is the tokens so far and the new ones, which gives the "
        "position: never less than the new tokens. rows is their number or 1, since the model is "
        "causal by itself."
    ),
    signature.POSITION: (
        "Tokens in the cache before this call, int32 [1]; all of inputIds must fit behind them."
    ),
    signature.LENGTH: (
        "How many of inputIds are tokens, int32 [1], at least 1; what follows them is padding."
    ),
    signature.KEY_CACHE: "Keys, float16 [layers, 1, heads, slots, head_dim].",
    signature.VALUE_CACHE: "Values, float16 [layers, 1, heads, slots, head_dim].",
    signature.PRESENT_KEYS: "The keys for the next call.",
    signature.PRESENT_VALUES: "The values for the next call.",
    signature.LOGITS: "Scores of the next token, float16 [1, tokens, vocabulary].",
}
_IO_START = " A conversation begins with one slot of zeros."
_PRUNED = f" They stand for the token ids in {_PREFIX}head_tokens, in that order."
_LAST_ROW = "Scores of the token after the last one, float16 [1, 1, vocabulary]."


def describe_model(
    model: Any,  # noqa: ANN401 - protobuf's messages have no types
    spec: GraphSpec,
    options: CoremlOptions,
    metadata: ArtifactMetadata,
) -> None:
    """Fill in a model's description.

    Args:
        model: Core ML's protobuf message, which is changed in place.
        spec: signature of the package.
        options: the user's choices.
        metadata: the model's name and origin.
    """
    description = model.description
    fields = description.metadata
    fields.shortDescription = _summary(spec, metadata)
    fields.author = metadata.author
    fields.license = metadata.notice.strip()
    fields.versionString = metadata.version
    for key, value in _user_metadata(spec, options, metadata).items():
        fields.userDefined[key] = value
    for holder in (description, *description.functions):
        for feature in (*holder.input, *holder.output, *holder.state):
            text = _describe(feature.name, spec)
            pruned = metadata.head_tokens and feature.name == signature.LOGITS
            feature.shortDescription = text + _PRUNED if pruned else text


def _summary(spec: GraphSpec, metadata: ArtifactMetadata) -> str:
    parts = [f"{metadata.name}: a language model for text, {metadata.quantization}."]
    if spec.functions:
        calls = " and ".join(f"{name} ({size} tokens)" for name, size in spec.functions.items())
        parts.append(f"Functions: {calls}.")
    parts.append(f"Up to {spec.max_context} tokens. Load it with .{DEFAULT_COMPUTE_UNITS}.")
    if metadata.weights_bytes > _LARGE_BYTES:
        parts.append(f"An iOS app needs the entitlements {' and '.join(ENTITLEMENTS)}.")
    return " ".join(parts)


def _describe(name: str, spec: GraphSpec) -> str:
    if name == signature.LOGITS and not spec.all_logits:
        return _LAST_ROW
    text = _DESCRIPTIONS[name]
    if spec.kv_cache == "io" and name in (signature.KEY_CACHE, signature.VALUE_CACHE):
        text += _IO_START
    return text


def _user_metadata(
    spec: GraphSpec, options: CoremlOptions, metadata: ArtifactMetadata
) -> dict[str, str]:
    """Return what a client may want to know, as strings, in a fixed order."""
    found = {
        f"{_PREFIX}version": metadata.version,
        f"{_PREFIX}model": metadata.name,
        f"{_PREFIX}tokenizer_file": metadata.tokenizer_file,
        f"{_PREFIX}bos_token_id": str(metadata.bos_token_id),
        f"{_PREFIX}stop_token_ids": " ".join(map(str, metadata.stop_token_ids)),
        f"{_PREFIX}max_context": str(spec.max_context),
        f"{_PREFIX}kv_cache": spec.kv_cache,
        f"{_PREFIX}quantization": metadata.quantization,
        f"{_PREFIX}compute_units": DEFAULT_COMPUTE_UNITS,
        f"{_PREFIX}deployment_target": options.deployment_target,
    }
    if metadata.head_tokens:
        found[f"{_PREFIX}head_tokens"] = " ".join(map(str, metadata.head_tokens))
    if metadata.bos_token_id is None:
        del found[f"{_PREFIX}bos_token_id"]
    if metadata.hub_id:
        found[_HUB_KEY] = metadata.hub_id
    if metadata.revision:
        found[f"{_PREFIX}revision"] = metadata.revision
    if metadata.weights_bytes > _LARGE_BYTES:
        found[f"{_PREFIX}entitlements"] = " ".join(ENTITLEMENTS)
    return found
