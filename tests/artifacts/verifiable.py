"""A tiny model's artifact in memory, in a bundle on disk, with the references of a verification."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from pathlib import Path

import torch
from artifacts import tiny
from artifacts.sample_bundle import DRAFT
from fakes.session import FakeSession, quantised_llama
from fakes.target import FakeTarget

from llama_export.bundle.bundle import Bundle, seal
from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.llama.activations import EXACT_INPUTS, ActivationQuantization, RoundedInputs
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.llama.rounding import round_activations
from llama_export.sources.manifest_fields import describe_quantization, describe_tokenizer
from llama_export.sources.model_files import expected_files
from llama_export.targets.stored import StoredWeights
from llama_export.targets.wiring import Attribute, Wiring
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.artifact import Artifact
from llama_export.verification.rows import VerifyReport
from llama_export.verification.samples import UserText
from llama_export.verification.verify import verify_artifact
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, recipe
from llama_quantize.tensor import QuantizedTensor

# The tiny tokenizer's tokens are bytes.
TEXT = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]

SOUND = Wiring((), 7, (Attribute("model.norm", "epsilon", 1e-5, 1e-5),))


class FakeLookup:
    """The rows of a model's table, some of them those of other ids."""

    def __init__(self, model: torch.nn.Module, others=()) -> None:
        self._table = model.model.embed_tokens.weight
        self._others = dict(others)

    def rows(self, input_ids):
        ids = [self._others.get(token, token) for token in input_ids]
        rows = self._table.detach()[ids].float().numpy()
        return {"the first norm": rows, "the first sum": rows}

    def close(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Made:
    checkpoint: Checkpoint
    weights: QuantizedWeights
    model: torch.nn.Module
    bundle: Bundle


def make(folder, config, name="int4", *, target="onnx") -> Made:
    checkpoint = HfCheckpoint.open(tiny.write_checkpoint(folder / "checkpoint", config))
    return make_from(checkpoint, recipe(name), folder, target=target)


def make_from(checkpoint: Checkpoint, rules: QuantRecipe, folder, *, target="onnx") -> Made:
    quantize_to(folder / "weights", checkpoint, rules)
    weights = QuantizedWeights.open(folder / "weights")
    bundle = write_bundle(folder / target, target, checkpoint, weights)
    return Made(checkpoint, weights, quantised_llama(checkpoint.config, weights), bundle)


def write_bundle(
    folder: Path, target: str, checkpoint: Checkpoint, weights: QuantizedWeights
) -> Bundle:
    """Seal a bundle that has a manifest and small files, and nothing that a runtime could load."""
    folder.mkdir()
    (folder / "model.fake").write_bytes(b"nothing")
    model = dataclasses.replace(
        DRAFT.model, name="tiny", hub_id=None, revision=None, config=checkpoint.config.to_hf()
    )
    files = expected_files(model, None, checkpoint)
    for name, content in files.contents.items():
        (folder / name).write_bytes(content)
    draft = dataclasses.replace(
        DRAFT,
        target=target,
        artifact="model.fake",
        model=model,
        graph=DRAFT.graph | {"max_context": 64},
        quantization=describe_quantization(weights),
        tokenizer=describe_tokenizer(load_tokenizer(folder), checkpoint.config),
    )
    seal(folder, draft)
    return Bundle.open(folder)


def without_recorded_hashes(bundle: Bundle) -> Bundle:
    quantization = bundle.manifest.quantization | {"tensors": {}}
    return dataclasses.replace(
        bundle, manifest=dataclasses.replace(bundle.manifest, quantization=quantization)
    )


def hashes_of(weights):
    tensors = {name: weights.get(name) for name in weights.names()}
    return {
        name: (tensor.codes_sha256(), tensor.scales_sha256())
        for name, tensor in tensors.items()
        if isinstance(tensor, QuantizedTensor)
    }


def with_rounded_inputs(model: torch.nn.Module, rounds: RoundedInputs) -> torch.nn.Module:
    """A copy whose named products round their inputs, as a runtime's integer kernels do."""
    rounded = copy.deepcopy(model)
    for path, product in rounded.named_modules():
        if (how := rounds.get(f"{path}.weight")) is not None:
            product.register_forward_pre_hook(
                lambda _, inputs, how=how: (round_activations(inputs[0], how),)
            )
    return rounded


def every_product(block: int) -> RoundedInputs:
    parts = [f"self_attn.{part}_proj" for part in "qkvo"]
    parts += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    names = [f"model.layers.{layer}.{part}.weight" for layer in range(2) for part in parts]
    return {name: ActivationQuantization(8, block) for name in names}


def floats_of(weights):
    tensors = {name: weights.get(name) for name in weights.names() if name not in weights.tied}
    return {
        name: hashlib.sha256(tensor.float().numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }


def rotary_of(config):
    tables = rope_tables(inverse_frequencies(config), torch.arange(64))
    return {
        f"{part} table": table.numpy() for part, table in zip(("cos", "sin"), tables, strict=True)
    }


def stored_in(made: Made, **changes) -> StoredWeights:
    """Return the weights as a right artifact holds them, or some parts of them changed."""
    stored = StoredWeights(
        hashes_of(made.weights), floats_of(made.weights), rotary_of(made.checkpoint.config)
    )
    return dataclasses.replace(stored, **changes)


def artifact_of(
    made: Made, *, noise=0.0, fault="", rounds: RoundedInputs = EXACT_INPUTS, **changes
) -> Artifact:
    """Return a right artifact, or one that is noisy as shipped, or at fault in both modes.

    Args:
        made: model, weights and bundle.
        noise: relative size of the error of every logit as shipped.
        fault: one of `FAULTS`.
        rounds: how the artifact rounds as shipped; what its target says of it is another matter.
        changes: other fields of `Artifact`, or other parts of its `FakeTarget`.
    """
    rounded = with_rounded_inputs(made.model, rounds)

    def open_session(*, exact, threads):
        model = copy.deepcopy(made.model) if fault == "rope scaling off" else made.model
        return FakeSession(
            model if exact or not rounds else rounded, noise=0.0 if exact else noise, fault=fault
        )

    references = {
        "bundle": made.bundle,
        "weights": made.weights,
        "checkpoint": made.checkpoint,
        "text": UserText(Path("primes.txt"), bytes(TEXT).decode()),
    }
    references = {name: changes.pop(name, value) for name, value in references.items()}
    behaviour = {
        "open_session": open_session,
        "stored": stored_in(made),
        "rounding": None,
        "wiring": SOUND,
        "lookup": FakeLookup(made.model),
    }
    return Artifact(target=FakeTarget(**behaviour | changes), **references)


def verify(made: Made, *, quick=True, strict=False, **changes) -> VerifyReport:
    """Verify what `artifact_of` returns."""
    return verify_artifact(artifact_of(made, **changes), quick=quick, strict=strict)
