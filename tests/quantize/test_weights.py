from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from fakes.source import FakeSource
from safetensors import safe_open

from llama_quantize import (
    Float,
    GroupedInt,
    QuantizationError,
    QuantizedTensor,
    QuantizedWeights,
    QuantRecipe,
    QuantRule,
    find_method,
    pack_int4,
    quantize_to,
    recipe,
)
from llama_quantize.checkpoint import store as store_module
from llama_quantize.checkpoint.safetensors_writer import SafetensorsWriter

TABLE, LINEAR, NORM = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.norm.weight",
)
TIED = {"lm_head.weight": TABLE}


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return {
        TABLE: torch.randn(50, 64).bfloat16(),
        LINEAR: (torch.randn(96, 64) * 0.05).bfloat16(),
        NORM: torch.rand(64) + 0.5,
    }


def write(folder: Path, source: dict[str, torch.Tensor] | None = None, name: str = "int4", **more):
    return quantize_to(folder, FakeSource(source or tensors(), TIED), recipe(name), **more)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_checkpoint_holds_what_quantising_gives(tmp_path):
    source = tensors()
    summary = write(tmp_path, source, metadata={"model": "tiny"})
    weights = QuantizedWeights.open(tmp_path)
    assert weights.names() == (TABLE, LINEAR, NORM)
    linear = weights.get(LINEAR)
    assert isinstance(linear, QuantizedTensor)
    codes, scales = find_method("clip_search").quantize(source[LINEAR], GroupedInt(4, 32))
    assert torch.equal(linear.codes, pack_int4(codes))
    assert torch.equal(linear.scales, scales)
    assert torch.equal(weights.get(NORM), source[NORM].bfloat16())
    assert torch.equal(weights.dequantized(LINEAR), linear.dequantize())
    assert weights.dequantized(NORM, torch.float16).dtype == torch.float16
    assert weights.recipe == recipe("int4")
    assert weights.metadata == {"model": "tiny"}
    assert weights.summary.hits == summary.hits == (1, 1, 1)
    assert weights.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert weights.weights_sha256 == digest(tmp_path / "weights.safetensors")


def test_figures_are_those_of_the_tensors(tmp_path):
    source = tensors()
    summary = write(tmp_path, source)
    table, linear, norm = summary.stats
    assert (linear.label, linear.bits_per_weight) == ("int4 g32", 4.5)
    assert (table.label, table.bits_per_weight) == ("int8 row", 8 + 16 / 64)
    assert norm.bits_per_weight == 16
    weights = QuantizedWeights.open(tmp_path)
    signal = noise = 0.0
    for stats in (table, linear):
        wide = source[stats.name].double()
        energies = wide.square().sum(), (wide - weights.dequantized(stats.name)).square().sum()
        assert stats.sqnr_db == pytest.approx(10 * math.log10(energies[0] / energies[1]), abs=1e-3)
        signal, noise = signal + float(energies[0]), noise + float(energies[1])
    assert summary.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)
    stored = 50 * 64 + 100 + 96 * 32 + 96 * 2 * 2 + 128
    assert summary.size_bytes == stored
    assert summary.bits_per_weight == pytest.approx(8 * stored / (50 * 64 + 96 * 64 + 64))
    assert [s.size_bytes for s in weights.stats] == [s.size_bytes for s in summary.stats]
    assert weights.stats[1].sqnr_db == pytest.approx(linear.sqnr_db, abs=1e-3)


def test_lossless_floats_have_an_infinite_ratio(tmp_path):
    source = {NORM: torch.ones(64), LINEAR: tensors()[LINEAR]}
    summary = quantize_to(tmp_path, FakeSource(source), recipe("bf16"))
    assert [stats.sqnr_db for stats in summary.stats] == [math.inf, math.inf]
    weights = QuantizedWeights.open(tmp_path)
    assert weights.summary.sqnr_db == math.inf
    assert torch.equal(weights.get(LINEAR), source[LINEAR])


