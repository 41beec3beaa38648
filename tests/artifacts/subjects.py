"""A tiny model with its quantised weights, as something to verify in memory."""

from __future__ import annotations

import copy
import dataclasses
import hashlib

import torch
from artifacts import tiny
from fakes.session import FakeSession, quantised_llama

from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.llama.activations import EXACT_INPUTS, ActivationQuantization, RoundedInputs
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.llama.rounding import round_activations
from llama_export.verify.artifact import Subject
from llama_export.verify.samples import Text
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import recipe
from llama_quantize.tensor import QuantizedTensor

TEXT = [3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]


@dataclasses.dataclass(frozen=True)
class Made:
    checkpoint: HfCheckpoint
    weights: QuantizedWeights
    model: torch.nn.Module


def make(folder, config, name="int4") -> Made:
    checkpoint = HfCheckpoint.open(tiny.write_checkpoint(folder / "checkpoint", config))
    quantize_to(folder / "weights", checkpoint, recipe(name))
    weights = QuantizedWeights.open(folder / "weights")
    return Made(checkpoint, weights, quantised_llama(config, weights))


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


def no_files():
    return ()


def subject_of(
    made: Made, *, noise=0.0, fault="", rounds: RoundedInputs = EXACT_INPUTS, **changes
) -> Subject:
    """Lay a right artifact out, or one that is noisy as shipped, or at fault at both levels.

    `rounds` is how the artifact rounds as shipped; what `rounding` says of it is another matter.
    """
    rounded = with_rounded_inputs(made.model, rounds)

    def open_session(exact):
        model = copy.deepcopy(made.model) if fault == "rope scaling off" else made.model
        shipped = not exact
        return FakeSession(
            rounded if shipped and rounds else model, noise=noise if shipped else 0.0, fault=fault
        )

    config = made.checkpoint.config
    hashes = hashes_of(made.weights)
    subject = Subject(
        target="onnx",
        model="tiny",
        config=config,
        open_session=open_session,
        read_back=lambda: hashes,
        check_hashes=no_files,
        recorded=hashes,
        read_floats=lambda: floats_of(made.weights),
        read_rotary=lambda: rotary_of(config),
        read_text=lambda: Text("given", config.bos_token_id, tuple(TEXT)),
        weights=made.weights,
        checkpoint=made.checkpoint,
    )
    return dataclasses.replace(subject, **changes)
