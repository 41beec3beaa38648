"""The delegates beside XNNPACK: the whole demo model is lowered to each, and looked at."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.tiny import TINY, write_checkpoint

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import LoweringError, UsageError
from llama_export.llama.streamed import reference_logits
from llama_export.llama.trace import TracedLlama, trace
from llama_export.sources.resolve import resolve_model
from llama_export.sources.source import open_source
from llama_export.targets import registry
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.running.runtime import load_toolkit
from llama_export.targets.executorch.single_delegate import lower
from llama_export.targets.executorch.single_delegate.dialects import (
    AffineProduct,
    CoreML,
    RowProduct,
    Vulkan,
)
from llama_export.targets.executorch.single_delegate.lower import lower_single_delegate
from llama_export.targets.executorch.single_delegate.module import SingleDelegateModule
from llama_export.targets.executorch.xnnpack.host_program import HostForm
from llama_export.targets.executorch.xnnpack.lower import MODEL_FILE
from llama_export.targets.executorch.xnnpack.partition import products_outside
from llama_export.targets.executorch.xnnpack.plan import plan
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, QuantRule, recipe
from llama_quantize.scheme import GroupedInt
from llama_quantize.tensor import QuantizedTensor

pytest.importorskip("executorch", reason="needs the executorch extra")
pytest.importorskip("coremltools", reason="needs the coreml extra")
pytestmark = pytest.mark.slow

CONTEXT = 64
STOPS = (1, 2)
INT8_ROWS = QuantRecipe(
    "int8 rows",
    (QuantRule(r".*_proj\.weight", GroupedInt(8, None)), *recipe("int8").rules[1:]),
)
TOKENS = [1, 5, 9, 200, 30]


@dataclass(frozen=True)
class Demo:
    traced: TracedLlama
    weights: QuantizedWeights

    def tensors(self) -> dict[str, QuantizedTensor]:
        found = {name: self.weights.get(name) for name in self.weights.names()}
        return {name: t for name, t in found.items() if isinstance(t, QuantizedTensor)}


@dataclass(frozen=True)
class Lowered:
    path: Path
    spec: GraphSpec

    @property
    def report(self) -> Mapping[str, Any]:
        return self.spec.delegate

    @property
    def pte(self) -> Pte:
        return Pte.open(self.path)

    def holds(self, tensor: torch.Tensor) -> bool:
        return self.path.read_bytes().count(bytes_of(tensor)) > 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Demo:
    source = open_source(resolve_model("demo", revision=None, token=None))
    checkpoint = source.checkpoint
    folder = tmp_path_factory.mktemp("demo") / "weights"
    quantize_to(folder, checkpoint, recipe("int4"))
    return Demo(trace(source.config, CONTEXT), QuantizedWeights.open(folder))


def lowered(demo: Demo, folder: Path, delegate: str) -> Lowered:
    options = ExecutorchOptions(delegate=delegate)
    spec = lower_single_delegate(demo.traced, demo.weights, folder, options, stop_token_ids=STOPS)
    return Lowered(folder / MODEL_FILE, spec)


def tiny(folder: Path, chosen: QuantRecipe) -> Demo:
    checkpoint = HfCheckpoint.open(write_checkpoint(folder / "checkpoint", TINY))
    quantize_to(folder / "weights", checkpoint, chosen)
    return Demo(trace(TINY, CONTEXT), QuantizedWeights.open(folder / "weights"))


@pytest.fixture(scope="module")
def vulkan(demo, tmp_path_factory) -> Lowered:
    return lowered(demo, tmp_path_factory.mktemp("vulkan"), "vulkan")


@pytest.fixture(scope="module")
def coreml(demo, tmp_path_factory) -> Lowered:
    return lowered(demo, tmp_path_factory.mktemp("coreml"), "coreml")


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def answer(pte: Pte, name: str) -> object:
    """Load a metadata method on this machine: those call no delegate."""
    from executorch.extension.pybindings import portable_lib

    program = portable_lib._load_program(str(pte.path))
    return program.load_method(name).call([])


@pytest.mark.parametrize("delegate", ["vulkan", "coreml"])
def test_the_module_computes_what_the_eager_model_computes(demo, delegate):
    load_toolkit()
    config = demo.traced.config
    form = HostForm(config, CONTEXT, ExecutorchOptions())
    dialect = Vulkan() if delegate == "vulkan" else CoreML()
    module = SingleDelegateModule(
        form, plan(demo.traced, all_logits=False), demo.weights, dialect
    ).eval()
    expected = reference_logits(config, demo.weights.get, torch.tensor([TOKENS]))[0, -1]
    with torch.no_grad():
        if delegate == "vulkan":
            # A call behind the first one: keys and values come from the cache too.
            module(torch.tensor([TOKENS[:2]]), torch.tensor([0]))
            found = module(torch.tensor([TOKENS[2:]]), torch.tensor([2]))
        else:
            for position, token in enumerate(TOKENS):
                found = module(torch.tensor([[token]]), torch.tensor([position]))
    # Vulkan's products round their inputs to 8 bits, the logits go up to 10.
    tolerance = 0.3 if delegate == "vulkan" else 1e-4
    assert (found[0] - expected).abs().max() < tolerance


def test_a_norm_for_core_ml_is_the_norm_and_stays_in_float16s_range():
    torch.manual_seed(0)
    weight = torch.rand(64)
    for scale in (0.0, 1e-4, 1.0, 1e4):
        x = torch.randn(1, 1, 64) * scale
        expected = Vulkan().norm(x, weight, 1e-5)
        torch.testing.assert_close(CoreML().norm(x, weight, 1e-5), expected)
        half = CoreML().norm(x.half(), weight.half(), 1e-5)
        torch.testing.assert_close(half.float(), expected, atol=1e-2, rtol=1e-2)


def test_vulkan_takes_all_but_the_lookup(demo, vulkan):
    assert [name for name, _ in vulkan.pte.delegates] == ["VulkanBackend"]
    report = vulkan.report
    assert report["outside"] == {"quantized_decomposed::embedding_byte.dtype_out": 1}
    assert report["delegate_calls"] == 1
    products = 7 * demo.traced.config.num_hidden_layers + 1
    assert (report["products_inside"], report["products"]) == (products, products)


def test_core_ml_takes_all(demo, coreml):
    assert [name for name, _ in coreml.pte.delegates] == ["CoreMLBackend"]
    products = 7 * demo.traced.config.num_hidden_layers + 1
    config = demo.traced.config
    cache_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2
    assert coreml.report == {
        "name": "coreml",
        "delegate_calls": 1,
        "outside": {},
        "products_inside": products,
        "products": products,
        "kv_bytes_per_token": cache_bytes,
    }


def test_vulkan_multiplies_the_codes_as_they_are(demo, vulkan):
    program = vulkan.path.read_bytes()
    products = 7 * demo.traced.config.num_hidden_layers
    assert program.count(b"et_vk.linear_dq8ca_q4gsw.default") == products
    assert program.count(b"aten._weight_int8pack_mm.default") == 1


def test_codes_and_scales_are_in_vulkans_file_bit_for_bit(demo, vulkan):
    for name, tensor in demo.tensors().items():
        # int4 scales stand with the groups first.
        assert vulkan.holds(tensor.codes), name
        assert vulkan.holds(tensor.scales.float().T), name


def test_codes_and_scales_are_in_core_mls_file_bit_for_bit(demo, coreml):
    for name, tensor in demo.tensors().items():
        # Core ML's nibbles are two's complement, ours are code + 8.
        codes = tensor.codes ^ 0x88 if tensor.scheme.bits == 4 else tensor.codes
        assert coreml.holds(codes), name
        assert torch.equal(tensor.scales.half().float(), tensor.scales.float()), name
        assert coreml.holds(tensor.scales.half()), name


def test_core_ml_stores_the_tied_table_once(demo, coreml):
    table = bytes_of(demo.tensors()["model.embed_tokens.weight"].codes)
    assert coreml.path.read_bytes().count(table) == 1


def test_vulkan_takes_many_tokens_a_call(vulkan):
    assert vulkan.spec.inputs[0].shape == (1, "sequence_length")
    assert answer(vulkan.pte, "enable_dynamic_shape") == [True]
    assert answer(vulkan.pte, "get_max_seq_len") == [CONTEXT]


def test_core_ml_takes_one_token_a_call(coreml):
    assert [tensor.shape for tensor in coreml.spec.inputs] == [(1, 1), (1,)]
    assert answer(coreml.pte, "enable_dynamic_shape") == [False]
    assert answer(coreml.pte, "get_max_seq_len") == [CONTEXT]


@pytest.mark.parametrize(
    ("delegate", "options", "message"),
    [
        ("qnn", {}, "--delegate: expected xnnpack, vulkan or coreml, found 'qnn'"),
        ("vulkan", {"kv_cache": "io"}, "keeps a float32 KV cache inside"),
        ("coreml", {"kv_cache": "io"}, "keeps a float32 KV cache inside"),
        ("vulkan", {"kv_dtype": "float16"}, "keeps a float32 KV cache inside"),
    ],
)
def test_what_a_delegate_does_not_take_is_refused(delegate, options, message):
    chosen = ExecutorchOptions(delegate=delegate, **options)
    with pytest.raises(UsageError, match=message):
        registry.get("executorch").check(chosen)


def test_vulkan_takes_int8_rows_and_writes_the_same_bytes_again(tmp_path):
    model = tiny(tmp_path, INT8_ROWS)
    files = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        result = lowered(model, tmp_path / name, "vulkan")
        assert (result.report["delegate_calls"], result.report["products_inside"]) == (1, 15)
        files.append(result.path.read_bytes())
    assert files[0].count(b"aten._weight_int8pack_mm.default") == 15
    assert files[0] == files[1]


def test_vulkan_takes_an_int4_table_into_its_delegate(tmp_path):
    model = tiny(tmp_path, recipe("int4", table="int4"))
    result = lowered(model, tmp_path, "vulkan")
    assert (result.report["delegate_calls"], result.report["outside"]) == (1, {})
    assert result.path.read_bytes().count(b"et_vk.embedding_q4gsw.default") == 1
    load_toolkit()
    table = model.weights.get("model.embed_tokens.weight")
    rows = Vulkan().table("table", table)(torch.tensor([TOKENS]))
    assert torch.equal(rows[0], table.dequantize()[TOKENS])


def test_core_ml_stores_an_int4_table_once(tmp_path):
    model = tiny(tmp_path, recipe("int4", table="int4"))
    result = lowered(model, tmp_path, "coreml")
    assert (result.report["delegate_calls"], result.report["outside"]) == (1, {})
    table = model.tensors()["model.embed_tokens.weight"]
    # Two's complement in the file, code + 8 in the checkpoint.
    assert result.path.read_bytes().count(bytes_of(table.codes ^ 0x88)) == 1


def test_core_ml_takes_int8_groups(tmp_path):
    model = tiny(tmp_path, recipe("int8"))
    result = lowered(model, tmp_path, "coreml")
    assert (result.report["delegate_calls"], result.report["outside"]) == (1, {})
    assert all(result.holds(tensor.codes) for tensor in model.tensors().values())


def test_vulkan_refuses_int8_groups(tmp_path):
    with pytest.raises(LoweringError, match="is stored as int8 g32; Vulkan wants one scale a row"):
        lowered(tiny(tmp_path, recipe("int8")), tmp_path, "vulkan")


def test_products_outside_of_a_delegate_are_named(demo):
    load_toolkit()
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    tensors = demo.tensors()
    inside = tensors["model.layers.0.self_attn.q_proj.weight"]
    outside = tensors["model.embed_tokens.weight"]
    module = torch.nn.Sequential(AffineProduct(inside), RowProduct(outside)).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = to_edge_transform_and_lower(
            torch.export.export(module, (torch.zeros(1, 3, inside.shape[1]),)),
            partitioner=[VulkanPartitioner(nn_module_blocklist=["RowProduct"])],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        ).exported_program()
    names = {"0.codes": "first.weight", "1.codes": "second.weight"}
    assert products_outside(program, names) == ("second.weight",)


def test_an_exporters_own_error_is_ours(demo, tmp_path, monkeypatch):
    def fails(*_):
        raise Exception(fails.__name__) from KeyError("dequantize")

    monkeypatch.setattr(lower, "_lowered", fails)
    message = "cannot make a delegate of vulkan: KeyError: 'dequantize'"
    with pytest.raises(LoweringError, match=message):
        lowered(demo, tmp_path, "vulkan")


def test_float_weights_are_refused(tmp_path):
    with pytest.raises(LoweringError, match="ExecuTorch's products are int4 or int8"):
        lowered(tiny(tmp_path, recipe("fp16")), tmp_path, "coreml")
