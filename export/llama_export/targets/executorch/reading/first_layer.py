"""Find, in a `.pte`, the way from the ids to what the first two delegates take, and cut it out.

The first delegate begins with the first norm, the second one with the sum after the first
attention. So what they are given is looked for, and whatever instructions lead there are kept, be
they known or not. It writes a program of its own in memory; it runs nothing.
"""

from __future__ import annotations

from llama_export.targets.executorch.reading.flatbuffer import read_number, write_number
from llama_export.targets.executorch.reading.instructions import Call
from llama_export.targets.executorch.reading.pte import SEGMENTS_SIZE, Pte
from llama_export.targets.executorch.reading.weights import SLICE

NORM, SUM = "model.layers.0.input_layernorm", "model.layers.0 (sum after self_attn)"
# The residual stream is [1, S, E]; attention's results have one dimension more.
_STREAM_DIMS = 3


def find_ends(pte: Pte) -> dict[str, int]:
    """Return the number of the value that each consumer takes.

    Raises:
        ValueError: there are no two delegates, or they take no such value.
    """
    delegates = [call for call in pte.calls if call.delegate >= 0][:2]
    if len(delegates) < len((NORM, SUM)):
        message = "it has no two delegates, before and after the first attention"
        raise ValueError(message)
    consumers = zip((NORM, SUM), delegates, strict=True)
    return {name: _whole(pte, _stream(pte, call)) for name, call in consumers}


def _stream(pte: Pte, call: Call) -> int:
    for value in call.arguments:
        tensor = pte.tensors.get(value)
        if tensor is not None and not tensor.constant and len(tensor.sizes) == _STREAM_DIMS:
            return value
    message = "a delegate is given no residual stream"
    raise ValueError(message)


def _whole(pte: Pte, value: int) -> int:
    """Go back over the slice that leaves the last row, as a model of one layer has it."""
    makers = {call.arguments[-1]: call for call in pte.calls if call.operator and call.arguments}
    maker = makers.get(value)
    return maker.arguments[0] if maker is not None and maker.operator == SLICE else value


def cut(pte: Pte, value: int) -> bytes:
    """Return a program whose only result is a value, which needs no delegate.

    Of the segments it has the constants alone.

    Raises:
        ValueError: the value is computed by a delegate, or by nothing.
    """
    kept = _leading_to(pte, value)
    data = bytearray(pte.program)
    start = pte.chain_at
    places = [
        at + read_number(pte.program, at, "I")
        for at in range(start, start + 4 * len(pte.instructions), 4)
    ]
    for slot, index in enumerate(kept):
        at = start + 4 * slot
        write_number(data, at, "I", places[index] - at)
    write_number(data, start - 4, "I", len(kept))
    write_number(data, pte.delegates_at - 4, "I", 0)
    write_number(data, pte.outputs_at, "i", value)
    return bytes(_with_constants(pte, data))


def _leading_to(pte: Pte, value: int) -> list[int]:
    """Return the instructions up to a value, without delegates and what hangs on them."""
    known = {*pte.inputs, *(n for n, tensor in pte.tensors.items() if tensor.constant)}
    delegated: set[int] = set()
    kept: list[int] = []
    for index, call in enumerate(pte.instructions):
        if call is None or not call.arguments:
            continue
        if call.delegate >= 0:
            tensors = {number for number in call.arguments if number in pte.tensors}
            delegated |= tensors - known
        elif delegated & set(call.arguments):
            delegated.add(call.arguments[-1])
        else:
            kept.append(index)
            known.add(call.arguments[-1])
            if call.arguments[-1] == value:
                return kept
    message = f"value {value} does not come from the ids alone"
    raise ValueError(message)


def _with_constants(pte: Pte, data: bytearray) -> bytearray:
    """Put the segment of constants behind a program, as the first and only bytes there."""
    number, _, _ = pte.constant_segment
    segment = pte.segments[number]
    offset_at = segment.entry.place(0)
    if offset_at is not None:
        write_number(data, offset_at, "Q", 0)
    write_number(data, SEGMENTS_SIZE, "Q", segment.size_bytes)
    data += bytes(pte.segments_at - len(data))
    data += pte.bytes_at(segment.offset, segment.size_bytes)
    return data


def capacity(pte: Pte) -> int:
    """Return how many ids one call takes."""
    return pte.tensors[pte.inputs[0]].sizes[-1]
