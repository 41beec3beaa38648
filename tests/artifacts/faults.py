"""Faults in a real ONNX bundle, as a buggy exporter would have written them.

Each edits model.onnx or its data in place; then the bundle is sealed again, so that no file's hash
gives it away. With `relabel`, the manifest also records the codes and scales that the faulty
artifact really holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from artifacts.resealing import reseal
from onnx import TensorProto, helper, numpy_helper

from llama_export.bundle.bundle import Bundle
from llama_export.llama.config import LlamaConfig
from llama_export.llama.rope import inverse_frequencies, rope_tables

LAYER = 1  # of three
TABLE = "model.embed_tokens.weight"
DOWN = f"model.layers.{LAYER}.mlp.down_proj.weight"
# Tokens that no test's text holds.
SWAPPED = (200, 213)
STALE_ROW = 3


class Artifact:
    """model.onnx and its data, to be edited and written back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model.onnx"
        self.data_path = folder / "model.onnx_data"
        self.proto = onnx.load(str(self.model), load_external_data=False)
        self.data = bytearray(self.data_path.read_bytes())
        config = Bundle.open(folder).manifest.model.config
        self.config = LlamaConfig.from_hf(config, where="manifest.json")

    @property
    def graph(self):
        return self.proto.graph

    def nodes(self, op: str) -> list:
        return [node for node in self.graph.node if node.op_type == op]

    def attentions(self, layer: int | None) -> list:
        found = self.nodes("GroupQueryAttention")
        return found if layer is None else [found[layer]]

    def node_of(self, weight: str, op: str = "MatMulNBits"):
        return next(n for n in self.nodes(op) if weight in str(n.metadata_props))

    def place(self, name: str) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.tensor(name).external_data}

    def tensor(self, name: str):
        return next(tensor for tensor in self.graph.initializer if tensor.name == name)

    def bytes_of(self, name: str) -> np.ndarray:
        """Return a writable view of an initializer's bytes."""
        place = self.place(name)
        length = int(place["length"])
        return np.frombuffer(self.data, np.uint8, length, int(place["offset"]))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensor(name).dims)

    def scales(self, weight: str) -> np.ndarray:
        """Return a writable view of float16 scales, `[N, G]`."""
        stored = f"{weight}.scales"
        assert self.tensor(stored).data_type == TensorProto.FLOAT16
        return self.bytes_of(stored).view(np.float16).reshape(self.shape(stored))

    def add(self, name: str, array: np.ndarray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def append_data(self, name: str, like: str, content: bytes) -> str:
        """Add an initializer at the end of the data file, of another one's type and shape."""
        self.data += bytes(-len(self.data) % 4096)
        proto = TensorProto()
        proto.CopyFrom(self.tensor(like))
        proto.name = name
        for entry in proto.external_data:
            if entry.key == "offset":
                entry.value = str(len(self.data))
        self.data += content
        self.graph.initializer.append(proto)
        return name

    def insert(self, before, nodes: list) -> None:
        """Put nodes in front of another one."""
        index = next(i for i, node in enumerate(self.graph.node) if node.name == before.name)
        for offset, node in enumerate(nodes):
            self.graph.node.insert(index + offset, node)

    def write(self) -> None:
        self.model.write_bytes(self.proto.SerializeToString(deterministic=True))
        self.data_path.write_bytes(self.data)


def inject(folder: Path, fault: Callable[[Artifact], None], *, relabel: bool = False) -> Bundle:
    """Put a fault into a bundle and seal it again."""
    artifact = Artifact(folder)
    fault(artifact)
    artifact.write()
    return reseal(folder, relabel=relabel)


def _turn(artifact: Artifact, layer: int | None, inv_freq: torch.Tensor, first: int) -> None:
    """Give layers rotary tables of other frequencies, or that begin at another position."""
    rows = artifact.shape("cos_cache")[0]
    tables = rope_tables(inv_freq, torch.arange(first, first + rows))
    names = [
        artifact.add(f"{part}_cache_other", table.numpy())
        for part, table in zip(("cos", "sin"), tables, strict=True)
    ]
    for node in artifact.attentions(layer):
        node.input[7], node.input[8] = names


def rope_scaling_off(artifact: Artifact, layer: int | None = LAYER) -> None:
    plain = replace(artifact.config, rope_scaling=None)
    _turn(artifact, layer, inverse_frequencies(plain), 0)


def position_off_by_one(artifact: Artifact, layer: int | None = LAYER) -> None:
    _turn(artifact, layer, inverse_frequencies(artifact.config), 1)


def decode_position_off_by_one(artifact: Artifact, layer: int = LAYER) -> None:
    """Only where there is a past: the tables are read one row further down."""
    (node,) = artifact.attentions(layer)
    rows = artifact.shape("cos_cache")[0]
    artifact.add("off.rows", np.arange(rows, dtype=np.int64))
    artifact.add("off.last", np.array(rows - 1, dtype=np.int64))
    artifact.add("off.axis", np.array(1, dtype=np.int64))
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["off.shape"]),
        helper.make_node("Gather", ["off.shape", "off.axis"], ["off.length"], axis=0),
        helper.make_node("Greater", ["mask_length", "off.length"], ["off.has_past"]),
        helper.make_node("Cast", ["off.has_past"], ["off.one"], to=TensorProto.INT64),
        helper.make_node("Add", ["off.rows", "off.one"], ["off.next"]),
        helper.make_node("Min", ["off.next", "off.last"], ["off.index"]),
        helper.make_node("Gather", ["cos_cache", "off.index"], ["off.cos"], axis=0),
        helper.make_node("Gather", ["sin_cache", "off.index"], ["off.sin"], axis=0),
    ]
    artifact.insert(node, nodes)
    node.input[7], node.input[8] = "off.cos", "off.sin"


