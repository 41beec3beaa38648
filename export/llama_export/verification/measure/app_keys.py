"""Compare the keys of a manifest that are there for apps, memory and chat, with what they speak of.

It judges nothing.
"""

from __future__ import annotations

from llama_export.bundle.app_keys import CHAT, MEMORY
from llama_export.bundle.manifest import MANIFEST_NAME
from llama_export.llama.names import expected_shapes
from llama_export.sources.manifest_fields import describe_chat
from llama_export.verification.artifact import Artifact
from llama_export.verification.measure.differences import Difference, differing_values
from llama_quantize.strict_json import JsonFault, parse_object

_SETTINGS = "tokenizer_config.json"
# The memory of a loaded artifact is an estimate, which its options move by a few hundredths, and in
# a small model by a graph that is there twice.
_MEMORY_SHARE, _MEMORY_BYTES = 0.05, 2**20


def memory_differences(artifact: Artifact) -> list[Difference] | None:
    """Compare a manifest's memory with its artifact; None: an older export did not say.

    The cache's share is exact. That of the loaded artifact depends on how its weights are stored,
    so without them it is not compared.

    Raises:
        BundleError: the artifact is damaged.
    """
    said = artifact.bundle.manifest.memory
    if said is None:
        return None
    expected = artifact.target.describe(artifact.on_disk).memory()
    resident = said["resident_bytes"]
    if artifact.weights is not None:
        shapes = expected_shapes(artifact.config)
        schemes = {name: artifact.weights.scheme(name) for name in shapes}
        context, options = artifact.on_disk.spec.max_context, artifact.target.Options()
        known = artifact.target.predict(artifact.config, shapes, schemes, context, options)
        allowed = _MEMORY_SHARE * known.resident_bytes + _MEMORY_BYTES
        if abs(resident - known.resident_bytes) > allowed:
            resident = known.resident_bytes
    wanted = expected | {"resident_bytes": resident}
    return list(differing_values(MANIFEST_NAME, MEMORY, wanted, dict(said)))


def chat_differences(artifact: Artifact) -> list[Difference] | None:
    """Compare a manifest's turns with those of the template beside it; None: it says nothing.

    Whether the template is the model's own is another row's question.

    Raises:
        TokenizerError: the bundle's tokenizer cannot be read.
    """
    manifest = artifact.bundle.manifest
    if manifest.chat is None:
        return None
    settings: dict[str, object] = {}
    if _SETTINGS in manifest.files:
        try:
            settings = parse_object(artifact.bundle.path(_SETTINGS).read_bytes())
        except JsonFault as fault:
            return [Difference(_SETTINGS, "", "valid JSON", str(fault))]
    expected = describe_chat(manifest.model.name, artifact.tokenizer, settings)
    return list(differing_values(MANIFEST_NAME, CHAT, expected, dict(manifest.chat)))
