"""Biases, the rotation before down_proj and side branches: config, model and trace."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from artifacts.tiny import TINY, random_llama, random_tokens
from torch.nn import functional
from transformers import LlamaConfig as HfConfig
from transformers import LlamaForCausalLM

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama import trace as tracing
from llama_export.llama.activations import ActivationQuantization
from llama_export.llama.config import LlamaConfig
from llama_export.llama.hadamard import hadamard, sylvester
from llama_export.llama.names import expected_shapes
from llama_export.llama.rounding import round_activations
from llama_export.llama.streamed import Pass, reference_head, reference_logits, run_passes
from llama_export.llama.trace import trace

BIASED = replace(TINY, attention_bias=True, mlp_bias=True)
ROTATED = replace(TINY, down_proj_rotation=True)
ADAPTED = replace(TINY, adaptor_rank=8, adaptor_scale=1.5)
ALL = replace(
    BIASED, down_proj_rotation=True, adaptor_rank=8, adaptor_scale=2.0, tie_word_embeddings=False
)
CONFIGS = {"biased": BIASED, "rotated": ROTATED, "adapted": ADAPTED, "all": ALL}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def butterfly(row: list[float]) -> list[float]:
    """The transform as it is written in books, in Python's own numbers."""
    values, step = list(row), 1
    while step < len(values):
        for start in range(0, len(values), 2 * step):
            for i in range(start, start + step):
                first, second = values[i], values[i + step]
                values[i], values[i + step] = first + second, first - second
        step *= 2
    return [value / math.sqrt(len(row)) for value in values]


@pytest.mark.parametrize("width", [2, 64, 128, 512])
def test_the_transform_is_the_butterfly_and_two_small_products(width):
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([butterfly(row) for row in x.tolist()])
    assert torch.allclose(hadamard(x), expected, atol=1e-5)
    assert torch.allclose(hadamard(hadamard(x)), x, atol=1e-5)
    a, b = replace(TINY, intermediate_size=width).rotation_orders
    assert a * b == width
    by_products = sylvester(a) @ x.view(3, a, b) @ sylvester(b) / width**0.5
    assert torch.allclose(by_products.flatten(1), expected, atol=1e-5)


def test_the_factors_of_a_1b_are_64_and_128():
    assert replace(TINY, intermediate_size=8192).rotation_orders == (64, 128)
    assert torch.equal(sylvester(64), sylvester(64).T)


