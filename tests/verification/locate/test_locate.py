"""`locate` over the eager model in pieces: silent on a right one, and it names each fault."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from artifacts import tiny
from fakes.probe import EagerProbe
from torch.nn import functional

from llama_export.llama.rope import rope_tables, rotate
from llama_export.verification.locate.evidence import is_explained, relative_error
from llama_export.verification.locate.locate import MOST_POSITIONS, locate, split
from llama_export.verification.locate.operators import operators

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = dataclasses.replace(tiny.TINY, num_hidden_layers=3)
TOKENS = tiny.random_tokens(CONFIG, 12)
STEM = "model.layers.1"


@pytest.fixture(scope="module")
def model():
    return tiny.random_llama(CONFIG).requires_grad_(False)


def find(model, probe, tokens=TOKENS, config=CONFIG):
    state = model.state_dict()
    return locate(probe, config, state.__getitem__, tokens)


def at(point, change):
    """Change one point's value, and leave the others."""
    return lambda name, value: change(value) if name == point else value


def test_a_right_artifact_diverges_nowhere(model):
    probe = EagerProbe(model)
    assert find(model, probe) is None
    assert probe.calls == [[6, 1, 5]]


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_short_and_long_texts(model, count):
    probe = EagerProbe(model)
    assert find(model, probe, tiny.random_tokens(CONFIG, count)) is None
    assert sum(probe.calls[0]) == min(count, MOST_POSITIONS)


def test_the_tokens_are_cut_into_a_prefill_a_step_and_the_rest():
    assert split([1]) == [[1]]
    assert split([1, 2]) == [[1], [2]]
    assert split([1, 2, 3, 4, 5]) == [[1, 2], [3], [4, 5]]


# Every operator's result, spoilt in one place by little: it alone is named, in its own layer.
POINTS = {
    "model.embed_tokens": "model.embed_tokens",
    f"{STEM}.input_layernorm": f"{STEM}.input_layernorm",
    f"{STEM}.self_attn.key": f"{STEM}.self_attn (attention)",
    f"{STEM}.self_attn.value": f"{STEM}.self_attn (attention)",
    f"{STEM}.self_attn.attention": f"{STEM}.self_attn (attention)",
    f"{STEM}.self_attn.o_proj": f"{STEM}.self_attn.o_proj",
    f"{STEM}.residual_attention": f"{STEM} (sum after self_attn)",
    f"{STEM}.post_attention_layernorm": f"{STEM}.post_attention_layernorm",
    f"{STEM}.mlp.gate_proj": f"{STEM}.mlp.gate_proj",
    f"{STEM}.mlp.up_proj": f"{STEM}.mlp.up_proj",
    f"{STEM}.mlp.activation": f"{STEM}.mlp (silu and product)",
    f"{STEM}.mlp.down_proj": f"{STEM}.mlp.down_proj",
    f"{STEM}.residual_mlp": f"{STEM} (sum after mlp)",
    "model.norm": "model.norm",
    "lm_head": "lm_head",
}


@pytest.mark.parametrize("point", POINTS)
def test_one_value_that_is_off_is_found_where_it_is(model, point):
    def spoil(value):
        value[0, -1, ..., 7] += 0.01 * value.square().mean().sqrt()
        return value

    found = find(model, EagerProbe(model, at(point, spoil)))
    assert found.operator == POINTS[point]
    assert found.layer == (1 if "layers" in point else None)
    assert found.value == f"value of {point}"
    assert found.others == ()
    assert math.inf > found.error > found.limit > 0


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_a_packed_product_is_narrowed_to_its_weight(model, part):
    first = {"q": 0, "k": 256, "v": 384}[part]

    def spoil(value):
        value[..., first + 9] *= 1.001
        return value

    found = find(model, EagerProbe(model, at(f"{STEM}.self_attn.qkv", spoil)))
    assert found.operator == f"{STEM}.self_attn.{part}_proj"
    assert "1 of " in found.detail
    assert "most row 9 " in found.detail


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_found_where_it_begins(model, value):
    def spoil(rows):
        rows[0, 0, 3] = value
        return rows

    found = find(model, EagerProbe(model, at(f"{STEM}.mlp.up_proj", spoil)))
    assert found.operator == f"{STEM}.mlp.up_proj"
    assert found.error == math.inf
    assert found.others == ()


def lacking(name, value):
    return None if name == f"{STEM}.residual_attention" else value


def narrower(name, value):
    return value[..., :-1] if name == "lm_head" else value


@pytest.mark.parametrize(
    ("edit", "operator"),
    [(lacking, f"{STEM} (sum after self_attn)"), (narrower, "lm_head")],
)
def test_a_value_that_the_artifact_does_not_have_is_a_divergence(model, edit, operator):
    found = find(model, EagerProbe(model, edit))
    assert found.operator == operator
    assert found.error == math.inf
    assert found.detail.startswith("the artifact's graph is another")
    assert found.others == ()


