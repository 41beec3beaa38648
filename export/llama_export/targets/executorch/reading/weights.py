"""What a `.pte` of ours holds: its products by the names of their weights, its norms and tables.

The file has no names of weights, so they are told by where they stand: the delegates in the order
of their calls, and in each the products in the order of computation. That order is the artifact's
layout, and is written down here apart from the lowering, so that a fault of the lowering shows.

Shapes: C max_context, E hidden_size, D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llama_export.llama.names import FINAL_NORM, HEAD
from llama_export.targets.damage import damage_named
from llama_export.targets.executorch.reading.float_products import SIDE, recognised
from llama_export.targets.executorch.reading.instructions import Call
from llama_export.targets.executorch.reading.pte import Pte, PteTensor
from llama_export.targets.executorch.reading.xnnpack_blob import BlobProduct, XnnpackBlob, read_blob

LOOKUP = "quantized_decomposed::embedding_byte.dtype_out"
INT4_LOOKUP = "quantized_decomposed::embedding_4bit.dtype_out"
# Bits of a code.
LOOKUPS: Mapping[str, int] = {LOOKUP: 8, INT4_LOOKUP: 4}
ATTENTION = "llama::custom_sdpa.out"
SLICE = "aten::slice_copy.Tensor_out"

# q_proj and k_proj are two products each, of the first and the second half of every head.
_BEFORE = ("q_proj", "q_proj", "k_proj", "k_proj", "v_proj")
_AFTER = ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@dataclass(frozen=True)
class StoredProduct:
    """One product of a file.

    Args:
        weight: name of its weight.
        half: 0 or 1 for the half of each head that it is; None for a whole weight.
        blob: the delegate's description of it.
        codes_segment: index of the segment with its codes.
        scales_segment: index of the segment with its scales.
        bias_segment: index of the segment with its bias; None: it has none.
    """

    weight: str
    half: int | None
    blob: BlobProduct
    codes_segment: int
    scales_segment: int
    bias_segment: int | None


@dataclass(frozen=True)
class StoredSide:
    """One product of a side branch.

    Args:
        weight: name of its matrix.
        half: 0 or 1 for the half of each head that it is; None for a whole matrix.
        segment: index of the segment with its numbers.
        rows: number of rows.
    """

    weight: str
    half: int | None
    segment: int
    rows: int


@dataclass(frozen=True)
class PteWeights:
    """All weights of a file.

    Args:
        products: products in the order of computation.
        sides: products of side branches, in that order; empty: the model has none.
        norms: name and tensor of each norm.
        lookup: codes and scales of the token lookup's table.
        lookup_bits: bits of such a code.
        rotary: tables of cosines and sines.
        head_dim: D, columns of a head.
        delegate_calls: number of delegate calls.
    """

    products: tuple[StoredProduct, ...]
    sides: tuple[StoredSide, ...]
    norms: tuple[tuple[str, PteTensor], ...]
    lookup: tuple[PteTensor, PteTensor]
    lookup_bits: int
    rotary: tuple[PteTensor, ...]
    head_dim: int
    delegate_calls: int


def read_weights(pte: Pte) -> PteWeights:
    """Find everything in a file.

    Raises:
        BundleError: it is damaged, or laid out in another way.
    """
    with damage_named(pte.path):
        return _weights_in(pte)


def _weights_in(pte: Pte) -> PteWeights:
    attentions = [call for call in pte.calls if call.operator == ATTENTION]
    delegates = [call for call in pte.calls if call.delegate >= 0]
    if len(delegates) != len(attentions) + 1:
        message = f"{len(delegates)} delegate calls around {len(attentions)} attentions"
        raise ValueError(message)
    products: list[StoredProduct] = []
    sides: list[StoredSide] = []
    norms: list[tuple[str, PteTensor]] = []
    for number, call in enumerate(delegates):
        weights = _product_names(number, len(attentions))
        products += _products(pte, call, weights)
        sides += _sides(pte, call, weights)
        names = norm_names(number, len(attentions))
        norms += zip(names, _norm_tensors(pte, call, len(names)), strict=True)
    (lookup,) = (call for call in pte.calls if call.operator in LOOKUPS)
    codes, scales = (pte.tensors[value] for value in lookup.arguments[:2])
    head_dim = pte.tensors[attentions[0].arguments[0]].sizes[-1]
    tables = [
        pte.tensors[call.arguments[0]]
        for call in pte.calls
        if call.operator == SLICE and pte.tensors[call.arguments[0]].constant
    ]
    return PteWeights(
        tuple(products),
        tuple(sides),
        tuple(norms),
        (codes, scales),
        LOOKUPS[lookup.operator],
        tuple(tables),
        head_dim,
        len(delegates),
    )


def _product_names(number: int, layers: int) -> list[str]:
    """Name the products of the delegate between attention `number - 1` and `number`."""
    names = []
    if number > 0:
        names += [f"model.layers.{number - 1}.{part}.weight" for part in _AFTER]
    if number < layers:
        names += [f"model.layers.{number}.self_attn.{part}.weight" for part in _BEFORE]
    else:
        names.append(HEAD)
    return names


def norm_names(number: int, layers: int) -> list[str]:
    """Name the norms of the delegate between attention `number - 1` and `number`."""
    names = []
    if number > 0:
        names.append(f"model.layers.{number - 1}.post_attention_layernorm.weight")
    last = number == layers
    names.append(FINAL_NORM if last else f"model.layers.{number}.input_layernorm.weight")
    return names


def _products(pte: Pte, call: Call, names: Sequence[str]) -> Iterator[StoredProduct]:
    blob = delegate_blob(pte, call)
    quantised = [product for product in blob.products if product.scales is not None]
    halves: dict[str, int] = {}
    for name, product in zip(names, quantised, strict=True):
        half = None
        if names.count(name) == 2:
            half = halves[name] = halves.get(name, -1) + 1
        codes, scales = (
            pte.named[blob.constants[index].key] for index in (product.codes, product.scales or 0)
        )
        bias = None if product.bias is None else pte.named[blob.constants[product.bias].key]
        yield StoredProduct(name, half, product, codes, scales, bias)


def _sides(pte: Pte, call: Call, names: Sequence[str]) -> Iterator[StoredSide]:
    """Yield the side branches' products: there is one beside each product of a layer, or none."""
    blob, found = delegate_blob(pte, call), []
    for product in blob.products:
        if product.scales is None:
            segment = pte.named[blob.constants[product.codes].key]
            if recognised(product, pte.segment(segment)).role == SIDE:
                found.append((segment, product.rows))
    if not found:
        return
    places = [place for name in dict.fromkeys(names) for place in _side_places(name, names)]
    for (name, half), (segment, rows) in zip(places, found, strict=True):
        yield StoredSide(name, half, segment, rows)


def _side_places(name: str, names: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """Yield the matrices beside a weight, each with its half."""
    if name == HEAD:
        return
    stem = f"{name.removesuffix('.weight')}.adaptor"
    yield f"{stem}.A.weight", None
    halves = (0, 1) if names.count(name) == 2 else (None,)
    yield from ((f"{stem}.B.weight", half) for half in halves)


def delegate_blob(pte: Pte, call: Call) -> XnnpackBlob:
    """Read the delegate that an instruction calls.

    Raises:
        ValueError: it is none of XNNPACK's, or damaged.
    """
    return read_blob(pte.segment(pte.delegates[call.delegate][1]))


def _norm_tensors(pte: Pte, call: Call, count: int) -> list[PteTensor]:
    """Return the vectors that a delegate is given: its norms, in their order; not the epsilon."""
    given = [pte.tensors.get(value) for value in call.arguments]
    found = [
        tensor
        for tensor in given
        if tensor is not None
        and tensor.constant
        and len(tensor.sizes) == 1
        and (tensor.sizes[0] > 1)
    ]
    if len(found) != count:
        message = f"a delegate is given {len(found)} norms where {count} were expected"
        raise ValueError(message)
    return found
