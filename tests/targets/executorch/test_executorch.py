"""The ExecuTorch target: right to the last bits, its session's ways, and red on each fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from artifacts.executorch_artifacts import (
    CONTEXT,
    INT8_ROWS,
    STOPS,
    Artifact,
    demo_bundle,
    one_layer,
    tiny,
    workshop,
)
from artifacts.opened import session_of
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED, random_tokens

from llama_export.errors import BundleError, PromptError
from llama_export.llama.rope import inverse_frequencies, rope_tables
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.read_back import read_back
from llama_export.targets.executorch.reading.weights import LOOKUP, read_weights
from llama_export.targets.executorch.running.session import ExecutorchSession
from llama_export.targets.executorch.running.shared_table import shared_keys
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.measure.metrics import compare_logits
from llama_quantize.recipe import recipe
from llama_quantize.tensor import QuantizedTensor

pytest.importorskip("executorch", reason="needs the executorch extra")

__all__ = ["demo_bundle", "tiny", "workshop"]

# The products are integers: what is left is float32 in another order. Measured 2e-7 to 5e-7.
SAME_REL_RMS = 1e-5
# A code next to a tie may fall to the other side. Measured: one such row in a hundred, 0.005.
NEAR_REL_RMS = 0.05
TOKENS = random_tokens(TINY, 100)


def rel_rms(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - expected).mean() / np.square(expected).mean()))


def steps(session: ExecutorchSession, tokens: list[int]) -> np.ndarray:
    return np.stack([session.prefill([token]) for token in tokens])


def kl(expected: np.ndarray, found: np.ndarray) -> float:
    return compare_logits(expected, found).kl_max


# --- What it computes ---


def test_every_position_is_the_eager_model_with_the_same_rounding(workshop):
    artifact = workshop.tiny(all_logits=True)
    found = artifact.session().run(TOKENS)
    expected = artifact.expected(TOKENS)
    assert found.shape == (len(TOKENS), TINY.vocab_size)
    rows = [rel_rms(one, other) for one, other in zip(expected, found, strict=True)]
    assert rows[0] < SAME_REL_RMS
    assert sum(row < SAME_REL_RMS for row in rows) > 0.95 * len(rows)
    assert max(rows) < NEAR_REL_RMS
    # Twins: without the rounding, or a position further, it is not.
    assert rel_rms(artifact.expected(TOKENS, exact=True)[0], found[0]) > 100 * SAME_REL_RMS
    assert kl(expected[:-1], found[1:]) > 0.1


def test_the_last_row_alone_is_the_same_row(tiny, workshop):
    last = tiny.session().prefill(TOKENS)
    assert last.shape == (TINY.vocab_size,)
    assert np.array_equal(last, workshop.tiny(all_logits=True).session().run(TOKENS)[-1])


def test_decode_and_odd_chunks_are_prefill(tiny):
    expected = tiny.expected(TOKENS)
    one_by_one = steps(tiny.session(), TOKENS)
    rows = [rel_rms(one, other) for one, other in zip(expected, one_by_one, strict=True)]
    assert sum(row < SAME_REL_RMS for row in rows) > 0.95 * len(rows)
    session = tiny.session()
    chunks = [session.prefill(TOKENS[:33]), session.prefill(TOKENS[33:96])]
    assert rel_rms(expected[[32, 95]], np.stack(chunks)) < NEAR_REL_RMS
    rest = steps(session, TOKENS[96:])
    assert rel_rms(expected[96:], rest) < NEAR_REL_RMS
    session.rewind(95)  # the twin: a position off by one
    assert kl(expected[96:], steps(session, TOKENS[96:])) > 1e-3


def test_the_first_tokens_of_a_trained_model(demo_bundle):
    from llama_export.bundle.bundle import Bundle
    from llama_export.generation.opening import open_session

    text = open_session(demo_bundle)
    ids = text.encode("The witch opened the door, and")
    session = session_of(Bundle.open(demo_bundle))
    assert np.array_equal(text.cache.prefill(ids), session.prefill(ids))
    assert session.vocab_size == 4096
    assert session.num_layers == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "chosen"),
    [
        (UNTIED, recipe("int4")),
        (TINY, INT8_ROWS),
        (one_layer(), recipe("int4", 64)),
        (one_layer(MULTI_HEAD), recipe("int4")),
    ],
    ids=["untied", "int8", "groups of 64", "multi-head"],
)
def test_other_shapes_and_recipes(workshop, config, chosen):
    artifact = workshop.tiny(config, chosen)
    found = steps(artifact.session(), TOKENS[:20])
    expected = artifact.expected(TOKENS[:20])
    assert rel_rms(expected[0], found[0]) < SAME_REL_RMS
    assert rel_rms(expected, found) < NEAR_REL_RMS
    assert kl(expected[:-1], found[1:]) > 0.1
    assert_read_back(artifact)


def test_a_cache_that_is_given_computes_the_same_bits(tiny, workshop):
    inside, given = tiny.session(), workshop.tiny(kv_cache="io").session()
    for part in (TOKENS[:50], TOKENS[50:51], TOKENS[51:]):
        assert np.array_equal(inside.prefill(part), given.prefill(part))
    for layer in range(TINY.num_hidden_layers):
        for one, other in zip(inside.cache(layer), given.cache(layer), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.slow
def test_a_float16_cache_is_near(tiny, workshop):
    wide, narrow = tiny.session(), workshop.tiny(kv_dtype="float16").session()
    expected, found = wide.prefill(TOKENS), narrow.prefill(TOKENS)
    assert not np.array_equal(expected, found)
    assert kl(expected[None], found[None]) < 5e-3
    for one, other in zip(wide.cache(0), narrow.cache(0), strict=True):
        assert other.dtype == np.float32
        # float16 keeps 11 bits.
        assert 0 < rel_rms(one, other) < 2**-11
    given = workshop.tiny(kv_dtype="float16", kv_cache="io").session()
    assert np.array_equal(given.prefill(TOKENS), found)


THREADS = """
import json, sys
from pathlib import Path
import numpy as np
from llama_export.errors import UsageError
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.targets.executorch.running.session import ExecutorchSession
from llama_export.targets.stored import StoredArtifact
artifact = StoredArtifact(Path(sys.argv[1]), GraphSpec.from_json(json.loads(sys.argv[2])))
tokens = range(50)
one = ExecutorchSession.open(artifact, threads=1)
found = one.prefill(tokens)
same = ExecutorchSession.open(artifact, threads=1)
try:
    ExecutorchSession.open(artifact, threads=2)
