"""The eager model against transformers' LlamaForCausalLM, each check with twins that must fail."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tolerances import BFLOAT16_EXCESS, FAULT_REL_RMS, FLOAT32_REL_RMS, SAME_MODEL_REL_RMS
from transformers import DynamicCache, LlamaForCausalLM
from transformers import LlamaConfig as HfConfig

from llama_export.llama import attention
from llama_export.llama.config import LlamaConfig, RopeScaling
from llama_export.llama.model import Llama
from llama_export.llama.presets import PRESETS
from llama_export.llama.rope import inverse_frequencies
from llama_export.llama.rope_scaling import LinearScaling, YarnScaling

LONG = 320

BASE = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=RopeScaling(factor=32.0),
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=(1,),
)
SHAPES = {
    "tied GQA scaled": BASE,
    "untied": dataclasses.replace(BASE, tie_word_embeddings=False),
    "MHA": dataclasses.replace(BASE, num_key_value_heads=4),
    "one KV head": dataclasses.replace(BASE, num_key_value_heads=1),
    "unscaled": dataclasses.replace(BASE, rope_scaling=None),
    "yarn": dataclasses.replace(BASE, rope_scaling=YarnScaling(8.0, 64, attention_factor=1.4)),
    "heads of 10": dataclasses.replace(BASE, head_dim=10, rope_scaling=LinearScaling(4.0)),
}


def oracle(config: LlamaConfig) -> LlamaForCausalLM:
    """Build transformers' model with weights large enough for faults to show."""
    torch.manual_seed(7)
    model = LlamaForCausalLM(HfConfig(**config.to_hf(), initializer_range=0.1)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:  # ones would hide a forgotten norm weight
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.requires_grad_(False)


def ours(config: LlamaConfig, reference: LlamaForCausalLM) -> Llama:
    model = Llama(config)
    model.load_state_dict(reference.state_dict())
    return model.eval().requires_grad_(False)


def tokens(count: int, seed: int = 3, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(BASE.vocab_size, (batch, count), generator=generator)


def relative_rms(reference: torch.Tensor, candidate: torch.Tensor) -> float:
    difference = (candidate - reference).double().square().mean()
    return float((difference / reference.double().square().mean()).sqrt())


def in_portions(model: Llama, input_ids: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Return all logits, from a cache that has more slots than tokens."""
    assert sum(sizes) == input_ids.shape[1]
    cache = model.empty_cache(capacity=input_ids.shape[1] + 5, batch_size=input_ids.shape[0])
    logits, position = [], 0
    for portion in input_ids.split(sizes, dim=1):
        rows, cache = model(portion, torch.tensor(position), cache)
        logits.append(rows)
        position += portion.shape[1]
    return torch.cat(logits, dim=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Products this small take longer to hand out than to compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=sorted(SHAPES))
def pair(request):
    config = SHAPES[request.param]
    reference = oracle(config)
    return config, reference, ours(config, reference)


@pytest.fixture(scope="module")
def base():
    reference = oracle(BASE)
    input_ids = tokens(LONG)
    return reference, ours(BASE, reference), input_ids, reference(input_ids).logits


@torch.inference_mode()
def test_prefill_equals_transformers(pair):
    _, reference, model = pair
    input_ids = tokens(LONG, batch=2)
    expected = reference(input_ids).logits
    assert relative_rms(expected, model(input_ids)[0]) < FLOAT32_REL_RMS
    assert relative_rms(expected, in_portions(model, input_ids, [LONG])) < FLOAT32_REL_RMS


@torch.inference_mode()
def test_chunked_prefill_equals_transformers(pair):
    _, reference, model = pair
    input_ids = tokens(LONG)
    logits = in_portions(model, input_ids, [1, 7, 129, 3, 101, LONG - 241])
    assert relative_rms(reference(input_ids).logits, logits) < FLOAT32_REL_RMS


@torch.inference_mode()
def test_300_decode_steps_equal_transformers(base):
    _, model, input_ids, expected = base
    logits = in_portions(model, input_ids, [LONG - 300] + [1] * 300)
    assert relative_rms(expected, logits) < FLOAT32_REL_RMS
    assert torch.equal(expected.argmax(-1), logits.argmax(-1))


@torch.inference_mode()
@pytest.mark.parametrize("name", ["tied GQA scaled", "untied", "MHA"])
def test_bfloat16_is_as_close_as_transformers(name):
    config = SHAPES[name]
    reference = oracle(config)
    rounded = {key: value.bfloat16() for key, value in reference.state_dict().items()}
    exact = LlamaForCausalLM(reference.config).eval().requires_grad_(False)
    exact.load_state_dict(rounded)
    reference.to(torch.bfloat16)
    # `.to` rounds the frequencies too, which `from_pretrained` never does.
    reference.model.rotary_emb.inv_freq = exact.model.rotary_emb.inv_freq
    model = ours(config, reference).to(torch.bfloat16)
    input_ids = tokens(LONG)
    expected = exact(input_ids).logits
    allowed = BFLOAT16_EXCESS * relative_rms(expected, reference(input_ids).logits.float())
    portions = [LONG - 60] + [1] * 60
    assert relative_rms(expected, model(input_ids)[0].float()) < allowed
    assert relative_rms(expected, in_portions(model, input_ids, portions).float()) < allowed
    model.model.inv_freq = inverse_frequencies(config).to(torch.bfloat16).float()
    assert relative_rms(expected, model(input_ids)[0].float()) > allowed


@torch.inference_mode()
def test_positions_beyond_8192_equal_transformers(base):
    reference, model, _, _ = base
    far, length = 9000, 24
    expected, logits = far_logits(reference, model, far, far, length)
    assert relative_rms(expected, logits) < FLOAT32_REL_RMS
    _, late = far_logits(reference, model, far, far + 1, length)
    assert relative_rms(expected, late) > FAULT_REL_RMS
    unscaled = ours(BASE, reference)
    unscaled.model.inv_freq = inverse_frequencies(SHAPES["unscaled"])
    _, plain = far_logits(reference, unscaled, far, far, length)
    assert relative_rms(expected, plain) > FAULT_REL_RMS


def far_logits(reference, model, far, our_far, length):
    """Run both models at `far` over one random past; a real one would cost 9000 tokens."""
    generator = torch.Generator().manual_seed(11)
    # Few loud rows and many silent ones: 9000 equal rows would average every score away.
    loudness = torch.rand(far, 1, generator=generator).pow(8) * 3
    past = [
        torch.randn(2, 1, 2, far, 64, generator=generator) * loudness
        for _ in range(BASE.num_hidden_layers)
    ]
    theirs = DynamicCache()
    cache = model.empty_cache(our_far + length)
    for layer, rows in enumerate(past):
        theirs.update(rows[0], rows[1], layer)
        for slots, row in zip(cache[layer], rows, strict=True):
            slots[:, :, :far] = row
            slots[:, :, far:our_far] = row[:, :, -1:]
    input_ids = tokens(length)
    positions = torch.arange(far, far + length)[None]
    # By position: transformers 5.24 renamed `past_key_values` to `cache`.
    expected = reference(input_ids, None, positions, theirs).logits
    return expected, model(input_ids, torch.tensor(our_far), cache)[0]


def wrong_rope(model, config):
    model.model.inv_freq = inverse_frequencies(dataclasses.replace(config, rope_scaling=None))


def swapped_key_value(model, config):
    attention = model.model.layers[0].self_attn
    attention.k_proj, attention.v_proj = attention.v_proj, attention.k_proj


def wrong_epsilon(model, config):
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-6


def forgotten_norm_weight(model, config):
    torch.nn.init.ones_(model.model.layers[1].input_layernorm.weight)


def gate_and_up_swapped(model, config):
    mlp = model.model.layers[0].mlp
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj


def one_wrong_scale(model, config):
    model.model.layers[1].self_attn.o_proj.weight.mul_(1.01)


@torch.inference_mode()
@pytest.mark.parametrize(
    "fault",
    [
        wrong_rope,
        swapped_key_value,
        wrong_epsilon,
        forgotten_norm_weight,
        gate_and_up_swapped,
        one_wrong_scale,
    ],
)
def test_a_faulty_model_is_told_from_transformers(base, fault):
    reference, _, input_ids, expected = base
    model = ours(BASE, reference)
    fault(model, BASE)
    assert relative_rms(expected, model(input_ids)[0]) > FAULT_REL_RMS


@torch.inference_mode()
@pytest.mark.parametrize("fault", ["stale row", "position off by one", "swapped caches"])
def test_a_faulty_cache_is_told_from_transformers(base, fault):
    _, model, input_ids, expected = base
    half = LONG // 2
    cache = model.empty_cache(LONG + 1)
    _, cache = model(input_ids[:, :half], torch.tensor(0), cache)
    start = half
    if fault == "stale row":
        cache[0][0][:, :, half - 2] = cache[0][0][:, :, half - 3]
    elif fault == "position off by one":
        start = half + 1
    else:
        cache = [(value, key) for key, value in cache]
    logits, _ = model(input_ids[:, half:], torch.tensor(start), cache)
    assert relative_rms(expected[:, half:], logits) > FAULT_REL_RMS


@torch.inference_mode()
def test_slots_from_the_position_on_are_not_read(base):
    _, model, input_ids, _ = base
    clean = in_portions(model, input_ids, [100, LONG - 100])
    cache = model.empty_cache(LONG)
    for key, value in cache:
        key.fill_(1e4)
        value.fill_(1e4)
    first, cache = model(input_ids[:, :100], torch.tensor(0), cache)
    second, _ = model(input_ids[:, 100:], torch.tensor(100), cache)
    assert relative_rms(clean, torch.cat((first, second), dim=1)) < SAME_MODEL_REL_RMS


@torch.inference_mode()
def test_the_model_leaves_its_inputs_alone(base):
    _, model, input_ids, _ = base
    cache = model.empty_cache(8)
    model(input_ids[:, :4], torch.tensor(0), cache)
    assert all(not slots.any() for pair in cache for slots in pair)


@pytest.mark.parametrize(("position", "length"), [(0, 9), (8, 1), (-1, 1), (6, 3)])
def test_an_exceeded_cache_is_refused(base, position, length):
    _, model, input_ids, _ = base
    cache = model.empty_cache(8)
    with pytest.raises(IndexError, match="outside a cache of 8 slots"):
        model(input_ids[:, :length], torch.tensor(position), cache)


def operator_inputs(length=3, position=4, strided=False):
    generator = torch.Generator().manual_seed(5)

    def random(*shape):
        if strided:  # a slice of a wider tensor, as a fused product gives it
            return torch.randn(*shape[:-1], 2 * shape[-1], generator=generator)[..., : shape[-1]]
        return torch.randn(*shape, generator=generator)

    return (
        random(2, length, 4 * 64),
        random(2, length, 2 * 64),
        random(2, length, 2 * 64),
        random(2, 2, 9, 64),
        random(2, 2, 9, 64),
        torch.tensor(position),
        inverse_frequencies(BASE),
    )


@pytest.mark.parametrize("strided", [False, True])
def test_the_operator_equals_its_reference(strided):
    inputs = operator_inputs(strided=strided)
    results = torch.ops.llama_export.attention(*inputs)
    *products, past_key, past_value, position, inv_freq = inputs
    mixed, present = attention.attention_reference(
        *products, (past_key, past_value), position, inv_freq
    )
    for result, expected in zip(results, (mixed, *present), strict=True):
        assert torch.equal(result, expected)


@pytest.mark.parametrize(
    "inputs",
    [operator_inputs(), operator_inputs(length=1, position=8), operator_inputs(strided=True)],
    ids=["chunk", "step", "strided"],
)
def test_the_operator_passes_opcheck(inputs):
    torch.library.opcheck(torch.ops.llama_export.attention.default, inputs)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("3.2-1B", 1_235_814_400),
        ("3.2-3B", 3_212_749_824),
        ("3.1-8B", 8_030_261_248),
        ("3-8B", 8_030_261_248),
    ],
)
def test_unique_parameters(name, parameters):
    with torch.device("meta"):
        model = Llama(PRESETS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert PRESETS[name].num_parameters == parameters


def test_a_tied_head_stays_tied_after_loading():
    model = ours(BASE, oracle(BASE))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    untied = Llama(SHAPES["untied"])
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
