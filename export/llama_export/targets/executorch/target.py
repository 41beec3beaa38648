"""The ExecuTorch target: its facts, its limits and costs, and the way to each of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from llama_export.bundle.graph_spec import IO
from llama_export.errors import BundleError, UsageError
from llama_export.targets.costs import Cost, Costs
from llama_export.targets.damage import damage_named
from llama_export.targets.executorch.options import COREML, XNNPACK, ExecutorchOptions
from llama_export.targets.limits import Limit, Limits
from llama_export.targets.options import TargetOptions, own_options, require_known_choices
from llama_export.targets.target import ArtifactMetadata, Lowered, Target

if TYPE_CHECKING:
    from pathlib import Path

    from llama_export.bundle.bundle import Bundle
    from llama_export.llama.activations import RoundedInputs
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.names import Shapes
    from llama_export.llama.trace import TracedLlama
    from llama_export.targets.executorch.running.lookup import ExecutorchLookup
    from llama_export.targets.executorch.running.session import ExecutorchSession
    from llama_export.targets.footprint import Footprint
    from llama_export.targets.own_description import OwnDescription
    from llama_export.targets.stored import StoredArtifact, StoredWeights
    from llama_export.targets.wiring import Wiring
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme


class ExecutorchTarget(Target):
    """ExecuTorch's `.pte`, as the phone runners load it."""

    name: ClassVar[str] = "executorch"
    title: ClassVar[str] = "ExecuTorch"
    toolkits: ClassVar[tuple[str, ...]] = ("executorch",)
    # The runtime sets memory apart for the whole cache when it loads a program: 2048 positions of
    # the 1B are 134 MB, 8192 would be 537 MB.
    default_max_context: ClassVar[int] = 2048
    Options: ClassVar[type[TargetOptions]] = ExecutorchOptions
    limits: ClassVar[Limits] = Limits(
        has_exact_mode=False,
        exact_wording="against eager that rounds alike",
        exact_kl=Limit(2e-3, "tipped roundings spread: 2e-4 was measured on the demo"),
        exact_rel_rms=Limit(5e-2, "tipped roundings spread: 6e-3 was measured on the demo"),
        same_rel_rms=Limit(5e-2, "other portions tip other roundings"),
        cache_rel_rms=Limit(0.2, "tipped roundings spread; the worst row of all"),
        shipped_kl=Limit(2e-3, "activations are rounded to int8: 3e-4 measured on the demo"),
        shipped_kl_untrained=Limit(5e-2, "random layers magnify rounding, trained ones do not"),
        explained_kl=Limit(2.0, "nothing but rounding"),
        emulated_share=Limit(
            1.0, "a step after the artifact's own cache: few roundings tip in one step"
        ),
        shipped_prefill_kl=Limit(2e-2, "one position may be ten times worse than the mean"),
        shipped_share=Limit(1 / 3, "the runtime must not undo what careful rounding gained"),
        emulated_kl=Limit(1e-4, "a step in which no rounding tipped differs by 1e-12"),
        step_rel_rms=Limit(6e-6, "3e-7 was measured where no rounding tipped"),
    )
    phone_systems: ClassVar[Mapping[str, int]] = {"Android": 1, "iOS": 2}
    # Its binding keeps the interpreter's lock while it computes (1.4).
    frees_interpreter = False
    costs: ClassVar[Costs] = Costs(
        unchecked=(
            Cost(5_773_056, 385e6, 20.5),
            Cost(1_235_814_400, 1670e6, 76.0),
            Cost(3_212_749_824, 2740e6, 101.0),
        ),
        checked=(
            Cost(5_773_056, 460e6, 22.0),
            Cost(1_235_814_400, 2830e6, 95.0),
            Cost(3_212_749_824, 5020e6, 171.0),
        ),
    )

    @override
    def check(
        self,
        options: TargetOptions,
        schemes: Mapping[str, Scheme] | None = None,
        max_context: int | None = None,
    ) -> None:
        from llama_export.targets.executorch.running.runtime import require_version

        own = own_options(options, ExecutorchOptions)
        require_known_choices(own, {})
        require_version(coreml=own.delegate == COREML)
        if own.delegate != XNNPACK and (
            own.kv_cache == IO or own.kv_dtype != "float32" or own.all_logits
        ):
            message = f"--delegate {own.delegate} keeps a float32 KV cache inside, and one row"
            raise UsageError(message, "leave --kv-cache, --kv-dtype and --all-logits out")

    @override
    def lower(
        self,
        traced: TracedLlama,
        weights: QuantizedWeights,
        folder: Path,
        options: TargetOptions,
        metadata: ArtifactMetadata,
    ) -> Lowered:
        from llama_export.targets.executorch.single_delegate.lower import lower_single_delegate
        from llama_export.targets.executorch.xnnpack.lower import MODEL_FILE, lower

        own = own_options(options, ExecutorchOptions)
        runs_here = self.runs_here(own)
        make = lower if runs_here else lower_single_delegate
        graph = make(traced, weights, folder, own, stop_token_ids=metadata.stop_token_ids)
        return Lowered(MODEL_FILE, graph, runs_here=runs_here)

    @override
    def runs_here(self, options: TargetOptions) -> bool:
        return own_options(options, ExecutorchOptions).delegate == XNNPACK

    @override
    def open_session(
        self,
        artifact: StoredArtifact,
        *,
        exact: bool = False,
        threads: int | None = None,
        verbose: bool = False,
    ) -> ExecutorchSession:
        from llama_export.targets.executorch.running.session import ExecutorchSession

        self._refuse_strangers(artifact)
        # It has one way to compute, exact or not.
        with damage_named(artifact.path):
            return ExecutorchSession.open(artifact, threads=threads, verbose=verbose)

    def _refuse_strangers(self, artifact: StoredArtifact) -> None:
        """Refuse a program with an instruction, or a type of a value, of another model's.

        Its kernels check some of their arguments by ending the process, as where attention begins
        after the last key; what is read here is known to call them rightly.

        Raises:
            BundleError: names the first instruction.
        """
        from llama_export.llama.config import LlamaConfig

        if not artifact.model:
            return
        config = LlamaConfig.from_hf(artifact.model, where="manifest.json")
        if strangers := self.wiring(artifact, config).strangers:
            message = f"{artifact.path} is not the program of its model: {strangers[0]}"
            raise BundleError(message, "ExecuTorch does not get to see it: export the bundle again")

    @override
    def stored(self, artifact: StoredArtifact) -> StoredWeights:
        from llama_export.targets.executorch.reading.read_back import read_back

        with damage_named(artifact.path):
            return read_back(artifact.path)

    @override
    def rounded_inputs(self, artifact: StoredArtifact) -> RoundedInputs | None:
        from llama_export.targets.executorch.reading.activations import rounded_inputs

        with damage_named(artifact.path):
            return rounded_inputs(artifact.path)

    @override
    def wiring(self, artifact: StoredArtifact, config: LlamaConfig) -> Wiring:
        from llama_export.targets.executorch.reading.pte import Pte
        from llama_export.targets.executorch.reading.wiring import read_wiring

        pte = Pte.open(artifact.path)
        with damage_named(artifact.path):
            return read_wiring(pte, config, artifact.spec)

    @override
    def open_lookup(
        self, artifact: StoredArtifact, *, threads: int | None = None
    ) -> ExecutorchLookup:
        from llama_export.targets.executorch.running.lookup import ExecutorchLookup

        self._refuse_strangers(artifact)
        with damage_named(artifact.path):
            return ExecutorchLookup.open(artifact, threads=threads)

    @override
    def predict(
        self,
        config: LlamaConfig,
        shapes: Shapes,
        schemes: Mapping[str, Scheme],
        max_context: int,
        options: TargetOptions,
    ) -> Footprint:
        from llama_export.targets.executorch.sizes import predict

        own = own_options(options, ExecutorchOptions)
        return predict(config, shapes, schemes, max_context, own)

    @override
    def own_description(self, bundle: Bundle) -> OwnDescription:
        from llama_export.targets.executorch.reading.own_description import read_description

        return read_description(bundle)

    @override
    def describe(self, artifact: StoredArtifact) -> Footprint:
        from llama_export.targets.executorch.reading.describe import describe

        with damage_named(artifact.path):
            return describe(artifact)
