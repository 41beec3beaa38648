"""Drafts that are run ahead: the text is what it would have been, whatever drafts."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from artifacts.demo_bundle import Silent, demo_bundle
from artifacts.served import opened
from artifacts.small_bundle import export_small
from fakes.rows import VOCABULARY, ContextSession
from hypothesis import given, settings
from hypothesis import strategies as st

import llama_export
from llama_export import OnnxOptions, Sampling
from llama_export.cli.chat.wording import answer_line, stats_line
from llama_export.errors import BundleError, PromptError, UsageError
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.generation.decoding import Generation, GenerationStats
from llama_export.generation.draft_length import DraftLength
from llama_export.generation.drafting import NOTHING, DraftModel, PromptLookup, Proposal
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.generation.speculation import Speculator, begin_text
from llama_export.generation.speculation_choice import Speculation, draft_model
from llama_export.serving.engine import Engine
from llama_export.serving.settings import ServerSettings
from llama_export.serving.text_request import TextRequest

GREEDY = Sampling(temperature=0, repetition_penalty=1.0)
STOP = 0


class Always(DraftLength):
    """Runs whatever is drafted, so that no clock has a say."""

    def fork(self):
        return Always()

    def choose(self, kind, most, *, staked):
        return most


class Scripted:
    """Drafts what it is told to."""

    is_free = True

    def __init__(self, *drafts: tuple[int, ...]) -> None:
        self.drafts = list(drafts)
        self.texts: list[tuple[int, ...]] = []

    def begin(self) -> None:
        self.texts.clear()

    def propose(self, tokens, most):
        self.texts.append(tuple(tokens))
        return Proposal(self.drafts.pop(0)[:most]) if self.drafts else NOTHING

    def fork(self) -> Scripted:
        return Scripted(*self.drafts)

    def close(self) -> None:
        self.drafts = []


class Odd:
    """A guide: no token twice in a row; over after a number of tokens."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, [-1]

    @property
    def is_over(self) -> bool:
        return len(self.taken) > self.most

    def look(self, logits):
        return np.where(np.arange(len(logits)) == self.taken[-1], -np.inf, logits)

    def take(self, token) -> None:
        self.taken.append(token)


@dataclass
class Written:
    """A text, and the cache it left behind."""

    tokens: list[int]
    stats: GenerationStats
    held: tuple[int, ...]
    session: ContextSession


def write(
    prompt,
    drafter=None,
    *,
    depth=2,
    sampling=GREEDY,
    max_tokens=40,
    max_context=256,
    guide=None,
    fault="",
    length=None,
) -> Written:
    session = ContextSession(depth, noise=1.0, max_context=max_context, fault=fault)
    cache = PrefixCache(session)
    if drafter is not None:
        cache.speculator = Speculator(drafter, (STOP,), length or Always())
    generation = Generation(
        begin_text(cache, max_tokens),
        prompt,
        sampling=sampling,
        stop_token_ids=(STOP,),
        max_tokens=max_tokens,
        guide=guide,
    )
    tokens = list(generation)
    return Written(tokens, generation.stats, cache.tokens, session)


def small_model(noise: float = 1.0) -> DraftModel:
    return DraftModel(PrefixCache(ContextSession(2, noise=noise)), VOCABULARY)


def likely_text(prompt, count: int, depth: int = 2) -> list[int]:
    """What the model itself would write; with it as a draft, all is accepted."""
    return write(prompt, depth=depth, max_tokens=count).tokens


# Of the smaller models one says what the model itself says, and one often something else.
DRAFTERS = {"lookup": PromptLookup, "same": small_model, "other": lambda: small_model(3.0)}


