"""Windows of the user's text: from all over it, and never what is measured on."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from artifacts.dialogs import demo_format
from artifacts.tiny import write_byte_vocabulary

from llama_export.calibration.refused import RUN, RefusedRuns
from llama_export.calibration.user_text import UserText
from llama_export.errors import PromptError
from llama_export.tokenizer.chat.chat_format import ChatFormat
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.samples import sample_text, texts_of_verification

WINDOW = 40


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> ChatFormat:
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_vocabulary(folder / "tokenizer.model")
    tokenizer = load_tokenizer(folder)
    return ChatFormat.of(tokenizer, tokenizer.config_keys())


def numbers(count: int, first: int = 0) -> str:
    return "".join(f"{number:07}\n" for number in range(first, first + count))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def texts(form: ChatFormat, windows) -> list[str]:
    begin = form.tokenizer.bos_token_id
    assert all(window.ids[0] == begin for window in windows)
    return [form.tokenizer.decode(window.ids[1:]) for window in windows]


def test_places_are_all_over_a_long_text(base, tmp_path):
    path = write(tmp_path / "long.txt", numbers(20000))
    text = UserText.of([path], base)
    found = texts(base, text.windows(16, WINDOW, 0))
    firsts = [int(each.split("\n")[0]) for each in found]
    assert firsts == sorted(firsts)
    assert all(at * 1250 <= first <= (at + 1) * 1250 for at, first in enumerate(firsts))
    assert all(
        each == numbers(6, first)[: WINDOW - 1] for each, first in zip(found, firsts, strict=True)
    )
    assert texts(base, text.windows(16, WINDOW, 0)) == found
    assert texts(base, text.windows(16, WINDOW, 1)) != found


def test_a_long_text_is_not_read(base, tmp_path):
    """A file of 64 MB is not read whole."""
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"0123456\n" * 2**17)
    tracemalloc.start()
    found = UserText.of([path], base).windows(16, WINDOW, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 16
    assert peak < 2**22


def test_several_files_are_one_text(base, tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.txt", numbers(5000, 5000 * number))
    found = texts(base, UserText.of([tmp_path], base).windows(16, WINDOW, 0))
    firsts = [int(each.split("\n")[0]) for each in found]
    assert all(at * 1250 <= first <= (at + 1) * 1250 for at, first in enumerate(firsts))


def test_the_first_file_follows_the_last(base, tmp_path):
    path = write(tmp_path / "long.txt", numbers(20000))
    text = UserText.of([path], base)
    (found,) = text._at(path.stat().st_size - 20, WINDOW)
    tokenizer = base.tokenizer
    begin = tokenizer.bos_token_id
    expected = [begin, *tokenizer.encode(numbers(2, 19998)), begin, *tokenizer.encode(numbers(9))]
    assert list(found.ids) == expected[:WINDOW]


def test_a_short_text_is_used_whole(base, tmp_path):
    path = write(tmp_path / "short.txt", numbers(18))
    found = UserText.of([path], base).windows(8, WINDOW, 0)
    assert "".join(texts(base, found)) == numbers(18)
    assert [len(window.ids) for window in found] == [40, 40, 40, 144 - 3 * 39 + 1]


def test_of_a_text_that_is_a_little_too_long_whole_windows_are_drawn(base, tmp_path):
    path = write(tmp_path / "some.txt", numbers(60))
    for seed in range(12):
        found = UserText.of([path], base).windows(8, WINDOW, seed)
        assert [len(window.ids) for window in found] == [WINDOW] * 8
        assert len({window.ids for window in found}) == 8


def test_each_line_is_a_text_of_its_own(base, tmp_path):
    path = tmp_path / "texts.jsonl"
    write(path, "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(6)))
    (one, two) = UserText.of([path], base).windows(8, WINDOW, 0)
    tokenizer = base.tokenizer
    whole = [
        each
        for number in range(6)
        for each in (tokenizer.bos_token_id, *tokenizer.encode(f"text {number}"))
    ]
    assert list(one.ids) == whole[:WINDOW]
    assert list(two.ids) == [tokenizer.bos_token_id, *whole[WINDOW:]]


def test_a_dialogs_template_writes_the_first_token_itself(base, tmp_path):
    form = demo_format(base.tokenizer)
    said = {"messages": [{"role": "user", "content": "Hi"}]}
    path = write(tmp_path / "chats.jsonl", json.dumps(said) + "\n")
    (window,) = UserText.of([path], form).windows(1, 4096, 0)
    assert window.ids.count(base.tokenizer.bos_token_id) == 1


def test_lines_without_text_are_refused(base, tmp_path):
    path = write(tmp_path / "blank.jsonl", "\n\n")
    with pytest.raises(PromptError, match=r"blank\.jsonl holds no text"):
        UserText.of([path], base).windows(1, WINDOW, 0)
    path = write(tmp_path / "blank.jsonl", "\n" * 2 * WINDOW * 16)
    with pytest.raises(PromptError, match=r"blank\.jsonl holds no text"):
        UserText.of([path], base).windows(1, WINDOW, 0)


def test_every_text_of_the_verification_is_known_again(base):
    refused = RefusedRuns.of_verification(base.tokenizer)
    assert all(text in "\n".join(texts_of_verification()) for text in sample_text().split("\n"))
    for text in texts_of_verification():
        ids = base.tokenizer.encode(text)
        for at in (0, 777, len(ids) - RUN):
            run = ids[at : at + RUN]
            assert refused.find([70, 71, *run, 72]) == 2
            assert refused.find(run[:-1]) is None
            assert refused.find([*run[:20], 1, *run[20:]]) is None


def test_a_text_that_is_measured_on_is_refused_by_its_place(base, tmp_path):
    words = sample_text()[100:200]
    path = write(tmp_path / "mine.txt", numbers(12) + words + "\n" + numbers(3))
    with pytest.raises(PromptError) as raised:
        UserText.of([path], base).windows(40, WINDOW, 0)
    assert raised.value.message.startswith(f"{path}, at byte 0: `verify` measures on this text")
    assert words[24:50] in raised.value.message
    path = tmp_path / "mine.jsonl"
    write(path, "".join(json.dumps({"text": text}) + "\n" for text in ("a", "b", words)))
    with pytest.raises(PromptError, match=r"mine.jsonl, line 3: `verify` measures on this text"):
        UserText.of([path], base).windows(40, 200, 0)
