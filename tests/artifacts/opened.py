"""What a bundle's target says of its artifact, in one word each."""

from __future__ import annotations

from llama_export.bundle.bundle import Bundle
from llama_export.llama.activations import RoundedInputs
from llama_export.llama.intermediates import Probe
from llama_export.targets import registry
from llama_export.targets.footprint import Footprint
from llama_export.targets.session import Session
from llama_export.targets.stored import StoredArtifact, StoredWeights
from llama_export.targets.target import Target


def target_of(bundle: Bundle) -> Target:
    return registry.get(bundle.manifest.target)


def session_of(bundle: Bundle, **options) -> Session:
    return target_of(bundle).open_session(StoredArtifact.of(bundle), **options)


def stored_in(bundle: Bundle) -> StoredWeights:
    return target_of(bundle).stored(StoredArtifact.of(bundle))


def footprint_of(bundle: Bundle) -> Footprint:
    return target_of(bundle).describe(StoredArtifact.of(bundle))


def probe_of(bundle: Bundle, **options) -> Probe | None:
    return target_of(bundle).probe(StoredArtifact.of(bundle), **options)


def rounded_inputs_of(bundle: Bundle) -> RoundedInputs | None:
    return target_of(bundle).rounded_inputs(StoredArtifact.of(bundle))
