"""The Python interface on the demo bundle: what calls give, what is read again, what is saved."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from artifacts.demo_bundle import demo_bundle

import llama_export
from llama_export import Conversation, LlamaExportError, Message, Sampling, Turn
from llama_export.bundle.bundle import Bundle, seal
from llama_export.errors import BundleError, OutputError, PromptError, UsageError
from llama_export.generation.text_session import TextSession
from llama_export.tokenizer.chat.chat_format import Dialog

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = pytest.mark.onnx
__all__ = ["demo_bundle"]

GREEDY = Sampling(temperature=0)
STORY = "There was once a king who had three daughters."
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def opened(demo_bundle) -> TextSession:
    return llama_export.load(demo_bundle, threads=1)


@pytest.fixture
def session(opened) -> TextSession:
    """An empty session on the same weights."""
    opened.rewind(0)
    return opened.fork()


def talk_of(session: TextSession, turns: int = 3) -> Conversation:
    talk = Conversation(session, system="Be brief.", sampling=GREEDY, max_tokens=12)
    for turn in range(turns):
        talk.send(f"Tell me of king number {turn}.")
    return talk


def test_the_package_is_light_and_a_session_needs_no_torch(demo_bundle):
    code = (
        "import sys, llama_export\n"
        "print([name for name in ('numpy', 'click', 'onnxruntime') if name in sys.modules])\n"
        f"llama_export.load({str(demo_bundle)!r}).generate('Once', max_tokens=2)\n"
        "print([name for name in ('torch', 'click', 'onnx') if name in sys.modules])"
    )
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["[]", "[]"]


# What a call gives does not depend on the calls before it.


def test_the_answer_from_a_kept_cache_is_that_of_a_fresh_session(session):
    talk = talk_of(session)
    kept = talk.send("And what became of them?")
    assert kept.stats.reused_tokens > 0.5 * kept.stats.prompt_tokens
    fresh = session.fork()
    fresh.rewind(0)
    ids = talk._encode(talk.turns[:-1], Turn("system", "Be brief."))
    again = fresh.generate(ids, sampling=GREEDY, max_tokens=12)
    assert again.stats.reused_tokens == 0
    assert again.token_ids == kept.token_ids
    assert len(again.token_ids) >= 5


@pytest.mark.parametrize("fault", ["skipped", "duplicated", "stale"])
def test_a_token_skipped_duplicated_or_stale_changes_the_answer(session, fault):
    ids = session.encode(STORY)
    expected = session.logits(ids)
    session.rewind(0)
    wrong = {
        "skipped": [*ids[:3], *ids[4:]],
        "duplicated": [*ids[:4], ids[3], *ids[4:]],
        "stale": [*ids[:3], 500, *ids[4:]],
    }[fault]
    session.logits(wrong[:-1])
    # The record says something else than what was read.
    session.cache._tokens = ids[: min(session.position, len(ids) - 1)]
    found = session.cache.prefill([ids[-1]])[: len(expected)]
    assert np.abs(found - expected).max() > 0.05


def test_going_on_with_the_tokens_is_one_longer_text(session):
    whole = session.generate(STORY, sampling=GREEDY, max_tokens=30)
    session.rewind(0)
    ids = session.encode(STORY)
    first = session.generate(ids, sampling=GREEDY, max_tokens=10)
    assert first.stats.stop_reason == "length"
    rest = session.generate([*ids, *first.token_ids], sampling=GREEDY, max_tokens=20)
    assert first.token_ids + rest.token_ids == whole.token_ids
    assert rest.stats.prompt_tokens - rest.stats.reused_tokens == 1  # only the last one drawn


def test_logits_and_forks_disturb_nothing(session):
    expected = session.generate(STORY, sampling=GREEDY, max_tokens=15).token_ids
    logits = session.logits(STORY)
    other = session.fork()
    other.generate("Something else altogether", sampling=GREEDY, max_tokens=5)
    assert logits.dtype == np.float32
    assert logits.shape == (session.tokenizer.vocab_size,)
    assert int(logits.argmax()) == expected[0]
    assert session.generate(STORY, sampling=GREEDY, max_tokens=15).token_ids == expected
    assert session.tokens[: len(session.encode(STORY))] == tuple(session.encode(STORY))


def test_a_stop_text_is_not_given_out_not_even_its_beginning(session):
    plain = session.generate(STORY, sampling=GREEDY, max_tokens=30)
    stop = plain.text[20:26]
    pieces = list(
        stream := session.stream(STORY, sampling=GREEDY, max_tokens=30, stop=["xyz", stop])
    )
    assert "".join(pieces) == plain.text[: plain.text.index(stop)]
    assert stream.completion.stats.stop_reason == "stop text"
    begun = plain.text[-3:] + "never"
    assert session.generate(STORY, sampling=GREEDY, max_tokens=30, stop=[begun]).text == plain.text
    for wrong in ([""], "abc"):
        with pytest.raises(UsageError, match="stop"):
            session.generate(STORY, stop=wrong)


def test_another_call_ends_a_stream(session):
    stream = session.stream(STORY, sampling=GREEDY, max_tokens=50)
    first = next(stream)
    expected = session.fork().generate("A", sampling=GREEDY, max_tokens=5).token_ids
    assert session.generate("A", sampling=GREEDY, max_tokens=5).token_ids == expected
    assert list(stream) == []
    assert stream.completion.text == first


def test_a_number_out_of_its_range_is_named(demo_bundle, session):
    for options, word in (
        ({"threads": 0}, "threads: expected 1 to"),
        ({"threads": 10**6}, "found 1000000"),
        ({"max_context": 0}, "max_context: expected 1 to 2048"),
        ({"max_context": 2049}, "found 2049"),
    ):
        with pytest.raises(UsageError, match=word):
            llama_export.load(demo_bundle, **options)
    with pytest.raises(UsageError, match="max_tokens"):
        session.generate("a", max_tokens=0)
    with pytest.raises(BundleError, match="nowhere"):
        llama_export.load("nowhere")


def test_an_empty_or_too_long_text_is_refused(demo_bundle, session):
    for empty in ("", []):
        with pytest.raises(PromptError, match="empty"):
            session.generate(empty)
        with pytest.raises(PromptError, match="empty"):
            session.logits(empty)
    small = llama_export.load(demo_bundle, max_context=8)
    with pytest.raises(PromptError, match="room for 8"):
        small.generate(STORY)
    with pytest.raises(PromptError, match="room for 8"):
        small.logits(STORY)
    assert small.generate("A king", max_tokens=50).stats.stop_reason == "context full"


@pytest.mark.parametrize(
    "wrong", [None, 5, [1.5], [True], ["a"], b"abc", {"a": 1}, np.ones((2, 2))]
)
def test_what_is_no_prompt_is_named(session, wrong):
    for call in (session.generate, session.logits, session.stream, session.encode):
        with pytest.raises(PromptError, match=r"expected a (text|whole number)"):
            call(wrong)
    assert session.position == 0


def test_token_ids_may_come_from_an_array(session):
    ids = session.encode(STORY)
    expected = session.generate(ids, sampling=GREEDY, max_tokens=5).token_ids
    for same in (np.array(ids), tuple(ids)):
        assert session.generate(same, sampling=GREEDY, max_tokens=5).token_ids == expected


def test_what_is_no_whole_number_is_named(demo_bundle, session):
    for options in ({"threads": "2"}, {"threads": True}, {"max_context": 8.0}):
        with pytest.raises(UsageError, match="expected 1 to"):
            llama_export.load(demo_bundle, **options)
    for wrong in ("5", 2.5, None):
        with pytest.raises(UsageError, match="max_tokens: expected at least 1"):
            session.generate("a", max_tokens=wrong)
        with pytest.raises(UsageError, match="max_tokens: expected at least 1"):
            Conversation(session, max_tokens=wrong)


# Conversations.


def test_messages_may_be_mappings(session):
    asked = [Message("system", "Be brief."), Message("user", "Tell me of a king.")]
    expected = session.chat(asked, sampling=GREEDY, max_tokens=12)
    dialog = [{"role": each.role, "content": each.content} for each in asked]
    for messages in (dialog, [dialog[0], asked[1]], tuple(dialog)):
        found = session.chat(messages, sampling=GREEDY, max_tokens=12)
        assert found.token_ids == expected.token_ids
    talk = Conversation(session, system="Be brief.", sampling=GREEDY, max_tokens=12)
    assert talk.overflow(dialog[1]) is None
    assert talk.send(dialog[1]).token_ids == expected.token_ids
    assert talk.messages[:2] == tuple(asked)
    talk.undo()
    assert "".join(talk.stream(asked[1])) == expected.text


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        5,
        ["user", "Hi"],
        {},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": ["user"], "content": "Hi"},
        {"role": "user", "content": 5},
        {"role": "user", "content": "Hi", "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "assistant", "tool_calls": "f"},
    ],
)
def test_a_message_of_another_shape_is_named(session, wrong):
    talk = Conversation(session)
    for call in (talk.send, talk.stream, talk.overflow, lambda each: session.chat([each])):
        with pytest.raises(PromptError, match=r"message|role"):
            call(wrong)
    for dialog in (wrong, "Hi", {"role": "user", "content": "Hi"}, Message("user", "Hi")):
        with pytest.raises(PromptError):
            session.chat(dialog)
    with pytest.raises(PromptError, match="one of the system"):
        talk.send({"role": "system", "content": "Hi"})
    with pytest.raises(PromptError, match="the system message: expected a text"):
        Conversation(session, system=None)


def test_only_what_can_be_reused_counts_as_cached(session):
    talk = talk_of(session, 2)
    # The last token that was drawn, and the end of the turn, have not been read.
    assert session.position <= talk.cached < talk.length <= talk.cached + 2
    talk.system = ""
    assert talk.cached < 5 < session.position
    before = talk.cached
    assert talk.send("And then?").stats.reused_tokens >= before
    talk.reset()
    assert (talk.length, talk.cached) == (0, 0)


@pytest.mark.parametrize(
    ("system", "text", "context", "hint"),
    [
        ("", "word " * 200, 100, "shorten the message, or use a larger --context (max_context"),
        ("", "word " * 4000, None, "shorten the message, or use an export with a larger"),
        ("word " * 200, "Hi", 100, "shorten the system message, or use a larger"),
        ("word " * 50, "word " * 50, 100, "shorten the message or the system message, or"),
    ],
)
def test_what_is_too_long_by_itself_must_be_shorter(demo_bundle, system, text, context, hint):
    session = llama_export.load(demo_bundle, threads=1, max_context=context)
    talk = Conversation(session, system=system)
    with pytest.raises(PromptError) as caught:
        talk.send(text)
    assert caught.value.hint.startswith(hint)
    assert "drop" not in caught.value.hint
    assert ("this bundle has 2048 positions" in caught.value.hint) == (context is not None)


@pytest.mark.parametrize("context", [40, 56, 60, 90])
def test_dropping_is_offered_only_where_it_helps(demo_bundle, context):
    session = llama_export.load(demo_bundle, threads=1, max_context=context)
    helped = 0
    for length in range(1, 25):
        talk = Conversation(session, sampling=GREEDY, max_tokens=1)
        for _ in range(3):
            if talk.overflow("Hi") is None:
                talk.send("Hi")
        talk.max_tokens = 20
        overflow = talk.overflow("a" * length)
        if overflow is not None and overflow.kept_tokens is not None:
            talk.drop_oldest(overflow.dropped_turns)
            assert talk.overflow("a" * length) is None
            helped += 1
    assert helped


def read(completion) -> int:
    return completion.stats.prompt_tokens - completion.stats.reused_tokens


def test_a_conversation_is_the_dialog_as_the_format_has_it(session):
    talk = talk_of(session, 2)
    assert [message.role for message in talk.messages] == ["system", *["user", "assistant"] * 2]
    dialog = Dialog(talk.messages, add_generation_prompt=False)
    text = session.chat_format.render(dialog)
    assert text.count("<|eot_id|>") == 5
    assert talk.length == len(session.chat_format.encode(dialog))
    asked = [Message("system", "Be brief."), Message("user", "Tell me of king number 0.")]
    assert session.chat(asked, sampling=GREEDY, max_tokens=12).text == talk.turns[1].text


def test_a_turn_reads_its_new_tokens_alone(session):
    talk = talk_of(session, 4)
    before = talk.length
    answer = talk.send("And then?")
    new = talk.length - before - len(answer.token_ids) - 1
    # The last token of the answer before and its end of turn are new to the cache as well.
    assert read(answer) <= new + 2
    assert answer.stats.prompt_tokens > 5 * read(answer)


def test_retry_undo_and_another_system_message_rewind(session):
    talk = talk_of(session, 3)
    first = talk.turns[-1].text
    again = list(retried := talk.retry())
    assert (len(talk.turns), talk.turns[-1].text, "".join(again)) == (6, first, first)
    assert read(retried.completion) == 1
    assert talk.undo() == "Tell me of king number 2."
    assert len(talk.turns) == 4
    edited = talk.send("Tell me of queen number 2.")
    assert read(edited) < 25
    talk.system = "Be long."
    answer = talk.send("And then?")
    assert answer.stats.reused_tokens < 10
    talk.reset()
    assert talk.messages == (Message("system", "Be long."),)
    for act in (talk.undo, talk.retry):
        with pytest.raises(PromptError, match="no answer yet"):
            act()


def test_a_seed_moves_on_from_answer_to_answer(session):
    def texts(seed):
        session.rewind(0)  # the same bits need the same pieces to be read
        talk = Conversation(session, sampling=Sampling(1.0, 1.0, seed=seed), max_tokens=12)
        stats = [talk.send("Hello").stats for _ in range(2)]
        list(retried := talk.retry())
        seeds = [each.seed for each in (*stats, retried.completion.stats)]
        return seeds, [turn.text for turn in talk.turns]

    assert texts(5) == texts(5)
    assert texts(5)[0] == [5, 6, 7]
    assert texts(5)[1] != texts(50)[1]


def test_a_closed_stream_keeps_its_partial_answer(session):
    talk = talk_of(session, 1)
    stream = talk.stream("And then?")
    piece = next(stream)
    stream.close()
    assert talk.turns[-1].text == piece
    assert len(talk.turns) == 4
    assert stream.completion.stats.stop_reason == "interrupted"
    never = talk.stream("Never read")
    never.close()
    assert len(talk.turns) == 4


def test_an_unfinished_stream_is_a_turn_before_the_next_one(session):
    talk = talk_of(session, 1)
    piece = next(talk.stream("And then?"))
    talk.send("Once more.")
    assert [turn.text for turn in talk.turns[2:5]] == ["And then?", piece, "Once more."]


def test_what_does_not_fit_is_explained_and_dropping_makes_room(demo_bundle):
    session = llama_export.load(demo_bundle, max_context=160)
    talk = talk_of(session, 3)
    text = "word " * 20
    assert talk.overflow("And then?") is None
    overflow = talk.overflow(text)
    assert overflow.needed > 160 - 16
    assert (overflow.max_context, overflow.dropped_turns % 2) == (160, 0)
    with pytest.raises(PromptError, match=f"{overflow.needed} tokens long.*160"):
        talk.send(text)
    talk.drop_oldest(overflow.dropped_turns)
    assert talk.messages[0].role == "system"
    answer = talk.send(text)
    assert answer.stats.prompt_tokens == overflow.kept_tokens
    alone = talk.overflow("word " * 400)
    assert (alone.kept_tokens, alone.too_long) == (None, "message")
    for blank in ("", " \n"):
        with pytest.raises(PromptError, match="empty"):
            talk.send(blank)


# Files.


def test_a_saved_conversation_goes_on_where_it_was(session, demo_bundle, tmp_path):
    talk = talk_of(session, 2)
    talk.save(tmp_path / "talk.chat")
    talk.save(tmp_path / "again.chat")
    assert (tmp_path / "talk.chat").read_bytes() == (tmp_path / "again.chat").read_bytes()
    expected = talk.send("And then?")
    copied = shutil.copytree(demo_bundle, tmp_path / "elsewhere")
    other = llama_export.load(copied, threads=1)
    later = Conversation.load(other, tmp_path / "talk.chat")
    assert (later.system, later.sampling, later.max_tokens) == ("Be brief.", GREEDY, 12)
    answer = later.send("And then?")
    assert answer.token_ids == expected.token_ids
    assert answer.stats.reused_tokens == expected.stats.reused_tokens
    assert sorted(path.name for path in tmp_path.glob("*.chat")) == ["again.chat", "talk.chat"]


def test_a_file_holds_used_rows_only(session, tmp_path):
    session.logits(STORY)
    session.save(tmp_path / "story.cache")
    size = (tmp_path / "story.cache").stat().st_size
    row_bytes = 2 * 6 * 2 * 64 * 4  # keys and values, layers, heads, columns, float32
    assert 0 < size - row_bytes * session.position < 8000
    with np.load(tmp_path / "story.cache", allow_pickle=False) as arrays:
        assert arrays["key.0"].shape == (2, session.position, 64)


def test_wrong_rows_in_a_file_change_the_answer(session, tmp_path):
    """The twin: what is restored is really used."""
    expected = session.logits(STORY)
    session.cache.restore(
        session.tokens, [(v, k) for k, v in session.cache.layers(session.position)]
    )
    assert np.abs(session.logits(STORY) - expected).max() > 0.05


def spoiled(source: Path, place: Path, **changes: object) -> Path:
    """Copy a saved file with other values in its record."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(place, "w") as out:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "conversation.json":
                data = json.dumps({**json.loads(data), **changes}).encode()
            out.writestr(name, data)
    return place


