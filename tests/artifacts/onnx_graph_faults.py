"""Operators put into a real ONNX graph and settings changed in it, each with words that name it."""

from __future__ import annotations

import numpy as np
from artifacts import tiny
from artifacts.faults import Artifact
from onnx import helper

VOCAB = tiny.TINY.vocab_size
LAST = VOCAB - 1


def before_lookup(artifact: Artifact, op: str, *constants, **attributes) -> None:
    """Put an operator between the ids and every lookup by them."""
    users = [node for node in artifact.nodes("Gather") if "input_ids" in node.input]
    names = [artifact.add(f"put.{i}", each) for i, each in enumerate(constants)]
    inputs = [names[0], "input_ids"] if op == "Gather" else ["input_ids", *names]
    artifact.insert(users[0], [helper.make_node(op, inputs, ["put"], name="put in", **attributes)])
    for node in users:
        node.input[1] = "put"


def after(artifact: Artifact, value: str, op: str, *constants, **attributes) -> None:
    """Put an operator behind a value, which keeps its name."""
    maker = next(node for node in artifact.graph.node if value in node.output)
    maker.output[list(maker.output).index(value)] = "as it was"
    names = [artifact.add(f"put.{i}", each) for i, each in enumerate(constants)]
    made = helper.make_node(op, ["as it was", *names], [value], name="put in", **attributes)
    index = list(artifact.graph.node).index(maker)
    artifact.graph.node.insert(index + 1, made)


def redirect(artifact: Artifact, made: str, other: str) -> None:
    """Let what makes a value read another one."""
    maker = next(node for node in artifact.graph.node if made in node.output)
    maker.input[0] = other


def one_id_reads_its_neighbour(artifact: Artifact) -> None:
    users = [node for node in artifact.nodes("Gather") if "input_ids" in node.input]
    one, other = (artifact.add(f"put.{n}", np.int64(n)) for n in (LAST, LAST - 1))
    nodes = [
        helper.make_node("Equal", ["input_ids", one], ["is it"], name="equal"),
        helper.make_node("Where", ["is it", other, "input_ids"], ["put"], name="where"),
    ]
    artifact.insert(users[0], nodes)
    for node in users:
        node.input[1] = "put"


def a_second_table(artifact: Artifact) -> None:
    """Let the lookup read a copy of the table with one other byte."""
    (codes,) = (node for node in artifact.nodes("Gather") if node.input[0].endswith(".table"))
    content = bytearray(artifact.bytes_of(codes.input[0]).tobytes())
    content[70] ^= 0x40
    codes.input[0] = artifact.append_data("another table", codes.input[0], bytes(content))


def a_value_the_probe_reads(artifact: Artifact) -> None:
    """Hide the wrong rows from who reads the norm's input: only the residual gets them."""
    norm = next(
        node
        for node in artifact.nodes("SkipSimplifiedLayerNormalization")
        if "layers.0." in node.input[2]
    )
    embedded = norm.input[0]
    scale = artifact.add("put.scale", np.float32(1.001))
    artifact.insert(norm, [helper.make_node("Mul", [embedded, scale], ["put"], name="put in")])
    norm.input[0] = "put"


# The fault, and words of the row "wiring"; each of these reads other rows.
WAYS = {
    "ids clipped by Min": (
        lambda a: before_lookup(a, "Min", np.int64(300)),
        "expected input_ids, found put, made by the Min put in",
    ),
    "ids clipped by Clip": (
        lambda a: before_lookup(a, "Clip", np.int64(0), np.int64(400)),
        "the Clip put in",
    ),
    "ids by modulus": (lambda a: before_lookup(a, "Mod", np.int64(500)), "the Mod put in"),
    "ids through a map": (
        lambda a: before_lookup(a, "Gather", np.arange(VOCAB)[::-1].copy()),
        "the Gather put in",
    ),
    "one id reads its neighbour": (one_id_reads_its_neighbour, "the Where where"),
    "another table": (a_second_table, None),
    "another row for the residual": (a_value_the_probe_reads, "the first sum"),
    "rows scaled": (
        lambda a: after(a, "embedding", "Mul", np.float32(1.0001)),
        "expected a Reshape or Cast, found the Mul put in",
    ),
}


