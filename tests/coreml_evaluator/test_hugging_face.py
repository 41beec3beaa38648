"""The evaluator against PyTorch: a Hugging Face Llama that coremltools' own converter converted.

Nothing of this project's lowering is in these packages, so what agrees here is the evaluator's
reading of Core ML, not a fault that two sides share.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.coreml_programs import ct, edit, operations, quiet, weight_file

from coreml_evaluator import Evaluator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.cache_utils import Cache

pytestmark = [pytest.mark.coreml, pytest.mark.slow]

# float32 in another order: 8e-7 was measured; with a cache in float16: 5e-4. Weights that the
# converter rounded to float16: 1.5e-3; with results rounded, too: 3.5e-3.
REL_RMS = {
    ("float32", "fp32"): 5e-6,
    ("float32", "fp16"): 2e-3,
    ("float16", "fp32"): 4e-3,
    ("float16", "fp16"): 1e-2,
}
# What must be seen is far off.
WRONG_REL_RMS = 5e-2
CONTEXT, PROMPT, STEPS = 96, 64, 6
CONFIG = LlamaConfig(
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=256,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    initializer_range=0.1,
    tie_word_embeddings=True,
    rope_parameters={
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    attn_implementation="sdpa",
)
CACHE = (2, 1, 2, CONTEXT, 64)
TOKENS = np.random.default_rng(5).integers(0, 256, PROMPT + STEPS)


class Kept(Cache):
    """Caches in tensors; a slice of them is assigned, as in Apple's example for Llama 3.1."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, begin: int, end: int) -> None:
        super().__init__(layers=[])
        self.keys, self.values, self.begin, self.end = keys, values, begin, end

    def update(self, key_states, value_states, layer_idx, *_, **__):
        kept = []
        for cache, new in ((self.keys, key_states), (self.values, value_states)):
            cache[layer_idx, :, :, self.begin : self.end, :] = new
            kept.append(cache[layer_idx, :, :, : self.end, :])
        return tuple(kept)

    def get_seq_length(self, *_) -> int:
        return 0


class Joined(Cache):
    """Caches that come in and go out, one longer."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__(layers=[])
        self.old = keys, values
        self.new: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(self, key_states, value_states, layer_idx, *_, **__):
        old = (cache[layer_idx] for cache in self.old)
        joined = tuple(
            torch.cat(pair, dim=-2) for pair in zip(old, (key_states, value_states), strict=True)
        )
        self.new.append(joined)
        return joined

    def get_seq_length(self, *_) -> int:
        return 0


class WithState(torch.nn.Module):
    """The mask's length says where the new tokens end."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("keyCache", torch.zeros(CACHE))
        self.register_buffer("valueCache", torch.zeros(CACHE))

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        end = mask.shape[-1]
        begin = end - input_ids.shape[-1]
        positions = torch.arange(begin, end).unsqueeze(0)
        cache = Kept(self.keyCache, self.valueCache, begin, end)
        # By position: transformers 5.24 renamed `past_key_values` to `cache`.
        return self.model(input_ids, mask, positions, cache).logits


class WithInputs(torch.nn.Module):
    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, positions, mask, keys, values):
        cache = Joined(keys, values)
        logits = self.model(input_ids, mask, positions, cache).logits
        return logits, *(torch.stack(part) for part in zip(*cache.new, strict=True))


class Folded(int):
    """An integer from an array of one element, which `int` took until numpy 2.4."""

    def __new__(cls, value: object) -> int:
        return int(np.asarray(value).item())


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """jit.trace is deprecated, and coremltools 9 was written for older numpys."""
    with quiet(), torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        from coremltools.converters.mil.frontend.torch import ops

        cast = ops._cast
        patch.setattr(
            ops,
            "_cast",
            lambda context, node, kind, name: cast(
                context, node, Folded if kind is int else kind, name
            ),
        )
        yield


def mask(rows: int, columns: int) -> np.ndarray:
    """Return what each of the last rows may see."""
    hidden = np.triu(np.ones((rows, columns), bool), columns - rows + 1)
    return np.where(hidden, -1e4, 0).astype(np.float32)[None, None]


@dataclass(frozen=True)
class Oracle:
    model: LlamaForCausalLM
    logits: np.ndarray  # [T, V], of all tokens in one pass


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    with torch.no_grad():
        logits = model(torch.from_numpy(TOKENS)[None]).logits[0].numpy()
    return Oracle(model, logits)


def convert(traced, path: Path, precision, **parameters) -> Path:
    with quiet():
        ct.convert(
            traced,
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=precision,
            skip_model_load=True,
            **parameters,
        ).save(str(path))
    return path