@pytest.fixture(scope="module")
def saved(opened, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "talk.chat"
    opened.rewind(0)
    talk_of(opened.fork(), 1).save(path)
    return path


@pytest.mark.parametrize("cut", [0, 10, 5000, -1])
def test_a_truncated_file_is_named(session, saved, tmp_path, cut):
    damaged = tmp_path / "talk.chat"
    damaged.write_bytes(saved.read_bytes()[:cut])
    with pytest.raises(
        PromptError, match=r"talk\.chat is not a saved conversation, or it is damaged"
    ):
        Conversation.load(session, damaged)


def test_a_flipped_bit_anywhere_is_named(session, saved, tmp_path):
    raw = saved.read_bytes()
    rows_at = raw.index(b"\x93NUMPY") + 128
    for at in (rows_at + 5, rows_at + 3000, raw.index(b'"turns"') + 30):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        (tmp_path / "talk.chat").write_bytes(damaged)
        with pytest.raises(PromptError, match=r"damaged.*CRC"):
            Conversation.load(session, tmp_path / "talk.chat")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3}, "format_version 3; this llama-export reads format_version 2"),
        ({"token_ids": [1, 2]}, "2 tokens, but"),
        ({"token_ids": "abc"}, "list of token ids"),
        ({"turns": [{"role": "root", "text": "", "token_ids": []}]}, "expected a turn"),
        ({"turns": [{"role": "user", "text": "a", "token_ids": [1]}]}, "no conversation"),
        ({"turns": [3]}, "damaged"),
        ({"rows": [1, 2, 10**12]}, "damaged"),
        ({"layers": 5}, "does not fit"),
        ({"layers": 7}, "damaged"),
        ({"sampling": {"temperature": -1}}, "damaged.*temperature"),
        ({"sampling": {"heat": 1}}, "damaged"),
        ({"bundle": {"name": "x\x1b[2J", "sha256": "ab"}}, r"saved with x\[2J ab"),
    ],
)
def test_a_changed_record_is_named(session, saved, tmp_path, changes, message):
    path = spoiled(saved, tmp_path / "talk.chat", **changes)
    with pytest.raises(PromptError, match=message):
        Conversation.load(session, path)