@settings(max_examples=100, deadline=None)
@given(
    prompt=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30),
    kind=st.sampled_from(sorted(DRAFTERS)),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    penalty=st.sampled_from([1.0, 1.2]),
    seed=st.integers(0, 99),
    max_tokens=st.integers(1, 40),
    room=st.integers(0, 30),
    guided=st.booleans(),
)
def test_any_text_is_what_it_would_have_been(
    prompt, kind, temperature, penalty, seed, max_tokens, room, guided
):
    given_too = {
        "sampling": Sampling(temperature, 0.9, seed=seed, repetition_penalty=penalty),
        "max_tokens": max_tokens,
        "max_context": len(prompt) + room,
    }
    plain, ahead = (
        write(prompt, drafter, guide=Odd(9) if guided else None, **given_too)
        for drafter in (None, DRAFTERS[kind]())
    )
    assert ahead.tokens == plain.tokens
    assert ahead.held == plain.held
    for name in ("stop_reason", "new_tokens", "seed", "prompt_tokens", "reused_tokens"):
        assert getattr(ahead.stats, name) == getattr(plain.stats, name), name
    assert ahead.stats.accepted_tokens <= ahead.stats.drafted_tokens
    assert ahead.session.position <= ahead.session.max_context


@pytest.mark.parametrize("fault", ["rewind does nothing", "rows swapped"])
def test_a_session_that_keeps_what_was_rejected_or_mixes_rows_writes_another_text(fault):
    prompts = [[3, 5, 7, index] for index in range(8)]
    plain = [write(prompt).tokens for prompt in prompts]
    assert [write(prompt, small_model(2.0)).tokens for prompt in prompts] == plain
    wrong = [
        write(prompt, small_model(2.0), fault=fault, max_context=2000).tokens for prompt in prompts
    ]
    assert wrong != plain


def test_one_run_gives_as_many_tokens_as_were_rightly_drafted():
    text = likely_text([3, 5], 9)
    drafter = Scripted(tuple(text[1:4]), (*text[5:7], (text[7] + 1) % VOCABULARY))
    found = write([3, 5], drafter, max_tokens=9)
    assert found.tokens == text
    assert found.session.runs == [2, 4, 4, 1]
    assert (found.stats.drafted_tokens, found.stats.accepted_tokens) == (6, 5)
    assert drafter.texts[0] == (3, 5, text[0])
    assert drafter.texts[1] == (3, 5, *text[:5])


def test_nothing_is_drafted_beyond_the_last_token_or_the_context():
    text = likely_text([3, 5], 30)
    found = write([3, 5], Scripted(tuple(text[1:])), max_tokens=5)
    # The first token comes from the prompt, and the last one is not run.
    assert (found.tokens, found.session.runs) == (text[:5], [2, 4])
    found = write([3, 5], Scripted(tuple(text[1:])), max_context=5)
    assert (found.session.runs, found.stats.stop_reason) == ([2, 3], "context full")


def test_nothing_is_drafted_after_a_stop_token():
    found = write([3, 5], Scripted((7, STOP, 4)), max_tokens=8)
    assert found.session.runs[1] == 2


def test_a_stop_token_ends_a_text_in_the_middle_of_a_draft():
    texts = ([first, second] for first in range(VOCABULARY) for second in range(VOCABULARY))
    for prompt in texts:
        plain = write(prompt, max_tokens=60)
        if plain.stats.stop_reason == "stop token" and 2 < len(plain.tokens) < 12:
            break
    # A wrong guess stands where the model ends its text.
    draft = (*plain.tokens[1:], STOP + 1, 3)
    found = write(prompt, Scripted(draft), max_tokens=60)
    assert (found.tokens, found.stats.stop_reason) == (plain.tokens, "stop token")
    assert found.stats.accepted_tokens == len(plain.tokens) - 1
    assert found.held == plain.held


def test_a_text_that_is_left_keeps_nothing_of_its_draft():
    cache = PrefixCache(ContextSession(2, noise=1.0))
    text = likely_text([3, 5], 6)
    cache.speculator = Speculator(Scripted(tuple(text[1:])), (STOP,), Always())
    generation = Generation(
        begin_text(cache, 6), [3, 5], sampling=GREEDY, stop_token_ids=(STOP,), max_tokens=6
    )
    tokens = iter(generation)
    assert [next(tokens) for _ in range(3)] == text[:3]
    assert cache.tokens == (3, 5, *text[:2])
    assert cache.layers(cache.position)[0][0].shape[1] == 4
    fork = cache.fork()
    assert fork.tokens == cache.tokens
    expected = PrefixCache(ContextSession(2, noise=1.0)).prefill([3, 5, *text[:2], 8])
    for each in (fork, cache):
        assert np.array_equal(each.prefill([8]), expected)