def convert_with_state(model: LlamaForCausalLM, path: Path, precision) -> Path:
    with tracing():
        example = torch.zeros(1, 2, dtype=torch.int32), torch.zeros(1, 1, 2, 5)
        traced = torch.jit.trace(WithState(model).eval(), example, check_trace=False)
        q, end = ct.RangeDim(1, CONTEXT, 1), ct.RangeDim(1, CONTEXT, 1)
        return convert(
            traced,
            path,
            precision,
            inputs=[
                ct.TensorType("inputIds", (1, q), np.int32),
                ct.TensorType("causalMask", (1, 1, q, end), np.float32),
            ],
            outputs=[ct.TensorType("logits", dtype=np.float32)],
            states=[
                ct.StateType(ct.TensorType(shape=CACHE, dtype=np.float16), name=name)
                for name in ("keyCache", "valueCache")
            ],
        )


def convert_with_inputs(model: LlamaForCausalLM, path: Path, precision) -> Path:
    with tracing():
        past = torch.zeros(2, 1, 2, 3, 64)
        example = (
            torch.zeros(1, 2, dtype=torch.int32),
            torch.zeros(1, 2, dtype=torch.int32),
            torch.zeros(1, 1, 2, 5),
            past,
            past,
        )
        traced = torch.jit.trace(WithInputs(model).eval(), example, check_trace=False)
        q, end, length = (ct.RangeDim(1, CONTEXT, 2) for _ in range(3))
        cache = (2, 1, 2, length, 64)
        return convert(
            traced,
            path,
            precision,
            inputs=[
                ct.TensorType("inputIds", (1, q), np.int32),
                ct.TensorType("positions", (1, q), np.int32),
                ct.TensorType("causalMask", (1, 1, q, end), np.float32),
                ct.TensorType("keys", cache, np.float32),
                ct.TensorType("values", cache, np.float32),
            ],
            outputs=[
                ct.TensorType(name, dtype=np.float32) for name in ("logits", "keysOut", "valuesOut")
            ],
        )


PRECISIONS = {"float32": ct.precision.FLOAT32, "float16": ct.precision.FLOAT16}