def test_a_file_of_the_first_version_is_read(session, saved, tmp_path):
    """It kept each turn's tokens too, as the model wrote them."""
    with zipfile.ZipFile(saved) as archive:
        record = json.loads(archive.read("conversation.json"))
    turns = [{**turn, "token_ids": [1, 2]} for turn in record["turns"]]
    path = spoiled(saved, tmp_path / "old.chat", format_version=1, turns=turns)
    assert Conversation.load(session, path).turns == Conversation.load(session, saved).turns


def test_a_pickle_is_not_read(session, saved, tmp_path):
    path = tmp_path / "talk.chat"
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(path, "w") as out:
        for name in archive.namelist():
            with out.open(name, "w") as stream:
                if name == "key.0.npy":
                    boom = np.array([{}], dtype=object)
                    np.lib.format.write_array(stream, boom, allow_pickle=True)
                else:
                    stream.write(archive.read(name))
    with pytest.raises(PromptError, match="damaged"):
        Conversation.load(session, path)


def test_a_conversation_of_another_bundle_is_refused_by_both_names(
    session, saved, demo_bundle, tmp_path
):
    folder = shutil.copytree(demo_bundle, tmp_path / "onnx")
    manifest = Bundle.open(folder).manifest
    hashes = dict(manifest.quantization["tensors"])
    first = next(iter(hashes))
    hashes[first] = {"codes_sha256": "0" * 64, "scales_sha256": "0" * 64}
    quantization = {**manifest.quantization, "recipe": "other", "tensors": hashes}
    seal(folder, dataclasses.replace(manifest, quantization=quantization))
    other = llama_export.load(folder)
    with pytest.raises(PromptError) as caught:
        Conversation.load(other, saved)
    assert "saved with demo (onnx, int4)" in caught.value.message
    assert "this is demo (onnx, other)" in caught.value.message
    assert "/load --text" in caught.value.hint
    with pytest.raises(PromptError, match="another bundle"):
        llama_export.load(folder, saved=saved)
    talk = Conversation.load(other, saved, text_only=True)
    assert [turn.role for turn in talk.turns] == ["user", "assistant"]
    assert talk.send("And then?").stats.reused_tokens == 0