def test_a_draft_is_taken_over_only_where_there_is_one():
    cache = PrefixCache(ContextSession(), max_context=4)
    cache.prefill([1])
    with pytest.raises(PromptError, match="no draft"):
        cache.confirm(2)
    with pytest.raises(PromptError, match="room for 3"):
        cache.run_ahead(2, (3, 4, 5))
    rows = cache.run_ahead(2, (3, 4))
    assert len(rows) == 3
    cache.confirm(3)
    assert cache.tokens == (1, 2, 3)
    cache.rewind(2)
    with pytest.raises(PromptError, match="no draft"):
        cache.confirm(3)


def test_an_artifact_that_gives_the_last_row_alone_is_refused_when_it_runs():
    class LastRow(ContextSession):
        def run(self, input_ids):
            return super().run(input_ids)[-1:]

    cache = PrefixCache(LastRow())
    cache.prefill([1])
    with pytest.raises(BundleError, match="1 rows of logits for 3 tokens"):
        cache.run_ahead(2, (3, 4))


def test_the_rows_of_a_pruned_head_stand_at_their_tokens():
    cache = PrefixCache(ContextSession(), head_tokens=[5, *range(7, 18)])
    cache._session.vocab_size = 18
    cache.prefill([1])
    rows = cache.run_ahead(2, (3,))
    assert all(np.isneginf(row[:5]).all() and np.isneginf(row[6]) for row in rows)
    assert np.isfinite(rows[1][5])


def test_a_run_of_another_conversation_leaves_the_rows_as_they_are():
    class OneBuffer(ContextSession):
        """Gives its results where the last ones were, as a runtime may."""

        buffer = np.zeros((20, VOCABULARY), dtype=np.float32)

        def run(self, input_ids):
            rows = super().run(input_ids)
            self.buffer[: len(rows)] = rows
            return self.buffer[: len(rows)]

    expected = ContextSession()
    expected.run([1])
    cache, other = PrefixCache(OneBuffer()), PrefixCache(OneBuffer())
    cache.prefill([1])
    rows = cache.run_ahead(2, (3, 4))
    other.prefill([9, 8, 7])
    assert np.array_equal(rows, expected.run([2, 3, 4]))


def test_a_closed_cache_closes_what_drafts():
    model = small_model()
    cache = PrefixCache(ContextSession())
    cache.speculator = Speculator(model, (STOP,))
    fork = cache.fork()
    cache.close()
    assert model._cache.is_closed
    assert not fork.speculator.drafter._cache.is_closed


# Lookup.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([], ()),
        ([1], ()),
        ([1, 2, 3, 4], ()),
        ([1, 2, 3, 4, 1, 2], (3, 4, 1)),
        ([1, 2, 8, 8, 8, 1, 2, 9, 9, 9, 1, 2], (9, 9, 9)),  # the latest of equal ones
        ([7, 1, 2, 3, 3, 5, 1, 2, 9, 9, 7, 1, 2], (3, 3, 5)),  # the longest before the latest
        ([4, 4, 4], (4, 4, 4)),
        ([1, 2, 1, 2], (1, 2, 1)),  # in circles
    ],
)
def test_a_text_goes_on_as_it_did(text, expected):
    assert PromptLookup().propose(text, 3).tokens == expected
    growing = PromptLookup()
    for end in range(len(text)):
        growing.propose(text[:end], 3)
    assert growing.propose(text, 3).tokens == expected


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.integers(0, 2), max_size=22))
def test_the_longest_match_is_the_longest_of_all(text):
    """Held against a search that tries every place and every length."""
    expected = ()
    for length in range(min(len(text) - 1, 16), 1, -1):
        ends = [
            end for end in range(length, len(text)) if text[end - length : end] == text[-length:]
        ]
        if ends:
            # Circles go on in themselves.
            longer = list(text)
            while len(longer) < len(text) + 4:
                longer.append(longer[ends[-1] + len(longer) - len(text)])
            expected = tuple(longer[len(text) :])
            break
    assert PromptLookup().propose(text, 4).tokens == expected


def test_another_text_is_looked_up_in_itself_alone():
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 1, 2], 1).tokens == (3,)
    lookup.begin()
    assert lookup.propose([8, 9, 1, 2], 1) == NOTHING


