"""What an ONNX artifact takes and gives: the names that onnxruntime's clients expect.

It knows names, shapes and dtypes; it imports no toolkit.

Shapes: K key/value heads, D head_dim, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from llama_export.bundle.graph_spec import IO, GraphSpec, TensorSpec
from llama_export.errors import BundleError

LOGITS = "logits"
_HINT = "export the bundle again"
# The first inputs, before the caches.
_IDS = 2
_TYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}


class Declared(Protocol):
    """An input or an output, as onnxruntime tells it of a loaded graph."""

    name: str
    type: str
    shape: list[int | str | None]


def signature(
    num_layers: int,
    cache_shape: tuple[int, int],
    vocab_size: int,
    max_context: int,
    rows: int | str,
) -> GraphSpec:
    """Return the signature of an artifact.

    Args:
        num_layers: number of layers.
        cache_shape: K and D.
        vocab_size: V.
        max_context: positions of the KV cache.
        rows: rows of logits that come out: 1, or "sequence_length" for all.
    """
    heads, head_dim = cache_shape
    past = ("batch_size", heads, "past_sequence_length", head_dim)
    present = ("batch_size", heads, "total_sequence_length", head_dim)
    caches = [f"{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]
    return GraphSpec(
        inputs=(
            TensorSpec("input_ids", "int64", ("batch_size", "sequence_length")),
            TensorSpec("attention_mask", "int64", ("batch_size", "total_sequence_length")),
            *(TensorSpec(f"past_key_values.{cache}", "float32", past) for cache in caches),
        ),
        outputs=(
            TensorSpec(LOGITS, "float32", ("batch_size", rows, vocab_size)),
            *(TensorSpec(f"present.{cache}", "float32", present) for cache in caches),
        ),
        kv_cache=IO,
        max_context=max_context,
        all_logits=rows != 1,
    )


def require_signature(spec: GraphSpec) -> None:
    """Refuse the signature of something else than an ONNX artifact.

    Raises:
        BundleError: names what a manifest's graph has, and should have.
    """
    caches, logits = spec.inputs[_IDS:], spec.outputs[0].shape
    sizes = [size for size in caches[0].shape if isinstance(size, int)] if caches else []
    vocab_size = logits[-1]
    if len(sizes) != 2 or not isinstance(vocab_size, int):
        message = "manifest.json: the graph is not an ONNX artifact's: it has no caches or logits"
        raise BundleError(message, _HINT)
    rows = "sequence_length" if spec.all_logits else 1
    shape = sizes[0], sizes[1]
    expected = signature(len(caches) // 2, shape, vocab_size, spec.max_context, rows)
    if spec != expected:
        wrong = _first_difference(spec, expected)
        message = f"manifest.json: the graph is not an ONNX artifact's: {wrong}"
        raise BundleError(message, _HINT)


def require_declared(
    spec: GraphSpec, inputs: Iterable[Declared], outputs: Iterable[Declared]
) -> None:
    """Refuse a manifest that says something else of an artifact than its graph does.

    Args:
        spec: signature from the manifest.
        inputs: inputs of the loaded graph.
        outputs: outputs of the loaded graph.

    Raises:
        BundleError: names the first that differs.
    """
    for tensors, declared in ((spec.inputs, inputs), (spec.outputs, outputs)):
        found = {each.name: each for each in declared}
        for tensor in tensors:
            each = found.get(tensor.name)
            if each is None or not _agree(tensor, each):
                told = "none of that name" if each is None else f"{each.type} {each.shape}"
                message = (
                    f"manifest.json: the graph's {tensor.name} is {tensor.dtype} "
                    f"{list(tensor.shape)}, and the artifact has {told}"
                )
                raise BundleError(message, _HINT)
        if more := sorted(found.keys() - {tensor.name for tensor in tensors}):
            message = f"manifest.json: its graph does not name the artifact's {', '.join(more)}"
            raise BundleError(message, _HINT)


def _agree(tensor: TensorSpec, declared: Declared) -> bool:
    """Compare type, number of dimensions, and those that are numbers in both."""
    return (
        _TYPES.get(declared.type) == tensor.dtype
        and len(declared.shape) == len(tensor.shape)
        and all(
            one == other or not (isinstance(one, int) and isinstance(other, int))
            for one, other in zip(tensor.shape, declared.shape, strict=True)
        )
    )


def _first_difference(spec: GraphSpec, expected: GraphSpec) -> str:
    for key in ("inputs", "outputs"):
        found, right = getattr(spec, key), getattr(expected, key)
        for one, other in zip(found, right, strict=False):
            if one != other:
                return f"expected {other.name} {other.dtype} {list(other.shape)}, found {one}"
        if len(found) != len(right):
            return f"expected {len(right)} {key}, found {len(found)}"
    return f"expected no states, functions or delegate, and kv_cache {IO}"