def test_two_independent_faults_are_both_named(model):
    def edit(name, value):
        if name in (f"{STEM}.mlp.down_proj", "model.layers.0.self_attn.o_proj", "lm_head"):
            return value * 1.01
        return value

    found = find(model, EagerProbe(model, edit))
    assert found.operator == "model.layers.0.self_attn.o_proj"
    assert found.others == (f"{STEM}.mlp.down_proj", "lm_head")


def swapped_in(module, one, other):
    """Exchange two sub-modules of a layer, as a lowering that mixes up their weights."""

    def change(model):
        owner = model.get_submodule(f"{STEM}.{module}")
        first, second = getattr(owner, one), getattr(owner, other)
        setattr(owner, one, second)
        setattr(owner, other, first)

    return change


def other_rows(name, rows):
    def change(model):
        weight = model.get_parameter(name)
        weight.data = weight.data[rows(len(weight))]

    return change


def scaled_gamma(model):
    model.get_submodule(STEM).post_attention_layernorm.weight.data[17] *= 1.01


def epsilon(model):
    model.get_submodule(STEM).input_layernorm.eps = 1e-3


WEIGHT_FAULTS = {
    "k and v": (
        swapped_in("self_attn", "k_proj", "v_proj"),
        f"{STEM}.self_attn.k_proj",
        f"product with {STEM}.self_attn.v_proj.weight",
    ),
    "gate and up": (
        swapped_in("mlp", "gate_proj", "up_proj"),
        f"{STEM}.mlp.gate_proj",
        f"product with {STEM}.mlp.up_proj.weight",
    ),
    "two rows": (
        other_rows(
            f"{STEM}.mlp.down_proj.weight", lambda n: [*range(3), 9, *range(4, 9), 3, *range(10, n)]
        ),
        f"{STEM}.mlp.down_proj",
        "rows 3 and 9 are swapped",
    ),
    "rows moved": (
        other_rows(f"{STEM}.self_attn.o_proj.weight", lambda n: [*range(1, n), 0]),
        f"{STEM}.self_attn.o_proj",
        "holds what row",
    ),
    "gamma": (scaled_gamma, f"{STEM}.post_attention_layernorm", "its weight differs"),
    "epsilon": (epsilon, f"{STEM}.input_layernorm", "epsilon seems to be 1.0e-03"),
}


@pytest.mark.parametrize("name", WEIGHT_FAULTS)
def test_the_cause_of_a_wrong_weight(name):
    change, operator, says = WEIGHT_FAULTS[name]
    artifact, right = tiny.random_llama(CONFIG), tiny.random_llama(CONFIG)
    change(artifact.requires_grad_(False))
    found = find(right, EagerProbe(artifact))
    assert found.operator == operator
    assert says in found.detail


def attention_with(mask=None, turn=None, query_turn=None, frequency=1.0):
    """Attention with another mask, or other positions for the rotation."""

    def attend(query, key, value, past, position, inv_freq):
        past_key, past_value = past
        first, size = int(position), past_key.shape[3]
        q, k, v = (rows.unflatten(-1, (-1, size)).transpose(1, 2) for rows in (query, key, value))
        positions = torch.arange(first, first + query.shape[1])

        def rotated(rows, change):
            moved = positions if change is None else change(positions, first)
            return rotate(rows, *rope_tables(inv_freq * frequency, moved))

        keys, values = past_key.clone(), past_value.clone()
        keys[:, :, first:], values[:, :, first:] = rotated(k, turn), v
        ones = torch.ones(query.shape[1], keys.shape[2], dtype=torch.bool)
        visible = ones.tril(first) if mask is None else mask(ones, first)
        mixed = functional.scaled_dot_product_attention(
            rotated(q, query_turn or turn), keys, values, attn_mask=visible, enable_gqa=True
        )
        return mixed.transpose(1, 2).flatten(2), (keys, values)

    return attend


def without_cache(ones, first):
    seen = ones.tril(first)
    seen[:, :first] = False
    return seen


def from_second(ones, first):
    seen = ones.tril(first)
    seen[1 - first if first < 1 else 0 :, 0] = False
    return seen


