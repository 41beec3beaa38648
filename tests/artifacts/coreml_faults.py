"""Faults of a lowering to Core ML, written into a saved program or its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from artifacts import tiny
from artifacts.coreml_programs import quiet

with quiet():
    from coremltools.proto import Model_pb2

from coreml_evaluator.package import Package
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.targets.coreml.reading.stored_weights import stored_constants

CONFIG: LlamaConfig = dataclasses.replace(tiny.TINY, num_hidden_layers=3)
CONTEXT = 128
TOKENS = tiny.random_tokens(CONFIG, 32)
LAYER = 1
DOWN = f"model__layers__{LAYER}__mlp__down_proj__weight"
RECORD_BYTES = 64


class Saved:
    """model.mlmodel and weight.bin, to be edited and written back."""

    def __init__(self, bundle: Path) -> None:
        self.package = bundle / "model.mlpackage"
        self.data = self.package / "Data/com.apple.CoreML"
        self.model = Model_pb2.Model()
        self.model.ParseFromString((self.data / "model.mlmodel").read_bytes())
        self.weights = bytearray((self.data / "weights/weight.bin").read_bytes())
        self.stored = {each.name: each for each in stored_constants(Package.open(self.package))}

    @property
    def operations(self):
        (function,) = self.model.mlProgram.functions.values()
        (block,) = function.block_specializations.values()
        return block.operations

    def of_type(self, kind: str) -> list:
        return [each for each in self.operations if each.type == kind]

    def named(self, name: str):
        return next(op for op in self.operations if any(out.name == name for out in op.outputs))

    def move_behind(self, operation, other) -> None:
        """Let an operator come after another one."""
        rest = [each for each in self.operations if each is not operation]
        rest.insert(rest.index(other) + 1, operation)
        copies = [type(each).FromString(each.SerializeToString()) for each in rest]
        del self.operations[:]
        self.operations.extend(copies)

    def users(self, name: str, kind: str) -> list:
        return [
            each
            for each in self.of_type(kind)
            if any(b.name == name for a in each.inputs.values() for b in a.arguments)
        ]

    def const(self, operation, parameter: str):
        """Return the tensor of the constant that an operator's parameter names."""
        name = operation.inputs[parameter].arguments[0].name
        return self.named(name).attributes["val"].immediateValue.tensor

    def region(self, tensor) -> slice:
        start = int.from_bytes(self.weights[tensor.offset + 16 : tensor.offset + 24], "little")
        return slice(start, start + tensor.size_bytes)

    def change(self, tensor, change: Callable[[np.ndarray], np.ndarray], dtype: str) -> None:
        place = self.region(tensor)
        values = np.frombuffer(bytes(self.weights[place]), dtype).reshape(tensor.shape[0], -1)
        self.weights[place] = change(values.copy()).astype(dtype).tobytes()

    def write(self) -> None:
        (self.data / "model.mlmodel").write_bytes(self.model.SerializeToString())
        (self.data / "weights/weight.bin").write_bytes(self.weights)


def no_rope_scaling(saved: Saved) -> None:
    plain = inverse_frequencies(dataclasses.replace(CONFIG, rope_scaling=None))
    tables = rope_tables(plain, torch.arange(CONTEXT))
    for name, table in zip(("rotary__cos", "rotary__sin"), tables, strict=True):
        saved.change(saved.stored[name].data, lambda _, table=table: table.numpy(), "<f4")


def one_scale(saved: Saved) -> None:
    def change(scales):
        scales[5, 1] *= np.float16(1.01)
        return scales

    saved.change(saved.stored[DOWN].scales, change, "<f2")


def nibbles(saved: Saved) -> None:
    saved.change(saved.stored[DOWN].data, lambda codes: codes << 4 | codes >> 4, "u1")


def two_rows(saved: Saved) -> None:
    def change(rows):
        rows[[200, 213]] = rows[[213, 200]]
        return rows

    saved.change(saved.stored["model__embed_tokens__weight"].data, change, "i1")


