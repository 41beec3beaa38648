"""Weights as ONNX nodes: `MatMulNBits`, rows of an int8 or int4 table, and their float forms.

It turns a named weight into initializers and the node that uses them. It knows quantised tensors
and operators' byte layouts; it does not know where in a Llama a weight stands.

Scales are stored as float16, which holds every scale exactly, with a Cast in front of the operator:
the runtime folds it when it loads, and the file is a tenth smaller than with float32 scales. (Not
as the bfloat16 that they are: onnxruntime-web has no Cast from it.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from onnx import TensorProto
from torch import Tensor

from llama_export.errors import LoweringError
from llama_export.llama.trace import Side
from llama_export.targets.onnx.layout import BESIDE_KEY, WEIGHTS_KEY, block_size
from llama_export.targets.onnx.lowering.data import DataRegion, row_chunks
from llama_export.targets.onnx.lowering.graph_builder import MICROSOFT, Attribute, GraphBuilder
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.tensor import QuantizedTensor

# Bits=8 has no float32 kernel (it would unpack the whole weight at each call), so it stays at 4.
INT8_ACCURACY_LEVEL = 4


class WeightEmitter:
    """Emit the nodes of weights; a weight that is used twice is stored once.

    Args:
        builder: graph that gets the nodes and initializers.
        weights: the quantised checkpoint, mapped.
        accuracy_level: level of 4-bit `MatMulNBits`: 1 computes in float32, 4 in int8.
    """

    def __init__(
        self, builder: GraphBuilder, weights: QuantizedWeights, accuracy_level: int
    ) -> None:
        self._builder = builder
        self._weights = weights
        self._accuracy_level = accuracy_level
        self._regions: dict[str, DataRegion] = {}

    def vector(self, name: str) -> str:
        """Add a norm's weight `[E]` as float32 and return its value's name."""
        tensor = self._floats(name)
        self._builder.weight(name, "float32", tensor.shape, [tensor.float()])
        return name

    def stack(self, names: Sequence[str]) -> bool:
        """Whether some weights have one scheme, so that they run as one product."""
        return len({_scheme_label(self._weights.get(name)) for name in names}) == 1

    def bias(self, names: Sequence[str], x: str, output: str) -> str:
        """Add the biases of stacked weights, float32 in one array."""
        tensors = [self._floats(name) for name in names]
        stacked = torch.cat([tensor.float() for tensor in tensors])
        value = "+".join(names)
        self._builder.weight(value, "float32", stacked.shape, [stacked])
        metadata = self._describe(names, tensors) | {BESIDE_KEY: "bias"}
        return self._builder.node("Add", [x, value], [output], metadata=metadata)

    def side(self, side: Side, x: str, product: str, output: str) -> str:
        """Add a side branch, whose weights are float32: every client has products of those."""
        value = x
        for name, alpha in ((side.a, 1.0), (side.b, side.scale)):
            weight = self._floats(name)
            self._builder.weight(name, "float32", weight.shape, [weight.float()])
            attributes: dict[str, Attribute] = {"transB": 1, "alpha": alpha}
            value = self._builder.node(
                "FusedMatMul",
                [value, name],
                [f"{output}.{'down' if name == side.a else 'side'}"],
                attributes,
                MICROSOFT,
                self._describe([name], [weight]),
            )
        metadata = {BESIDE_KEY: "adaptor"}
        return self._builder.node("Add", [product, value], [output], metadata=metadata)

    def _floats(self, name: str) -> Tensor:
        tensor = self._weights.get(name)
        if isinstance(tensor, QuantizedTensor):
            message = f"{name}: it must not be quantised, found {tensor.scheme.label}"
            raise LoweringError(message, "correct the recipe")
        return tensor

    def linear(self, names: Sequence[str], x: str, output: str) -> str:
        """Multiply by the transpose of some weights stacked along their rows.

        Args:
            names: names of the weights `[N, K]`, all of one scheme.
            x: name of the input value, `[B, S, K]`.
            output: name of the result, `[B, S, sum of N]`.
        """
        tensors = [self._weights.get(name) for name in names]
        stem = "+".join(self._weights.storage_name(name) for name in names)
        metadata = self._describe(names, tensors)
        quantized = [tensor for tensor in tensors if isinstance(tensor, QuantizedTensor)]
        if quantized:
            return self._matmul_n_bits(stem, quantized, x, output, metadata)
        floats = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
        weight = self._float_matrix(stem, floats)
        attributes: dict[str, Attribute] = {"transB": 1}
        return self._builder.node(
            "FusedMatMul", [x, weight], [output], attributes, MICROSOFT, metadata
        )

    def embedding(self, name: str, input_ids: str, output: str) -> str:
        """Look rows up in a table `[V, E]`: result `[B, S, E]`."""
        table = self._weights.get(name)
        stem = self._weights.storage_name(name)
        metadata = self._describe([name], [table])
        if isinstance(table, Tensor):
            rows = self._float_initializer(f"{stem}.table", stem, [table])
            found = self._builder.node(
                "Gather", [rows, input_ids], [f"{output}.rows"], metadata=metadata
            )
            return self._builder.node("Cast", [found], [output], {"to": 1})
        return self._quantized_rows(stem, table, input_ids, output, metadata)

    def _quantized_rows(
        self,
        stem: str,
        table: QuantizedTensor,
        input_ids: str,
        output: str,
        metadata: dict[str, str],
    ) -> str:
        """Look up codes and scales and multiply them, in operators that every runtime has.

        `GatherBlockQuantized` would do it in one step, but onnxruntime-web has no kernel for it.
        The bytes are those of the head's `MatMulNBits`, so that a tied table is stored once.
        """
        build = self._builder
        rows, columns = table.shape
        bits = table.scheme.bits
        block = block_size(table.scheme, columns, stem)
        groups = columns // block
        codes, scales = f"{stem}.table", f"{stem}.table_scales"
        shape = (rows, groups, block * bits // 8)
        self._share(codes, f"{stem}.codes", "uint8", shape, _code_chunks([table]))
        factors = _scale_chunks([table], groups)
        # Two codes a byte come out of it as a dimension more.
        ones = (1,) if bits == 8 else (1, 1)
        self._share(scales, f"{stem}.scales", "float16", (rows, groups, *ones), factors)
        signed = self._signed_bytes if bits == 8 else self._signed_pairs
        found = signed(codes, input_ids, output)
        to_float: dict[str, Attribute] = {"to": 1}
        scale = build.node("Gather", [scales, input_ids], [f"{output}.float16_scales"])
        scale = build.node("Cast", [scale], [f"{output}.scales"], to_float)
        product = build.node("Mul", [found, scale], [f"{output}.groups"], metadata=metadata)
        row = build.constant("embedding_row", "int64", [3], [0, 0, columns])
        return build.node("Reshape", [product, row], [output])

    def _signed_bytes(self, codes: str, input_ids: str, output: str) -> str:
        """Look up 8-bit codes `[B, S, G, block]`, as floats."""
        build = self._builder
        zero = build.constant("int8_zero", "float32", [], [128.0])
        found = build.node("Gather", [codes, input_ids], [f"{output}.codes"])
        found = build.node("Cast", [found], [f"{output}.unsigned"], {"to": 1})
        return build.node("Sub", [found, zero], [f"{output}.signed"])

    def _signed_pairs(self, codes: str, input_ids: str, output: str) -> str:
        """Look up bytes of two 4-bit codes, and what each stands for: `[B, S, G, block / 2, 2]`."""
        build = self._builder
        numbers = [code - 8.0 for byte in range(256) for code in (byte & 15, byte >> 4)]
        pairs = build.constant("int4_pairs", "float32", [256, 2], numbers)
        found = build.node("Gather", [codes, input_ids], [f"{output}.codes"])
        found = build.node("Cast", [found], [f"{output}.bytes"], {"to": TensorProto.INT32})
        return build.node("Gather", [pairs, found], [f"{output}.signed"])

    def _describe(
        self, names: Sequence[str], tensors: Sequence[QuantizedTensor | Tensor]
    ) -> dict[str, str]:
        """Name, in a node's metadata, the weights that it holds."""
        entries = []
        for name, tensor in zip(names, tensors, strict=True):
            groups = tensor.scales.shape[1] if isinstance(tensor, QuantizedTensor) else 0
            entries.append(f"{self._weights.storage_name(name)}:{tensor.shape[0]}:{groups}")
        return {WEIGHTS_KEY: " ".join(entries)}

    def _matmul_n_bits(
        self,
        stem: str,
        tensors: Sequence[QuantizedTensor],
        x: str,
        output: str,
        metadata: dict[str, str],
    ) -> str:
        scheme, columns = tensors[0].scheme, tensors[0].shape[1]
        rows = sum(tensor.shape[0] for tensor in tensors)
        block = block_size(scheme, columns, stem)
        shape = (rows, columns // block, block * scheme.bits // 8)
        codes = f"{stem}.codes"
        self._share(codes, codes, "uint8", shape, _code_chunks(tensors))
        scales = self._scales(stem, tensors, block)
        attributes: dict[str, Attribute] = {
            "K": columns,
            "N": rows,
            "bits": scheme.bits,
            "block_size": block,
            "accuracy_level": self._accuracy_level if scheme.bits == 4 else INT8_ACCURACY_LEVEL,
        }
        return self._builder.node(
            "MatMulNBits", [x, codes, scales], [output], attributes, MICROSOFT, metadata
        )

    def _scales(self, stem: str, tensors: Sequence[QuantizedTensor], block: int) -> str:
        """Add float16 scales `[N, K/block]` and the Cast to float32, once."""
        stored, cast = f"{stem}.scales", f"{stem}.scales.float32"
        if not self._builder.has(stored):
            columns = tensors[0].shape[1] // block
            rows = sum(tensor.shape[0] for tensor in tensors)
            chunks = _scale_chunks(tensors, columns)
            self._share(stored, stored, "float16", (rows, columns), chunks)
            self._builder.node("Cast", [stored], [cast], {"to": 1})
        return cast

    def _float_matrix(self, stem: str, tensors: Sequence[Tensor]) -> str:
        stored, cast = f"{stem}.matrix", f"{stem}.float32"
        self._float_initializer(stored, stem, tensors)
        return self._builder.node("Cast", [stored], [cast], {"to": 1})

    def _float_initializer(self, value: str, stem: str, tensors: Sequence[Tensor]) -> str:
        dtype = str(tensors[0].dtype).removeprefix("torch.")
        shape = (sum(tensor.shape[0] for tensor in tensors), tensors[0].shape[1])
        chunks = (chunk for tensor in tensors for chunk in row_chunks(tensor))
        self._share(value, f"{stem}.float", dtype, shape, chunks)
        return value

    def _share(
        self, value: str, key: str, dtype: str, shape: Sequence[int], chunks: Iterator[Tensor]
    ) -> None:
        """Write the bytes behind `key` once; every further value points at the same region."""
        known = self._regions.get(key)
        self._regions[key] = self._builder.weight(value, dtype, shape, known or chunks)


def _code_chunks(tensors: Sequence[QuantizedTensor]) -> Iterator[Tensor]:
    """Yield the operator's bytes: nibbles as stored; int8 becomes uint8, with its zero at 128."""
    for tensor in tensors:
        for chunk in row_chunks(tensor.codes):
            yield chunk if tensor.scheme.bits == 4 else chunk.view(torch.uint8) ^ 0x80


def _scale_chunks(tensors: Sequence[QuantizedTensor], columns: int) -> Iterator[Tensor]:
    """Yield float16 scales; one scale a row is spread over the row's blocks."""
    for tensor in tensors:
        yield tensor.scales.half().expand(-1, columns)


def _scheme_label(tensor: QuantizedTensor | Tensor) -> str:
    return tensor.scheme.label if isinstance(tensor, QuantizedTensor) else str(tensor.dtype)
