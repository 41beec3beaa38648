"""Rounding of activations: the emulation against onnxruntime, and in the reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from artifacts import tiny
from artifacts.opened import rounded_inputs_of
from artifacts.small_bundle import export_small

from llama_export.llama.activations import ActivationQuantization
from llama_export.llama.rounding import round_activations
from llama_export.llama.streamed import Pass, reference_head, run_passes

IDS = torch.tensor([tiny.random_tokens(tiny.TINY, 12)])


def multiply(x: np.ndarray, *, bits: int, block: int) -> np.ndarray:
    """Multiply by the unit matrix with onnxruntime's int8 kernel, so that its codes come out."""
    pytest.importorskip("onnxruntime")
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    columns, zero = x.shape[1], 2 ** (bits - 1)
    codes = np.full((columns, columns), zero, np.uint8)
    codes[np.arange(columns), np.arange(columns)] += 1
    if bits == 4:
        codes = codes[:, ::2] | (codes[:, 1::2] << 4)
    codes = codes.reshape(columns, columns // block, -1)
    scales = np.ones((columns, columns // block), np.float32)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=columns,
        N=columns,
        bits=bits,
        block_size=block,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node],
        "one product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, columns])],
        [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scales, "scales")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    assert isinstance(model, onnx.ModelProto)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def hard_rows(block: int) -> np.ndarray:
    """Rows whose values lie halfway between codes: where any other formula rounds differently."""
    random = np.random.default_rng(block)
    rows = random.normal(size=(40, 2 * block)).astype(np.float32)
    for row in rows:
        for start in (0, block):
            part = row[start : start + block]
            peak = int(np.abs(part).argmax())
            halves = random.integers(-126, 126, size=block) + 0.5
            keep = part[peak]
            part[:] = (halves * (abs(keep) / np.float32(127))).astype(np.float32)
            part[peak] = keep
    rows[-1, :block] = 0.0
    return rows


def unit(x: np.ndarray, block: int) -> np.ndarray:
    """What one code stands for, at each value; 1 in a block of zeros."""
    largest = np.abs(x.reshape(len(x), -1, block)).max(axis=2)
    scale = np.where(largest > 0, largest / np.float32(127), 1).astype(np.float32)
    return scale.repeat(block, axis=1)


def codes_of(values: np.ndarray, x: np.ndarray, block: int) -> np.ndarray:
    """The whole codes behind a product's result, which carries float32 sums of zero points."""
    return np.rint(values / unit(x, block)) + 0.0


@pytest.mark.onnx
@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 128), (8, 32), (8, 256)])
def test_the_emulation_is_the_runtimes_own_rounding(bits, block):
    x = hard_rows(block)
    found = codes_of(multiply(x, bits=bits, block=block), x, block)
    expected = round_activations(torch.from_numpy(x), ActivationQuantization(8, block)).numpy()
    assert np.array_equal(found, codes_of(expected, x, block))
    # Twins, which differ near ties: a division, and a reciprocal.
    for other in (x / unit(x, block), x * (1 / unit(x, block))):
        assert not np.array_equal(found, np.rint(other))
    wider = round_activations(torch.from_numpy(x), ActivationQuantization(8, 2 * block)).numpy()
    assert not np.array_equal(found, codes_of(wider, x, block))


def test_zeros_stay_zero_and_codes_are_whole():
    x = torch.tensor([[0.0] * 32 + [1.0, -0.5] * 16])
    rounded = round_activations(x, ActivationQuantization(8, 32))
    assert torch.equal(rounded[:, :32], x[:, :32])
    assert torch.allclose(rounded[0, 33], torch.tensor(-64 / 127))
    coarse = round_activations(x, ActivationQuantization(4, 32))
    assert torch.allclose(coarse[0, 33], torch.tensor(-4 / 7))


def run(rounding):
    model = tiny.random_llama(tiny.TINY)
    read = model.state_dict().__getitem__
    plain, rounded = run_passes(tiny.TINY, read, [Pass(IDS), Pass(IDS, rounding=rounding)])
    return read, plain.hidden, rounded.hidden


