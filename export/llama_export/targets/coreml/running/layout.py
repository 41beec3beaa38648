"""The sizes of a package's caches, read from the manifest's signature, and which form it has.

It knows the three signatures; it does not know how any of them is called.

Shapes: L layers, K key/value heads, C max_context, D head_dim, V num_logits.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_export.bundle.graph_spec import IO, STATE, GraphSpec
from llama_export.errors import BundleError
from llama_export.targets.coreml.options import DECODE, PREFILL
from llama_export.targets.coreml.signature import KEY_CACHE, LOGITS, VALUE_CACHE

CACHES = (KEY_CACHE, VALUE_CACHE)


@dataclass(frozen=True)
class Layout:
    """The facts of a package that a session needs.

    Args:
        layers: L, number of layers.
        heads: K, number of key/value heads.
        max_context: C, largest number of positions in a conversation.
        head_dim: D, columns of a head.
        num_logits: V, number of tokens that have a logit.
        kv_cache: `STATE` or `IO`.
        prefill_tokens: number of tokens that a call of `prefill` takes; 0: shapes are flexible.
    """

    layers: int
    heads: int
    max_context: int
    head_dim: int
    num_logits: int
    kv_cache: str
    prefill_tokens: int

    @classmethod
    def of(cls, spec: GraphSpec) -> Layout:
        """Read a signature.

        Raises:
            BundleError: it is not the signature of a Core ML package.
        """
        fault = _form_fault(spec) or _caches_fault(spec) or _logits_fault(spec)
        if fault:
            message = f"manifest.json: the graph is not a Core ML package's: {fault}"
            raise BundleError(message, "export the bundle again")
        layers, _, heads, _, head_dim = _cache_shapes(spec)[0]
        return cls(
            layers=int(layers),
            heads=int(heads),
            max_context=spec.max_context,
            head_dim=int(head_dim),
            num_logits=int(spec.outputs[0].shape[2]),
            kv_cache=spec.kv_cache,
            prefill_tokens=spec.functions.get(PREFILL, 0),
        )

    def cache_shape(self, positions: int) -> tuple[int, ...]:
        """Return a cache's shape, `[L, 1, K, positions, D]`."""
        return (self.layers, 1, self.heads, positions, self.head_dim)


def _form_fault(spec: GraphSpec) -> str:
    if spec.kv_cache not in (STATE, IO):
        return f"expected kv_cache state or io, found {spec.kv_cache!r}"
    functions = dict(spec.functions)
    known = set(functions) == {PREFILL, DECODE} and functions[DECODE] == 1 <= functions[PREFILL]
    if functions and (spec.kv_cache == IO or not known):
        return f"expected no functions, or {PREFILL} and {DECODE} over states, found {functions}"
    return ""


def _caches_fault(spec: GraphSpec) -> str:
    tensors = spec.states if spec.kv_cache == STATE else spec.inputs[1:]
    found = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in tensors) or "none"
    expected = f"expected {KEY_CACHE} and {VALUE_CACHE}, alike, [L, 1, K, positions, D]"
    shapes = _cache_shapes(spec)
    if tuple(tensor.name for tensor in tensors) != CACHES or len(shapes) != 1:
        return f"{expected}, found {found}"
    positions = spec.max_context if spec.kv_cache == STATE else "past_length"
    sizes = [size for size in shapes[0] if isinstance(size, int)]
    fits = len(shapes[0]) == 5 and shapes[0][1] == 1 and shapes[0][3] == positions
    if not fits or min(sizes) < 1 or len(sizes) != 4 + (spec.kv_cache == STATE):
        return f"{expected}, with {positions} positions, found {found}"
    return ""


def _cache_shapes(spec: GraphSpec) -> list[tuple[int | str, ...]]:
    """Return the caches' shape; two where they differ."""
    tensors = spec.states if spec.kv_cache == STATE else spec.inputs[1:]
    return list(dict.fromkeys(tuple(tensor.shape) for tensor in tensors))


def _logits_fault(spec: GraphSpec) -> str:
    for first in spec.outputs[:1]:
        if first.name == LOGITS and len(first.shape) == 3 and isinstance(first.shape[2], int):
            return ""
    return f"expected the first output to be {LOGITS} [1, rows, V], found {spec.outputs[:1]}"
