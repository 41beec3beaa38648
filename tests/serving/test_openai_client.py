"""The server, asked by the real `openai` client: chats, completions, responses, streams, errors."""

from __future__ import annotations

import math

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import running

from llama_export import load
from llama_export.generation.sampling import Sampling
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
openai = pytest.importorskip("openai", reason="needs openai, of the test group")
pytestmark = pytest.mark.onnx

PROMPT = "Once upon a time"
GREEDY = {"model": "demo", "temperature": 0}
MESSAGES = [{"role": "user", "content": "Tell me of the witch."}]
ONE = Sampling(temperature=0)


@pytest.fixture(scope="module")
def server(demo_bundle):  # noqa: F811
    with running(demo_bundle) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def session(demo_bundle):  # noqa: F811
    with load(demo_bundle, threads=1) as found:
        yield found


def chat(client, **options):
    return client.chat.completions.create(messages=MESSAGES, **{**GREEDY, **options})


def chat_ids(session) -> list[int]:
    return session.chat_format.encode(Dialog([Message("user", MESSAGES[0]["content"])]))


def test_a_chat_is_answered_as_the_session_answers_it(client, session):
    done = chat(client, max_completion_tokens=20)
    ours = session.generate(chat_ids(session), max_tokens=20, sampling=ONE)
    (choice,) = done.choices
    assert choice.message.content == ours.text
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    assert done.usage.prompt_tokens == ours.stats.prompt_tokens
    assert done.usage.completion_tokens == 20
    assert done.usage.total_tokens == done.usage.prompt_tokens + 20
    assert done.model == "demo"
    assert done.system_fingerprint.startswith("fp_")
    # The other equality: another prompt gives another text.
    other = client.chat.completions.create(
        messages=[{"role": "user", "content": "Who is the king?"}], max_tokens=20, **GREEDY
    )
    assert other.choices[0].message.content != ours.text


def test_a_stream_has_the_same_text_and_the_usage_at_its_end(client):
    whole = chat(client, max_tokens=20)
    chunks = list(chat(client, max_tokens=20, stream=True, stream_options={"include_usage": True}))
    *parts, last = chunks
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in parts)
    assert parts[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in parts] == [None] * (len(parts) - 1) + ["length"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
    assert text == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    without = list(chat(client, max_tokens=3, stream=True))
    assert without[-1].choices[0].finish_reason == "length"


def test_logprobs_are_those_of_the_drawn_tokens(client, session):
    done = chat(client, max_tokens=8, logprobs=True, top_logprobs=3)
    found = done.choices[0].logprobs.content
    assert "".join(each.token for each in found) == done.choices[0].message.content
    for each in found:
        assert each.bytes == list(each.token.encode())
        best = each.top_logprobs
        assert len(best) == 3
        assert (best[0].token, best[0].logprob) == (each.token, each.logprob)
        assert best[0].logprob >= best[1].logprob >= best[2].logprob
    logits = session.logits(chat_ids(session)).astype("float64")
    expected = logits.max() - logits.max() - math.log(math.fsum(math.e ** (logits - logits.max())))
    assert found[0].logprob == pytest.approx(expected, abs=1e-3)
    streamed = list(chat(client, max_tokens=8, logprobs=True, top_logprobs=3, stream=True))
    parts = [chunk.choices[0].logprobs for chunk in streamed]
    assert [each.token for part in parts if part for each in part.content] == [
        each.token for each in found
    ]
    assert chat(client, max_tokens=2).choices[0].logprobs is None


def test_a_completion_goes_on_from_each_of_its_prompts(client, session):
    prompts = [PROMPT, "The queen saw a light"]
    done = client.completions.create(prompt=prompts, max_tokens=6, n=2, logprobs=2, **GREEDY)
    ours = [session.generate(each, max_tokens=6, sampling=ONE).text for each in prompts]
    assert [each.text for each in done.choices] == [ours[0], ours[0], ours[1], ours[1]]
    assert [each.index for each in done.choices] == [0, 1, 2, 3]
    first = done.choices[0].logprobs
    assert "".join(first.tokens) == ours[0]
    assert first.text_offset[:2] == [0, len(first.tokens[0])]
    assert done.usage.prompt_tokens == sum(len(session.encode(each)) for each in prompts)
    assert done.usage.completion_tokens == 24
    by_ids = client.completions.create(prompt=session.encode(PROMPT), max_tokens=6, **GREEDY)
    assert by_ids.choices[0].text.strip() == ours[0].strip()
    assert len(client.completions.create(prompt=PROMPT, **GREEDY).choices[0].text.split()) <= 16


def test_a_seed_gives_the_same_texts_again_and_each_choice_its_own(client):
    def texts(seed: int) -> list[str]:
        options = {"temperature": 1.0, "seed": seed, "n": 3, "max_tokens": 12}
        return [each.message.content for each in chat(client, **options).choices]

    assert texts(5) == texts(5)
    assert len({*texts(5), *texts(50)}) == 6
    extra = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1}
    assert chat(client, extra_body=extra, temperature=1.0, max_tokens=4)


