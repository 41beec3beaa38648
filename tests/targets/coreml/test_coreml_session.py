"""The Core ML session: any order of its ways gives what the tokens alone give, in all forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes.coreml import (
    CACHES,
    CONTEXT,
    FORMS,
    LAYERS,
    PREFILL_TOKENS,
    VOCAB,
    FakePackage,
    expected_cache,
    expected_logits,
    spec_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_export.bundle.graph_spec import TensorSpec
from llama_export.errors import BundleError, PromptError
from llama_export.targets.coreml.running import calls
from llama_export.targets.coreml.running.session import CoremlSession

TOKENS = [int(token) for token in np.random.default_rng(1).integers(0, VOCAB, 600)]


def session_of(form: str, package=None) -> CoremlSession:
    return CoremlSession(package or FakePackage(form), spec_of(form))


def same(session: CoremlSession, tokens: list[int], logits: np.ndarray) -> bool:
    """Whether a session has just given, and holds, what these tokens alone give."""
    pairs = zip(
        (rows for layer in range(LAYERS) for rows in session.cache(layer)),
        (rows for layer in range(LAYERS) for rows in expected_cache(tokens, layer)),
        strict=True,
    )
    return (
        session.position == len(tokens)
        and np.array_equal(logits, expected_logits(tokens))
        and all(np.array_equal(one, other) for one, other in pairs)
    )


@pytest.fixture(params=FORMS)
def form(request) -> str:
    return request.param


def test_what_a_session_says_of_itself(form):
    session = session_of(form)
    assert (session.vocab_size, session.max_context, session.num_layers) == (VOCAB, CONTEXT, LAYERS)
    assert session.position == 0
    key, value = session.cache(1)
    assert key.shape == value.shape == (2, 0, 3)
    assert key.dtype == np.float32


def test_a_prompt_and_steps_give_what_the_tokens_give(form):
    session = session_of(form)
    for length in (1, 19, 20, 21, 37, CONTEXT):
        logits = session.prefill(TOKENS[session.position : length])
        assert logits.dtype == np.float32
        assert logits.shape == (VOCAB,)
        assert same(session, TOKENS[:length], logits)
    with pytest.raises(PromptError, match="1 more tokens do not fit"):
        session.prefill([1])
    assert session.position == CONTEXT


def test_the_oracle_sees_every_token_and_its_place():
    """The twin of every equality here: what `expected_logits` depends on."""
    right = expected_logits(TOKENS[:20])
    for place in (0, 7, 19):
        changed = list(TOKENS[:20])
        changed[place] = (changed[place] + 1) % VOCAB
        assert not np.array_equal(right, expected_logits(changed))
    assert not np.array_equal(right, expected_logits(TOKENS[1:20] + TOKENS[:1]))
    assert not np.array_equal(right, expected_logits(TOKENS[:19]))


# --- Any sequence of a session's ways ---

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("prefill"), st.integers(1, 20)),
        st.tuples(st.just("fail"), st.integers(1, 20)),
        st.tuples(st.just("rewind"), st.floats(0, 1)),
        st.tuples(st.just("fork"), st.integers(0, 5)),
        st.tuples(st.just("switch"), st.integers(0, 5)),
        st.tuples(st.just("keep"), st.just(0)),
        st.tuples(st.just("restore"), st.just(0)),
    ),
    min_size=3,
    max_size=20,
)


class Conversations:
    """Sessions over one package, each with the tokens that it must hold."""

    def __init__(self, form: str, package: FakePackage) -> None:
        self.package = package
        self.all = [(CoremlSession(package, spec_of(form)), [])]
        self.number = 0
        self.kept = ([self.all[0][0].cache(layer) for layer in range(LAYERS)], [])
        self.next_token = 0

    def do(self, name: str, value: float) -> None:
        session, tokens = self.all[self.number]
        if name in ("prefill", "fail"):
            new = [TOKENS[self.next_token + place] for place in range(int(value))]
            self.next_token += len(new)
            new = new[: CONTEXT - len(tokens)]
            if not new:
                return
            if name == "fail":
                self.package.fail_at = 1 + int(value) % 2
                try:
                    logits = session.prefill(new)
                except RuntimeError:
                    assert session.position == len(tokens)
                    self._check_cache()
                    return
                finally:
                    self.package.fail_at = 0
            else:
                logits = session.prefill(new)
            tokens += new
            assert same(session, tokens, logits)
        elif name == "rewind":
            del tokens[round(value * len(tokens)) :]
            session.rewind(len(tokens))
        elif name == "fork":
            self.all.append((session.fork(), list(tokens)))
        elif name == "switch":
            self.number = int(value) % len(self.all)
        elif name == "keep":
            self.kept = ([session.cache(layer) for layer in range(LAYERS)], list(tokens))
        else:
            session.restore(self.kept[0])
            tokens[:] = self.kept[1]
        self._check_cache()

    def _check_cache(self) -> None:
        for session, tokens in self.all:
            assert session.position == len(tokens)
            for one, other in zip(session.cache(1), expected_cache(tokens, 1), strict=True):
                assert np.array_equal(one, other)


@given(operations=OPERATIONS, form=st.sampled_from(FORMS), piece=st.sampled_from([3, 8, 256]))
@settings(max_examples=200, deadline=None)
def test_any_sequence_gives_what_a_fresh_session_gives(operations, form, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "CHUNK_TOKENS", piece)
        conversations = Conversations(form, FakePackage(form))
        conversations.do("prefill", 7)
        for name, value in operations:
            conversations.do(name, value)


@pytest.mark.parametrize("form", FORMS)
def test_it_goes_on_after_an_error(form, monkeypatch):
    """The second of two pieces fails, when the first has been written."""
    monkeypatch.setattr(calls, "CHUNK_TOKENS", 8)
    package = FakePackage(form)
    session = session_of(form, package)
    session.prefill(TOKENS[:5])
    package.fail_at = 2
    with pytest.raises(RuntimeError, match="out of memory"):
        session.prefill(TOKENS[100:112])
    assert package.fail_at == 0
    assert session.position == 5
    assert np.array_equal(session.cache(0)[1], expected_cache(TOKENS[:5], 0)[1])
    assert same(session, TOKENS[:20], session.prefill(TOKENS[5:20]))


def test_forks_and_kept_caches_are_copies(form):
    session = session_of(form)
    session.prefill(TOKENS[:10])
    kept = [session.cache(layer) for layer in range(LAYERS)]
    other = session.fork()
    session.rewind(4)
    session.prefill(TOKENS[50:60])
    assert same(other, TOKENS[:11], other.prefill(TOKENS[10:11]))
    third = session_of(form)
    third.restore(kept)
    for rows in kept[0]:
        rows[:] = 9
    assert same(third, TOKENS[:11], third.prefill(TOKENS[10:11]))


def test_a_restored_session_has_zeros_behind_its_rows():
    session = session_of("flexible")
    session.prefill(TOKENS[:10])
    kept = [session.cache(layer) for layer in range(LAYERS)]
    session.prefill(TOKENS[10:30])
    session.restore(kept)
    for name in CACHES:
        held = session._caches._state.read_state(name)
        assert held.dtype == np.float16
        assert held[:, :, :, :10].all()
        assert not held[:, :, :, 10:].any()


@pytest.mark.parametrize("form", FORMS)
def test_what_a_runner_holds_in_float32_is_not_rounded(form):
    session = session_of(form, FakePackage(form, dtype=np.float32))
    session.prefill(TOKENS[:3])
    exact = [
        tuple(rows + np.float32(2**-15) for rows in session.cache(layer)) for layer in range(LAYERS)
    ]
    session.restore(exact)
    assert np.array_equal(session.cache(1)[0], exact[1][0])
    # Its twin: what float16 would have made of it.
    assert not np.array_equal(exact[1][0].astype(np.float16), exact[1][0])


def test_a_restore_that_fails_leaves_the_conversation(form):
    class Torn(list):
        def __getitem__(self, index):
            if index == 1 and self.armed:
                message = "no memory for the second layer"
                raise MemoryError(message)
            return super().__getitem__(index)

    session = session_of(form)
    session.prefill(TOKENS[:9])
    layers = Torn([session.cache(layer) for layer in range(LAYERS)])
    session.rewind(4)
    layers.armed = True
    with pytest.raises(MemoryError):
        session.restore(layers)
    assert same(session, TOKENS[:4] + TOKENS[20:22], session.prefill(TOKENS[20:22]))
    layers.armed = False
    session.restore(layers)
    assert same(session, TOKENS[:10], session.prefill(TOKENS[9:10]))


def test_another_models_cache_is_refused(form):
    session = session_of(form)
    session.prefill(TOKENS[:4])
    for bad in ([session.cache(0)], [(rows[0], rows[1][:, :2]) for rows in [session.cache(0)] * 2]):
        with pytest.raises(PromptError, match="this cache does not fit"):
            session.restore(bad)
    with pytest.raises(PromptError, match="position 5: the cache holds 4"):
        session.rewind(5)
    for tokens in ([], [VOCAB], [-1]):
        with pytest.raises(PromptError):
            session.prefill(tokens)
    assert same(session, TOKENS[:5], session.prefill(TOKENS[4:5]))


# --- How the functions are called ---


@pytest.mark.parametrize("form", ["flexible", "io"])
def test_a_long_prompt_goes_in_pieces(form):
    """All rows of logits come out, 256 kB each at 1B."""
    package = FakePackage(form, context=600)
    session = CoremlSession(package, spec_of(form, context=600))
    logits = session.prefill(TOKENS[:513])
    assert np.array_equal(logits, expected_logits(TOKENS[:513]))
    assert [shapes["inputIds"] for _, shapes in package.calls] == [(1, 256), (1, 256), (1, 1)]
    name, lengths = {
        "flexible": ("causalMask", [256, 512, 513]),
        "io": ("keyCache", [1, 257, 513]),
    }[form]
    assert [shapes[name][3] for _, shapes in package.calls] == lengths


@pytest.mark.parametrize("form", ["flexible", "io"])
def test_the_logits_do_not_keep_a_calls_rows_alive(form):
    logits = session_of(form).prefill(TOKENS[:9])
    assert logits.base is None or logits.base.nbytes == logits.nbytes


def test_full_chunks_then_padding_then_single_steps():
    package = FakePackage("fixed")
    session = session_of("fixed", package)
    for count, names in [
        (2 * PREFILL_TOKENS, ["prefill"] * 2),
        (1, ["decode"]),
        (PREFILL_TOKENS + 2, ["prefill"] * 2),
        (PREFILL_TOKENS + 1, ["prefill", "decode"]),
        (3, ["decode"] * 3),  # a padded chunk would end behind the context
        (1, ["decode"]),
    ]:
        del package.calls[:]
        before = session.position
        logits = session.prefill(TOKENS[before : before + count])
        assert same(session, TOKENS[: before + count], logits)
        assert [name for name, _ in package.calls] == names
    assert session.position == CONTEXT


@pytest.mark.parametrize(("over", "names"), [(0, ["prefill"]), (1, ["decode"] * 5)])
def test_a_chunk_that_just_fits_the_context(over, names):
    package = FakePackage("fixed")
    session = session_of("fixed", package)
    start = CONTEXT - PREFILL_TOKENS + over
    session.prefill(TOKENS[:start])
    del package.calls[:]
    logits = session.prefill(TOKENS[start : start + 5])
    assert [name for name, _ in package.calls] == names
    assert same(session, TOKENS[: start + 5], logits)


# --- Twins: each mistake of a session shows ---


# Of each form: what changes a call's inputs or its state on the way to the package.
def longer_mask(given, state, function):
    given["causalMask"] = np.pad(given["causalMask"], [(0, 0)] * 3 + [(0, 1)])


def hiding_mask(given, state, function):
    given["causalMask"][..., 0] = -65504


def stale_row(given, state, function):
    for array in state.arrays.values():
        array[0, :, :, 2] = np.float16(0.5)


def no_length(given, state, function):
    if function == "prefill":
        given["length"][0] = PREFILL_TOKENS


def next_position(given, state, function):
    given["position"] += 1


def keys_for_values(given, state, function):
    given["keyCache"], given["valueCache"] = given["valueCache"], given["keyCache"]


def a_row_twice(given, state, function):
    for name in CACHES:
        given[name][:, :, :, -1] = given[name][:, :, :, -2]


def a_full_row_0(given, state, function):
    for name in CACHES:
        given[name][0, :, :, 0] = 1


def other_order(given, state, function):
    given["inputIds"] = given["inputIds"][:, ::-1].copy()


def nothing(given, state, function):
    pass


class Meddler:
    """Changes one thing between a session and its package, but for the first call."""

    def __init__(self, form, change) -> None:
        self.inner = FakePackage(form)
        self.change = change

    def make_state(self):
        return self.inner.make_state()

    def predict(self, inputs, state=None, *, function=None):
        given = {name: value.copy() for name, value in inputs.items()}
        if self.inner.calls:
            self.change(given, state, function)
        return self.inner.predict(given, state, function=function)


FAULTS = [
    *(("flexible", fault) for fault in (longer_mask, hiding_mask, stale_row, other_order)),
    *(("fixed", fault) for fault in (no_length, next_position, stale_row, other_order)),
    *(("io", fault) for fault in (keys_for_values, a_row_twice, a_full_row_0, other_order)),
    *((form, nothing) for form in FORMS),
]


@pytest.mark.parametrize(("form", "fault"), FAULTS)
def test_a_wrong_call_gives_other_logits(form, fault):
    session = session_of(form, Meddler(form, fault))
    right = [
        same(session, TOKENS[:length], session.prefill(TOKENS[session.position : length]))
        for length in (5, 6, 12)
    ]
    assert all(right) == (fault is nothing)


# --- What does not fit ---


def damaged_specs():
    flexible, fixed, io = (spec_of(form) for form in FORMS)
    key, value = flexible.states
    cache = key.shape
    yield replace(flexible, states=())
    yield replace(flexible, states=(key,))
    yield replace(flexible, states=(value, key))
    yield replace(flexible, states=tuple(replace(one, shape=cache[1:]) for one in (key, value)))
    yield replace(flexible, states=(key, replace(value, shape=(3, *cache[1:]))))
    yield replace(
        flexible, states=tuple(replace(one, shape=("L", *cache[1:])) for one in (key, value))
    )
    yield replace(
        flexible, states=tuple(replace(one, shape=(0, *cache[1:])) for one in (key, value))
    )
    yield replace(flexible, max_context=CONTEXT + 1)
    yield replace(flexible, outputs=())
    yield replace(flexible, outputs=(TensorSpec("logits", "float16", (1, "rows", "V")),))
    yield replace(flexible, outputs=(TensorSpec("logits", "float16", (1, VOCAB)),))
    yield replace(flexible, kv_cache="other")
    yield replace(fixed, functions={"prefill": 8})
    yield replace(fixed, functions={"prefill": 8, "decode": 2})
    yield replace(fixed, functions={"prefill": 0, "decode": 1})
    yield replace(io, inputs=io.inputs[:1])
    yield replace(io, inputs=(io.inputs[0], *flexible.states))
    yield replace(io, functions={"prefill": 8, "decode": 1})


@pytest.mark.parametrize("spec", list(damaged_specs()))
def test_a_signature_that_does_not_fit_is_refused(spec):
    with pytest.raises(BundleError, match=r"manifest\.json: the graph is not") as caught:
        CoremlSession(FakePackage("flexible"), spec)
    assert caught.value.hint == "export the bundle again"


@pytest.mark.parametrize("form", FORMS)
def test_an_output_that_does_not_fit_is_refused(form):
    class Other(FakePackage):
        def predict(self, inputs, state=None, *, function=None):
            results = super().predict(inputs, state, function=function)
            results["logits"] = results["logits"][:, :, 1:]
            return results

    session = session_of(form, Other(form))
    with pytest.raises(BundleError, match=r"'logits': expected the shape \(1, 1, 11\), found"):
        session.prefill([1])
    assert session.position == 0

    class Without(FakePackage):
        def predict(self, inputs, state=None, *, function=None):
            return {}

    with pytest.raises(BundleError, match="found nothing"):
        session_of(form, Without(form)).prefill([1])


class TypesSeen(FakePackage):
    """Remembers of which types its caches were given."""

    def predict(self, inputs, state=None, *, function=None):
        self.types = {inputs[name].dtype for name in ("keyCache", "valueCache")}
        return super().predict(inputs, state, function=function)


def test_a_restored_cache_is_of_the_type_that_the_runner_holds():
    """Rows of an unrounded evaluator, given to one that rounds, are rounded and go on."""
    third = np.full((2, 2, 3), 1 / 3, dtype=np.float32)  # float16 does not hold it
    for dtype in (np.float16, np.float32):
        runner = TypesSeen("io", dtype=dtype)
        session = CoremlSession(runner, spec_of("io"))
        session.restore([(third, third), (third, third)])
        session.prefill([4])
        assert runner.types == {np.dtype(dtype)}