def one_scale(artifact: Artifact, weight: str = DOWN, row: int = 5, group: int = 2) -> None:
    scales = artifact.scales(weight)
    scales[row, group] *= np.float16(1.01)


def nibbles_swapped(artifact: Artifact, weight: str = DOWN) -> None:
    codes = artifact.bytes_of(f"{weight}.codes")
    codes[:] = (codes >> 4) | (codes << 4)


def keys_and_values_swapped(artifact: Artifact, layer: int = LAYER) -> None:
    """The caches' names are exchanged, going in and coming out: the layer's result stays right."""
    (node,) = artifact.attentions(layer)
    node.input[3], node.input[4] = node.input[4], node.input[3]
    node.output[1], node.output[2] = node.output[2], node.output[1]


def value_packed_before_key(artifact: Artifact, layer: int = LAYER) -> None:
    """The packed product holds q, v, k, and says so: every hash is right."""
    stem = f"model.layers.{layer}.self_attn"
    node = artifact.node_of(f"{stem}.k_proj")
    codes, scales = (artifact.bytes_of(n) for n in (node.input[1], _stored(node.input[2])))
    rows = artifact.shape(node.input[1])[0]
    q, shared = (
        heads * artifact.config.head_dim
        for heads in (artifact.config.num_attention_heads, artifact.config.num_key_value_heads)
    )
    for array in (codes, scales):
        matrix = array.reshape(rows, -1)
        k = matrix[q : q + shared].copy()
        matrix[q : q + shared] = matrix[q + shared :]
        matrix[q + shared :] = k
    (entry,) = node.metadata_props
    first, second, third = entry.value.split()
    entry.value = f"{first} {third} {second}"


def _stored(cast: str) -> str:
    return cast.removesuffix(".float32")