@pytest.mark.parametrize("stop", [" ", [" ", "xyzzy"]])
def test_a_stop_text_ends_the_answer(client, stop):
    whole = chat(client, max_tokens=20).choices[0]
    cut = chat(client, max_tokens=20, stop=stop, logprobs=True).choices[0]
    assert cut.message.content == whole.message.content.partition(" ")[0]
    assert cut.finish_reason == "stop"
    assert "".join(each.token for each in cut.logprobs.content) == cut.message.content


def test_a_response_and_its_stream(client, session):
    asked = {**GREEDY, "input": MESSAGES[0]["content"], "max_output_tokens": 40}
    done = client.responses.create(**asked)
    ours = session.generate(chat_ids(session), max_tokens=40, sampling=ONE)
    assert done.output_text == ours.text
    assert (done.status, done.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert done.usage.output_tokens == 40
    events = list(client.responses.create(**asked, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == ours.text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    # What the client's own accumulator makes of it, of a text that has an end.
    stop = ours.text[60:70]
    with client.responses.stream(**asked, extra_body={"stop": stop}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") > 5
    assert final.output_text == ours.text.partition(stop)[0]
    told = client.responses.create(
        **{**asked, "input": [{"role": "user", "content": "Hello"}]}, instructions="Be brief."
    )
    dialog = Dialog([Message("system", "Be brief."), Message("user", "Hello")])
    ids = session.chat_format.encode(dialog)
    assert told.output_text == session.generate(ids, max_tokens=40, sampling=ONE).text
    assert told.instructions == "Be brief."


def test_the_models_are_listed(client):
    assert [each.id for each in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").object == "model"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stop": [""]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"extra_body": {"frobnicate": 1}}, "frobnicate"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **options)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert refused.value.status_code == 400


def test_what_changes_no_answer_is_passed_over(client):
    harmless = {"user": "me", "metadata": {"a": "b"}, "store": False, "parallel_tool_calls": True}
    neutral = {"frequency_penalty": 0, "presence_penalty": 0, "response_format": {"type": "text"}}
    assert chat(client, max_tokens=2, **harmless, **neutral).choices


def test_what_is_not_supported_is_asked_for_once(server):
    told = len(server.lines)
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=2) as patient,
        pytest.raises(openai.InternalServerError),
    ):
        patient.embeddings.create(model="demo", input="a")
    assert len(server.lines) - told <= 1


def test_an_error_has_its_own_class(client):
    with pytest.raises(openai.NotFoundError, match="this server has demo"):
        chat(client, model="gpt-4o")
    with pytest.raises(openai.InternalServerError, match="embeddings are not supported"):
        client.embeddings.create(model="demo", input="a")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(prompt="word " * 5000, **GREEDY)
    assert refused.value.code == "context_length_exceeded"
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(openai.BadRequestError, match="give text alone"):
        client.chat.completions.create(messages=[{"role": "user", "content": image}], **GREEDY)
    parts = [{"type": "text", "text": "Hello"}]
    client.chat.completions.create(
        messages=[{"role": "user", "content": parts}], max_tokens=1, **GREEDY
    )


def test_the_next_turn_reads_its_new_tokens_alone(client):
    first = chat(client, max_tokens=30)
    said = first.choices[0].message.content
    longer = [
        *MESSAGES,
        {"role": "assistant", "content": said},
        {"role": "user", "content": "Go on."},
    ]
    second = client.chat.completions.create(messages=longer, max_tokens=5, **GREEDY)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.prompt_tokens + 20
    assert second.usage.prompt_tokens > cached
