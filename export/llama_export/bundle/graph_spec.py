"""GraphSpec: what an artifact takes and gives, as recorded in the manifest.

It knows names, shapes and dtypes, and which of them any artifact can have; it does not know how a
runtime is fed. What a target's own signature must be, its folder says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_export.bundle.json_object import JsonObject, is_integer
from llama_export.errors import BundleError

# Where the KV cache is: kept inside the artifact, or an input and an output of each call.
STATE, IO = "state", "io"
# No Llama has more positions than a sixteenth of that.
MOST_CONTEXT = 2**24

_DTYPES = frozenset({"int32", "int64", "float16", "float32"})
# What varies from call to call; every other dimension is a number.
_DIMENSIONS = frozenset(
    {
        "batch_size",
        "mask_rows",
        "past_length",
        "past_sequence_length",
        "sequence_length",
        "total_length",
        "total_sequence_length",
    }
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:]{0,99}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z0-9_ ,.:'-]{0,99}")
_KEYS = (
    "inputs",
    "outputs",
    "kv_cache",
    "max_context",
    "all_logits",
    "delegate",
    "states",
    "functions",
)
_COUNTS = ("delegate_calls", "products_inside", "products")
_MOST_TENSORS, _MOST_DIMENSIONS, _MOST_FUNCTIONS = 4096, 8, 16
_MOST_COUNT = 2**31 - 1
# The caches of the largest Llama at its longest context have a sixteenth of that.
_MOST_ELEMENTS = 2**36


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: a dimension is a number, or the name of what varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """The artifact's signature.

    Args:
        inputs: inputs of a call.
        outputs: outputs of a call.
        kv_cache: `STATE` or `IO`.
        max_context: largest number of positions in a conversation.
        all_logits: whether the logits of every position come out, or the last one's alone.
        delegate: what computes inside a `.pte`, and how much of it; empty for other artifacts.
        states: arrays that a Core ML package keeps inside.
        functions: number of tokens that a call takes, by the function of a Core ML package, whose
            signature above is the last one's; empty when there is one function, for any number.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kv_cache: str
    max_context: int
    all_logits: bool
    delegate: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[TensorSpec, ...] = ()
    functions: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            "inputs": [_tensor_to_json(spec) for spec in self.inputs],
            "outputs": [_tensor_to_json(spec) for spec in self.outputs],
            "kv_cache": self.kv_cache,
            "max_context": self.max_context,
            "all_logits": self.all_logits,
            **({"delegate": dict(self.delegate)} if self.delegate else {}),
            **({"states": [_tensor_to_json(spec) for spec in self.states]} if self.states else {}),
            **({"functions": dict(self.functions)} if self.functions else {}),
        }

    @classmethod
    def from_json(cls, raw: object) -> GraphSpec:
        """Read the manifest's form.

        Raises:
            BundleError: fields are missing, of another type, or beyond what any artifact has (all
                faults are listed).
        """
        faults: list[str] = []
        spec = cls.read(JsonObject({"graph": raw}, "", faults).child("graph"))
        if faults:
            message = f"manifest.json: the field `graph` is damaged: {'; '.join(faults[:20])}"
            raise BundleError(message, "export the bundle again")
        return spec

    @classmethod
    def read(cls, graph: JsonObject) -> GraphSpec:
        """Read the manifest's form; its faults are left with the reader of the manifest."""
        graph.only(_KEYS)
        spec = cls(
            inputs=_tensors(graph, "inputs"),
            outputs=_tensors(graph, "outputs"),
            kv_cache=graph.text("kv_cache", re.compile(f"{STATE}|{IO}"), f"{STATE} or {IO}"),
            max_context=graph.integer("max_context", minimum=1, maximum=MOST_CONTEXT),
            all_logits=graph.boolean("all_logits"),
            delegate=_delegate(graph.child("delegate")) if "delegate" in graph.raw else {},
            states=_tensors(graph, "states") if "states" in graph.raw else (),
            functions=_counts(graph, "functions", _MOST_FUNCTIONS)
            if "functions" in graph.raw
            else {},
        )
        for key in ("inputs", "outputs"):
            if graph.raw.get(key) == []:
                graph.fault(key, "a list of at least one tensor")
        return spec


def _tensor_to_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _tensors(graph: JsonObject, key: str) -> tuple[TensorSpec, ...]:
    """Read a list of tensors, whose names must differ."""
    found = tuple(_tensor(each) for each in graph.children(key, _MOST_TENSORS))
    if len({tensor.name for tensor in found}) < len(found):
        graph.fault(key, "a list of tensors with names of their own")
    return found


def _tensor(raw: JsonObject) -> TensorSpec:
    raw.only(("name", "dtype", "shape"))
    name = raw.text("name", _NAME, "a tensor's name")
    dtype = raw.raw.get("dtype")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raw.fault("dtype", f"one of {', '.join(sorted(_DTYPES))}")
    shape = raw.raw.get("shape")
    if not isinstance(shape, list) or not _is_shape(shape):
        raw.fault("shape", "a list of sizes, each a number above 0 or the name of what varies")
        shape = []
    return TensorSpec(name, str(dtype), tuple(shape))


def _is_shape(raw: list[object]) -> bool:
    if not 1 <= len(raw) <= _MOST_DIMENSIONS:
        return False
    sizes = [size for size in raw if is_integer(size)]
    names = [size for size in raw if isinstance(size, str) and size in _DIMENSIONS]
    sound = len(sizes) + len(names) == len(raw) and all(0 < size <= _MOST_COUNT for size in sizes)
    return sound and math.prod(sizes) <= _MOST_ELEMENTS


def _delegate(raw: JsonObject) -> Mapping[str, Any]:
    """Check what is said of a `.pte`'s delegate; the first version of the format has `status`."""
    raw.only(("name", "outside", *_COUNTS, "kv_dtype", "kv_bytes_per_token", "status"))
    raw.text("name", _NAME, "a delegate's name")
    for key in _COUNTS:
        raw.integer(key, maximum=_MOST_COUNT)
    if "kv_dtype" in raw.raw:
        raw.text("kv_dtype", re.compile("float16|float32"), "float16 or float32")
    if "kv_bytes_per_token" in raw.raw:
        raw.integer("kv_bytes_per_token", maximum=_MOST_COUNT)
    if "status" in raw.raw:
        raw.text("status", _WORDS, "a few words")
    return {**raw.raw, "outside": _counts(raw, "outside", _MOST_TENSORS)}


def _counts(owner: JsonObject, key: str, most: int) -> Mapping[str, int]:
    """Read an object of whole numbers by name."""
    counts = owner.child(key)
    sound = len(counts.raw) <= most and all(map(_NAME.fullmatch, counts.raw))
    if not sound:
        owner.fault(key, f"an object with at most {most} names")
        return {}
    return {name: counts.integer(name, maximum=_MOST_COUNT) for name in counts.raw}