def attribute(op: str, name: str, value, index=0):
    def edit(artifact: Artifact) -> None:
        node = artifact.nodes(op)[index]
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def a_bias(op: str, index=0):
    """Give a product or a norm a bias, which it takes as one input more."""

    def edit(artifact: Artifact) -> None:
        node = artifact.nodes(op)[index]
        size = artifact.config.hidden_size
        node.input.extend(["", "", ""][: 3 if op == "MatMulNBits" else 0])
        node.input.append(artifact.add("put.bias", np.full(size, 1e-3, np.float32)))

    return edit


SKIP, ATTENTION = "SkipSimplifiedLayerNormalization", "GroupQueryAttention"
SETTINGS = {
    "epsilon of the last norm": (
        attribute(SKIP, "epsilon", 1.2e-5, -1),
        "model.norm: epsilon is 1.2e-05, expected 1e-05",
    ),
    "epsilon of one norm": (attribute(SKIP, "epsilon", 1.5e-5, 1), "epsilon is 1.5e-05"),
    "epsilon of the first norm": (attribute("RMSNormalization", "epsilon", 1.1e-5), "epsilon"),
    "scale of attention": (attribute(ATTENTION, "scale", 1 / 8.01), "scale is 0.1248439"),
    "a softcap": (attribute(ATTENTION, "softcap", 50.0, 1), "softcap is 50"),
    "a window": (attribute(ATTENTION, "local_window_size", 1500), "local_window_size is 1500"),
    "no rotation": (attribute(ATTENTION, "do_rotary", 0), "do_rotary is 0"),
    "pairs side by side": (attribute(ATTENTION, "rotary_interleaved", 1), "rotary_interleaved"),
    "a sink": (attribute(ATTENTION, "smooth_softmax", 1), "smooth_softmax is 1"),
    "a setting nobody knows": (attribute(ATTENTION, "k_quant_type", "NONE"), "k_quant_type is"),
    "another silu": (attribute("QuickGelu", "alpha", 1.01), "alpha is 1.01"),
    "one product computed in another type": (
        attribute("MatMulNBits", "accuracy_level", 1, 2),
        "accuracy_level is 1, expected 4",
    ),
    "columns from the first": (attribute("Shape", "start", 0, -1), "start is 0, expected 1"),
    "axis of a lookup": (attribute("Gather", "axis", 1, 1), "axis is 1"),
}

OPERATORS = {
    "a bias on one logit": (
        lambda a: after(a, "logits", "Add", np.eye(1, VOCAB, 7, dtype=np.float32)[None]),
        "lm_head: expected a MatMulNBits or FusedMatMul, found the Add put in",
    ),
    "logits capped": (
        lambda a: after(a, "logits", "Clip", np.float32(-50), np.float32(50)),
        "found the Clip put in",
    ),
    "logits in another order": (
        lambda a: after(a, "logits", "Gather", np.roll(np.arange(VOCAB), 1), axis=2),
        "found the Gather put in",
    ),
    "a product with a bias": (a_bias("MatMulNBits", 1), "o_proj: the MatMulNBits"),
    "a sum with a bias": (a_bias(SKIP), "takes"),
    "a mask of its own": (
        lambda a: a.attentions(0)[0].input.extend(
            ["", a.add("put.mask", np.zeros((1, 1, 1, 64), np.float32))]
        ),
        "(attention): the GroupQueryAttention",
    ),
    "an operator that leads nowhere": (
        lambda a: a.graph.node.append(helper.make_node("Neg", ["logits"], ["no"], name="put in")),
        "the Neg put in leads nowhere",
    ),
    "a product that is not hashed": (
        lambda a: a.nodes("MatMulNBits")[2].ClearField("metadata_props"),
        "holds nothing",
    ),
    "logits of the token before the last": (
        lambda a: after(a, "last_row", "Sub", np.array([1])),
        "lm_head (last position): expected a Min, found the Sub put in",
    ),
    "logits of the last column": (
        lambda a: redirect(a, "last_row_index", "last_column"),
        "lm_head (last position): expected a Min",
    ),
    "one output more": (
        lambda a: a.graph.output.append(helper.make_tensor_value_info("last_token", 7, None)),
        "the graph's output last_token is unknown",
    ),
}
