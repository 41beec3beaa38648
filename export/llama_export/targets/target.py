"""`Target`: what one export target must do, what it may do, and what it is given.

The rest of the program sees targets through this class alone. It knows the order of no export and
the format of no artifact. A module that holds a target imports torch and toolkits in methods alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from llama_export.targets.costs import Costs
from llama_export.targets.limits import Limits
from llama_export.targets.options import TargetOptions
from llama_export.targets.own_description import ClientSettings, OwnDescription

if TYPE_CHECKING:
    from pathlib import Path

    from llama_export.bundle.bundle import Bundle
    from llama_export.bundle.graph_spec import GraphSpec
    from llama_export.llama.activations import RoundedInputs
    from llama_export.llama.config import LlamaConfig
    from llama_export.llama.intermediates import Probe
    from llama_export.llama.names import Shapes
    from llama_export.llama.trace import TracedLlama
    from llama_export.targets.footprint import Footprint
    from llama_export.targets.session import Session
    from llama_export.targets.stored import StoredArtifact, StoredWeights
    from llama_export.targets.wiring import Lookup, Wiring
    from llama_quantize.checkpoint.weights import QuantizedWeights
    from llama_quantize.scheme import Scheme


@dataclass(frozen=True)
class Lowered:
    """What a lowering wrote into the bundle's folder.

    Args:
        artifact: path of the artifact in the folder.
        graph: signature of the artifact.
        config_keys: keys that the target's stock clients read in config.json, beyond the model's.
        runs_here: whether this machine's runtime can run it, and so prove it.
    """

    artifact: str
    graph: GraphSpec
    config_keys: Mapping[str, object] = field(default_factory=dict)
    runs_here: bool = True


@dataclass(frozen=True)
class ArtifactMetadata:
    """What an artifact may say about itself, beyond its graph.

    Args:
        name: name of the model.
        hub_id: repository of the model on the hub; None when it did not come from there.
        revision: commit of the repository.
        notice: text of the bundle's NOTICE, with the licence of the weights.
        tokenizer_file: name of the tokenizer's file beside the artifact.
        bos_token_id: token that a text begins with; None: the model has none.
        stop_token_ids: tokens at which a client should stop.
        quantization: how the weights are quantised, in words.
        weights_bytes: size of the quantised weights.
        version: version of llama-export.
        head_tokens: ids that the logits stand for; empty: each stands for its own index.
        generation: keys of the bundle's generation_config.json.
    """

    name: str
    hub_id: str | None
    revision: str | None
    notice: str
    tokenizer_file: str
    bos_token_id: int | None
    stop_token_ids: tuple[int, ...]
    quantization: str
    weights_bytes: int
    version: str
    head_tokens: tuple[int, ...] = ()
    generation: Mapping[str, object] = field(default_factory=dict)

    @property
    def author(self) -> str:
        """The makers of the model and of the conversion."""
        owner = f"{self.hub_id.split('/')[0]}; " if self.hub_id and "/" in self.hub_id else ""
        return f"{owner}converted by llama-export {self.version}"


@dataclass(frozen=True)
class SubstituteRuntime:
    """What runs an artifact here in place of its runtime.

    Args:
        name: its name in a sentence, such as "the evaluator".
        hint: where to measure the artifact's speed instead.
    """

    name: str
    hint: str


class Target(ABC):
    """One kind of artifact: how it is made, run, read and judged.

    A subclass gives every class attribute and every duty; the other methods have defaults. A public
    name that this class lacks is refused, so that no misspelt method passes for an absent one.

    Attributes:
        name: the target's name on the command line and in a manifest.
        title: its name as its makers write it.
        toolkits: import names of the packages that an export needs.
        default_max_context: positions of an artifact when nobody asks for another number.
        Options: the class of this target's options.
        limits: how far its artifacts may be from the eager model.
        costs: time and memory of an export.
        phone_systems: rank among the targets on each system of phones that could run it, 1 for the
            target that an app there takes first; empty for none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    toolkits: ClassVar[tuple[str, ...]]
    default_max_context: ClassVar[int]
    Options: ClassVar[type[TargetOptions]]
    limits: ClassVar[Limits]
    costs: ClassVar[Costs]
    phone_systems: ClassVar[Mapping[str, int]]
    # Whether other threads of Python go on while the runtime computes.
    frees_interpreter = True

    @override
    def __init_subclass__(cls) -> None:
        own = {name for name in vars(cls) if not name.startswith("_")}
        facts = set(Target.__annotations__)
        if unknown := own - facts - set(dir(Target)):
            message = f"{cls.__name__}: a target has no {', '.join(sorted(unknown))}"
            raise TypeError(message)
        if missing := facts - own:
            message = f"{cls.__name__}: a target must have {', '.join(sorted(missing))}"
            raise TypeError(message)

    @abstractmethod
    def check(
        self,
        options: TargetOptions,
        schemes: Mapping[str, Scheme] | None = None,
        max_context: int | None = None,
    ) -> None:
        """Refuse an artifact that cannot be, before any work.

        Args:
            options: this target's own options.
            schemes: storage form of each unique tensor; None while no model is known.
            max_context: positions of the KV cache; None while no model is known.

        Raises:
            UsageError: an option, or their combination, with the values that work.
            BackendUnavailableError: another version of the toolkit is installed.
        """

    @abstractmethod
    def lower(
        self,
        traced: TracedLlama,
        weights: QuantizedWeights,
        folder: Path,
        options: TargetOptions,
        metadata: ArtifactMetadata,
    ) -> Lowered:
        """Write the artifact, and what its stock clients need beside it.

        Args:
            traced: graph of the model; its `max_context` is the capacity of the KV cache.
            weights: the quantised checkpoint, mapped.
            folder: existing folder that gets the files.
            options: this target's own options.
            metadata: description of the model, for artifacts that describe themselves.

        Raises:
            LoweringError: a node or a scheme has no form in this target.
        """

    @abstractmethod
    def open_session(
        self,
        artifact: StoredArtifact,
        *,
        exact: bool = False,
        threads: int | None = None,
        verbose: bool = False,
    ) -> Session:
        """Load an artifact into its runtime.

        Args:
            artifact: the artifact.
            exact: compute in float32, slowly; ignored where `limits.has_exact_mode` is false.
            threads: number of runtime threads; None leaves it to the runtime.
            verbose: let the runtime's messages through.

        Raises:
            BackendUnavailableError: this machine does not have the runtime.
            BundleError: the runtime cannot load the artifact.
        """

    @abstractmethod
    def stored(self, artifact: StoredArtifact) -> StoredWeights:
        """Read an artifact's weights from its bytes, sharing no code with the lowering.

        Raises:
            BundleError: the artifact is damaged, or laid out in another way.
        """

    @abstractmethod
    def predict(
        self,
        config: LlamaConfig,
        shapes: Shapes,
        schemes: Mapping[str, Scheme],
        max_context: int,
        options: TargetOptions,
    ) -> Footprint:
        """Predict the artifact of an export, without weights and without the toolkit.

        Args:
            config: shape of the model.
            shapes: shape of each unique tensor.
            schemes: storage form of each unique tensor.
            max_context: positions of the KV cache.
            options: this target's own options.

        Raises:
            LoweringError: a width or a scheme that no operator can run.
        """

    @abstractmethod
    def describe(self, artifact: StoredArtifact) -> Footprint:
        """Add up an artifact by kind, in bytes; no weight is read.

        Raises:
            BundleError: the artifact is damaged, or laid out in another way.
        """

    def client_settings(
        self, config: LlamaConfig, max_context: int, generation: Mapping[str, object]
    ) -> ClientSettings:
        """Return what the target's stock clients read beside an artifact, and the model's do not.

        Args:
            config: shape of the model.
            max_context: number of positions of the artifact.
            generation: keys of the bundle's generation_config.json.
        """
        return ClientSettings()

    def own_description(self, bundle: Bundle) -> OwnDescription | None:
        """Read what an artifact says about itself, to be held against the bundle's manifest.

        Returns:
            None: this target's artifacts say nothing.

        Raises:
            BundleError: the artifact is damaged, or laid out in another way.
        """
        return None

    def rounded_inputs(self, artifact: StoredArtifact) -> RoundedInputs | None:
        """Return how the artifact's products round their inputs; None: not known here."""
        return None

    def probe(self, artifact: StoredArtifact, *, threads: int | None = None) -> Probe | None:
        """Return what looks inside an artifact while it runs in exact arithmetic.

        The probe raises BundleError when the runtime cannot load or run the artifact.

        Args:
            artifact: the artifact.
            threads: number of runtime threads; None leaves it to the runtime.

        Returns:
            None: this target's artifacts cannot be looked into.
        """
        return None

    def wiring(self, artifact: StoredArtifact, config: LlamaConfig) -> Wiring | None:
        """Follow an artifact's operators from its results back to its inputs.

        It shares no code with the lowering, and runs nothing.

        Args:
            artifact: the artifact.
            config: shape of the model that it should compute.

        Returns:
            None: this target's graphs are not followed.

        Raises:
            BundleError: the artifact is damaged.
        """
        return None

    def open_lookup(self, artifact: StoredArtifact, *, threads: int | None = None) -> Lookup | None:
        """Cut the way from token ids to the first layer out of an artifact.

        It ends in what the first layer's norm and its first sum take, found from these.

        Args:
            artifact: the artifact.
            threads: number of runtime threads; None leaves it to the runtime.

        Returns:
            None: this target's artifacts cannot be cut.

        Raises:
            BundleError: the artifact is damaged, or its first layer is not a Llama's.
        """
        return None

    def open_reference(
        self, artifact: StoredArtifact, *, threads: int | None = None
    ) -> Session | None:
        """Load an artifact into what computes as its runtime should.

        Returns:
            None: the runtime of `open_session` is itself the reference.
        """
        return None

    def runs_here(self, options: TargetOptions) -> bool:
        """Return whether this machine's runtime can run, and so prove, an artifact of `options`."""
        return True

    def substitute_runtime(self) -> SubstituteRuntime | None:
        """Return what runs an artifact here in place of its runtime; None: the runtime does."""
        return None

    def scratch_bytes(self, shapes: Shapes, schemes: Mapping[str, Scheme]) -> int:
        """Return what the output's disk holds besides the artifact while it is made."""
        return 0

    def missing_hint(self) -> str:
        """Return what to do where a toolkit is not installed."""
        return f"pip install {' '.join(self.toolkits)}, of the extra {self.name!r}"