except UsageError as error:
    print(error.message)
assert np.array_equal(same.prefill(tokens), found)
assert np.array_equal(ExecutorchSession.open(artifact).prefill(tokens), found)
one.rewind(0)
assert np.array_equal(one.prefill(tokens), found)
del one, same
assert np.array_equal(ExecutorchSession.open(artifact, threads=2).prefill(tokens), found)
"""


def in_another_process(program: str, *arguments: object) -> str:
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    variables = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_number_of_threads_belongs_to_the_process(tiny):
    """The toolkit can change it only while no program is loaded: it aborts otherwise."""
    said = in_another_process(THREADS, tiny.path, json.dumps(tiny.spec.to_json()))
    assert said == "--threads: 2 asked for, but a loaded program runs with 1\n"


# --- The session ---


@pytest.fixture(params=["state", "io"])
def artifact(request, workshop) -> Artifact:
    return workshop.tiny() if request.param == "state" else workshop.tiny(kv_cache="io")


def test_a_rewound_session_repeats_itself(artifact):
    session = artifact.session()
    session.prefill(TOKENS[:20])
    first = steps(session, TOKENS[20:30])
    session.rewind(20)
    assert session.position == 20
    assert np.array_equal(first, steps(session, TOKENS[20:30]))
    session.rewind(20)
    assert not np.array_equal(first, steps(session, TOKENS[21:31]))
    for bad in (31, -1):
        with pytest.raises(PromptError, match=f"position {bad}: the cache holds 30"):
            session.rewind(bad)
    assert session.position == 30
    session.rewind(0)
    assert session.cache(0)[0].shape == (2, 0, 64)


def test_forks_that_take_turns_do_not_disturb_each_other(artifact):
    """One program holds one cache; whoever runs puts its own there."""
    ways = [TOKENS[30:50], TOKENS[50:70], TOKENS[70:90]]
    expected = []
    for way in ways:
        alone = artifact.session()
        alone.prefill(TOKENS[:30])
        expected.append(steps(alone, way))
    first = artifact.session()
    first.prefill(TOKENS[:30])
    sessions = [first, first.fork()]
    sessions.append(sessions[1].fork())
    assert [session.position for session in sessions] == [30] * 3
    found = [[], [], []]
    for number in range(20):
        for place in range(3):
            found[place].append(sessions[place].prefill([ways[place][number]]))
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, np.stack(other))
    # What each holds can be read in any order, and rewinding one leaves the others.
    caches = [session.cache(1)[0] for session in sessions]
    sessions[0].rewind(30)
    steps(sessions[0], ways[1])
    assert np.array_equal(sessions[0].cache(1)[0], caches[1])
    for session, cache in zip(sessions[1:], caches[1:], strict=True):
        assert np.array_equal(session.cache(1)[0], cache)
    assert not np.array_equal(caches[0], caches[1])


def test_an_interrupt_while_one_takes_the_place_of_another_loses_nothing(tiny):
    class Interrupting:
        @property
        def shape(self):
            raise KeyboardInterrupt

    first = tiny.session()
    first.prefill(TOKENS[:5])
    second = first.fork()
    first.prefill(TOKENS[5:9])
    wanted = first.cache(0)
    kept = second._own
    second._own = [*kept[:2], Interrupting(), *kept[3:]]
    second._own[0] = kept[0] + 1
    with pytest.raises(KeyboardInterrupt):
        second.prefill(TOKENS[9:10])
    for found, rows in zip(first.cache(0), wanted, strict=True):
        assert np.array_equal(found, rows)


def test_a_fork_outlives_the_session_that_it_came_from(artifact):
    first = artifact.session()
    first.prefill(TOKENS[:30])
    other = first.fork()
    expected = first.prefill(TOKENS[30:40])
    del first
    assert np.array_equal(other.prefill(TOKENS[30:40]), expected)
    # A fork of a fresh session begins with nothing.
    assert artifact.session().fork().prefill(TOKENS[:5]).shape == (TINY.vocab_size,)


def test_a_kept_cache_goes_on_where_it_was(artifact):
    session, other = artifact.session(), artifact.session()
    session.prefill(TOKENS[:40])
    kept = [session.cache(layer) for layer in range(session.num_layers)]
    assert kept[0][0].shape == (2, 40, 64)
    other.prefill(TOKENS[::-1])
    other.restore(kept)
    assert other.position == 40
    assert np.array_equal(other.prefill(TOKENS[40:60]), session.prefill(TOKENS[40:60]))
    # A copy: what ran since then did not change it.
    again = artifact.session()
    again.restore(kept)
    assert np.array_equal(again.cache(1)[1], kept[1][1])
    # The twin: keys for values.
    again.restore([(value, key) for key, value in kept])
    assert not np.allclose(again.prefill(TOKENS[40:60]), session.prefill([TOKENS[0]]))


def test_another_models_cache_is_refused_and_nothing_changes(artifact):
    session = artifact.session()
    session.prefill(TOKENS[:10])
    kept = [session.cache(layer) for layer in range(2)]
    expected = session.prefill(TOKENS[10:12])
    longer = np.zeros((2, CONTEXT + 1, 64), dtype=np.float32)
    bad = {
        "a layer less": kept[:1],
        "none": [],
        "a head less": [(key[:1], value[:1]) for key, value in kept],
        "half a head": [(key[:, :, :32], value[:, :, :32]) for key, value in kept],
        "too long": [(longer, longer)] * 2,
        "one shorter than the other": [(key, value[:, 1:]) for key, value in kept],
        "layers of different lengths": [kept[0], tuple(rows[:, :5] for rows in kept[1])],
    }
    for name, layers in bad.items():
        with pytest.raises(PromptError, match="does not fit") as caught:
            session.restore(layers)
        assert "saved with" in caught.value.hint, name
        assert session.position == 12, name
    session.rewind(10)
    assert np.array_equal(session.prefill(TOKENS[10:12]), expected)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "no tokens"),
        ([-1], "token -1 is outside"),
        ([3, TINY.vocab_size], f"token {TINY.vocab_size} is outside"),
        ([1] * (CONTEXT - 9), f"{CONTEXT - 9} more tokens do not fit: the cache holds 10 of"),
    ],
)
def test_what_cannot_be_run_is_refused_and_nothing_changes(artifact, tokens, message):
    session = artifact.session()
    session.prefill(TOKENS[:10])
    before = session.cache(1)
    with pytest.raises(PromptError, match=message) as caught:
        session.prefill(tokens)
    assert caught.value.hint
    assert session.position == 10
    for one, other in zip(before, session.cache(1), strict=True):
        assert np.array_equal(one, other)
    alone = artifact.session()
    alone.prefill(TOKENS[:10])
    assert np.array_equal(session.prefill(TOKENS[10:12]), alone.prefill(TOKENS[10:12]))


def test_the_whole_context_can_be_used(artifact):
    tokens = random_tokens(TINY, CONTEXT)
    session = artifact.session()
    found = session.prefill(tokens)
    assert session.position == session.max_context == CONTEXT
    assert rel_rms(artifact.expected(tokens)[-1], found) < NEAR_REL_RMS
    with pytest.raises(PromptError, match=f"holds {CONTEXT} of {CONTEXT}"):
        session.prefill([1])
    session.rewind(CONTEXT - 1)
    assert rel_rms(found, session.prefill(tokens[-1:])) < NEAR_REL_RMS


# --- What stands in the file ---


def assert_read_back(artifact: Artifact) -> None:
    """Every code and scale is there, under its weight's name."""
    found = read_back(artifact.path).quantized
    expected = {}
    for name in (*artifact.weights.names(), "lm_head.weight"):
        tensor = artifact.weights.get(name)
        if isinstance(tensor, QuantizedTensor):
            expected[name] = (tensor.codes_sha256(), tensor.scales_sha256())
    assert found == expected