def test_golden_bytes(tmp_path):
    weight = torch.zeros(1, 32)
    weight[0, :4] = torch.tensor([-1.0, 0.25, -0.25, 0.5])
    rules = (QuantRule("w", GroupedInt(4, 32)), QuantRule("n", Float("float16")))
    source = {"w": weight, "n": torch.tensor([1.0, -2.0])}
    quantize_to(tmp_path, FakeSource(source), QuantRecipe("own", rules))
    data = (tmp_path / "weights.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert (8 + length) % 4096 == 0
    assert json.loads(data[8 : 8 + length]) == {
        "__metadata__": {"format": "llama-quantize"},
        "w.scales": {"dtype": "BF16", "shape": [1, 1], "data_offsets": [0, 2]},
        "n": {"dtype": "F16", "shape": [2], "data_offsets": [2, 6]},
        "w.codes": {"dtype": "U8", "shape": [1, 16], "data_offsets": [6, 22]},
    }
    # Scale 1/8 makes all four exact: codes -8, 2, -2, 4 as nibbles 0, 10, 6, 12.
    assert data[8 + length :] == bytes.fromhex("003e 003c00c0 a0c6" + "88" * 14)


def test_safetensors_reads_it_aligned_and_complete(tmp_path):
    write(tmp_path)
    with safe_open(str(tmp_path / "weights.safetensors"), framework="pt") as file:
        names = {f"{name}.{part}" for name in (TABLE, LINEAR) for part in ("codes", "scales")}
        assert set(file.keys()) == names | {NORM}
        for name in file.keys():  # noqa: SIM118  (not a mapping)
            tensor = file.get_tensor(name)
            assert tensor.data_ptr() % tensor.element_size() == 0


def test_same_input_same_bytes_for_any_blocks(tmp_path, monkeypatch):
    write(tmp_path / "a")
    monkeypatch.setattr(store_module, "BLOCK_WEIGHTS", 64 * 7)
    write(tmp_path / "b")
    for name in ("weights.safetensors", "quantization.json"):
        assert digest(tmp_path / "a" / name) == digest(tmp_path / "b" / name)
    changed = tensors()
    changed[LINEAR][3, 3] += 1.0
    write(tmp_path / "c", changed)
    assert digest(tmp_path / "a/weights.safetensors") != digest(tmp_path / "c/weights.safetensors")


def test_progress_counts_source_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "BLOCK_WEIGHTS", 640)
    seen: list[tuple[int, int]] = []
    write(tmp_path, progress=lambda size: seen.append((size, threading.get_ident())))
    total = 50 * 64 * 2 + 96 * 64 * 2 + 64 * 4
    assert seen[-1][0] == total
    assert [size for size, _ in seen] == sorted(size for size, _ in seen)
    assert len(seen) > 10
    assert {thread for _, thread in seen} == {threading.get_ident()}


def test_tied_names_resolve(tmp_path):
    write(tmp_path)
    weights = QuantizedWeights.open(tmp_path)
    assert weights.tied == TIED
    assert weights.storage_name("lm_head.weight") == weights.storage_name(TABLE) == TABLE
    head, table = weights.get("lm_head.weight"), weights.get(TABLE)
    assert isinstance(head, QuantizedTensor)
    assert isinstance(table, QuantizedTensor)
    assert head.codes.data_ptr() == table.codes.data_ptr()
    with pytest.raises(QuantizationError, match=r"no tensor model\.other"):
        weights.get("model.other")


@pytest.mark.parametrize("tied", [{"lm_head.weight": "absent"}, {NORM: TABLE}])
def test_impossible_ties_are_refused(tmp_path, tied):
    with pytest.raises(QuantizationError, match="cannot be tied"):
        quantize_to(tmp_path / "x", FakeSource(tensors(), tied), recipe("int4"))
    assert not (tmp_path / "x").exists()


def test_exports_again_without_the_original(tmp_path):
    write(tmp_path / "a")
    first = QuantizedWeights.open(tmp_path / "a")
    shapes = {stats.name: stats.shape for stats in first.stats}
    source = FakeSource({}, first.tied, shapes, first.dequantized)
    quantize_to(tmp_path / "b", source, recipe("bf16"))
    again = QuantizedWeights.open(tmp_path / "b")
    for name in first.names():
        assert torch.equal(again.get(name), first.dequantized(name, torch.bfloat16))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "place"), [(LINEAR, (77, 5)), (TABLE, (31, 63)), (NORM, (40,))])