def test_a_longer_match_is_of_another_kind():
    kinds = {
        length: PromptLookup().propose([*range(length), 99, *range(length)], 1).kind
        for length in (2, 4, 8, 16, 30)
    }
    assert sorted(set(kinds.values())) == [2, 3, 4, 5]


def test_a_draft_model_reads_on_where_it_was_and_ends_with_its_context():
    cache = PrefixCache(ContextSession(2), max_context=6)
    model = DraftModel(cache, VOCABULARY)
    first = model.propose([1, 2, 3], 3).tokens
    assert cache._session.runs == [3, 1, 1]
    model.propose([1, 2, 3, first[0], first[1]], 1)
    assert cache._session.runs == [3, 1, 1, 1]  # one token is read again: its logits are wanted
    assert len(model.propose([1, 2, 3, 4, 5], 9).tokens) == 2
    assert len(model.propose([1, 2, 3, 4, 5, 6], 9).tokens) == 1
    assert model.propose([1, 2, 3, 4, 5, 6, 7], 9) == NOTHING


# The real thing.


@pytest.fixture(scope="module")
def exact_demo(tmp_path_factory):
    """Return a bundle of the demo that computes in float32 and gives each position's logits."""
    output = tmp_path_factory.mktemp("rows")
    options = OnnxOptions(all_logits=True, accuracy_level=1)
    request = ExportRequest(
        "demo",
        ("onnx",),
        output,
        options={"onnx": options},
        verify=False,
        keep_weights=False,
        max_context=256,
    )
    return export_bundle(request, Silent()).bundles[0].bundle.folder


def prompts(count: int) -> list[str]:
    words = "a king who lived in the old forest with his dog said happy and sad to find the ball"
    random = np.random.default_rng(7)
    return [" ".join(random.choice(words.split(), 12)) for _ in range(count)]


def differing(bundle, count: int, sampling: Sampling, **drafts) -> tuple[int, int]:
    """Write texts with and without drafts; return how many differ, and the tokens accepted."""
    plain = llama_export.load(bundle, threads=1)
    ahead = llama_export.load(bundle, threads=1, **drafts)
    ahead.cache.speculator.length = Always()
    different = accepted = 0
    for prompt in prompts(count):
        expected = plain.generate(prompt, max_tokens=30, sampling=sampling)
        found = ahead.generate(prompt, max_tokens=30, sampling=sampling)
        different += found.token_ids != expected.token_ids
        different += ahead.tokens != plain.tokens
        accepted += found.stats.accepted_tokens
    return different, accepted


@pytest.mark.onnx
def test_the_demo_writes_the_same(exact_demo):
    different, accepted = differing(exact_demo, 6, GREEDY, lookup=True)
    assert different == 0
    assert accepted > 5


@pytest.mark.onnx
def test_conversations_of_a_server_draft_too(exact_demo):
    """Two at once, in turns, each with its own draft that is run ahead."""
    session = opened(exact_demo, speculation=Speculation()).session
    session.cache.speculator.length = Always()
    plain = llama_export.load(exact_demo, threads=1)
    texts = prompts(4)

    async def ask_all() -> list[tuple[str, int]]:
        engine = Engine(
            session, ServerSettings(parallel=2), bytes_per_token=6144, cache_is_inside=False
        )
        drawing = {"temperature": 0, "repetition_penalty": 1.0}
        jobs = [
            engine.submit(TextRequest((text,), max_tokens=30, drawing=drawing), str(at))
            for at, text in enumerate(texts)
        ]
        for job in jobs:
            async for _ in job.events():
                pass
        engine.close()
        return [(job.ends[0].text, job.ends[0].stats.accepted_tokens) for job in jobs]

    found = asyncio.run(ask_all())
    expected = [plain.generate(text, max_tokens=30, sampling=GREEDY).text for text in texts]
    assert [text for text, _ in found] == expected
    assert sum(accepted for _, accepted in found) > 3


@pytest.mark.onnx
def test_a_seed_draws_the_same(exact_demo):
    different, accepted = differing(exact_demo, 3, Sampling(0.8, 0.95, seed=5), draft=exact_demo)
    assert different == 0
    assert accepted > 10


@pytest.mark.onnx
def test_the_demo_drafts_for_itself(exact_demo):
    different, accepted = differing(exact_demo, 3, GREEDY, draft=exact_demo)
    assert different == 0
    assert accepted > 70  # all but what the last token and the run that drew it cut


