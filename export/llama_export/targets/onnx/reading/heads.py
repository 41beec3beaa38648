"""Follow how heads are filled up with zeros in front of attention, and cut again behind it.

It shares no code with the lowering. It knows the nodes and their constants; it runs nothing.
"""

from __future__ import annotations

from llama_export.targets.onnx.reading.nodes import NOTHING, Graph, Kinds

# Half a head is filled up to a multiple of these columns.
_STEP = 8
_RESHAPE: Kinds = {"Reshape": {"allowzero": (0, 0)}}
# A mode is a word: without one, it is zeros.
_PAD: Kinds = {"Pad": NOTHING}
_SLICE: Kinds = {"Slice": NOTHING}


class FollowedHeads:
    """Steps back over the nodes around an attention; where heads fit, nothing may be there.

    Args:
        graph: graph that is followed.
        head_dim: columns of a head of the model.
    """

    def __init__(self, graph: Graph, head_dim: int) -> None:
        self._graph = graph
        self._own = head_dim // 2
        self._padded = -(-self._own // _STEP) * _STEP

    def padded(self, value: str, heads: int, place: str) -> str:
        """Follow the zeros after each half of a head to what had none.

        Raises:
            OtherGraphError: they are put elsewhere, or are something else.
        """
        own, padded, place = self._own, self._padded, f"{place}, heads"
        if own == padded:
            return value
        filled = self._reshaped(value, [0, 0, 2 * heads * padded], place)
        pad = self._graph.take(filled, _PAD, place)
        self._graph.require_inputs(pad, [None, None], place)
        self._graph.require_constant(pad.input[1], [*[0] * 7, padded - own], place)
        return self._reshaped(str(pad.input[0]), [0, 0, 2 * heads, own], place)

    def cut(self, value: str, heads: int, place: str) -> str:
        """Follow how the columns of zeros fall away, to what attention gave.

        Raises:
            OtherGraphError: other columns are taken.
        """
        own, padded, place = self._own, self._padded, f"{place}, heads"
        if own == padded:
            return value
        halves = self._reshaped(value, [0, 0, 2 * heads * own], place)
        node = self._graph.take(halves, _SLICE, place)
        self._graph.require_inputs(node, [None, None, None, None], place)
        for constant, expected in zip(node.input[1:], (0, own, 3), strict=True):
            self._graph.require_constant(constant, [expected], place)
        return self._reshaped(str(node.input[0]), [0, 0, 2 * heads, padded], place)

    def _reshaped(self, value: str, shape: list[int], place: str) -> str:
        node = self._graph.take(value, _RESHAPE, place)
        self._graph.require_inputs(node, [None, None], place)
        self._graph.require_constant(node.input[1], shape, place)
        return str(node.input[0])