def test_values_that_are_not_finite_are_named(tmp_path, monkeypatch, name, place, value):
    monkeypatch.setattr(store_module, "BLOCK_WEIGHTS", 64 * 8)
    source = tensors()
    source[name][place] = value
    with pytest.raises(QuantizationError) as caught:
        write(tmp_path, source)
    assert name in caught.value.message
    assert str(list(place)) in caught.value.message
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_value_beyond_float16_is_refused_not_made_infinite(tmp_path):
    source = {"a": torch.tensor([1.0, 1e5])}
    with pytest.raises(QuantizationError, match=r"a: value 100000.0 at \[1\]") as caught:
        quantize_to(tmp_path, FakeSource(source), recipe("fp16"))
    assert "bfloat16" in caught.value.hint


def test_tensor_of_another_shape_or_type_is_refused(tmp_path):
    source = tensors()
    shapes = {name: tuple(tensor.shape) for name, tensor in source.items()}
    source[LINEAR] = source[LINEAR][:, :32]
    with pytest.raises(QuantizationError, match=rf"{LINEAR}: .*\[96, 64\], found .*\[96, 32\]"):
        quantize_to(tmp_path, FakeSource(source, TIED, shapes), recipe("int4"))
    source[LINEAR] = torch.zeros(96, 64, dtype=torch.int32)
    with pytest.raises(QuantizationError, match="int32"):
        quantize_to(tmp_path, FakeSource(source, TIED, shapes), recipe("int4"))


def test_full_disk_surfaces_untouched_and_leaves_nothing(tmp_path, monkeypatch):
    real, calls = os.pwrite, []

    def full(file: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write(tmp_path / "a")
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:1000], at))
    write(tmp_path / "b")
    assert digest(tmp_path / "a/weights.safetensors") == digest(tmp_path / "b/weights.safetensors")


def test_interrupt_leaves_nothing(tmp_path):
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_existing_checkpoint_is_not_overwritten(tmp_path):
    write(tmp_path)
    before = digest(tmp_path / "weights.safetensors")
    with pytest.raises(FileExistsError):
        write(tmp_path, {name: tensor * 2 for name, tensor in tensors().items()})
    assert digest(tmp_path / "weights.safetensors") == before


def edit(folder: Path, **fields) -> None:
    path = folder / "quantization.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def truncate(folder: Path) -> None:
    path = folder / "weights.safetensors"
    os.truncate(path, path.stat().st_size - 1)