@pytest.mark.slow
@pytest.mark.onnx
def test_two_hundred_texts_are_the_same(exact_demo):
    different, accepted = differing(exact_demo, 200, GREEDY, lookup=True)
    assert different == 0
    assert accepted > 1000


@pytest.mark.onnx
def test_a_fork_drafts_too_and_a_second_turn_goes_on(exact_demo):
    with llama_export.load(exact_demo, threads=1, lookup=True) as session:
        session.cache.speculator.length = Always()
        first = session.generate("Once upon a time", sampling=GREEDY, max_tokens=40)
        fork = session.fork()
        fork.cache.speculator.length = Always()
        whole = [*session.encode("Once upon a time"), *first.token_ids]
        for each in (session, fork):
            again = each.generate(whole, sampling=GREEDY, max_tokens=20)
            assert again.stats.reused_tokens == len(whole) - 1
            assert again.stats.drafted_tokens > 0
        fork.close()


@pytest.mark.onnx
def test_a_bundle_that_gives_the_last_row_alone_is_refused(demo_bundle, command):
    for drafts in ({"lookup": True}, {"draft": demo_bundle}):
        with pytest.raises(UsageError, match="the last position alone") as refused:
            llama_export.load(demo_bundle, **drafts)
        assert "--all-logits" in refused.value.hint
    code, _, said = command("generate", demo_bundle, "--prompt", "A king", "--lookup")
    assert (code, "--all-logits" in said) == (2, True)


@pytest.mark.onnx
def test_drafts_come_from_one_place(exact_demo, command):
    with pytest.raises(UsageError, match="not from both"):
        llama_export.load(exact_demo, lookup=True, draft=exact_demo)
    for verb in ("generate", "chat"):
        code, _, said = command(verb, "nowhere", "-p", "a", "--lookup", "--draft", "here")
        assert (code, "choose one" in said) == (2, True)


@pytest.mark.onnx
def test_another_vocabulary_cannot_draft(exact_demo, tmp_path):
    small = export_small(tmp_path, max_context=64) / "onnx"
    with pytest.raises(UsageError, match="cannot draft: its vocabulary has"):
        llama_export.load(exact_demo, draft=small)


def test_a_token_that_means_something_else_is_named(small):
    class Swapped:
        vocab_size = small.vocab_size

        def decode(self, ids):
            return small.decode([{40: 41, 41: 40}.get(each, each) for each in ids])

    cache = PrefixCache(ContextSession())
    with pytest.raises(UsageError, match=r"here cannot draft: its token 40 is '\)', and not '\('"):
        draft_model(cache, Swapped(), small, Path("here"))
    assert cache.is_closed
    assert draft_model(PrefixCache(ContextSession()), small, small, Path("here"))


@pytest.mark.onnx
def test_the_command_says_what_was_drafted(exact_demo, command):
    wanted = ("--prompt", "Once upon a time", "--temp", "0", "-n", "120")
    _, plain, _ = command("generate", exact_demo, *wanted, "--threads", "1")
    for drafts in (("--lookup",), ("--draft", exact_demo)):
        code, text, said = command("generate", exact_demo, *wanted, "--threads", "1", *drafts)
        assert (code, text) == (0, plain)
    code, record, _ = command("generate", exact_demo, *wanted, "--json", "--lookup")
    stats = json.loads(record)["stats"]
    assert 0 <= stats["accepted_tokens"] <= stats["drafted_tokens"]
    code, _, said = command("chat", exact_demo, "-p", "Hello", "--lookup", "-n", "5", stdin=b"")
    assert (code, "tok" in said) == (0, True)


def test_figures_name_drafts_where_there_were_any():
    stats = GenerationStats(9, 12, 0.5, 2.0, "length", drafted_tokens=8, accepted_tokens=5)
    for line in (stats_line(stats), answer_line(stats, 20, 64)):
        assert "(5 of 8 drafted)" in line
    plain = replace(stats, drafted_tokens=0, accepted_tokens=0)
    for line in (stats_line(plain), answer_line(plain, 20, 64)):
        assert "drafted" not in line


__all__ = ["demo_bundle"]
