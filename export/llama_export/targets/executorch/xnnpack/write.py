"""Write the finished `.pte`: the small one that was emitted, with the weights' bytes put in.

The emitted file has a stand-in for each weight. Its program is a FlatBuffers file whose offsets and
sizes are plain numbers, so they are overwritten in place, and the segments are streamed behind it:
memory does not grow with the model. A tied table is written once; the constant of the lookup and
the constant of the head are then the same bytes of the file. It knows the file's layout; it does
not know where the bytes come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llama_export.errors import LoweringError
from llama_export.targets.executorch.reading.flatbuffer import write_number
from llama_export.targets.executorch.reading.pte import SEGMENTS_SIZE, Pte, PteTensor
from llama_export.targets.executorch.xnnpack.product_form import ProductForm
from llama_export.targets.executorch.xnnpack.weight_bytes import WeightBytes

# What segments are aligned to, as ExecuTorch's own writer does.
ALIGNMENT = 128
# Not the reader's constant: what is written must not follow from how it is read.
LOOKUPS = tuple(f"quantized_decomposed::embedding_{kind}.dtype_out" for kind in ("byte", "4bit"))
_HINT = "use the executorch version that pyproject.toml names"


@dataclass(frozen=True)
class LookupTable:
    """The token table: its bytes, and their form."""

    codes: WeightBytes
    scales: WeightBytes
    form: ProductForm


@dataclass(frozen=True)
class _Placed:
    """A run of bytes with its place behind the program."""

    offset: int
    source: WeightBytes | bytes


def write_pte(
    emitted: Path,
    output: Path,
    weight_bytes: Mapping[str, WeightBytes],
    table: LookupTable,
    *,
    share_table: bool,
) -> None:
    """Write the file.

    Args:
        emitted: path of the `.pte` with stand-ins.
        output: path of the `.pte` to write.
        weight_bytes: bytes of the delegates' constants, by key.
        table: bytes of the token lookup.
        share_table: whether a delegate's constant with the table's bytes is the table's own.

    Raises:
        LoweringError: the emitted file is not the one that was expected.
    """
    pte = Pte.open(emitted)
    program = bytearray(pte.program)
    constants, _, offsets_at = pte.constant_segment
    codes, scales = _lookup_tensors(pte)
    shared: dict[str, int] = {}
    placed: list[_Placed] = []
    end = 0
    by_segment = {segment: key for key, segment in pte.named.items()}
    for number, segment in enumerate(pte.segments):
        key = by_segment.get(number, "")
        if key and share_table and key in shared:
            _move(program, segment.entry.place(0), shared[key])
            _resize(program, segment.entry.place(1), weight_bytes[key].size_bytes)
            continue
        start = _aligned(end)
        source: WeightBytes | bytes = weight_bytes[key] if key else pte.segment(number)
        placed.append(_Placed(start, source))
        end = start + _size(source)
        if number == constants:
            for tensor, run in ((scales, table.scales), (codes, table.codes)):
                at = _aligned(end)
                placed.append(_Placed(at, run))
                shared[run.key] = at
                write_number(program, offsets_at + 8 * tensor.constant, "Q", at - start)
                write_number(program, tensor.sizes_at, "i", table.form.rows)
                end = at + run.size_bytes
        _move(program, segment.entry.place(0), start)
        _resize(program, segment.entry.place(1), end - start)
    write_number(program, SEGMENTS_SIZE, "Q", end)
    _give_logits_alone(program, pte)
    with output.open("wb") as file:
        file.write(program)
        _write(file, pte.segments_at, placed)


def _lookup_tensors(pte: Pte) -> tuple[PteTensor, PteTensor]:
    """Return the codes and the scales that the one token lookup reads."""
    lookups = [call for call in pte.calls if call.operator in LOOKUPS]
    if len(lookups) != 1:
        found = sorted({call.operator for call in pte.calls if call.operator})
        message = f"expected one token lookup, found {len(lookups)} among {', '.join(found)}"
        raise LoweringError(message, _HINT)
    codes, scales = (pte.tensors[number] for number in lookups[0].arguments[:2])
    users = [tensor.constant for tensor in pte.tensors.values()]
    if any(users.count(tensor.constant) != 1 for tensor in (codes, scales)):
        message = "the token lookup's constants are used by another operator too"
        raise LoweringError(message, _HINT)
    return codes, scales


def _give_logits_alone(program: bytearray, pte: Pte) -> None:
    """Leave the caches out of the outputs; they are changed in place where they are inputs.

    ExecuTorch's Python binding gives every output memory of its own, so that a cache which is both
    would not be the caller's any more.
    """
    write_number(program, pte.outputs_at, "i", pte.outputs[-1])
    write_number(program, pte.outputs_at - 4, "I", 1)


def _move(program: bytearray, at: int | None, offset: int) -> None:
    """Overwrite a segment's offset; the first one's, 0, is not stored."""
    if at is not None:
        write_number(program, at, "Q", offset)
    elif offset:
        message = f"a segment without a stored offset should begin at {offset}"
        raise LoweringError(message, _HINT)


def _resize(program: bytearray, at: int | None, size_bytes: int) -> None:
    if at is None:
        message = "a segment has no stored size"
        raise LoweringError(message, _HINT)
    write_number(program, at, "Q", size_bytes)


def _write(file: BinaryIO, segments_at: int, placed: list[_Placed]) -> None:
    for run in placed:
        file.write(b"\0" * (segments_at + run.offset - file.tell()))
        for chunk in _chunks(run.source):
            file.write(chunk)


def _chunks(source: WeightBytes | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
    else:
        yield from source.chunks()


def _size(source: WeightBytes | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.size_bytes


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