def epsilon(saved: Saved) -> None:
    norm = saved.of_type("rsqrt")[2 * LAYER]
    saved.const(norm, "epsilon").floats.values[0] = 1e-2


def keys_for_values(saved: Saved) -> None:
    attention = saved.of_type("scaled_dot_product_attention")[LAYER]
    key, value = (attention.inputs[part].arguments[0] for part in ("key", "value"))
    key.name, value.name = value.name, key.name


def gate_for_up(saved: Saved) -> None:
    silu = saved.of_type("silu")[LAYER]
    activated = silu.outputs[0].name
    (product,) = saved.users(activated, "mul")
    gate = silu.inputs["x"].arguments[0]
    factors = [binding for argument in product.inputs.values() for binding in argument.arguments]
    (up,) = (binding for binding in factors if binding.name != activated)
    gate.name, up.name = up.name, gate.name
    saved.move_behind(silu, saved.named(gate.name))


def mask_without_the_token_itself(saved: Saved) -> None:
    (causal,) = saved.of_type("less_equal")
    causal.type = "less"


def one_position_further(saved: Saved) -> None:
    """Rows of the tables that belong to the next position."""
    for name in ("rotary__cos", "rotary__sin"):
        saved.change(saved.stored[name].data, lambda rows: np.roll(rows, -1, axis=0), "<f4")


def stale_row(saved: Saved) -> None:
    """Write a layer's values into the slots of the layer before: its own stay empty."""
    updates = saved.of_type("slice_update")
    keys, values = updates[2 * LAYER : 2 * LAYER + 2]
    before = updates[2 * LAYER - 1]
    assert keys.inputs["begin"].arguments[0].name == values.inputs["begin"].arguments[0].name
    for part in ("begin", "end"):
        values.inputs[part].arguments[0].name = before.inputs[part].arguments[0].name


def residual_left_out(saved: Saved) -> None:
    """Add the feed-forward's result to the layer's input, and not to the sum before it."""
    sums = [each for each in saved.of_type("add") if "fp32" in str(_dtype(each))]
    later, sooner = sums[2 * LAYER + 1], sums[2 * LAYER]
    name, behind = sooner.outputs[0].name, sums[2 * LAYER - 1].outputs[0].name
    for argument in later.inputs.values():
        for binding in argument.arguments:
            if binding.name == name:
                binding.name = behind


def _dtype(operation) -> str:
    return {11: "fp32", 10: "fp16"}.get(operation.outputs[0].type.tensorType.dataType, "")


LAYER_NAME = f"model.layers.{LAYER}"
# The fault, what is located first, and a row of the quick report that must be red.
FAULTS: dict[str, tuple[Callable[[Saved], None], str, str]] = {
    "rope scaling off": (no_rope_scaling, "model.layers.0.self_attn (attention)", "rotary"),
    "one scale times 1.01": (one_scale, f"{LAYER_NAME}.mlp.down_proj", "codes_weights"),
    "nibbles swapped": (nibbles, f"{LAYER_NAME}.mlp.down_proj", "codes_weights"),
    "two vocabulary rows swapped": (two_rows, "model.embed_tokens", "codes_weights"),
    "epsilon of one norm": (epsilon, f"{LAYER_NAME}.input_layernorm", "rel_rms_exact"),
    "keys for values": (keys_for_values, f"{LAYER_NAME}.self_attn.k_proj", "kl_exact"),
    "gate for up": (gate_for_up, f"{LAYER_NAME}.mlp.gate_proj", "kl_exact"),
    "mask without the token itself": (
        mask_without_the_token_itself,
        "model.layers.0.self_attn (attention)",
        "kl_exact",
    ),
    "one position further": (
        one_position_further,
        "model.layers.0.self_attn (attention)",
        "rotary",
    ),
    "stale rows": (stale_row, "model.layers.0.self_attn (attention)", "kl_exact"),
    "a sum left out": (residual_left_out, f"{LAYER_NAME} (sum after mlp)", "kl_exact"),
}