def stale_cache_row(artifact: Artifact, layer: int = LAYER, row: int = STALE_ROW) -> None:
    """Whenever there is a past, one row of its keys is the row before it."""
    (node,) = artifact.attentions(layer)
    artifact.add("stale.zero", np.array(0, dtype=np.int64))
    artifact.add("stale.one", np.array(1, dtype=np.int64))
    artifact.add("stale.axis", np.array(2, dtype=np.int64))
    artifact.add("stale.row", np.array(row, dtype=np.int64))
    nodes = [
        helper.make_node("Shape", [node.input[3]], ["stale.shape"]),
        helper.make_node("Gather", ["stale.shape", "stale.axis"], ["stale.slots"], axis=0),
        helper.make_node("Range", ["stale.zero", "stale.slots", "stale.one"], ["stale.all"]),
        helper.make_node("Equal", ["stale.all", "stale.row"], ["stale.is"]),
        helper.make_node("Sub", ["stale.all", "stale.one"], ["stale.before"]),
        helper.make_node("Where", ["stale.is", "stale.before", "stale.all"], ["stale.index"]),
        helper.make_node("Gather", [node.input[3], "stale.index"], ["stale.key"], axis=2),
    ]
    artifact.insert(node, nodes)
    node.input[3] = "stale.key"


def head_not_tied(artifact: Artifact) -> None:
    """The head has codes of its own."""
    (head,) = (node for node in artifact.nodes("MatMulNBits") if node.output[0] == "logits")
    codes = artifact.bytes_of(head.input[1])
    other = np.random.default_rng(0).permutation(codes).tobytes()
    del codes
    head.input[1] = artifact.append_data("head.codes", head.input[1], other)


def vocabulary_rows_swapped(artifact: Artifact, rows: tuple[int, int] = SWAPPED) -> None:
    matrices = [
        artifact.bytes_of(f"{TABLE}.{part}").reshape(artifact.config.vocab_size, -1)
        for part in ("codes", "scales")
    ]
    for matrix in matrices:
        matrix[list(rows)] = matrix[list(reversed(rows))]


def mask_off_by_one(artifact: Artifact, layer: int = LAYER) -> None:
    """No token but the first sees itself."""
    (node,) = artifact.attentions(layer)
    artifact.add("mask.zero", np.array(0, dtype=np.int64))
    artifact.add("mask.one", np.array(1, dtype=np.int64))
    artifact.add("mask.column", np.array([1], dtype=np.int64))
    artifact.add("mask.outer", np.array([0, 1], dtype=np.int64))
    artifact.add("mask.hide", np.array(-1e30, dtype=np.float32))
    artifact.add("mask.show", np.array(0, dtype=np.float32))
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["mask.ids"]),
        helper.make_node("Gather", ["mask.ids", "mask.one"], ["mask.length"], axis=0),
        helper.make_node("Sub", ["mask_length", "mask.length"], ["mask.past"]),
        helper.make_node("Range", ["mask.past", "mask_length", "mask.one"], ["mask.new"]),
        helper.make_node("Range", ["mask.zero", "mask_length", "mask.one"], ["mask.seen"]),
        helper.make_node("Unsqueeze", ["mask.new", "mask.column"], ["mask.rows"]),
        helper.make_node("Equal", ["mask.rows", "mask.seen"], ["mask.itself"]),
        helper.make_node("Greater", ["mask.seen", "mask.zero"], ["mask.later"]),
        helper.make_node("And", ["mask.itself", "mask.later"], ["mask.hidden"]),
        helper.make_node("Where", ["mask.hidden", "mask.hide", "mask.show"], ["mask.flat"]),
        helper.make_node("Unsqueeze", ["mask.flat", "mask.outer"], ["mask.bias"]),
    ]
    artifact.insert(node, nodes)
    node.input.extend(["", "mask.bias"])


def wrong_epsilon(artifact: Artifact, layer: int | None = LAYER, epsilon: float = 1e-6) -> None:
    """In the first norm of a layer, or in all there are."""
    norms = artifact.nodes("RMSNormalization") + artifact.nodes("SkipSimplifiedLayerNormalization")
    for node in norms:
        if layer is None or f"layers.{layer}.input_layernorm" in str(node.input):
            (attribute,) = (found for found in node.attribute if found.name == "epsilon")
            attribute.f = epsilon