@each_config
def test_names_and_parameters_are_the_models(config):
    model = random_llama(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    assert expected_shapes(config) == shapes
    assert config.num_parameters == sum(math.prod(shape) for shape in shapes.values())


@each_config
def test_config_json_says_what_is_set_and_is_read_back(config):
    keys = config.to_hf()
    assert LlamaConfig.from_hf(keys) == config
    own = "llama_export" in keys
    assert own == bool(config.down_proj_rotation or config.adaptor_rank)
    assert keys["architectures"] == ["LlamaExportForCausalLM" if own else "LlamaForCausalLM"]
    assert keys["model_type"] == "llama"


def test_a_plain_config_json_has_no_key_of_ours():
    keys = TINY.to_hf()
    assert "llama_export" not in keys
    assert not keys["attention_bias"]
    assert keys["architectures"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize(
    ("own", "error", "match"),
    [
        (3, ConfigError, "llama_export must be an object"),
        ({"down_proj_rotation": "yes"}, ConfigError, "true or false"),
        ({"adaptor_rank": 8}, ConfigError, "adaptor_scale"),
        ({"adaptor_rank": 8, "adaptor_scale": 0}, ConfigError, "need a scale"),
        ({"adaptor_rank": -1, "adaptor_scale": 1.0}, ConfigError, "rank -1"),
        ({"adaptor_rank": 0, "adaptor_scale": 1.0}, ConfigError, "need a scale"),
        ({"rotation": True}, UnsupportedModelError, "not implemented: rotation"),
    ],
)
def test_wrong_keys_of_ours_are_refused_by_name(own, error, match):
    with pytest.raises(error, match=match):
        LlamaConfig.from_hf(TINY.to_hf() | {"llama_export": own})


def test_a_rotation_of_another_width_than_a_power_of_two_is_refused():
    with pytest.raises(ConfigError, match="power of two, intermediate_size is 14336"):
        replace(TINY, intermediate_size=14336, down_proj_rotation=True)


@pytest.mark.parametrize(
    "config",
    [BIASED, replace(TINY, attention_bias=True), replace(TINY, mlp_bias=True)],
    ids=["both", "attention", "mlp"],
)
def test_biases_are_where_transformers_has_them(config):
    model = random_llama(config)
    hf = LlamaForCausalLM(HfConfig(**config.to_hf())).float().eval()
    missing = hf.load_state_dict(model.state_dict(), strict=True)
    assert not missing.missing_keys
    tokens = torch.tensor([random_tokens(config, 40)])
    with torch.inference_mode():
        expected = hf(tokens).logits
        found, _ = model(tokens)
        read = {name: value.detach() for name, value in model.state_dict().items()}
        streamed = reference_logits(config, read.__getitem__, tokens)
    assert torch.allclose(found, expected, atol=2e-4)
    assert torch.allclose(streamed, expected, atol=2e-4)
    # The twin: one bias of zeros is seen.
    name = next(name for name in read if name.endswith("bias"))
    changed = read | {name: torch.zeros_like(read[name])}
    assert not torch.allclose(
        reference_logits(config, changed.__getitem__, tokens), expected, atol=1e-2
    )


def test_a_rotation_undoes_the_one_in_the_weight():
    plain = random_llama(TINY)
    rotated = random_llama(ROTATED)
    with torch.no_grad():
        for layer in rotated.model.layers:
            # W' = W H, so that W' (H x) = W x.
            layer.mlp.down_proj.weight.copy_(hadamard(layer.mlp.down_proj.weight))
    tokens = torch.tensor([random_tokens(TINY, 40)])
    with torch.inference_mode():
        expected = plain(tokens)[0]
        assert torch.allclose(rotated(tokens)[0], expected, atol=1e-3)
        # The twin: the same weights without the rotation.
        for layer in rotated.model.layers:
            layer.mlp.rotates = False
        assert not torch.allclose(rotated(tokens)[0], expected, atol=0.1)


def test_side_branches_equal_merged_weights():
    adapted = random_llama(ADAPTED)
    state = adapted.state_dict()
    merged = random_llama(TINY)
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.copy_(state[name])
            stem = name.removesuffix(".weight")
            if f"{stem}.adaptor.A.weight" in state:
                side = state[f"{stem}.adaptor.B.weight"] @ state[f"{stem}.adaptor.A.weight"]
                parameter += ADAPTED.adaptor_scale * side
    tokens = torch.tensor([random_tokens(TINY, 40)])
    with torch.inference_mode():
        expected = merged(tokens)[0]
        assert torch.allclose(adapted(tokens)[0], expected, atol=1e-3)
        for module in adapted.modules():
            if hasattr(module, "scale"):
                module.scale = 1.0
        assert not torch.allclose(adapted(tokens)[0], expected, atol=0.1)


def test_rounding_is_of_the_product_and_not_of_its_side_branch():
    model = random_llama(ADAPTED)
    read = {name: value.detach() for name, value in model.state_dict().items()}.__getitem__
    tokens = torch.tensor([random_tokens(ADAPTED, 12)])
    coarse = ActivationQuantization(bits=3, block=None)
    name = "model.layers.0.self_attn.v_proj"

    def logits(rounding) -> torch.Tensor:
        states = run_passes(ADAPTED, read, [Pass(tokens, rounding=rounding)])
        return reference_head(ADAPTED, read, states[0].hidden)

    with torch.inference_mode():
        layer = model.model.layers[0]
        product = layer.self_attn.v_proj
        side = product.adaptor

        def forward(x: torch.Tensor) -> torch.Tensor:
            main = functional.linear(round_activations(x, coarse), product.weight)
            return main + ADAPTED.adaptor_scale * side.B(side.A(x))

        product.forward = forward
        expected = model(tokens)[0]
    assert torch.allclose(logits({f"{name}.weight": coarse}), expected, atol=1e-3)
    assert not torch.allclose(logits({}), expected, atol=1e-2)


@each_config
def test_the_trace_has_one_node_for_each(config):
    traced = trace(config, 64)
    kinds = Counter(n.target for n in traced.program.graph.nodes if n.op == "call_function")
    layers = config.num_hidden_layers
    adapted = bool(config.adaptor_rank)
    assert kinds[tracing.HADAMARD] == layers * config.down_proj_rotation
    assert kinds[tracing.ADAPTED_LINEAR] == 7 * layers * adapted
    assert kinds[tracing.LINEAR] == 7 * layers * (not adapted) + 1
    assert set(traced.weight_names.values()) == set(random_llama(config).state_dict())
    node = next(n for n in traced.program.graph.nodes if "linear" in str(n.target))
    linear = traced.linear(node)
    stem = "model.layers.0.self_attn.q_proj"
    assert linear.weight == f"{stem}.weight"
    assert linear.bias == (f"{stem}.bias" if config.attention_bias else None)
    if adapted:
        names = (f"{stem}.adaptor.A.weight", f"{stem}.adaptor.B.weight")
        assert linear.side == tracing.Side(*names, config.adaptor_scale)
    else:
        assert linear.side is None