def test_only_the_named_products_round_their_input():
    read, plain, same = run({})
    assert torch.equal(plain, same)
    name = "model.layers.1.mlp.down_proj.weight"
    _, _, one = run({name: ActivationQuantization(8, 32)})
    assert 0 < float((one - plain).abs().max()) < 0.1
    # The head rounds when it is named, and a later pass is as before.
    head = {"model.embed_tokens.weight": ActivationQuantization(8, 64)}
    exact = reference_head(tiny.TINY, read, plain)
    assert torch.equal(reference_head(tiny.TINY, read, plain, {name: head}), exact)
    assert not torch.equal(reference_head(tiny.TINY, read, plain, head), exact)


@torch.inference_mode()
def test_it_is_the_model_with_rounded_inputs():
    """The same as rounding by hand in front of each product of the eager model."""
    model = tiny.random_llama(tiny.UNTIED)
    rounding = {
        f"{path}.weight": ActivationQuantization(8, 32)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    read = model.state_dict().__getitem__
    (states,) = run_passes(tiny.UNTIED, read, [Pass(IDS, rounding=rounding)])
    found = reference_head(tiny.UNTIED, read, states.hidden, rounding)
    exact = model(IDS)[0]
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, inputs: (round_activations(inputs[0], ActivationQuantization(8, 32)),)
            )
    expected = model(IDS)[0]
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(found, exact, atol=1e-2)


@torch.inference_mode()
def test_a_pass_may_begin_after_the_first_ones_cache_repeated():
    model = tiny.random_llama(tiny.TINY)
    read = model.state_dict().__getitem__
    token = IDS[:, :1]
    first, late = run_passes(
        tiny.TINY, read, [Pass(IDS, keep_cache=True), Pass(token, after=30, keep_cache=True)]
    )
    cache = [
        tuple(torch.cat((rows, rows, rows[:, :, :7]), dim=2) for rows in pair)
        for pair in first.cache
    ]
    hidden, present = model.model(token, torch.tensor(30), cache)
    assert torch.allclose(late.hidden, hidden, atol=1e-5)
    assert late.cache[1][0].shape[2] == 31
    assert torch.allclose(late.cache[1][0][:, :, 30], present[1][0][:, :, 30], atol=1e-5)
    wrong, _ = model.model(token, torch.tensor(29), cache)
    assert not torch.allclose(late.hidden, wrong, atol=1e-3)


@pytest.mark.onnx
def test_an_artifact_says_which_products_round(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    from llama_export.bundle.bundle import Bundle
    from llama_export.targets.onnx.options import OnnxOptions
    from llama_export.targets.onnx.reading import activations

    names = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkvo"]
    table = "model.embed_tokens.weight"

    def exported(name: str, recipe: str, level: int = 4):
        options = {"onnx": OnnxOptions(accuracy_level=level)}
        folder = export_small(tmp_path / name, recipe=recipe, options=options)
        return Bundle.open(folder / "onnx")

    four, floats = exported("four", "int4"), exported("floats", "bf16")
    found = rounded_inputs_of(four)
    assert len(found) == 2 * 7 + 1
    assert {found[name] for name in names} == {ActivationQuantization(8, 32)}
    assert found[table] == ActivationQuantization(8, 128)
    # The head has no float32 kernel, so that it rounds at level 1 too.
    exact = rounded_inputs_of(exported("exact", "int4", level=1))
    assert exact == {table: ActivationQuantization(8, 128)}
    assert rounded_inputs_of(floats) == {}
    monkeypatch.setattr(activations.platform, "machine", lambda: "arm64")
    assert rounded_inputs_of(four) is None
    assert rounded_inputs_of(floats) == {}


def test_codes_are_symmetric():
    assert ActivationQuantization(8, 32).code_max == 127
    assert dataclasses.replace(ActivationQuantization(8, 32), bits=4).code_max == 7
