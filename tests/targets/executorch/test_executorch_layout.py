"""The parts of the ExecuTorch target alone: its placeholders, its cuts, its sums."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
from artifacts.executorch_artifacts import (
    CONTEXT,
    INT4,
    INT4_TABLE,
    INT8_ROWS,
    one_layer,
    tiny,
    workshop,
)
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_export.errors import LoweringError
from llama_export.llama import trace as tracing
from llama_export.llama.trace import trace
from llama_export.targets.executorch import sizes
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.reading.describe import describe
from llama_export.targets.executorch.xnnpack.placeholders import (
    MOST_PRODUCTS,
    Product,
    number_in_codes,
    number_in_scales,
)
from llama_export.targets.executorch.xnnpack.plan import (
    HIDDEN,
    KEY,
    LOGITS,
    MIXED,
    QUERY,
    VALUE,
    plan,
)
from llama_export.targets.executorch.xnnpack.product_form import ProductForm, product_form
from llama_export.targets.executorch.xnnpack.segment_module import (
    FIRST_HALVES,
    SECOND_HALVES,
    WHOLE,
    kind_of,
)
from llama_export.targets.executorch.xnnpack.weight_bytes import codes_bytes, scales_bytes
from llama_export.targets.footprint import GRAPH, PADDING
from llama_quantize.scheme import Float, GroupedInt
from llama_quantize.tensor import QuantizedTensor

__all__ = ["tiny", "workshop"]


# --- products: a placeholder's number comes back ---


@given(number=st.integers(1, MOST_PRODUCTS), bits=st.sampled_from([4, 8]))
def test_a_placeholders_number_is_read_back(number, bits):
    product = Product(ProductForm(bits, 8, 64, 32 if bits == 4 else 64), number)
    codes = product.codes
    if bits == 4:  # as XNNPACK packs them: plus 8, the even one low
        shifted = (codes + 8).to(torch.uint8)
        stored = shifted[:, ::2] | (shifted[:, 1::2] << 4)
        scales = product.scales.to(torch.bfloat16)
    else:
        stored, scales = codes, product.scales
    assert number_in_codes(bytes(stored.view(torch.uint8).numpy().tobytes()), bits) == number
    assert number_in_scales(scales.contiguous().view(torch.uint8).numpy().tobytes(), bits) == number


@pytest.mark.parametrize("number", [0, -1, MOST_PRODUCTS + 1])
def test_a_placeholder_has_no_other_numbers(number):
    with pytest.raises(LoweringError, match=f"more than {MOST_PRODUCTS} products"):
        Product(ProductForm(4, 8, 64, 32), number)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (GroupedInt(4, 32), ProductForm(4, 6, 128, 32)),
        (GroupedInt(4, 128), ProductForm(4, 6, 128, 128)),
        (GroupedInt(4, None), ProductForm(4, 6, 128, 128)),
        (GroupedInt(8, None), ProductForm(8, 6, 128, 128)),
    ],
)
def test_a_schemes_form(scheme, expected):
    form = product_form("name", scheme, (6, 128))
    assert form == expected
    assert form.groups * form.group_size == 128


@pytest.mark.parametrize(
    ("scheme", "shape"),
    [
        (Float("bfloat16"), (6, 128)),
        (GroupedInt(8, 64), (6, 128)),
        (GroupedInt(4, 16), (6, 128)),
        (GroupedInt(4, 48), (6, 96)),
        (GroupedInt(4, 64), (6, 96)),
    ],
)
def test_a_scheme_without_a_kernel_is_refused_by_the_weights_name(scheme, shape):
    with pytest.raises(LoweringError, match=r"^this\.weight ") as no:
        product_form("this.weight", scheme, shape)
    assert no.value.hint


# --- weight_bytes: halves of heads ---


def quantised(rows: int, columns: int, bits: int, group: int | None, seed: int) -> QuantizedTensor:
    generator = torch.Generator().manual_seed(seed)
    width = columns // 2 if bits == 4 else columns
    codes = torch.randint(-128, 128, (rows, width), generator=generator).to(torch.int8)
    stored = codes.view(torch.uint8) if bits == 4 else codes
    scheme = GroupedInt(bits, group)
    scales = torch.rand(rows, scheme.groups(columns), generator=generator).to(torch.bfloat16)
    return QuantizedTensor(scheme, (rows, columns), stored, scales)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@settings(deadline=None)
@given(
    heads=st.integers(1, 9),
    half=st.integers(1, 40),
    groups=st.integers(1, 3),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 99),
)
def test_the_halves_of_every_head_make_the_whole(heads, half, groups, bits, seed):
    """Row by row, by hand: row r is of head r // D, and of the first half if r % D < D / 2."""
    head_dim, columns = 2 * half, 32 * groups
    tensor = quantised(heads * head_dim, columns, bits, 32 if bits == 4 else None, seed)
    first = [row for row in range(tensor.shape[0]) if row % head_dim < half]
    second = [row for row in range(tensor.shape[0]) if row % head_dim >= half]
    stored = tensor.scales if bits == 4 else tensor.scales.float()
    every = list(range(tensor.shape[0]))
    for rows, expected in ((FIRST_HALVES, first), (SECOND_HALVES, second), (WHOLE, every)):
        for make, source, prefix in (
            (codes_bytes, tensor.codes, ""),
            (scales_bytes, stored, "scale_"),
        ):
            run = make(tensor, rows, head_dim)
            data = b"".join(run.chunks())
            assert data == bytes_of(source[expected])
            assert run.size_bytes == len(data)
            assert run.key == prefix + hashlib.sha256(data).hexdigest()