def test_files_that_cannot_be_read_or_written(session, tmp_path):
    with pytest.raises(PromptError, match="does not exist"):
        session.restore(tmp_path / "none")
    with pytest.raises(PromptError, match="is a folder"):
        session.restore(tmp_path)
    session.logits("A")
    for wrong, word in (
        (tmp_path / "none" / "x", "cannot be written: No such"),
        (tmp_path, "it is a folder"),
        (Path(), "not a file name"),
        ("a\0b", "not a file name"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(OutputError, match=word):
            session.save(wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(session, saved, tmp_path, monkeypatch):
    path = shutil.copy(saved, tmp_path / "talk.chat")
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OutputError, match="No space"):
        talk_of(session, 1).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["talk.chat"]


def test_a_saved_cache_longer_than_the_context_is_refused(demo_bundle, saved):
    with pytest.raises(LlamaExportError, match="context of 10"):
        llama_export.load(demo_bundle, max_context=10, saved=saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_tokens", float("inf")), ("sampling", {"top_k": 2.5}), ("sampling", {"seed": 1.5})],
)
def test_a_saved_record_that_was_edited_is_damaged_and_no_traceback(
    demo_bundle, tmp_path, key, value
):
    session = llama_export.load(demo_bundle, threads=1)
    session.generate("Once", max_tokens=2)
    path, edited = tmp_path / "a.chat", tmp_path / "b.chat"
    session.save(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(edited, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith(".json"):
                record = json.loads(data)
                record[key] = {**record[key], **value} if isinstance(value, dict) else value
                data = json.dumps(record).encode()
            new.writestr(info, data)
    with pytest.raises(PromptError, match="damaged"):
        session.restore(edited)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
def test_a_pipe_is_not_replaced_by_a_saved_file(demo_bundle, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    session = llama_export.load(demo_bundle, threads=1)
    with pytest.raises(OutputError, match="pipe"):
        session.save(pipe)
    assert pipe.is_fifo()


# Closing, and what is shown.


def test_a_closed_session_refuses_whatever_needs_it(demo_bundle, saved, tmp_path):
    with llama_export.load(demo_bundle, threads=1) as session:
        talk = talk_of(session, 1)
        stream = session.stream(STORY, max_tokens=50)
        next(stream)
    assert list(stream) == []
    for call in (
        lambda: session.generate(STORY),
        lambda: session.stream(STORY),
        lambda: session.chat([Message("user", "Hi")]),
        lambda: session.logits(STORY),
        lambda: session.rewind(0),
        session.fork,
        lambda: session.save(tmp_path / "a"),
        lambda: session.restore(saved),
        lambda: talk.send("Hi"),
        lambda: list(talk.retry()),
        lambda: talk.save(tmp_path / "b"),
    ):
        with pytest.raises(UsageError, match="the session is closed") as caught:
            call()
        assert "open the bundle again" in caught.value.hint
    assert (session.tokens, session.position, session.is_closed) == ((), 0, True)
    assert list(tmp_path.iterdir()) == []
    session.close()  # again, in peace


def test_what_is_shown_is_short_and_says_what_it_is(session, demo_bundle):
    completion = session.generate(STORY, sampling=GREEDY, max_tokens=60)
    talk = talk_of(session, 1)
    bundle = Bundle.open(demo_bundle)
    shown = {
        session: f"<TextSession demo (onnx, int4): {session.position} of 2048 tokens>",
        completion: "60 tokens, length>",
        talk: f"<Conversation with demo (onnx, int4): 3 messages, {talk.length} tokens>",
        session.tokenizer: "<TiktokenTokenizer of 4096 tokens>",
    }
    for value, words in shown.items():
        assert words in repr(value)
    assert repr(bundle) == f"<Bundle {demo_bundle}: {bundle.manifest!r}>"
    assert repr(bundle.manifest) == "<Manifest of demo: onnx, int4, 9 files>"
    long = [*shown, bundle, session.tokenizer.vocabulary, session.stream(STORY), talk.turns[0]]
    assert [value for value in long if len(repr(value)) > 300] == []
    session.close()
    assert repr(session) == "<TextSession demo (onnx, int4): closed>"


END = "<|eot_id|>"


def test_a_typed_special_token_is_text_unless_it_is_parsed(session):
    special = session.tokenizer.special_tokens[END]
    text = f"Once{END}"
    assert special not in session.encode(text)
    assert session.encode(text, parse_special=True)[-1] == special
    begun = f"{session.tokenizer.decode(session.tokenizer.prefix_ids)}Once"
    assert session.encode(begun, parse_special=True) == session.encode("Once")
    parsed = session.generate(text, max_tokens=4, sampling=GREEDY, parse_special=True)
    by_ids = session.generate([*session.encode("Once"), special], max_tokens=4, sampling=GREEDY)
    assert parsed.token_ids == by_ids.token_ids
    assert parsed.stats.prompt_tokens == by_ids.stats.prompt_tokens
    assert session.generate(text, max_tokens=4).stats.prompt_tokens > by_ids.stats.prompt_tokens


def test_a_dialog_is_parsed_where_that_is_asked_for(session):
    special = session.tokenizer.special_tokens[END]
    dialog = Dialog([Message("user", f"Hi{END}")])
    kept = session.chat_format.encode(dialog)
    parsed = session.chat_format.encode(dialog, parse_special=True)
    assert kept.count(special) + 1 == parsed.count(special)
    asked = session.chat([Message("user", f"Hi{END}")], max_tokens=2)
    assert asked.stats.prompt_tokens == len(kept)
    talk = Conversation(session, parse_special=True, max_tokens=2)
    assert talk.send(f"Hi{END}").stats.prompt_tokens <= len(parsed)
    assert talk.length < Conversation(session).length + len(kept) + 2


def test_an_answer_ends_before_a_stop_text(session):
    free = Conversation(session, sampling=GREEDY, max_tokens=12).send("Tell me a tale.")
    stop = free.text.split()[2]
    short = Conversation(session, sampling=GREEDY, max_tokens=12, stop=[stop])
    answer = short.send("Tell me a tale.")
    assert answer.text == free.text[: free.text.index(stop)]
    assert answer.stats.stop_reason == "stop text"
    assert short.turns[-1].text == answer.text
