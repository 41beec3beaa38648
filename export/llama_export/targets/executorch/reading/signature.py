"""What a `.pte` takes and gives, as a manifest has it: what ExecuTorch's runners call.

It knows names and shapes, and compares them with those that the file itself declares.

Shapes: C max_context, K key/value heads, D head_dim, V vocab_size.
"""

from __future__ import annotations

from llama_export.bundle.graph_spec import IO, GraphSpec, TensorSpec
from llama_export.errors import BundleError
from llama_export.targets.executorch.reading.pte import Pte

_HINT = "export the bundle again"
_ROWS = "sequence_length"
# ExecuTorch's numbers of dtypes.
_DTYPES = {4: "int64", 5: "float16", 6: "float32"}
# The first inputs, before the caches.
_IDS = 2
CACHE_SUFFIX = "_cache_"
_PARTS = ("key", "value")


def require_signature(spec: GraphSpec) -> None:
    """Refuse the signature of something else than a `.pte` of ours.

    Raises:
        BundleError: names what a manifest's graph has, and should have.
    """
    fault = _ids_fault(spec) or _caches_fault(spec) or _logits_fault(spec)
    if fault:
        message = f"manifest.json: the graph is not a .pte's: {fault}"
        raise BundleError(message, _HINT)


def require_declared(spec: GraphSpec, pte: Pte) -> None:
    """Refuse a manifest that says something else of a file than its program does.

    Raises:
        BundleError: names the first tensor that differs.
        ValueError, LookupError: the program is damaged.
    """
    for tensors, numbers in ((spec.inputs, pte.inputs), (spec.outputs, pte.outputs)):
        if len(tensors) != len(numbers):
            message = f"manifest.json: the graph has {len(tensors)} tensors for {len(numbers)}"
            raise BundleError(message, _HINT)
        for tensor, number in zip(tensors, numbers, strict=True):
            _require_alike(tensor, pte, number)
    inside = {tensor.sizes for tensor in pte.tensors.values() if CACHE_SUFFIX in tensor.name}
    wrong = [sizes for sizes in inside if len(sizes) != 4 or sizes[1] != spec.max_context]
    if wrong or len(inside) > 1:
        message = (
            f"manifest.json: the graph has {spec.max_context} positions, and the artifact caches "
            f"of {sorted(inside)}"
        )
        raise BundleError(message, _HINT)


def _require_alike(tensor: TensorSpec, pte: Pte, number: int) -> None:
    found = pte.tensors[number]
    alike = _DTYPES.get(found.scalar_type) == tensor.dtype and len(found.sizes) == len(tensor.shape)
    if not alike or any(
        size not in (_ROWS, other) for size, other in zip(tensor.shape, found.sizes, strict=True)
    ):
        message = (
            f"manifest.json: the graph's {tensor.name} is {tensor.dtype} {list(tensor.shape)}, and "
            f"the artifact has {_DTYPES.get(found.scalar_type)} {list(found.sizes)}"
        )
        raise BundleError(message, _HINT)


def _ids_fault(spec: GraphSpec) -> str:
    known = (
        TensorSpec("tokens", "int64", (1, _ROWS)),
        TensorSpec("input_pos", "int64", (1,)),
    )
    # A delegate that takes one token a call has no dimension that varies.
    single = (TensorSpec("tokens", "int64", (1, 1)), known[1])
    if spec.inputs[:_IDS] not in (known, single):
        return f"expected the inputs tokens and input_pos, found {spec.inputs[:_IDS]}"
    return "it has states or functions" if spec.states or spec.functions else ""


def _caches_fault(spec: GraphSpec) -> str:
    caches = spec.inputs[_IDS:]
    if spec.kv_cache != IO:
        return f"expected no caches among the inputs, found {len(caches)}" if caches else ""
    names = [f"{part}_cache_{layer}" for layer in range(len(caches) // 2) for part in _PARTS]
    alike = {(cache.dtype, cache.shape) for cache in caches}
    sizes = caches[0].shape if caches else ()
    fits = len(sizes) == 4 and sizes[:2] == (1, spec.max_context)
    if [cache.name for cache in caches] != names or len(alike) != 1 or not fits:
        return f"expected caches of {spec.max_context} positions, alike, found {caches[:2]}"
    if not all(isinstance(size, int) for size in sizes):
        return f"expected caches of a known size, found {list(sizes)}"
    return ""


def _logits_fault(spec: GraphSpec) -> str:
    for first in spec.outputs[:1]:
        rows = first.shape[1:-1]
        rows_fit = rows in ((_ROWS,), (1,)) if spec.all_logits else rows == ()
        if (
            len(spec.outputs) == 1
            and (first.name, first.dtype) == ("logits", "float32")
            and first.shape[0] == 1
            and len(first.shape) >= 2
            and isinstance(first.shape[-1], int)
            and rows_fit
        ):
            return ""
    return f"expected the one output logits [1, rows, V], found {spec.outputs[:2]}"