ATTENTION_FAULTS = {
    "sees the next": (attention_with(mask=lambda ones, first: ones.tril(first + 1)), "next one"),
    "first unseen": (attention_with(mask=from_second), "the first token is not seen"),
    "no mask": (attention_with(mask=lambda ones, first: ones), "a token sees all that follow"),
    "no cache": (
        attention_with(
            mask=lambda ones, first: ones.tril(first).triu(first) if first else ones.tril()
        ),
        "do not see the cache",
    ),
    "off by two": (attention_with(turn=lambda at, first: at + 2), "positions are off by +2"),
    "from 0 in each call": (
        attention_with(turn=lambda at, first: at - first),
        "positions begin at 0 again in every call",
    ),
    "queries only": (
        attention_with(turn=lambda at, first: at, query_turn=lambda at, first: at + 1),
        "in the queries, positions are off by +1",
    ),
    "not rotated": (attention_with(frequency=0.0), "the keys are not rotated"),
}


def test_the_other_attention_is_right_without_a_fault(model):
    assert find(model, EagerProbe(model, attend=attention_with())) is None


@pytest.mark.parametrize("name", ATTENTION_FAULTS)
def test_the_cause_of_a_wrong_attention(model, name):
    attend, says = ATTENTION_FAULTS[name]
    found = find(model, EagerProbe(model, attend=attend))
    assert found.operator == f"{STEM}.self_attn (attention)"
    assert says in found.detail
    assert found.others == ()


GATES = {
    "it is a GELU": lambda gate, up: functional.gelu(gate) * up,
    "gate and up are exchanged": lambda gate, up: functional.silu(up) * gate,
    "sigmoid alone": lambda gate, up: gate.sigmoid() * up,
}


@pytest.mark.parametrize("says", GATES)
def test_the_cause_of_a_wrong_gate(model, says):
    held = {}

    def edit(name, value):
        held[name] = value
        if name != f"{STEM}.mlp.activation":
            return value
        return GATES[says](held[f"{STEM}.mlp.gate_proj"], held[f"{STEM}.mlp.up_proj"])

    found = find(model, EagerProbe(model, edit))
    assert found.operator == f"{STEM}.mlp (silu and product)"
    assert says in found.detail


def test_a_residual_that_is_left_out(model):
    held = {}

    def edit(name, value):
        held[name] = value
        return held[f"{STEM}.mlp.down_proj"] if name == f"{STEM}.residual_mlp" else value

    found = find(model, EagerProbe(model, edit))
    assert found.operator == f"{STEM} (sum after mlp)"
    assert "the residual is left out" in found.detail


def test_rows_of_the_table_that_no_text_held_are_looked_up_once_more(model):
    artifact = tiny.random_llama(CONFIG)
    table = artifact.requires_grad_(False).get_parameter("model.embed_tokens.weight")
    table.data[[300, 400]] = table.data[[400, 300]]
    probe = EagerProbe(artifact)
    found = find(model, probe)
    assert probe.calls[1:] == [[2]]
    assert (found.layer, found.operator) == (None, "model.embed_tokens")
    assert "the vocabulary's rows 300 and 400 are swapped" in found.detail
    assert found.others == ("lm_head",)


def test_an_untied_head_alone_is_the_heads_fault():
    config = dataclasses.replace(CONFIG, tie_word_embeddings=False)
    right, artifact = tiny.random_llama(config), tiny.random_llama(config)
    weight = artifact.requires_grad_(False).get_parameter("lm_head.weight")
    weight.data[[300, 400]] = weight.data[[400, 300]]
    found = find(right, EagerProbe(artifact), config=config)
    assert found.operator == "lm_head"
    assert "the vocabulary's rows 300 and 400 are swapped" in found.detail
    assert found.others == ()


def test_every_weight_of_the_model_is_checked_once():
    names = [
        getattr(operator, "weight", f"{operator.name}.weight") for operator in operators(CONFIG)
    ]
    with torch.device("meta"):
        parameters = set(tiny.Llama(CONFIG).state_dict()) - {"lm_head.weight"}
    assert parameters <= set(names)
    untied = dataclasses.replace(CONFIG, tie_word_embeddings=False)
    assert "lm_head.weight" in {getattr(one, "weight", "") for one in operators(untied)}


def test_relative_errors_of_what_is_no_number():
    one, nan, inf = torch.ones(1), torch.tensor([math.nan]), torch.tensor([math.inf])
    zero = torch.zeros(1)
    assert relative_error(one, one, zero) == 0
    assert relative_error(one, nan, one) == math.inf
    assert relative_error(nan, one, one) == math.inf
    assert relative_error(nan, nan, one) == 0
    assert relative_error(one, inf, one) == math.inf
    assert relative_error(one, 3 * one, 4 * one) == 0.5
    assert relative_error(one, 3 * one, zero) > 1e30


def test_an_explanation_must_fit_much_better_than_the_right_result():
    expected = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert is_explained(expected, expected * (1 + 1e-6), 1.0, 1e-5)
    assert not is_explained(expected, expected * 1.1, 1.0, 1e-5)
    assert not is_explained(expected, torch.full_like(expected, math.nan), 1.0, 1e-5)