def test_codes_scales_norms_and_rotary_tables_are_read_back(tiny):
    import hashlib

    import torch

    assert_read_back(tiny)
    names = [name for name in tiny.weights.names() if "norm" in name]
    assert read_back(tiny.path).floats == {
        name: hashlib.sha256(tiny.weights.get(name).float().numpy().tobytes()).hexdigest()
        for name in names
    }
    tables = read_back(tiny.path).rotary
    expected = rope_tables(inverse_frequencies(TINY), torch.arange(CONTEXT))
    for name, table in zip(("cos table", "sin table"), expected, strict=True):
        assert np.array_equal(tables[name], table.numpy())


def flipped(artifact: Artifact, folder: Path, at: int) -> Path:
    """Copy the file with one bit of a byte changed; `at` counts from the segments' beginning."""
    pte = Pte.open(artifact.path)
    data = bytearray(artifact.path.read_bytes())
    data[pte.segments_at + at] ^= 0x01
    path = folder / "model.pte"
    path.write_bytes(data)
    return path


def test_each_changed_byte_of_a_weight_is_read_back_under_its_name(tiny, tmp_path):
    pte = Pte.open(tiny.path)
    right = read_back(tiny.path).quantized
    products = read_weights(pte).products
    assert len(products) == 2 * 9 + 1
    for product in products:
        for part, number in enumerate((product.codes_segment, product.scales_segment)):
            segment = pte.segments[number]
            path = flipped(tiny, tmp_path, segment.offset + segment.size_bytes // 2)
            found = read_back(path).quantized
            changed = {name for name in right if found[name] != right[name]}
            shared = {"model.embed_tokens.weight"} if product.weight == "lm_head.weight" else set()
            assert changed == {product.weight} | shared
            assert found[product.weight][1 - part] == right[product.weight][1 - part]


def test_changed_norms_and_rotary_tables_are_seen(tiny, tmp_path):
    pte = Pte.open(tiny.path)
    contents = read_weights(pte)
    right = read_back(tiny.path).floats
    for name, tensor in contents.norms:
        found = read_back(flipped(tiny, tmp_path, pte.constant_at(tensor.constant) + 8)).floats
        assert {key for key in right if found[key] != right[key]} == {name}
    for name, tensor in zip(("cos table", "sin table"), contents.rotary, strict=True):
        path = flipped(tiny, tmp_path, pte.constant_at(tensor.constant) + 3)
        assert not np.array_equal(read_back(path).rotary[name], read_back(tiny.path).rotary[name])


def test_a_tied_table_is_stored_once(tiny, workshop):
    twice = workshop.tiny(share_table=False)
    assert np.array_equal(tiny.session().prefill(TOKENS), twice.session().prefill(TOKENS))
    table = tiny.weights.get("model.embed_tokens.weight")
    saved = twice.path.stat().st_size - tiny.path.stat().st_size
    table_bytes = table.codes.numel() + 4 * table.shape[0]
    assert table_bytes - 512 <= saved <= table_bytes + 512
    assert shared_keys(Pte.open(twice.path)) == {}
    assert shared_keys(Pte.open(workshop.tiny(UNTIED).path)) == {}
    # Two names for the same bytes: the head's segments lie in the constants' segment.
    pte = Pte.open(tiny.path)
    constants = pte.segments[pte.constant_segment[0]]
    head = read_weights(pte).products[-1]
    assert head.weight == "lm_head.weight"
    places = []
    for number in (head.codes_segment, head.scales_segment):
        segment = pte.segments[number]
        assert constants.offset <= segment.offset
        assert segment.offset + segment.size_bytes <= constants.offset + constants.size_bytes
        places.append((segment.offset, segment.size_bytes))
    assert sorted(shared_keys(pte).values()) == sorted(places)
    lookup = next(call for call in pte.calls if call.operator == LOOKUP)
    tables = [pte.tensors[number] for number in lookup.arguments[:2]]
    assert [(pte.constant_at(each.constant), each.size_bytes) for each in tables] == places


def test_a_changed_shared_table_is_not_opened(tiny, tmp_path):
    pte = Pte.open(tiny.path)
    shared = shared_keys(pte)
    assert len(shared) == 2
    for offset, size_bytes in shared.values():
        for at in (offset, offset + size_bytes - 1):
            with pytest.raises(BundleError, match="the tied table is not what") as caught:
                ExecutorchSession.open(StoredArtifact(flipped(tiny, tmp_path, at), tiny.spec))
            assert "export the bundle again" in caught.value.hint
    # A place of its own for the lookup: the two would say different things.
    data = bytearray(tiny.path.read_bytes())
    _, offsets, offsets_at = pte.constant_segment
    lookup = next(call for call in pte.calls if call.operator == LOOKUP)
    constant = pte.tensors[lookup.arguments[0]].constant
    moved = (offsets[constant] + 128).to_bytes(8, "little")
    data[offsets_at + 8 * constant : offsets_at + 8 * constant + 8] = moved
    (tmp_path / "moved.pte").write_bytes(data)
    with pytest.raises(BundleError, match="the tied table is not what"):
        ExecutorchSession.open(StoredArtifact(tmp_path / "moved.pte", tiny.spec))


AGAIN = """
import sys
from pathlib import Path
from artifacts.executorch_artifacts import CONTEXT, STOPS, TINY
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.xnnpack.lower import lower
from llama_export.llama.trace import trace
from llama_quantize.checkpoint.weights import QuantizedWeights
weights = QuantizedWeights.open(Path(sys.argv[1]))
lower(trace(TINY, CONTEXT), weights, Path(sys.argv[2]), ExecutorchOptions(), stop_token_ids=STOPS)
"""


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_in_another_process(tiny, workshop, tmp_path):
    in_another_process(AGAIN, workshop.weights_folder(), tmp_path)
    assert (tmp_path / "model.pte").read_bytes() == tiny.path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.pte"]
    assert TINY.eos_token_id == STOPS
    assert vars(ExecutorchOptions()) == {
        "kv_cache": "state",
        "all_logits": False,
        "kv_dtype": "float32",
        "delegate": "xnnpack",
        "share_table": True,
    }


def test_there_is_one_delegate_call_around_each_two_attentions(tiny, demo_bundle):
    for path, layers in ((tiny.path, 2), (demo_bundle / "model.pte", 6)):
        pte = Pte.open(path)
        operators = [call.operator for call in pte.calls]
        assert operators.count("") == layers + 1
        assert operators.count("llama::custom_sdpa.out") == layers
        assert operators.count("llama::update_cache.out") == 2 * layers
        assert operators.count(LOOKUP) == 1
        assert {name for name, _ in pte.delegates} == {"XnnpackBackend"}
        # No matrix is multiplied outside of a delegate.
        assert not [name for name in operators if "mm" in name or "linear" in name]


def test_the_signature_says_what_the_program_takes_and_gives(tiny, workshop):
    names = ["key_cache_0", "value_cache_0", "key_cache_1", "value_cache_1"]
    spec = tiny.spec
    assert [(each.name, each.dtype, each.shape) for each in spec.inputs] == [
        ("tokens", "int64", (1, "sequence_length")),
        ("input_pos", "int64", (1,)),
    ]
    assert [(each.name, each.dtype, each.shape) for each in spec.outputs] == [
        ("logits", "float32", (1, TINY.vocab_size))
    ]
    assert (spec.kv_cache, spec.max_context, spec.all_logits) == ("state", CONTEXT, False)
    every = workshop.tiny(all_logits=True).spec
    assert every.outputs[0].shape == (1, "sequence_length", TINY.vocab_size)
    assert every.all_logits
    for dtype in ("float32", "float16"):
        given = workshop.tiny(kv_cache="io", kv_dtype=dtype).spec
        assert [each.name for each in given.inputs] == ["tokens", "input_pos", *names]
        assert [each.name for each in given.outputs] == ["logits"]
        assert {each.dtype for each in given.inputs[2:]} == {dtype}
        assert {each.shape for each in given.inputs[2:]} == {(1, CONTEXT, 2, 64)}
        # Changed in place: as outputs they would get other memory, and the caller's stay empty.
        path = workshop.tiny(kv_cache="io", kv_dtype=dtype).path
        assert (len(Pte.open(path).inputs), len(Pte.open(path).outputs)) == (6, 1)
    # The caches inside have these names too: it is how the session finds them.
    inside = {each.name for each in Pte.open(tiny.path).tensors.values() if each.name}
    assert inside == set(names)
