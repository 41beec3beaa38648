"""Read what a package takes and gives, and what it tells its clients, from its own bytes.

It knows Core ML's description of a model; it reads no weight and runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coreml_evaluator.description import Feature, Signature, read_signatures
from coreml_evaluator.package import Package
from coreml_evaluator.types import NUMPY, TensorType, read_type
from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import IO, STATE, GraphSpec, TensorSpec
from llama_export.errors import EvaluationError
from llama_export.targets.coreml import signature as names
from llama_export.targets.coreml.options import DEFAULT_COMPUTE_UNITS
from llama_export.targets.damage import damage_named
from llama_export.targets.own_description import OwnDescription, Said, kept_names
from llama_export.targets.stored import StoredArtifact

_PREFIX = "llama_export."
_HUB_KEY = "co.huggingface.exporters.name"
# Of iOS 17 and of what came after it: Core ML's number of a package's version.
_SYSTEMS = {8: "iOS17", 9: "iOS18", 10: "iOS26"}
_SLOTS = 3
_VARIES = "varies"
_JSON_FILE = "tokenizer.json"
_NOTICE = "NOTICE"


def read_description(bundle: Bundle) -> OwnDescription:
    """Read the package's own signature, and what its metadata says of the model.

    Raises:
        BundleError: the package is damaged, or not laid out as ours are.
    """
    package = Package.open(bundle.artifact)
    recorded = GraphSpec.from_json(bundle.manifest.graph)
    with damage_named(bundle.artifact, EvaluationError):
        signature = _signature(package, recorded)
        return OwnDescription(signature, tuple(_said(package, bundle, signature)))


def _signature(package: Package, recorded: GraphSpec) -> GraphSpec:
    functions = read_signatures(package.model)
    calls = {each: _calls(found) for each, found in functions.items()}
    # Of several functions the manifest has the signature of the one that takes the fewest tokens.
    name = min(functions, key=lambda each: calls[each] or 0)
    own = functions[name]
    caches = {each.name: each for each in (*own.states, *own.inputs)}
    capacity = _largest(caches[names.KEY_CACHE], _SLOTS)
    fixed = all(isinstance(count, int) for count in calls.values())
    return GraphSpec(
        inputs=_named(own.inputs, recorded.inputs, capacity),
        outputs=_outputs(package, name, own, recorded, capacity),
        kv_cache=STATE if own.states else IO,
        max_context=capacity,
        all_logits=not fixed,
        states=_named(own.states, recorded.states, capacity),
        functions={each: count for each, count in calls.items() if isinstance(count, int)},
    )


def _calls(signature: Signature) -> int | None:
    """Return how many tokens a call takes, which then has a position; None: any number."""
    inputs = {each.name: each for each in signature.inputs}
    count = (inputs[names.INPUT_IDS].shape or (1, (1, 1)))[1]
    return count if isinstance(count, int) and names.POSITION in inputs else None


def _largest(feature: Feature, axis: int) -> int:
    size = (feature.shape or ())[axis]
    return size if isinstance(size, int) else size[1]


def _named(
    features: tuple[Feature, ...], recorded: tuple[TensorSpec, ...], capacity: int
) -> tuple[TensorSpec, ...]:
    found = []
    for index, feature in enumerate(features):
        # What varies goes from one to the whole context; any other end is a number, and differs.
        shape = tuple(
            size if isinstance(size, int) else _VARIES if size == (1, capacity) else size[1]
            for size in feature.shape or ()
        )
        own = TensorSpec(feature.name, feature.dtype, shape)
        found.append(kept_names(own, recorded, index, single=capacity == 1))
    return tuple(found)


def _outputs(
    package: Package, function: str, own: Signature, recorded: GraphSpec, capacity: int
) -> tuple[TensorSpec, ...]:
    """Describe the outputs; the description has no shape of theirs, the program has."""
    types = _result_types(package, function)
    found = []
    for index, feature in enumerate(own.outputs):
        kind = types[feature.name]
        shape = tuple(_VARIES if size is None else size for size in kind.shape or ())
        spec = TensorSpec(feature.name, NUMPY[kind.dtype].name, shape)
        found.append(kept_names(spec, recorded.outputs, index, single=capacity == 1))
    return tuple(found)


def _result_types(package: Package, function: str) -> Mapping[str, TensorType]:
    (block,) = package.model.mlProgram.functions[function].block_specializations.values()
    wanted = set(block.outputs)
    found = {}
    for operation in block.operations:
        for output in operation.outputs:
            if output.name in wanted:
                kind = read_type(output.type, output.name)
                if isinstance(kind, TensorType):
                    found[output.name] = kind
    return found


def _said(package: Package, bundle: Bundle, signature: GraphSpec) -> Iterator[Said]:
    fields = package.model.description.metadata
    expected = _expected(package, bundle, signature)
    found: dict[str, Any] = dict(fields.userDefined)
    for key in sorted({*expected, *found}):
        yield Said(key, expected.get(key), found.get(key))
    yield Said("license", _notice(bundle), fields.license)


def _expected(package: Package, bundle: Bundle, signature: GraphSpec) -> Mapping[str, str]:
    manifest = bundle.manifest
    model, tokenizer, quantization = manifest.model, manifest.tokenizer, manifest.quantization
    size = quantization.get("group_size")
    groups = "" if size is None else f" in groups of {size}"
    own = {
        "version": manifest.created_with.get("llama-export", ""),
        "model": model.name,
        "tokenizer_file": _JSON_FILE if _JSON_FILE in manifest.files else tokenizer["file"],
        "stop_token_ids": " ".join(map(str, tokenizer["stop_token_ids"])),
        "max_context": str(signature.max_context),
        "kv_cache": signature.kv_cache,
        "quantization": f"{quantization['recipe']} weights{groups}",
        "compute_units": DEFAULT_COMPUTE_UNITS,
        "deployment_target": _SYSTEMS[package.model.specificationVersion],
    }
    if kept := StoredArtifact.of(bundle).head_tokens:
        own["head_tokens"] = " ".join(map(str, kept))
    if tokenizer["bos_token_id"] is not None:
        own["bos_token_id"] = str(tokenizer["bos_token_id"])
    if model.revision:
        own["revision"] = model.revision
    entitlements = f"{_PREFIX}entitlements"
    said = package.model.description.metadata.userDefined
    found = {f"{_PREFIX}{key}": text for key, text in own.items()}
    if model.hub_id:
        found[_HUB_KEY] = model.hub_id
    # Advice that depends on the size of the weights, which nothing else in a bundle records.
    return found | ({entitlements: said[entitlements]} if entitlements in said else {})


def _notice(bundle: Bundle) -> str | None:
    """Return the text of the NOTICE; None: the bundle has none."""
    if _NOTICE not in bundle.manifest.files:
        return None
    return bundle.path(_NOTICE).read_text(encoding="utf-8", errors="replace").strip()
