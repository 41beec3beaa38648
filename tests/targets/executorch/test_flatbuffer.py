"""Our reader of FlatBuffers against the package `flatbuffers`, which is not taken for it.

ExecuTorch's own generated classes walk a real `.pte` with the package; wherever they look, ours
must find the same. What a hostile file makes of the package is why ours is there.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from artifacts.executorch_artifacts import workshop

from llama_export.targets.executorch.reading.flatbuffer import Table, read_number, write_number
from llama_export.targets.executorch.reading.pte import Pte

__all__ = ["workshop"]

flatbuffers = pytest.importorskip("flatbuffers", reason="needs the flatbuffers package")
# --- a small file that the package writes ---


def build_flat() -> bytes:
    """A table with one field of each sort, and one that is left out."""
    builder = flatbuffers.Builder(64)

    def inner(number: int, text: str) -> int:
        name = builder.CreateString(text)
        builder.StartObject(2)
        builder.PrependInt32Slot(0, number, 0)
        builder.PrependUOffsetTRelativeSlot(1, name, 0)
        return builder.EndObject()

    tables = [
        inner(number, f"nummer {number} \N{LATIN SMALL LETTER E WITH ACUTE}") for number in (7, -8)
    ]
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    vector = builder.EndVector()
    builder.StartVector(8, 3, 8)
    for number in (2**40, 0, 5):
        builder.PrependInt64(number)
    numbers = builder.EndVector()
    text = builder.CreateString("a text")
    builder.StartObject(8)
    builder.PrependUint64Slot(0, 2**63, 0)
    builder.PrependInt8Slot(1, -3, 0)
    builder.PrependUOffsetTRelativeSlot(3, text, 0)
    builder.PrependUOffsetTRelativeSlot(4, vector, 0)
    builder.PrependUOffsetTRelativeSlot(5, numbers, 0)
    builder.PrependUOffsetTRelativeSlot(6, tables[0], 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TEST")
    return bytes(builder.Output())


def test_what_the_flatbuffers_package_writes_is_read():
    data = build_flat()
    assert data[4:8] == b"TEST"
    root = Table.root(data)
    assert root.number(0, "Q") == 2**63
    assert root.number(1, "b") == -3
    assert root.text(3) == "a text"
    assert data[root.text_place(3) :].startswith(b"a text\0")
    assert root.numbers(5, "q") == [5, 0, 2**40]
    assert root.vector(5)[1] == 3
    assert [table.number(0, "i") for table in root.tables(4)] == [7, -8]
    assert [table.text(1) for table in root.tables(4)] == ["nummer 7 é", "nummer -8 é"]
    assert root.table(6).number(0, "i") == 7
    # Behind something else it reads the same.
    assert Table.root(b"\1" * 12 + data, 12).text(3) == "a text"


@pytest.mark.parametrize("field", [2, 7, 8, 100])
def test_a_field_that_is_not_stored_has_its_default(field):
    root = Table.root(build_flat())
    assert root.place(field) is None
    assert root.number(field, "I") == 0
    assert root.number(field, "I", 9) == 9
    assert root.text(field) == ""
    assert root.text_place(field) is None
    assert root.table(field) is None
    assert list(root.tables(field)) == root.numbers(field, "I") == []


def test_a_number_is_overwritten_in_place():
    data = bytearray(build_flat())
    before = bytes(data)
    at = Table.root(data).place(0)
    write_number(data, at, "Q", 77)
    assert Table.root(data).number(0, "Q") == 77
    assert [i for i in range(len(data)) if data[i] != before[i]] == [at, at + 7]


def test_an_offset_outside_of_the_file_is_a_value_error():
    for at in (-1, -100, 5, 2**40):
        with pytest.raises(ValueError, match="offset"):
            read_number(b"12345678", at, "I")
    assert read_number(b"12345678", 4, "I") == struct.unpack("<I", b"5678")[0]
    data = bytearray(build_flat())
    start, _ = Table.root(data).vector(5)
    write_number(data, start - 4, "I", 2**31)
    with pytest.raises(ValueError, match="does not fit into the file"):
        Table.root(data).numbers(5, "q")


# --- a real file ---

GENERATED = "executorch.exir._serialize.generated.executorch_flatbuffer"
UNIONS = {"Val": "KernelTypes", "InstrArgs": "InstructionArguments"}
LENGTH, EMPTY, ARRAY = "Length", "IsNone", "AsNumpy"


def generated(name: str) -> type:
    # Their modules hold modules where they mean classes, until executorch itself mends that.
    program = importlib.import_module("executorch.exir._serialize._flatbuffer_program")
    program._patch_generated_flatbuffer_aliases()
    return getattr(importlib.import_module(f"{GENERATED}.{name}"), name)


def accessors(kind: type) -> Iterator[tuple[str, bool]]:
    """Name the fields of a generated class, and whether each is a list."""
    names = [name for name in vars(kind) if name[0].isupper() and "BufferHas" not in name]
    lists = {name.removesuffix(EMPTY) for name in names if name.endswith(EMPTY)}
    for name in names:
        plain = not name.endswith((LENGTH, EMPTY, ARRAY)) and not name.startswith("GetRootAs")
        if plain and name != "Init":
            yield name, name in lists


@dataclass
class Walk:
    """Both readers side by side; `place` and `form` are what the package looked at last."""

    place: int = -1
    form: str = ""
    tables: int = 0
    values: int = 0
    kinds: set[str] = field(default_factory=set)

    def watch(self, monkeypatch) -> None:
        real_offset, real_get = flatbuffers.table.Table.Offset, flatbuffers.table.Table.Get

        def offset(table, at):
            self.place = (at - 4) // 2
            found = real_offset(table, at)
            ours = Table(table.Bytes, table.Pos).place(self.place)
            assert ours == (table.Pos + found if found else None)
            return found

        def get(table, flags, at):
            self.form = flags.packer_type.format.removeprefix("<")
            return real_get(table, flags, at)

        monkeypatch.setattr(flatbuffers.table.Table, "Offset", offset)
        monkeypatch.setattr(flatbuffers.table.Table, "Get", get)

    def table(self, ours: Table, theirs: object) -> None:
        assert ours.at == theirs._tab.Pos
        self.tables += 1
        self.kinds.add(type(theirs).__name__)
        for name, is_list in accessors(type(theirs)):
            if is_list:
                self.list(ours, theirs, name)
            else:
                self.value(ours, theirs, name)

    def value(self, ours: Table, theirs: object, name: str) -> None:
        found = getattr(theirs, name)()
        at = self.place
        self.values += 1
        if found is None:
            assert ours.place(at) is None
            assert ours.table(at) is None
            assert ours.text(at) == ""
        elif isinstance(found, bytes):
            assert ours.text(at).encode() == found
            assert ours.data[ours.text_place(at) :].startswith(found)
        elif isinstance(found, flatbuffers.table.Table):
            kinds = vars(generated(UNIONS[name]))
            number = getattr(theirs, f"{name}Type")()
            (kind,) = (kind for kind, value in kinds.items() if value == number)
            held = generated(kind)()
            held.Init(theirs._tab.Bytes, found.Pos)
            self.table(ours.table(at), held)
        elif isinstance(found, bool | int):
            stored = ours.place(at) is not None
            assert ours.number(at, self.form if stored else "b", int(found)) == found
        elif not isinstance(found, float):  # ours has no use for those
            self.table(ours.table(at), found)

    def list(self, ours: Table, theirs: object, name: str) -> None:
        count = getattr(theirs, f"{name}{LENGTH}")()
        at = self.place
        start, length = ours.vector(at)
        assert length == count
        found = [getattr(theirs, name)(index) for index in range(count)]
        self.values += count
        if count and isinstance(found[0], bool | int):
            assert ours.numbers(at, self.form) == found
        elif count and not isinstance(found[0], float):
            for mine, other in zip(ours.tables(at), found, strict=True):
                self.table(mine, other)
        assert count == 0 or start > 0


@pytest.mark.executorch
def test_every_table_of_a_real_file_is_read_as_the_package_reads_it(workshop, monkeypatch):
    pte = Pte.open(workshop.tiny().path)
    walk = Walk()
    walk.watch(monkeypatch)
    walk.table(pte.root, generated("Program").GetRootAs(pte.program))
    assert {"Program", "ExecutionPlan", "Tensor", "DelegateCall", "DataSegment"} <= walk.kinds
    assert walk.tables > 200
    assert walk.values > 2 * walk.tables


@pytest.mark.executorch
def test_the_comparison_sees_a_number_that_differs(workshop, monkeypatch):
    pte = Pte.open(workshop.tiny().path)
    other = bytearray(pte.program)
    tensor = next(iter(pte.tensors.values()))
    write_number(other, tensor.sizes_at, "i", tensor.sizes[0] + 1)
    walk = Walk()
    walk.watch(monkeypatch)
    with pytest.raises(AssertionError):
        walk.table(pte.root, generated("Program").GetRootAs(other))


# --- hostile files: what the package makes of them ---


def theirs_at(data: bytearray):
    return flatbuffers.table.Table(data, Table.root(data).at)


def test_a_text_that_ends_behind_the_file_is_cut_short_by_the_package():
    data = bytearray(build_flat())
    write_number(data, Table.root(data).text_place(3) - 4, "I", 2**31)
    theirs = theirs_at(data)
    assert theirs.String(theirs.Pos + theirs.Offset(4 + 2 * 3)).startswith(b"a text\0")
    with pytest.raises(ValueError, match=r"a text of 2147483648 bytes at .* does not fit"):
        Table.root(data).text(3)


def test_a_list_longer_than_the_file_is_offered_by_the_package():
    data = bytearray(build_flat())
    write_number(data, Table.root(data).vector(4)[0] - 4, "I", 2**32 - 1)
    theirs = theirs_at(data)
    assert theirs.VectorLen(theirs.Offset(4 + 2 * 4)) == 2**32 - 1
    with pytest.raises(ValueError, match="a list of 4294967295 elements"):
        list(Table.root(data).tables(4))


@pytest.mark.parametrize("distance", [2**31 - 1, -(2**31)])
def test_a_table_described_outside_of_the_file_is_no_value_error_of_the_package(distance):
    data = bytearray(build_flat())
    write_number(data, Table.root(data).at, "i", distance)
    theirs = theirs_at(data)
    with pytest.raises(Exception, match=r"bad number|unpack_from") as caught:
        theirs.Offset(4)
    assert not isinstance(caught.value, ValueError)
    with pytest.raises(ValueError, match="offset"):
        Table.root(data).number(0, "Q")
