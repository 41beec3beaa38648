"""The ONNX target: its facts, its limits and costs, and the way to each of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from llama_export.bundle.graph_spec import IO
from llama_export.errors import UsageError
from llama_export.targets.costs import Cost, Costs
from llama_export.targets.damage import damage_named
from llama_export.targets.limits import Limit, Limits
from llama_export.targets.onnx.options import OnnxOptions
from llama_export.targets.options import TargetOptions, own_options, require_known_choices
from llama_export.targets.own_description import ClientSettings, OwnDescription, write_settings
from llama_export.targets.target import ArtifactMetadata, Lowered, Target

if TYPE_CHECKING:
    from pathlib import Path

    from llama_export.bundle.bundle import Bundle
    from llama_export.llama.activations import RoundedInputs
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.intermediates import Intermediates, Probe
    from llama_export.llama.names import Shapes
    from llama_export.llama.trace import TracedLlama
    from llama_export.targets.footprint import Footprint
    from llama_export.targets.onnx.running.lookup import OnnxLookup
    from llama_export.targets.onnx.running.session import OnnxSession
    from llama_export.targets.stored import StoredArtifact, StoredWeights
    from llama_export.targets.wiring import Wiring
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme

_HINTS = {"accuracy_level": "4 computes int4 products in int8, 1 in float32"}


class OnnxTarget(Target):
    """onnxruntime's artifact, with the files that onnxruntime-genai and transformers.js want."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX"
    toolkits: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")
    default_max_context: ClassVar[int] = 8192
    Options: ClassVar[type[TargetOptions]] = OnnxOptions
    limits: ClassVar[Limits] = Limits(
        has_exact_mode=True,
        exact_wording="in float32 (accuracy level 1)",
        exact_kl=Limit(1e-9, "only the order of float32 sums differs: 3e-11 measured at 1B"),
        exact_rel_rms=Limit(1e-4, "float32 sums in another order: 8e-6 was measured at 1B"),
        same_rel_rms=Limit(1e-4, "the same artifact in other portions: 7e-6 measured at 1B"),
        cache_rel_rms=Limit(1e-4, "float32 sums in another order: 9e-6 was measured at 1B"),
        shipped_kl=Limit(2e-3, "activations are rounded to int8: 8e-4 was measured at 1B"),
        shipped_kl_untrained=Limit(5e-2, "random layers magnify rounding, trained ones do not"),
        explained_kl=Limit(
            2.0, "nothing but rounding: 0.94 to 1.05 of the emulation's KL was measured"
        ),
        emulated_share=Limit(
            2.0,
            "one float32 bit tips an int8 rounding, and that one tips more in each layer: 1.15 of "
            "the rounding's own KL was measured at 1B, 1e-13 where none tipped",
        ),
        shipped_prefill_kl=Limit(2e-2, "one position may be ten times worse than the mean"),
        shipped_share=Limit(1 / 3, "the runtime must not undo what careful rounding gained"),
        emulated_kl=Limit(1e-9, "only the order of float32 sums differs: 3e-11 measured at 1B"),
        step_rel_rms=Limit(1e-4, "float32 sums in another order"),
    )
    phone_systems: ClassVar[Mapping[str, int]] = {"Android": 2, "iOS": 3}
    costs: ClassVar[Costs] = Costs(
        unchecked=(
            Cost(5_773_056, 290e6, 5.0),
            Cost(1_235_814_400, 420e6, 36.2),
            Cost(3_212_749_824, 430e6, 93.9),
        ),
        checked=(
            Cost(5_773_056, 350e6, 5.7),
            Cost(1_235_814_400, 2680e6, 55.2),
            Cost(3_212_749_824, 4900e6, 147.3),
        ),
    )

    @override
    def check(
        self,
        options: TargetOptions,
        schemes: Mapping[str, Scheme] | None = None,
        max_context: int | None = None,
    ) -> None:
        own = own_options(options, OnnxOptions)
        if own.kv_cache != IO:
            message = f"--kv-cache {own.kv_cache}: an ONNX graph takes and gives its KV cache"
            raise UsageError(message, "leave --kv-cache out for the onnx target")
        require_known_choices(own, _HINTS)

    @override
    def lower(
        self,
        traced: TracedLlama,
        weights: QuantizedWeights,
        folder: Path,
        options: TargetOptions,
        metadata: ArtifactMetadata,
    ) -> Lowered:
        from llama_export.targets.onnx.lowering.lower import MODEL_FILE, lower

        graph = lower(traced, weights, folder, own_options(options, OnnxOptions))
        settings = self.client_settings(traced.config, traced.max_context, metadata.generation)
        write_settings(folder, settings)
        return Lowered(MODEL_FILE, graph, settings.config_keys)

    @override
    def client_settings(
        self, config: LlamaConfig, max_context: int, generation: Mapping[str, object]
    ) -> ClientSettings:
        from llama_export.targets.onnx.lowering.client_files import client_settings
        from llama_export.targets.onnx.lowering.lower import MODEL_FILE

        return client_settings(config, max_context, MODEL_FILE, generation)

    @override
    def own_description(self, bundle: Bundle) -> OwnDescription:
        from llama_export.targets.onnx.reading.signature import read_description

        return read_description(bundle.artifact)

    @override
    def open_session(
        self,
        artifact: StoredArtifact,
        *,
        exact: bool = False,
        threads: int | None = None,
        verbose: bool = False,
    ) -> OnnxSession:
        from llama_export.targets.onnx.running.session import OnnxSession

        with _damage_named(artifact):
            return OnnxSession.open(artifact, exact=exact, threads=threads, verbose=verbose)

    @override
    def stored(self, artifact: StoredArtifact) -> StoredWeights:
        from llama_export.targets.onnx.reading.read_back import read_back

        with _damage_named(artifact):
            return read_back(artifact.path)

    @override
    def rounded_inputs(self, artifact: StoredArtifact) -> RoundedInputs | None:
        from llama_export.targets.onnx.reading.activations import rounded_inputs

        with _damage_named(artifact):
            return rounded_inputs(artifact.path)

    @override
    def probe(self, artifact: StoredArtifact, *, threads: int | None = None) -> Probe:
        from llama_export.targets.onnx.running.probe import probe

        def run(chunks: Sequence[Sequence[int]]) -> tuple[Intermediates, ...]:
            with _damage_named(artifact):
                return probe(artifact, chunks, threads=threads)

        return run

    @override
    def wiring(self, artifact: StoredArtifact, config: LlamaConfig) -> Wiring:
        from llama_export.targets.onnx.reading.wiring import read_wiring

        with _damage_named(artifact):
            return read_wiring(artifact.path, config, all_logits=artifact.spec.all_logits)

    @override
    def open_lookup(self, artifact: StoredArtifact, *, threads: int | None = None) -> OnnxLookup:
        from llama_export.targets.onnx.running.lookup import OnnxLookup

        with _damage_named(artifact):
            return OnnxLookup.open(artifact.path, threads=threads)

    @override
    def predict(
        self,
        config: LlamaConfig,
        shapes: Shapes,
        schemes: Mapping[str, Scheme],
        max_context: int,
        options: TargetOptions,
    ) -> Footprint:
        from llama_export.targets.onnx.sizes import predict

        return predict(config, shapes, schemes, max_context)

    @override
    def describe(self, artifact: StoredArtifact) -> Footprint:
        from llama_export.targets.onnx.reading.describe import describe

        with _damage_named(artifact):
            return describe(artifact)


def _damage_named(artifact: StoredArtifact) -> AbstractContextManager[None]:
    """Name the damage of an artifact, protobuf's own classes of errors included."""
    try:
        from google.protobuf.json_format import Error as JsonError
        from google.protobuf.message import Error as WireError
        from google.protobuf.text_format import Error as TextError
    except ImportError:  # without it nothing of the artifact is parsed here
        return damage_named(artifact.path)
    return damage_named(artifact.path, JsonError, WireError, TextError)
