"""The ONNX target: exact at accuracy level 1, for every recipe and shape, and red on each fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.tiny import MULTI_HEAD, TINY, UNTIED, random_llama, random_tokens, write_checkpoint

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.errors import BundleError, PromptError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.streamed import reference_logits, reference_states
from llama_export.llama.trace import trace
from llama_export.targets.onnx.lowering.client_files import client_settings
from llama_export.targets.onnx.lowering.lower import DATA_FILE, MODEL_FILE, lower
from llama_export.targets.onnx.options import OnnxOptions
from llama_export.targets.onnx.reading.read_back import read_back
from llama_export.targets.onnx.running.session import OnnxSession
from llama_export.targets.own_description import write_settings
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.measure.metrics import compare_logits
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, QuantRule, recipe
from llama_quantize.scheme import GroupedInt

onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx

CONTEXT = 384
EXACT_KL = 1e-6  # float32 against float32: sums in another order


@dataclass(frozen=True)
class Artifact:
    folder: Path
    config: LlamaConfig
    weights: QuantizedWeights
    spec: GraphSpec

    def session(self, *, exact: bool = True) -> OnnxSession:
        return OnnxSession.open(StoredArtifact(self.folder / MODEL_FILE, self.spec), exact=exact)

    def expected(self, tokens: list[int]) -> np.ndarray:
        ids = torch.tensor([tokens])
        return reference_logits(self.config, self.weights.get, ids)[0].numpy()


def build(
    folder: Path,
    config: LlamaConfig,
    chosen: QuantRecipe,
    *,
    all_logits: bool = False,
    max_context: int = CONTEXT,
) -> Artifact:
    checkpoint = HfCheckpoint.open(write_checkpoint(folder / "checkpoint", config))
    (folder / "weights").mkdir()
    quantize_to(folder / "weights", checkpoint, chosen)
    weights = QuantizedWeights.open(folder / "weights")
    out = folder / "out"
    out.mkdir()
    spec = lower(trace(config, max_context), weights, out, OnnxOptions(all_logits=all_logits))
    return Artifact(out, config, weights, spec)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Artifact:
    return build(tmp_path_factory.mktemp("tiny"), TINY, recipe("int4"))


def steps(session: OnnxSession, tokens: list[int]) -> np.ndarray:
    return np.stack([session.prefill([token]) for token in tokens])


def kl(expected: np.ndarray, found: np.ndarray) -> float:
    return compare_logits(expected, found).kl_max


def test_prefill_computes_what_the_eager_model_computes(tiny):
    tokens = random_tokens(TINY, 300)
    found = tiny.session().prefill(tokens)
    assert kl(tiny.expected(tokens)[-1:], found[None]) < EXACT_KL


def test_decode_and_odd_chunks_equal_prefill(tiny):
    tokens = random_tokens(TINY, 300)
    expected = tiny.expected(tokens)
    session = tiny.session()
    found = [session.prefill(tokens[:101]), session.prefill(tokens[101:256])]
    stepped = steps(session, tokens[256:])
    assert kl(expected[[100, 255]], np.stack(found)) < EXACT_KL
    assert kl(expected[256:], stepped) < EXACT_KL
    # The twin: a position off by one is seen.
    session.rewind(255)
    assert kl(expected[256:], steps(session, tokens[256:])) > 1e-4


def run_batch(artifact: Artifact, texts: list[list[int]], steps: list[list[int]]) -> np.ndarray:
    """Feed texts padded on the right, then a column of tokens at a time; `[steps + 1, B, V]`."""
    session = onnxruntime.InferenceSession(artifact.folder / MODEL_FILE)
    outputs = [output.name for output in session.get_outputs()]
    caches = [each for each in session.get_inputs() if each.name.startswith("past")]
    width = max(map(len, texts))
    ids = np.array([text + [7] * (width - len(text)) for text in texts])
    mask = np.array([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    heads, dim = artifact.config.num_key_value_heads, artifact.config.head_dim
    empty = np.zeros((len(texts), heads, 0, dim), np.float32)
    past = {each.name: empty for each in caches}
    found = []
    for column in [*steps, None]:
        feed = {"input_ids": ids, "attention_mask": mask, **past}
        results = dict(zip(outputs, session.run(outputs, feed), strict=True))
        past = {name: results[name.replace("past_key_values", "present")] for name in past}
        found.append(results["logits"][:, -1])
        if column is not None:
            ids = np.array(column)[:, None]
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
    return np.stack(found)


def test_texts_of_unequal_length_in_a_batch_are_what_they_are_alone(tiny):
    texts = [random_tokens(TINY, length, seed) for seed, length in enumerate((40, 1, 17))]
    steps = [[5, 6, 7], [90, 80, 70]]
    together = run_batch(tiny, texts, steps)
    for row, text in enumerate(texts):
        alone = run_batch(tiny, [text], [[column[row]] for column in steps])
        np.testing.assert_allclose(together[:, row], alone[:, 0], atol=1e-5)
    # The twin: a text that is said to be longer than it is ends elsewhere.
    longer = [texts[0], [*texts[1], 7], texts[2]]
    assert np.abs(run_batch(tiny, longer, [])[0, 1] - together[0, 1]).max() > 0.1


def test_the_cache_holds_the_eager_keys_and_values(tiny):
    tokens = random_tokens(TINY, 40)
    session = tiny.session()
    session.prefill(tokens[:33])
    steps(session, tokens[33:])
    states = reference_states(TINY, tiny.weights.get, torch.tensor([tokens]), keep_cache=True)
    for layer, (key, value) in enumerate(states.cache):
        found_key, found_value = session.cache(layer)
        assert np.allclose(found_key, key[0].numpy(), atol=1e-3)
        assert np.allclose(found_value, value[0].numpy(), atol=1e-3)


def test_a_rewound_session_repeats_itself(tiny):
    tokens = random_tokens(TINY, 30)
    session = tiny.session()
    session.prefill(tokens[:20])
    first = steps(session, tokens[20:])
    session.rewind(20)
    assert np.array_equal(first, steps(session, tokens[20:]))


RECIPES = [
    ("int4", TINY),
    ("int4", UNTIED),
    ("int4", MULTI_HEAD),
    ("int8", TINY),
    ("bf16", TINY),
    ("fp16", UNTIED),
    ("bf16", MULTI_HEAD),
]


@pytest.mark.parametrize(("name", "config"), RECIPES)
def test_every_recipe_and_shape_is_exact_at_level_1(tmp_path, name, config):
    artifact = build(tmp_path, config, recipe(name), all_logits=True)
    tokens = random_tokens(config, 256)
    found = artifact.session().run(tokens)
    assert found.shape == (256, config.vocab_size)
    assert kl(artifact.expected(tokens), found) < EXACT_KL
    assert kl(artifact.expected(tokens)[:-1], found[1:]) > 1e-3  # the twin


@pytest.mark.parametrize("group_size", [64, 128])
def test_other_group_sizes(tmp_path, group_size):
    artifact = build(tmp_path, TINY, recipe("int4", group_size))
    tokens = random_tokens(TINY, 64)
    found = artifact.session().prefill(tokens)
    assert kl(artifact.expected(tokens)[-1:], found[None]) < EXACT_KL


def test_level_4_is_near_and_not_equal(tiny):
    tokens = random_tokens(TINY, 64)
    found = tiny.session(exact=False).prefill(tokens)
    assert 0 < kl(tiny.expected(tokens)[-1:], found[None]) < 0.1


def test_codes_and_scales_are_read_back_bit_for_bit(tiny):
    found = read_back(tiny.folder / MODEL_FILE).quantized
    expected = {}
    for name in tiny.weights.names():
        tensor = tiny.weights.get(name)
        if not isinstance(tensor, torch.Tensor):
            expected[name] = (tensor.codes_sha256(), tensor.scales_sha256())
    assert {name: found[name] for name in expected} == expected
    assert set(found) <= set(expected) | {"lm_head.weight"}


def test_the_tied_table_is_stored_once_and_regions_are_page_aligned(tiny):
    proto = onnx.load(str(tiny.folder / MODEL_FILE), load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in proto.graph.initializer
        if tensor.external_data
    }
    stem = "model.embed_tokens.weight"
    assert places[f"{stem}.table"] == places[f"{stem}.codes"]
    assert places[f"{stem}.table_scales"] == places[f"{stem}.scales"]
    assert all(int(place["offset"]) % 4096 == 0 for place in places.values())
    distinct = {place["offset"]: int(place["length"]) for place in places.values()}
    size = (tiny.folder / DATA_FILE).stat().st_size
    assert sum(distinct.values()) <= size < sum(distinct.values()) + 4096 * len(distinct)


def test_the_same_input_gives_the_same_bytes(tiny, tmp_path):
    again = lower(trace(TINY, CONTEXT), tiny.weights, tmp_path, OnnxOptions())
    assert again == tiny.spec
    for name in (MODEL_FILE, DATA_FILE):
        assert (tmp_path / name).read_bytes() == (tiny.folder / name).read_bytes()


def test_the_fused_operators_are_used(tiny):
    proto = onnx.load(str(tiny.folder / MODEL_FILE), load_external_data=False)
    ops = [node.op_type for node in proto.graph.node]
    layers = TINY.num_hidden_layers
    assert ops.count("MatMulNBits") == 5 * layers + 1
    assert ops.count("GroupQueryAttention") == layers
    assert ops.count("SkipSimplifiedLayerNormalization") == 2 * layers
    # A lookup in the table: codes and scales.
    assert ops.count("Gather") == 3
    assert "MatMul" not in ops


def test_a_full_cache_is_refused_and_harms_nothing(tiny):
    session = tiny.session()
    tokens = random_tokens(TINY, CONTEXT)
    session.prefill(tokens)
    with pytest.raises(PromptError, match=f"{CONTEXT} of {CONTEXT}"):
        session.prefill([1])
    assert session.position == CONTEXT
    session.rewind(CONTEXT - 1)
    found = session.prefill(tokens[-1:])
    assert kl(tiny.expected(tokens)[-1:], found[None]) < EXACT_KL


@pytest.mark.parametrize("bad", [[], [-1], [TINY.vocab_size]])
def test_tokens_that_cannot_be_run_are_refused(tiny, bad):
    with pytest.raises(PromptError):
        tiny.session().prefill(bad)


def test_an_artifact_that_the_runtime_cannot_load_is_named(tmp_path, tiny, capfd):
    (tmp_path / MODEL_FILE).write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        OnnxSession.open(StoredArtifact(tmp_path / MODEL_FILE, tiny.spec))
    assert capfd.readouterr().out == ""  # the runtime would announce a second try there


def test_the_runtime_leaves_nothing_in_the_user_s_cache(tmp_path, tiny):
    script = (
        "import sys; from pathlib import Path\n"
        "from llama_export.targets.onnx.running.runtime import load_runtime\n"
        "load_runtime(Path(sys.argv[1]))\n"
    )
    places = {name: str(tmp_path / name) for name in ("HOME", "XDG_CACHE_HOME")}
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | places
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny.folder / MODEL_FILE)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_schemes_that_differ_inside_attention_run_side_by_side(tmp_path):
    mixed = QuantRecipe(
        "mixed",
        (
            QuantRule(r".*\.q_proj\.weight", GroupedInt(4, 64)),
            *recipe("int4").rules,
        ),
    )
    built = build(tmp_path, TINY, mixed)
    tokens = random_tokens(TINY, 40)
    found = built.session().prefill(tokens)[None]
    assert kl(built.expected(tokens)[-1:], found) < EXACT_KL


def test_faults_in_the_artifact_are_seen(tiny, tmp_path):
    """Each of these changes a few bytes; level 1 must show it."""
    tokens = random_tokens(TINY, 300)
    expected = tiny.expected(tokens)[-1:]
    for fault in (swap_nibbles, scale_one_scale, drop_rope_scaling, wrong_epsilon):
        folder = tmp_path / fault.__name__
        folder.mkdir()
        for name in (MODEL_FILE, DATA_FILE):
            (folder / name).write_bytes((tiny.folder / name).read_bytes())
        fault(folder)
        artifact = StoredArtifact(folder / MODEL_FILE, tiny.spec)
        session = OnnxSession.open(artifact, exact=True)
        assert kl(expected, session.prefill(tokens)[None]) > 2 * EXACT_KL, fault.__name__


def region_of(folder: Path, name: str) -> slice:
    proto = onnx.load(str(folder / MODEL_FILE), load_external_data=False)
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    place = {entry.key: entry.value for entry in tensor.external_data}
    return slice(int(place["offset"]), int(place["offset"]) + int(place["length"]))


def edit(folder: Path, name: str, change) -> None:
    data = np.frombuffer((folder / DATA_FILE).read_bytes(), dtype=np.uint8).copy()
    part = region_of(folder, name)
    data[part] = change(data[part])
    (folder / DATA_FILE).write_bytes(data.tobytes())


def swap_nibbles(folder: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight.codes"
    edit(folder, name, lambda codes: (codes << 4) | (codes >> 4))


def scale_one_scale(folder: Path) -> None:
    def change(raw: np.ndarray) -> np.ndarray:
        scales = torch.from_numpy(raw.copy()).view(torch.float16)
        scales[0] *= 1.5
        return scales.view(torch.uint8).numpy()

    edit(folder, "model.layers.0.self_attn.o_proj.weight.scales", change)


def drop_rope_scaling(folder: Path) -> None:
    from dataclasses import replace

    from llama_export.llama.rope import inverse_frequencies, rope_tables

    plain = inverse_frequencies(replace(TINY, rope_scaling=None))
    cos, sin = rope_tables(plain, torch.arange(CONTEXT))
    edit(folder, "cos_cache", lambda _: np.frombuffer(cos.numpy().tobytes(), np.uint8))
    edit(folder, "sin_cache", lambda _: np.frombuffer(sin.numpy().tobytes(), np.uint8))


def wrong_epsilon(folder: Path) -> None:
    proto = onnx.load(str(folder / MODEL_FILE), load_external_data=False)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 1e-2
    (folder / MODEL_FILE).write_bytes(proto.SerializeToString())


def test_onnxruntime_genai_runs_the_artifact_unmodified(tiny, tmp_path):
    genai = pytest.importorskip("onnxruntime_genai", reason="needs onnxruntime-genai")
    tokenizer = load_tokenizer(tiny.folder.parent / "checkpoint")
    for name in (MODEL_FILE, DATA_FILE):
        (tmp_path / name).write_bytes((tiny.folder / name).read_bytes())
    write_settings(tmp_path, client_settings(TINY, CONTEXT, MODEL_FILE, {}))
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.files()["tokenizer.json"])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer.config_keys()))
    prompt = random_tokens(TINY, 24)
    model = genai.Model(str(tmp_path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=64, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(np.array([prompt], dtype=np.int32))
    theirs = []
    for _ in range(16):
        generator.generate_next_token()
        theirs.append(int(generator.get_next_tokens()[0]))
    session = tiny.session(exact=False)
    logits, ours = session.prefill(prompt), []
    for _ in range(16):
        ours.append(int(logits.argmax()))
        logits = session.prefill(ours[-1:])
    assert theirs == ours
    # Text goes in and comes out the same way too.
    text = "Once upon a time"
    assert list(genai.Tokenizer(model).encode(text))[
        -len(tokenizer.encode(text)) :
    ] == tokenizer.encode(text)


def test_random_weights_are_not_degenerate():
    """The oracle has something to say: its logits differ from position to position."""
    model = random_llama(TINY)
    with torch.inference_mode():
        logits, _ = model(torch.tensor([random_tokens(TINY, 64)]))
    assert len(set(logits[0].argmax(-1).tolist())) > 8


def test_buffers_that_grow_keep_what_they_hold(tmp_path):
    """Past 512 slots the cache moves to larger buffers; the logits must not notice."""
    artifact = build(tmp_path, TINY, recipe("int4"), max_context=1300)
    tokens = random_tokens(TINY, 1300)
    session = artifact.session()
    session.prefill(tokens[:500])
    for token in tokens[500:520]:
        logits = session.prefill([token])
    assert kl(artifact.expected(tokens[:520])[-1:], logits[None]) < EXACT_KL
    other = session.fork()
    assert kl(artifact.expected(tokens)[-1:], session.prefill(tokens[520:])[None]) < EXACT_KL
    with pytest.raises(PromptError, match="1300 of 1300"):
        session.prefill([1])
    # The fork has buffers of its own, and begins where it was made.
    assert other.position == 520
    wrong = other.prefill([tokens[521]])
    assert kl(artifact.expected(tokens[:521])[-1:], wrong[None]) > EXACT_KL
    other.rewind(520)
    assert kl(artifact.expected(tokens[:521])[-1:], other.prefill([tokens[520]])[None]) < EXACT_KL


def test_a_kept_cache_goes_on_where_it_was(tiny):
    tokens = random_tokens(TINY, 60)
    session, other = tiny.session(), tiny.session()
    session.prefill(tokens[:40])
    kept = [session.cache(layer) for layer in range(session.num_layers)]
    other.prefill(tokens[::-1])
    other.restore(kept)
    assert other.position == 40
    assert np.array_equal(other.prefill(tokens[40:]), session.prefill(tokens[40:]))
    swapped = [(value, key) for key, value in kept]
    other.restore(swapped)
    assert not np.allclose(other.prefill(tokens[40:]), session.prefill([tokens[0]]))
    for bad in (kept[:1], [], [(key[:1], value[:1]) for key, value in kept]):
        with pytest.raises(PromptError, match="does not fit"):
            other.restore(bad)
    assert other.position == 60


def test_an_interrupt_while_the_buffers_grow_harms_nothing(tmp_path, monkeypatch):
    artifact = build(tmp_path, TINY, recipe("int4"), max_context=600)
    tokens = random_tokens(TINY, 600)
    session = artifact.session()
    session.prefill(tokens[:500])
    bound = []

    class Interrupted(BaseException):
        pass

    real = session._binding.bind_ortvalue_input

    def bind(name, value):
        bound.append(name)
        if len(bound) == 2:
            raise Interrupted
        real(name, value)

    monkeypatch.setattr(session._binding, "bind_ortvalue_input", bind)
    with pytest.raises(Interrupted):
        session.prefill(tokens[500:590])
    monkeypatch.undo()
    assert session.position == 500
    logits = session.prefill(tokens[500:590])
    assert kl(artifact.expected(tokens[:590])[-1:], logits[None]) < EXACT_KL

    def no_memory(*_):
        raise MemoryError

    other = artifact.session()
    other.prefill(tokens[:500])
    monkeypatch.setattr(other, "_allocate", no_memory)
    with pytest.raises(MemoryError):
        other.prefill(tokens[500:590])
    monkeypatch.undo()
    assert kl(artifact.expected(tokens[:510])[-1:], other.prefill(tokens[500:510])[None]) < EXACT_KL
