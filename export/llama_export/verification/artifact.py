"""An artifact to verify: a bundle with its target, what it is compared with, and what it reads.

It opens things; it runs and judges nothing. Weights and a checkpoint of another model are refused
here, because the reference could not be computed from them, or would mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BundleError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import expected_shapes
from llama_export.sources.model_files import ExpectedFiles, expected_files
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.samples import Text, UserText, built_in_text, tokenize

if TYPE_CHECKING:
    from llama_export.bundle.bundle import Bundle
    from llama_export.checkpoints.checkpoint import Checkpoint
    from llama_export.llama.activations import RoundedInputs
    from llama_export.llama.intermediates import Probe
    from llama_export.targets.own_description import OwnDescription
    from llama_export.targets.session import Session
    from llama_export.targets.target import Target
    from llama_export.targets.wiring import Lookup, Wiring
    from llama_export.tokenizer.tokenizer import Tokenizer
    from llama_quantize.checkpoint.weights import QuantizedWeights


@dataclass(frozen=True)
class Artifact:
    """A bundle's artifact, and what it is compared with.

    Args:
        bundle: bundle to verify.
        target: target of the bundle.
        weights: quantised weights that the artifact should hold; None when they were not kept.
        checkpoint: checkpoint that the weights were made from; None when it is not at hand.
        text: text to read; None reads the built-in one.
        threads: number of runtime threads; None leaves it to the runtime.
        given_files: content that the small files should have; None: the checkpoint's, or those
            kept with the weights.
    """

    bundle: Bundle
    target: Target
    weights: QuantizedWeights | None = None
    checkpoint: Checkpoint | None = None
    text: UserText | None = None
    threads: int | None = None
    given_files: ExpectedFiles | None = None

    @cached_property
    def config(self) -> LlamaConfig:
        """Return the shape of the model.

        Raises:
            BundleError: the manifest's model is not understood.
        """
        return LlamaConfig.from_hf(self.bundle.manifest.model.config, where="manifest.json")

    @cached_property
    def files(self) -> ExpectedFiles | None:
        """Return the content that the small files should have; None: nothing at hand tells.

        Raises:
            CheckpointError, ConfigError, TokenizerError: what should tell is damaged.
        """
        if self.given_files is not None:
            return self.given_files
        return expected_files(self.bundle.manifest.model, self.weights, self.checkpoint)

    @cached_property
    def recorded_spec(self) -> GraphSpec:
        """Return the artifact's signature as the manifest has it.

        Raises:
            BundleError: the manifest's graph is damaged.
        """
        return GraphSpec.from_json(self.bundle.manifest.graph)

    @cached_property
    def own_description(self) -> OwnDescription | None:
        """Return what the artifact says about itself; None: it says nothing.

        Raises:
            BundleError: the artifact is damaged.
        """
        return self.target.own_description(self.bundle)

    @cached_property
    def on_disk(self) -> StoredArtifact:
        """Return the artifact with its own signature, so that a wrong manifest misleads no run.

        Raises:
            BundleError: the artifact, or the manifest's graph, is damaged.
        """
        own = self.own_description
        recorded = StoredArtifact.of(self.bundle)
        return recorded if own is None else replace(recorded, spec=own.signature)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Return the bundle's own tokenizer.

        Raises:
            TokenizerError: it cannot be read.
        """
        from llama_export.tokenizer.tokenizer import load_tokenizer

        return load_tokenizer(self.bundle.path(self.bundle.manifest.tokenizer["file"]))

    @property
    def kv_dtype(self) -> str:
        """Return the type of the artifact's KV cache, and so of its attention."""
        return str(self.on_disk.spec.delegate.get("kv_dtype", "float32"))

    def read_text(self) -> Text:
        """Tokenize the text with the bundle's own tokenizer.

        Raises:
            PromptError: the text is too short.
            TokenizerError: the tokenizer cannot be read, or cannot encode the text.
        """
        tokenizer = self.tokenizer
        return built_in_text(tokenizer) if self.text is None else tokenize(tokenizer, self.text)

    def special_token_ids(self) -> tuple[int, ...]:
        """Return the ids of the special tokens, by the bundle's own tokenizer.

        Raises:
            TokenizerError: the tokenizer cannot be read.
        """
        return tuple(self.tokenizer.special_tokens.values())

    def open_session(self, *, exact: bool) -> Session:
        """Load the artifact into its runtime.

        Args:
            exact: compute in float32, as far as the runtime can.
        """
        return self.target.open_session(self.on_disk, exact=exact, threads=self.threads)

    def open_reference(self) -> Session | None:
        """Load the artifact into what computes as its runtime should; None: the runtime itself."""
        return self.target.open_reference(self.on_disk, threads=self.threads)

    def rounded_inputs(self) -> RoundedInputs | None:
        """Return how the artifact's products round their inputs; None: not known here."""
        return self.target.rounded_inputs(self.on_disk)

    def wiring(self) -> Wiring | None:
        """Return the artifact's operators and their settings; None: they are not followed."""
        return self.target.wiring(self.on_disk, self.config)

    def open_lookup(self) -> Lookup | None:
        """Cut the way from ids to the first layer out; None: the artifact cannot be cut."""
        return self.target.open_lookup(self.on_disk, threads=self.threads)

    def probe(self) -> Probe | None:
        """Return what looks inside the artifact; None: it cannot be looked into."""
        return self.target.probe(self.on_disk, threads=self.threads)


def refuse_other_model(artifact: Artifact) -> None:
    """Refuse weights and a checkpoint that are not of the bundle's model.

    Raises:
        BundleError: names the first tensor that differs.
    """
    expected = expected_shapes(artifact.config)
    sources: dict[str, Mapping[str, tuple[int, ...]]] = {}
    if artifact.weights is not None:
        held = set(artifact.weights.names())
        shapes = {name: artifact.weights.get(name).shape for name in expected if name in held}
        sources["quantised weights"] = {name: tuple(shape) for name, shape in shapes.items()}
    if artifact.checkpoint is not None:
        sources["checkpoint"] = artifact.checkpoint.shapes
        if not same_maths(artifact.config, artifact.checkpoint.config):
            message = "the checkpoint's config.json and the bundle's describe different models"
            raise BundleError(message, "give the checkpoint that the bundle was made from")
    for source, shapes_found in sources.items():
        for name, shape in expected.items():
            if shapes_found.get(name) != shape:
                message = (
                    f"the {source} are not the bundle's: {name} should be {shape}, "
                    f"found {shapes_found.get(name, 'nothing')}"
                )
                raise BundleError(message, f"give the {source} that the bundle was made from")


def same_maths(one: LlamaConfig, other: LlamaConfig) -> bool:
    """Whether two configs describe one forward pass; which token ends a text is no part of it."""
    return one == replace(
        other,
        bos_token_id=one.bos_token_id,
        eos_token_id=one.eos_token_id,
        max_position_embeddings=one.max_position_embeddings,
    )
