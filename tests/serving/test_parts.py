"""The parts of the server by themselves: turns, the queue, kept sessions, what ends an answer."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref

import numpy as np
import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import opened

from llama_export.serving import job as job_module
from llama_export.serving.engine import Engine
from llama_export.serving.gate import Line
from llama_export.serving.guides import ChanceRecorder
from llama_export.serving.job import Job, Piece
from llama_export.serving.pool import CacheBudget, SessionPool
from llama_export.serving.refusals import ApiError
from llama_export.serving.settings import ServerSettings
from llama_export.serving.text_request import TextRequest
from llama_export.serving.turns import FairQueue, Turns
from llama_export.serving.wording import Usage

PROMPT = "Once upon a time there was a poor woman who had two sons and a cow, and she said"


def order_of_steps(turns: Turns, names: str, steps: int) -> str:
    """Return who made each step, where all wait before the first."""
    order: list[str] = []

    def work(name: str) -> None:
        with turns.held():
            for _ in range(steps):
                order.append(name)
                turns.pass_on()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    with turns.held():
        for each in threads:
            each.start()
        while len(turns._waiting) < len(threads):
            time.sleep(0.001)
    for each in threads:
        each.join()
    return "".join(order)


def test_turns_go_round():
    order = order_of_steps(Turns(), "abc", 4)
    assert set(order[:3]) == set("abc")
    assert order == order[:3] * 4


def test_a_turn_may_be_longer_than_a_step():
    assert order_of_steps(Turns(slice_s=60), "ab", 3) in ("aaabbb", "bbbaaa")


def test_a_client_with_many_requests_does_not_keep_the_others_waiting():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.push(item[0], item)
    assert queue.remove("a", "a2")
    assert not queue.remove("a", "a2")
    assert not queue.remove("d", "d1")
    assert len(queue) == 5
    assert [queue.pop() for _ in range(5)] == ["a1", "b1", "c1", "a3", "b2"]
    with pytest.raises(IndexError):
        queue.pop()


def test_chances_are_logarithms_of_probabilities():
    recorder = ChanceRecorder(2)
    recorder.see(np.log(np.array([0.1, 0.6, 0.3], dtype=np.float32)) + 5)
    recorder.draw(2)
    (found,) = recorder.collect()
    assert found.logprob == pytest.approx(np.log(0.3), abs=1e-5)
    assert [token for token, _ in found.likeliest] == [1, 2]
    assert recorder.collect() == ()


@pytest.fixture
def root(demo_bundle):  # noqa: F811
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    with opened(demo_bundle).session as session:
        yield session


@pytest.mark.onnx
def test_the_session_with_the_longest_beginning_is_taken(root):
    pool = SessionPool(root, CacheBudget(2**30, 6144))
    ids = list(range(100, 140))
    first = pool.take(ids)
    assert first.position == 0
    first.logits(ids)
    pool.put_back(first)
    # A text that goes on takes it; one that shares a part copies that, and leaves it.
    longer = pool.take([*ids, 5, 6])
    assert longer is first
    pool.put_back(longer)
    assert pool.take([7] * 40).position == 0
    other = pool.take([*ids[:-9], *[7] * 20])
    assert other is not first
    assert other.tokens == tuple(ids[:-9])
    assert first.tokens == tuple(ids)
    assert pool.kept_tokens == len(ids)


@pytest.mark.onnx
def test_what_is_kept_stays_within_the_budget(root):
    pool = SessionPool(root, CacheBudget(2 * 512 * 6144, 6144))
    for token in range(4):
        session = pool.take([token] * 30)
        session.logits([token] * 30)
        pool.put_back(session)
        assert pool.kept_bytes <= 2 * 512 * 6144
    assert pool.kept_tokens == 60
    assert pool.take([3] * 40).position == 30
    assert pool.take([0] * 40).position == 0, "the oldest one went"
    none = SessionPool(root, CacheBudget(0, 6144))
    session = none.take([1] * 30)
    session.logits([1] * 30)
    none.put_back(session)
    assert none.kept_tokens == 0
    # It is emptied for the next conversation, which need not wait for another one to be made.
    assert none.take([1] * 40) is session
    assert session.position == 0
    second = none.take([2] * 40)
    for each in (session, second):
        each.logits([2] * 30)
        none.put_back(each)
    assert second.is_closed, "one is enough"
    none.close()
    assert session.is_closed


@pytest.mark.onnx
def test_no_memory_keeps_nothing_although_it_is_not_known_what_a_cache_takes(root):
    pool = SessionPool(root, CacheBudget(0, 0))
    session = pool.take([1] * 30)
    session.logits([1] * 30)
    pool.put_back(session)
    assert pool.kept_tokens == 0
    assert pool.take([1] * 40).position == 0


@pytest.mark.onnx
def test_what_a_session_has_held_counts_when_it_forgets_it(root):
    pool = SessionPool(root, CacheBudget(2**30, 1))
    long = list(range(100, 800))
    session = pool.take(long)
    session.logits(long)
    pool.put_back(session)
    assert pool.kept_bytes == 1024
    short = pool.take([*long[:50], *[7] * 20])
    short.logits([*long[:50], *[7] * 20])
    pool.put_back(short)
    assert pool.kept_bytes == 2048, "a copy of the long one"
    assert pool.kept_tokens == 700 + 70


@pytest.mark.onnx
def test_a_session_whose_buffers_have_grown_is_not_kept_empty(root):
    pool = SessionPool(root, CacheBudget(0, 6144))
    session = pool.take([1] * 600)
    session.logits([1] * 600)
    pool.put_back(session)
    assert session.is_closed
    assert pool.take([1] * 30).position == 0


@pytest.mark.onnx
def test_a_runtime_that_keeps_the_interpreter_waits_until_a_piece_is_sent(demo_bundle):  # noqa: F811
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    order: list[str] = []

    async def ask() -> None:
        session = opened(demo_bundle).session
        engine = Engine(
            session,
            ServerSettings(),
            bytes_per_token=6144,
            cache_is_inside=False,
            frees_interpreter=False,
        )
        read = session.cache._session.run.__func__

        def run(self, input_ids):
            order.append("step")
            return read(self, input_ids)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(session.cache._session), "run", run)
            patch.setattr(job_module, "_LONGEST_TELLING_S", 60)
            request = TextRequest((PROMPT,), max_tokens=8, drawing={"temperature": 0})
            async for event in engine.submit(request, "me").events():
                if isinstance(event, Piece):
                    order.append("sent")
        engine.close()

    asyncio.run(ask())
    assert order == ["step", "sent"] * 8


@pytest.mark.onnx
def test_what_was_answered_is_held_by_nothing(demo_bundle):  # noqa: F811
    """A job has its whole text; a timer of ten minutes must not keep thousands of them."""
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")

    async def ask() -> None:
        session = opened(demo_bundle).session
        settings = ServerSettings()
        engine = Engine(session, settings, bytes_per_token=6144, cache_is_inside=False)
        request = TextRequest((PROMPT,), max_tokens=2, drawing={"temperature": 0})
        job = engine.submit(request, "me")
        async for _ in job.events():
            pass
        seen = weakref.ref(job)
        del job
        until = time.monotonic() + 60
        while seen() is not None:
            assert time.monotonic() < until, "something holds it"
            await asyncio.sleep(0.01)  # the worker may not have let go of it yet
            gc.collect()
        engine.close()

    asyncio.run(ask())


def test_a_client_that_does_not_read_holds_up_one_step_alone():
    waits = []

    async def post_all() -> None:
        job = Job(TextRequest(("a",)), "me", asyncio.get_running_loop(), 60)
        job._told.wait = waits.append
        for text in "abc":
            job.post(Piece(0, text))
            job.wait_until_told()

    asyncio.run(post_all())
    assert len(waits) == 1


@pytest.mark.onnx
@pytest.mark.parametrize(("reason", "status"), [("left", 499), ("shutdown", 503), ("late", 504)])
def test_an_answer_ends_before_its_next_token(demo_bundle, monkeypatch, reason, status):  # noqa: F811
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    posted: list[object] = []
    post = Job.post

    def end_at_the_third(job: Job, event: object) -> None:
        posted.append(event)
        if len(posted) == 3:
            job.stop(reason)
        post(job, event)

    monkeypatch.setattr(Job, "post", end_at_the_third)

    async def ask() -> Engine:
        session = opened(demo_bundle).session
        settings = ServerSettings()
        engine = Engine(session, settings, bytes_per_token=6144, cache_is_inside=False)
        request = TextRequest((PROMPT,), max_tokens=200, drawing={"temperature": 0})
        job = engine.submit(request, "me")
        with pytest.raises(ApiError) as ended:
            async for _ in job.events():
                pass
        assert ended.value.status == status
        while engine.active:
            await asyncio.sleep(0.001)
        return engine

    engine = asyncio.run(ask())
    assert [type(each) for each in posted] == [Piece, Piece, Piece, ApiError]
    # Each piece is a token here; of the one after the third, the step was made and nothing drawn.
    assert engine.kept_tokens == len(engine.session.encode(PROMPT)) + 3
    engine.close()
    assert engine.session.is_closed


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (None, "1.500 s"),
        (Usage(5, 0, 3), "1.500 s 5 tokens read, 3 written"),
        (Usage(5, 4, 3, 9, 2), "5 tokens read, 4 of them cached, 3 written, 2 of 9 drafted"),
    ],
)
def test_a_line_of_the_log_has_the_figures_that_there_are(usage, said):
    line = str(Line("req_1", "POST", "/v1/completions", 200, 1.5, usage))
    assert line.startswith("req_1 POST /v1/completions 200 ")
    assert line.endswith(said)