def test_a_piece_of_many_rows_comes_in_blocks():
    tensor = quantised(9000, 32, 8, None, 1)
    run = codes_bytes(tensor, WHOLE, 2)
    chunks = list(run.chunks())
    assert [len(chunk) for chunk in chunks] == [4096 * 32, 4096 * 32, 808 * 32]
    assert b"".join(run.chunks()) == b"".join(chunks) == bytes_of(tensor.codes)


# --- plan: where the graph is cut ---


def forms_of(segment, config, shapes):
    scheme = GroupedInt(4, 32)
    return [
        product_form(name, scheme, shapes[name]) if len(shapes[name]) == 2 else None
        for name in segment.weights
    ]


def shapes_of(config) -> dict[str, tuple[int, ...]]:
    from llama_export.llama.model import Llama

    with torch.device("meta"):
        state = Llama(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("config", [TINY, UNTIED, MULTI_HEAD], ids=["tied", "untied", "mha"])
def test_every_weight_stands_in_one_segment(config):
    found = plan(trace(config, 64), all_logits=False)
    names = [name for segment in found.segments for name in segment.weights]
    tied = config.tie_word_embeddings
    # Traced, a tied table goes by one of its two names.
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    assert {found.table, names[-1]} <= tables
    assert (found.table == names[-1]) == tied
    assert set(names[:-1]) == set(shapes_of(config)) - tables
    assert len(names) == len(set(names))
    assert len(found.segments) == config.num_hidden_layers + 1


def test_what_goes_in_and_out_of_the_segments():
    config = dataclasses.replace(TINY, num_hidden_layers=4)
    segments = plan(trace(config, 64), all_logits=False).segments
    first, *middle, last = segments
    assert first.inputs == (HIDDEN,)
    assert first.outputs == (QUERY, KEY, VALUE)
    for segment in middle:
        assert segment.inputs == (HIDDEN, MIXED)
        assert segment.outputs[1:] == (QUERY, KEY, VALUE)
        sums = [step.output for step in segment.steps if step.kind == "add"]
        assert segment.outputs[0] == sums[-1]
    assert last.inputs == (HIDDEN, MIXED)
    assert len(last.outputs) == 1
    assert last.steps[-1].output == last.outputs[0] != LOGITS
    assert [segment.last_row for segment in segments] == [False] * 4 + [True]
    every = plan(trace(config, 64), all_logits=True).segments
    assert [segment.last_row for segment in every] == [False] * 5
    kinds = [step.kind for step in middle[0].steps]
    assert kinds.count("norm") == 2
    assert kinds.count("rotated") == 2
    assert kinds.count("heads") == 1
    assert kinds.count("linear") == 4
    assert {step.epsilon for step in first.steps if step.kind == "norm"} == {config.rms_norm_eps}


def test_layers_that_differ_in_their_weights_alone_are_one_kind():
    config = dataclasses.replace(TINY, num_hidden_layers=4)
    shapes = shapes_of(config)
    segments = plan(trace(config, 64), all_logits=False).segments
    kinds = [
        kind_of(segment, forms_of(segment, config, shapes), config.hidden_size, config.head_dim)
        for segment in segments
    ]
    assert len(set(kinds)) == 3
    assert kinds[1] == kinds[2] == kinds[3]
    assert kinds[0] != kinds[1] != kinds[4]
    # A weight of another form makes another kind.
    forms = forms_of(segments[2], config, shapes)
    place = next(i for i, form in enumerate(forms) if form is not None)
    forms[place] = dataclasses.replace(forms[place], group_size=64)
    other = kind_of(segments[2], forms, config.hidden_size, config.head_dim)
    assert other != kinds[2]
    assert [part.rows for part in kinds[0].products()] == [
        FIRST_HALVES,
        SECOND_HALVES,
        FIRST_HALVES,
        SECOND_HALVES,
        WHOLE,
    ]
    assert kinds[0].rotates
    assert not kinds[4].rotates
    assert (kinds[0].mixed_columns, kinds[1].mixed_columns) == (0, 4 * 64)


def test_an_unknown_node_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(tracing, "SILU", object())
    with pytest.raises(LoweringError, match="silu"):
        plan(trace(TINY, 64), all_logits=False)


# --- sizes: what is said before, against what was written ---

SIZES = {
    "int4": (TINY, INT4, {}),
    "a copy of the table": (TINY, INT4, {"share_table": False}),
    "untied": (UNTIED, INT4, {}),
    "a cache outside": (TINY, INT4, {"kv_cache": "io"}),
    "float16": (TINY, INT4, {"kv_dtype": "float16"}),
    "one layer": (one_layer(), INT4, {}),
    "int8": (TINY, INT8_ROWS, {}),
    "int4 table": (TINY, INT4_TABLE, {}),
    "a copy of the int4 table": (TINY, INT4_TABLE, {"share_table": False}),
    "int4 tables": (UNTIED, INT4_TABLE, {}),
}
SLOW = ("int8", "a copy of the int4 table")


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in SIZES if name not in SLOW),
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
    ],
)
def test_an_estimate_is_what_is_written(workshop, name):
    config, chosen, options = SIZES[name]
    artifact = workshop.tiny(config, chosen, **options)
    weights = artifact.weights
    shapes = {
        each: tuple(weights.get(each).shape) for each in weights.names() if each not in weights.tied
    }
    schemes = {each: weights.scheme(each) for each in shapes}
    guessed = sizes.predict(config, shapes, schemes, CONTEXT, ExecutorchOptions(**options))
    real = describe(artifact.stored)
    assert sum(part.size_bytes for part in real.parts) == artifact.path.stat().st_size
    fitted = (GRAPH, PADDING)
    assert {part for part in guessed.parts if part.kind not in fitted} == {
        part for part in real.parts if part.kind not in fitted
    }
    by_kind = [{part.kind: part.size_bytes for part in parts.parts} for parts in (guessed, real)]
    for kind in fitted:
        assert abs(by_kind[0][kind] - by_kind[1][kind]) < 8000, kind
    assert guessed.kv_bytes_per_token == real.kv_bytes_per_token


def test_memory_grows_with_what_is_packed_alone(workshop):
    weights = workshop.weights(TINY)
    shapes = {
        each: tuple(weights.get(each).shape) for each in weights.names() if each not in weights.tied
    }
    schemes = {each: weights.scheme(each) for each in shapes}
    small = sizes.resident_bytes(shapes, schemes)
    more = {**shapes, "model.layers.2.mlp.up_proj.weight": (256, 128)}
    more_schemes = {**schemes, "model.layers.2.mlp.up_proj.weight": GroupedInt(4, 32)}
    grown = sizes.resident_bytes(more, more_schemes)
    assert grown - small == 256 * (64 + 4 * 2 + 8)
    norm = {**shapes, "model.layers.2.input_layernorm.weight": (128,)}
    assert sizes.resident_bytes(norm, schemes) == small


def test_a_scheme_without_a_kernel_has_no_size(workshop):
    shapes = {"model.layers.0.mlp.up_proj.weight": (256, 128), "lm_head.weight": (512, 128)}
    schemes = {name: GroupedInt(8, 32) for name in shapes}
    with pytest.raises(LoweringError, match="int8 codes in groups of 32"):
        sizes.predict(TINY, shapes, schemes, 128, ExecutorchOptions())
