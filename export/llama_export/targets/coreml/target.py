"""The Core ML target: its facts, its limits and costs, and the way to each of its parts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from llama_export.targets.coreml.options import (
    CoremlOptions,
    require_consistent,
    require_fitting_context,
    require_fitting_schemes,
)
from llama_export.targets.costs import Cost, Costs
from llama_export.targets.damage import damage_named
from llama_export.targets.limits import Limit, Limits
from llama_export.targets.options import TargetOptions, own_options
from llama_export.targets.target import ArtifactMetadata, Lowered, SubstituteRuntime, Target

if TYPE_CHECKING:
    from pathlib import Path

    from llama_export.bundle.bundle import Bundle
    from llama_export.llama.activations import RoundedInputs
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.intermediates import Intermediates, Probe
    from llama_export.llama.names import Shapes
    from llama_export.llama.trace import TracedLlama
    from llama_export.targets.coreml.running.lookup import CoremlLookup
    from llama_export.targets.coreml.running.session import CoremlSession
    from llama_export.targets.footprint import Footprint
    from llama_export.targets.own_description import OwnDescription
    from llama_export.targets.stored import StoredArtifact, StoredWeights
    from llama_export.targets.wiring import Wiring
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme

# coremltools 9 has no wheel from this Python on.
_TOO_NEW = (3, 14)


class CoremlTarget(Target):
    """Core ML's package; on a Mac Core ML runs it, elsewhere the evaluator."""

    name: ClassVar[str] = "coreml"
    title: ClassVar[str] = "Core ML"
    toolkits: ClassVar[tuple[str, ...]] = ("coremltools",)
    # A package sets memory apart for the whole cache of a conversation: 2048 positions of the 1B
    # are 67 MB.
    default_max_context: ClassVar[int] = 2048
    Options: ClassVar[type[TargetOptions]] = CoremlOptions
    # Exact is the evaluator without rounding to float16; as shipped, every result is rounded.
    limits: ClassVar[Limits] = Limits(
        has_exact_mode=True,
        exact_wording="in float32 (evaluated without rounding)",
        exact_kl=Limit(
            3e-10, "only the order of float32 sums differs: 4e-12 at 1B, 1e-11 on SmolLM2"
        ),
        exact_rel_rms=Limit(1e-4, "float32 sums in another order: 3e-6 was measured at 1B"),
        same_rel_rms=Limit(1e-4, "the same package in other portions: 3e-6 measured at 1B"),
        cache_rel_rms=Limit(1e-4, "float32 sums in another order: 4e-6 was measured at 1B"),
        shipped_kl=Limit(1e-4, "activations and the cache are float16: 2e-6 measured at 1B"),
        shipped_kl_untrained=Limit(1e-4, "activations and the cache are float16"),
        explained_kl=Limit(2.0, "activations and the cache are float16"),
        emulated_share=Limit(2.0, "activations and the cache are float16"),
        shipped_prefill_kl=Limit(1e-3, "one position may be ten times worse than the mean"),
        shipped_share=Limit(1 / 3, "the runtime must not undo what careful rounding gained"),
        emulated_kl=Limit(1e-4, "activations and the cache are float16"),
        step_rel_rms=Limit(1e-4, "float32 sums in another order"),
        runtime_kl=Limit(1e-3, "an estimate, as no Mac has run it: a tenth of what int4 costs"),
    )
    phone_systems: ClassVar[Mapping[str, int]] = {"iOS": 1}
    costs: ClassVar[Costs] = Costs(
        unchecked=(
            Cost(5_773_056, 440e6, 8.2),
            Cost(1_235_814_400, 820e6, 51.0),
            Cost(3_212_749_824, 1120e6, 120.0),
        ),
        checked=(
            Cost(5_773_056, 500e6, 9.4),
            Cost(1_235_814_400, 1050e6, 93.0),
            # The memory was measured; the time follows from the 1B's, as the machine was busy.
            Cost(3_212_749_824, 2170e6, 227.0),
        ),
    )

    @override
    def check(
        self,
        options: TargetOptions,
        schemes: Mapping[str, Scheme] | None = None,
        max_context: int | None = None,
    ) -> None:
        own = own_options(options, CoremlOptions)
        require_consistent(own)
        if max_context is not None:
            require_fitting_context(own, max_context)
        if schemes is not None:
            require_fitting_schemes(own, schemes)

    @override
    def lower(
        self,
        traced: TracedLlama,
        weights: QuantizedWeights,
        folder: Path,
        options: TargetOptions,
        metadata: ArtifactMetadata,
    ) -> Lowered:
        from llama_export.targets.coreml.lowering.lower import PACKAGE, lower

        graph = lower(traced, weights, folder, own_options(options, CoremlOptions), metadata)
        return Lowered(PACKAGE, graph)

    @override
    def open_session(
        self,
        artifact: StoredArtifact,
        *,
        exact: bool = False,
        threads: int | None = None,
        verbose: bool = False,
    ) -> CoremlSession:
        from llama_export.targets.coreml.running.core_ml import CoremlRuntime, runs_core_ml
        from llama_export.targets.coreml.running.session import CoremlSession

        if not exact and runs_core_ml():
            with damage_named(artifact.path):
                runner = CoremlRuntime.open(artifact.path, verbose=verbose)
                return CoremlSession(runner, artifact.spec, artifact.vocab_size)
        return _evaluated(artifact, threads=threads, exact=exact)

    @override
    def substitute_runtime(self) -> SubstituteRuntime | None:
        from llama_export.targets.coreml.running.core_ml import runs_core_ml

        if runs_core_ml():
            return None
        return SubstituteRuntime("the evaluator", "measure it on a Mac, where Core ML runs it")

    @override
    def open_reference(
        self, artifact: StoredArtifact, *, threads: int | None = None
    ) -> CoremlSession | None:
        from llama_export.targets.coreml.running.core_ml import runs_core_ml

        return _evaluated(artifact, threads=threads, exact=False) if runs_core_ml() else None

    @override
    def stored(self, artifact: StoredArtifact) -> StoredWeights:
        from llama_export.targets.coreml.reading.read_back import read_back

        with damage_named(artifact.path):
            return read_back(artifact.path)

    @override
    def rounded_inputs(self, artifact: StoredArtifact) -> RoundedInputs:
        # No product of a package rounds its input to integers.
        return {}

    @override
    def probe(self, artifact: StoredArtifact, *, threads: int | None = None) -> Probe:
        from llama_export.targets.coreml.running.probe import probe

        def run(chunks: Sequence[Sequence[int]]) -> tuple[Intermediates, ...]:
            with damage_named(artifact.path):
                return probe(artifact, chunks, threads=threads)

        return run

    @override
    def wiring(self, artifact: StoredArtifact, config: LlamaConfig) -> Wiring:
        from llama_export.targets.coreml.reading.wiring import read_wiring

        with damage_named(artifact.path):
            return read_wiring(artifact.path, config, artifact.spec)

    @override
    def open_lookup(self, artifact: StoredArtifact, *, threads: int | None = None) -> CoremlLookup:
        from llama_export.targets.coreml.running.lookup import CoremlLookup

        with damage_named(artifact.path):
            return CoremlLookup.open(artifact.path, threads=threads)

    @override
    def predict(
        self,
        config: LlamaConfig,
        shapes: Shapes,
        schemes: Mapping[str, Scheme],
        max_context: int,
        options: TargetOptions,
    ) -> Footprint:
        from llama_export.targets.coreml.sizes import predict

        return predict(config, shapes, schemes, max_context, own_options(options, CoremlOptions))

    @override
    def own_description(self, bundle: Bundle) -> OwnDescription:
        from llama_export.targets.coreml.reading.own_description import read_description

        return read_description(bundle)

    @override
    def describe(self, artifact: StoredArtifact) -> Footprint:
        from llama_export.targets.coreml.reading.describe import describe

        with damage_named(artifact.path):
            return describe(artifact)

    @override
    def scratch_bytes(self, shapes: Shapes, schemes: Mapping[str, Scheme]) -> int:
        from llama_export.targets.coreml.sizes import scratch_bytes

        return scratch_bytes(shapes, schemes)

    @override
    def missing_hint(self) -> str:
        if sys.platform == "win32":
            return (
                "it has no wheel for Windows: export on Linux, on a Mac, or in WSL; packages are "
                "verified and run on Windows too, by the evaluator"
            )
        if sys.version_info >= _TOO_NEW:
            newest = ".".join(map(str, _TOO_NEW))
            return f"it has wheels for Python below {newest}: use another Python"
        return super().missing_hint()


def _evaluated(artifact: StoredArtifact, *, threads: int | None, exact: bool) -> CoremlSession:
    """Load a package into the evaluator.

    Args:
        artifact: the package.
        threads: number of PyTorch's threads; None leaves it as it is.
        exact: whether nothing is rounded to float16.
    """
    from coreml_evaluator import Evaluator
    from llama_export.targets.coreml.running.session import CoremlSession

    mode = "fp32" if exact else "fp16"
    with damage_named(artifact.path):
        runner = Evaluator.open(artifact.path, mode=mode, threads=threads)
        return CoremlSession(runner, artifact.spec, artifact.vocab_size)