@dataclass(frozen=True)
class Fault:
    """What is injected, and what a verification must say about it.

    Args:
        edit: changes the artifact.
        operator: the first that is wrong.
        says: words of the divergence's detail.
        others: the further operators that are wrong.
        perhaps: those that may be, where the fault's effect is near that of rounding.
    """

    edit: Callable[[Artifact], None]
    operator: str
    says: str
    others: tuple[str, ...] = ()
    perhaps: tuple[str, ...] = ()


def _at(operator: str, layer: int = LAYER) -> str:
    return f"model.layers.{layer}.{operator}"


ATTENTION = "self_attn (attention)"
NORMS = tuple(
    _at(norm, layer)
    for layer in range(3)
    for norm in ("input_layernorm", "post_attention_layernorm")
)
EVERY_ATTENTION = tuple(_at(ATTENTION, layer) for layer in (1, 2))

# The ten that were asked for, each in the middle layer of three where it has a layer.
TEN = {
    "rope scaling off": Fault(rope_scaling_off, _at(ATTENTION), "the rope scaling is left out"),
    "one scale times 1.01": Fault(
        one_scale, _at("mlp.down_proj"), "the scale of row 5, columns 64 to 95, is 1.0"
    ),
    "position off by one": Fault(position_off_by_one, _at(ATTENTION), "positions are off by +1"),
    "nibbles swapped": Fault(nibbles_swapped, _at("mlp.down_proj"), "4-bit codes of every byte"),
    "K and V swapped": Fault(
        keys_and_values_swapped, _at(ATTENTION), "keys and values are swapped"
    ),
    "one stale cache row": Fault(
        stale_cache_row, _at(ATTENTION), "it is now a stale copy of row 2"
    ),
    "head not tied": Fault(head_not_tied, "lm_head", "the head is not the embedding's table"),
    "two vocabulary rows swapped": Fault(
        vocabulary_rows_swapped,
        "model.embed_tokens",
        "the vocabulary's rows 200 and 213 are swapped",
        ("lm_head",),
    ),
    "mask off by one": Fault(mask_off_by_one, _at(ATTENTION), "a token does not see itself"),
    # In all norms, as an exporter would do it: in one of a later layer its effect on the results
    # is that of rounding, and `MORE` has that.
    "wrong norm epsilon": Fault(
        lambda artifact: wrong_epsilon(artifact, None),
        _at("input_layernorm", 0),
        "epsilon seems to be 1.0e-06",
        NORMS[1:2],
        (*NORMS[2:], "model.norm"),
    ),
}
# The same in other forms.
MORE = {
    "rope scaling off everywhere": Fault(
        lambda artifact: rope_scaling_off(artifact, None),
        _at(ATTENTION, 0),
        "the rope scaling is left out",
        EVERY_ATTENTION,
    ),
    "position off by one everywhere": Fault(
        lambda artifact: position_off_by_one(artifact, None),
        _at(ATTENTION, 0),
        "positions are off by +1",
        EVERY_ATTENTION,
    ),
    "position off by one in steps": Fault(
        decode_position_off_by_one, _at(ATTENTION), "positions are off by +1"
    ),
    "value packed before key": Fault(
        value_packed_before_key,
        _at("self_attn.k_proj"),
        "v_proj.weight: the two are swapped",
        (_at("self_attn.v_proj"),),
    ),
    "one scale of the table": Fault(
        lambda artifact: one_scale(artifact, TABLE, 70, 0), "model.embed_tokens", "", ("lm_head",)
    ),
    "wrong norm epsilon in one layer": Fault(
        wrong_epsilon, _at("input_layernorm"), "epsilon seems to be"
    ),
}