@pytest.fixture(scope="module", params=sorted(PRECISIONS))
def precision(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def with_state(oracle, precision, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("state") / f"{precision}.mlpackage"
    return convert_with_state(oracle.model, path, PRECISIONS[precision])


@pytest.fixture(scope="module")
def with_inputs(oracle, precision, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / f"{precision}.mlpackage"
    return convert_with_inputs(oracle.model, path, PRECISIONS[precision])


def pieces() -> list[tuple[int, int]]:
    """A prompt, and then token by token."""
    return [(0, PROMPT), *((step, step + 1) for step in range(PROMPT, PROMPT + STEPS))]


def run_with_state(path: Path, mode: str) -> np.ndarray:
    evaluator = Evaluator.open(path, mode=mode)
    state = evaluator.make_state()
    rows = []
    for begin, end in pieces():
        inputs = {
            "inputIds": TOKENS[None, begin:end].astype(np.int32),
            "causalMask": mask(end - begin, end),
        }
        rows.append(evaluator.predict(inputs, state)["logits"][0])
    return np.concatenate(rows)


def run_with_inputs(path: Path, mode: str) -> np.ndarray:
    """The first slot of the cache is empty, and hidden: a dimension cannot be 0."""
    evaluator = Evaluator.open(path, mode=mode)
    keys = values = np.zeros((2, 1, 2, 1, 64), np.float32)
    rows = []
    for begin, end in pieces():
        hidden = np.full((1, 1, end - begin, 1), -1e4, np.float32)
        inputs = {
            "inputIds": TOKENS[None, begin:end].astype(np.int32),
            "positions": np.arange(begin, end, dtype=np.int32)[None],
            "causalMask": np.concatenate([hidden, mask(end - begin, end)], axis=-1),
            "keys": keys,
            "values": values,
        }
        found = evaluator.predict(inputs)
        rows.append(found["logits"][0])
        keys, values = found["keysOut"], found["valuesOut"]
    return np.concatenate(rows)


def rel_rms(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


@pytest.mark.parametrize("mode", ["fp32", "fp16"])
def test_a_converted_model_with_states_is_pytorch(oracle, with_state, precision, mode):
    found = run_with_state(with_state, mode)
    assert found.shape == oracle.logits.shape
    assert rel_rms(oracle.logits, found) < REL_RMS[precision, mode]


@pytest.mark.parametrize("mode", ["fp32", "fp16"])
def test_a_converted_model_with_its_cache_as_inputs_is_pytorch(
    oracle, with_inputs, precision, mode
):
    found = run_with_inputs(with_inputs, mode)
    assert rel_rms(oracle.logits, found) < REL_RMS[precision, mode]


def test_another_rope_is_seen(oracle, with_state, precision):
    """The twin: without llama3's scaling of the frequencies PyTorch gives something else."""
    plain = LlamaConfig.from_dict(
        {**CONFIG.to_dict(), "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    )
    model = LlamaForCausalLM(plain).eval()
    model.load_state_dict(oracle.model.state_dict())
    with torch.no_grad():
        other = model(torch.from_numpy(TOKENS)[None]).logits[0].numpy()
    assert rel_rms(other, run_with_state(with_state, "fp32")) > 2 * REL_RMS[precision, "fp32"]


def test_a_changed_weight_is_seen(oracle, with_state, precision, tmp_path):
    import shutil

    path = Path(shutil.copytree(with_state, tmp_path / "m.mlpackage"))
    element = np.dtype(precision)
    content = np.frombuffer(bytearray(weight_file(path).read_bytes()), element)
    offset = blob_of(path, "down_proj")
    content[offset // element.itemsize :][: 128 * 192] *= element.type(1.2)
    weight_file(path).write_bytes(content.tobytes())
    assert rel_rms(oracle.logits, run_with_state(path, "fp32")) > WRONG_REL_RMS / 2


def blob_of(path: Path, name: str) -> int:
    """Return where a weight's data begin."""
    offsets: list[int] = []

    def look(model) -> None:
        for op in operations(model):
            if op.type == "const" and name in op.outputs[0].name:
                offsets.append(op.attributes["val"].blobFileValue.offset)

    edit(path, look)
    raw = weight_file(path).read_bytes()
    return int(np.frombuffer(raw[offsets[0] + 16 : offsets[0] + 24], np.uint64)[0])


def test_a_position_that_is_off_by_one_is_seen(oracle, with_inputs, monkeypatch, precision):
    monkeypatch.setattr(np, "arange", shifted(np.arange))
    assert rel_rms(oracle.logits, run_with_inputs(with_inputs, "fp32")) < REL_RMS[precision, "fp32"]
    monkeypatch.setattr(np, "arange", shifted(np.arange, only_from=PROMPT))
    assert rel_rms(oracle.logits, run_with_inputs(with_inputs, "fp32")) > REL_RMS[precision, "fp32"]


def shifted(arange, only_from: int = 0):
    """Positions one on: all of them, which rotation does not see, or the decoded ones only."""

    def call(begin, end, dtype):
        return arange(begin, end, dtype=dtype) + (1 if begin >= only_from else 0)

    return call


def test_a_model_of_torch_export_is_pytorch(oracle, tmp_path):
    """The other route of the converter, whose graphs have other ops."""
    past, hidden = np.zeros((2, 1, 2, 1, 64), np.float32), np.full((1, 1, 8, 1), -1e4, np.float32)
    inputs = {
        "input_ids": TOKENS[None, :8].astype(np.int32),
        "positions": np.arange(8, dtype=np.int32)[None],
        "mask": np.concatenate([hidden, mask(8, 8)], axis=-1),
        "keys": past,
        "values": past,
    }
    with tracing():
        example = tuple(torch.from_numpy(array) for array in inputs.values())
        exported = torch.export.export(WithInputs(oracle.model).eval(), example, strict=False)
        exported = exported.run_decompositions({})
        for node in list(exported.graph.nodes):
            if node.target == torch.ops.aten.alias.default:  # which coremltools 9 does not know
                node.replace_all_uses_with(node.args[0])
                exported.graph.erase_node(node)
        path = convert(exported, tmp_path / "m.mlpackage", ct.precision.FLOAT32)
    found = list(Evaluator.open(path, mode="fp32").predict(inputs).values())
    assert rel_rms(oracle.logits[:8], found[0][0]) < REL_RMS["float32", "fp32"]
    assert rel_rms(oracle.logits[1:9], found[0][0]) > WRONG_REL_RMS


def test_coremltools_int4_of_a_converted_model_runs(oracle, precision, with_state, tmp_path):
    optimize = ct.optimize.coreml
    with quiet():
        model = ct.models.MLModel(str(with_state), skip_model_load=True)
        config = optimize.OpLinearQuantizerConfig(
            mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32
        )
        optimize.linear_quantize_weights(model, optimize.OptimizationConfig(config)).save(
            str(tmp_path / "int4.mlpackage")
        )
    error = rel_rms(oracle.logits, run_with_state(tmp_path / "int4.mlpackage", "fp32"))
    assert WRONG_REL_RMS < error < 0.7