def flip(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(data)


def damage_header(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[:8] = (1 << 42).to_bytes(8, "little")
    path.write_bytes(data)
    edit(folder, weights=record_of(path))


def reshape_in_header(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = path.read_bytes().replace(b'"shape":[96,32]', b'"shape":[32,96]')
    path.write_bytes(data)
    edit(folder, weights=record_of(path))


def rename_in_header(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"model.norm.weight"', b'"model.form.weight"'))
    edit(folder, weights=record_of(path))


def record_of(path: Path) -> dict[str, object]:
    size = path.stat().st_size
    return {"file": path.name, "sha256": digest(path), "size_bytes": size}


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (truncate, "expected .* bytes, found"),
        (flip, "was changed: expected sha256"),
        (damage_header, "damaged"),
        (reshape_in_header, r"expected .*\[96, 32\], found .*\[32, 96\]"),
        (rename_in_header, "missing or not expected"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "found 0"),
        (lambda folder: (folder / "quantization.json").unlink(), "not a quantised checkpoint"),
        (lambda folder: (folder / "quantization.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "quantization.json").write_bytes(b"\xff\xfe"), "damaged"),
        (lambda folder: (folder / "quantization.json").write_text("[]"), "expected a JSON object"),
        (lambda folder: edit(folder, format_version=3), "llama-quantize 1 or 2, found .* 3"),
        (lambda folder: edit(folder, format="gguf"), "found gguf"),
        (lambda folder: edit(folder, recipe={"name": "x"}), "not a recipe"),
        (lambda folder: edit(folder, hits=[1, 1]), "rules take"),
        (lambda folder: edit(folder, tied={"a": "b"}), "cannot be tied"),
        (lambda folder: edit(folder, tensors=[{}]), "not the figures"),
        (lambda folder: edit(folder, metadata={"a": 1}), "wrong type"),
        (lambda folder: edit(folder, calibration={"a": 1}), "wrong type"),
        (lambda folder: edit(folder, format_version=1), "not a rule"),
        (
            lambda folder: edit(folder, weights={"file": "../x", "sha256": "", "size_bytes": 0}),
            "wrong type",
        ),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path, damage, match):
    write(tmp_path)
    QuantizedWeights.open(tmp_path)
    damage(tmp_path)
    with pytest.raises(QuantizationError, match=match):
        QuantizedWeights.open(tmp_path)


def test_hash_check_can_be_left_to_the_caller(tmp_path):
    write(tmp_path)
    flip(tmp_path)
    assert QuantizedWeights.open(tmp_path, check_hash=False).names()


def test_reading_from_many_threads(tmp_path):
    write(tmp_path)
    weights = QuantizedWeights.open(tmp_path)
    expected = weights.dequantized(LINEAR)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: weights.dequantized(LINEAR), range(64)):
            assert torch.equal(found, expected)


def test_writer_refuses_rows_that_are_no_part_of_the_tensor(tmp_path):
    forms = {"a": (torch.int8, (4, 8))}
    with SafetensorsWriter(tmp_path / "x", forms, {}) as writer:
        for rows, first in ((torch.zeros(2, 8), 0), (torch.zeros(5, 8), 0), (torch.zeros(2, 8), 3)):
            with pytest.raises(QuantizationError, match="no part of"):
                writer.write("a", first, rows.to(torch.int8) if first or len(rows) == 5 else rows)


_GROWTH = """
import re, sys, threading, time
from pathlib import Path
import torch
from llama_quantize import QuantizedTensor, QuantizedWeights, QuantRecipe, quantize_to, recipe
from safetensors import safe_open

def anonymous_kb():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def watch():
    global peak
    while True:
        peak = max(peak, anonymous_kb())
        time.sleep(0.002)

class Source:
    def __init__(self, shape, read):
        self.names, self.shapes, self.tied, self.tensor = (name,), {name: shape}, {}, read

def use(folder, shape, read):
    quantize_to(folder, Source(shape, read), own)
    stored = QuantizedWeights.open(folder).get(name)
    if isinstance(stored, QuantizedTensor):
        stored.codes_sha256(), stored.scales_sha256(), stored.dequantize(rows=slice(8))
    else:
        stored.view(torch.uint8).amax()

folder, name = Path(sys.argv[1]), sys.argv[2]
rules = [rule for rule in recipe(sys.argv[3]).rules if rule.matches(name)]
own = QuantRecipe("own", tuple(rules))
file = safe_open(str(folder / "source.safetensors"), framework="pt")
shape = tuple(file.get_slice(name).get_shape())
use(folder / "warm", (64, shape[1]), lambda name: torch.ones(64, shape[1]))
peak = before = anonymous_kb()
threading.Thread(target=watch, daemon=True).start()
use(folder / "big", shape, file.get_tensor)
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to count memory")
@pytest.mark.parametrize(("name", "kind"), [(LINEAR, "int4"), (TABLE, "int4"), (NORM, "bf16")])
def test_memory_does_not_grow_with_the_tensor(tmp_path, name, kind):
    """A source of 128 MB must cost far less than a copy of it would."""
    from safetensors.torch import save_file

    rows = 16_384
    save_file({name: torch.ones(rows, 4096).bfloat16()}, tmp_path / "source.safetensors")
    root = Path(__file__).parents[2] / "quantize"
    found = subprocess.run(
        [sys.executable, "-c", _GROWTH, str(tmp_path), name, kind],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "2"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(found.stdout) < 40 * 1024
