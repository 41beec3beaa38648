"""The user's texts in pieces: what is read, from where on, and what is refused by name."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from artifacts.dialogs import demo_format
from artifacts.sentencepieces import trained
from artifacts.tiny import write_byte_vocabulary

from llama_export.calibration import text_files
from llama_export.calibration.text_files import list_files, read_pieces
from llama_export.errors import PromptError
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama_export.tokenizer.tokenizer import load_tokenizer

NOON = datetime(2024, 7, 26, 12)
TALE = "".join(f"Line {number}: Köln, 天気, and a word or two.\n" for number in range(400))
SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Köln"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> ChatFormat:
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_vocabulary(folder / "tokenizer.model")
    tokenizer = load_tokenizer(folder)
    return ChatFormat.of(tokenizer, tokenizer.config_keys())


@pytest.fixture(scope="module")
def chat(base) -> ChatFormat:
    return demo_format(base.tokenizer)


def text_of(form: ChatFormat, pieces) -> str:
    return form.tokenizer.decode([each for piece in pieces for each in piece.ids])


def test_a_text_is_read_whole_and_in_its_order(base, tmp_path, monkeypatch):
    path = tmp_path / "tale.txt"
    path.write_text(TALE, encoding="utf-8")
    for size in (7, 64, 2**14):
        monkeypatch.setattr(text_files, "_PIECE_BYTES", size)
        pieces = list(read_pieces(path, 0, base))
        assert text_of(base, pieces) == TALE
        assert [piece.begins for piece in pieces] == [True] + [False] * (len(pieces) - 1)
        raw = path.read_bytes()
        for piece in pieces:  # each knows where it is
            text = base.tokenizer.decode(piece.ids)
            assert raw[piece.at :].decode().startswith(text)


def test_a_text_is_read_from_the_next_line_on(base, tmp_path, monkeypatch):
    path = tmp_path / "tale.txt"
    path.write_text(TALE, encoding="utf-8")
    raw = path.read_bytes()
    for at in (1, 9, 10, 100, 101, 102, 103, 5000):
        found = text_of(base, read_pieces(path, at, base))
        assert found == raw[raw.index(b"\n", at) + 1 :].decode()


def test_without_lines_it_is_read_from_the_next_word_or_letter_on(base, tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("one two three", encoding="utf-8")
    assert text_of(base, read_pieces(path, 1, base)) == "two three"
    path.write_text("天気天気天気", encoding="utf-8")
    assert text_of(base, read_pieces(path, 1, base)) == "気天気天気"
    assert text_of(base, read_pieces(path, 3, base)) == "気天気天気"


def test_pieces_are_cut_between_lines_or_words(base, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_PIECE_BYTES", 100)
    path = tmp_path / "tale.txt"
    path.write_text(TALE, encoding="utf-8")
    found = [base.tokenizer.decode(piece.ids) for piece in read_pieces(path, 0, base)]
    assert all(each.startswith("Line") and each.endswith(".\n") for each in found)
    path.write_text(TALE.replace("\n", " "), encoding="utf-8")
    first, *rest = [base.tokenizer.decode(piece.ids) for piece in read_pieces(path, 0, base)]
    assert first.startswith("Line")
    assert all(each[0] == " " for each in rest)
    path.write_text("ab\n\n\n\n" * 80, encoding="utf-8")  # a run of line breaks stays one
    found = [base.tokenizer.decode(piece.ids) for piece in read_pieces(path, 0, base)]
    assert all(each.startswith("ab") and each.endswith("ab\n\n\n\n") for each in found)


def test_a_piece_in_the_middle_is_encoded_as_such(tmp_path, monkeypatch):
    """SentencePiece puts a blank before a text, and none before what follows."""
    tokenizer = SentencePieceTokenizer.from_bytes(trained(), {"legacy": False})
    monkeypatch.setattr(text_files, "_PIECE_BYTES", 24)
    path = tmp_path / "tale.txt"
    path.write_text("the fox and the hare\nand the goose\nand many more\n", encoding="utf-8")
    form = ChatFormat.of(tokenizer, tokenizer.config_keys())
    pieces = list(read_pieces(path, 0, form))
    assert len(pieces) > 2
    whole = tokenizer.encode(path.read_text())
    assert [each for piece in pieces for each in piece.ids] == whole


def test_the_mark_of_utf_8_is_no_text(base, tmp_path):
    path = tmp_path / "marked.txt"
    path.write_bytes(b"\xef\xbb\xbfKoeln")
    assert text_of(base, read_pieces(path, 0, base)) == "Koeln"


@pytest.mark.parametrize(
    ("data", "byte"), [(b"\xff\xfea\x00", 0), (b"a" * 20000 + b"\xe9t", 20000), (b"K\xc3", 1)]
)
def test_what_is_not_utf_8_is_refused(base, tmp_path, data, byte):
    path = tmp_path / "latin.txt"
    path.write_bytes(data)
    with pytest.raises(PromptError, match=f"latin.txt is not UTF-8: byte {byte} does not fit"):
        list(read_pieces(path, 0, base))


def lines(path, *values: object):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def test_a_line_is_a_dialog_by_the_models_template(chat, tmp_path):
    conversation = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Köln"}]
    path = lines(
        tmp_path / "chats.jsonl",
        {"messages": SAID, "source": "any"},
        {"conversations": conversation},
        {"text": "plain"},
    )
    one, other, plain = read_pieces(path, 0, chat)
    messages = [Message(**each) for each in SAID]
    expected = chat.encode(Dialog(messages, add_generation_prompt=False, now=NOON))
    assert one.ids == other.ids == expected
    assert chat.tokenizer.decode(plain.ids) == "plain"
    assert all(piece.begins for piece in (one, other, plain))
    assert [piece.place for piece in (one, other, plain)] == [
        f"{path}, line {number}" for number in (1, 2, 3)
    ]


def test_lines_are_read_from_the_next_one_on(base, tmp_path):
    path = lines(tmp_path / "texts.jsonl", *({"text": f"{number}"} for number in range(9)))
    length = path.stat().st_size // 9
    for at, first in ((0, 0), (1, 1), (length, 1), (length + 1, 2), (8 * length, 8)):
        assert text_of(base, read_pieces(path, at, base)) == "012345678"[first:]
    assert list(read_pieces(path, 8 * length + 1, base)) == []
    third, *_ = read_pieces(path, length + 1, base)
    assert (third.at, third.place) == (2 * length, f"{path}, line 3")


def test_blank_lines_and_texts_without_a_token_are_passed_over(base, tmp_path):
    path = tmp_path / "blank.jsonl"
    path.write_text('\n{"text": ""}\n  \n{"text": "a"}\n')
    (piece,) = read_pieces(path, 0, base)
    assert piece.place == f"{path}, line 4"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "it is not valid JSON"),
        ("[1]", "it is not valid JSON"),
        ('{"prompt": "a"}', "it is no dialog and no text: {'prompt': 'a'}"),
        ('{"messages": []}', "it is no dialog and no text"),
        ('{"messages": ["a"]}', "a message needs role and content: 'a'"),
        ('{"messages": [{"role": "user"}]}', "a message needs role and content"),
        ('{"conversations": [{"from": "human"}]}', "a message needs from and value"),
        ('{"messages": [{"role": " ", "content": ""}]}', "a message's role"),
        ('{"text": "\\ud800"}', "surrogate"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(chat, tmp_path, line, reason):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(PromptError) as raised:
        list(read_pieces(path, 0, chat))
    assert raised.value.message.startswith(f"{path}, line 3: ")
    assert reason in raised.value.message
    assert raised.value.hint


def test_a_line_that_a_template_refuses_is_named(base, tmp_path):
    keys = {"chat_template": "{{ raise_exception('no system here') }}"}
    form = ChatFormat.of(base.tokenizer, base.tokenizer.config_keys() | keys)
    path = lines(tmp_path / "chats.jsonl", {"messages": SAID})
    with pytest.raises(PromptError, match=r"chats.jsonl, line 1: .*no system here"):
        list(read_pieces(path, 0, form))


def test_a_line_too_long_is_refused(base, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_MOST_LINE_BYTES", 40)
    path = lines(tmp_path / "long.jsonl", {"text": "a"}, {"text": "a" * 40})
    with pytest.raises(PromptError, match="line 2: it is longer than 40 bytes"):
        list(read_pieces(path, 0, base))


def test_a_dialog_for_a_base_model_is_refused(base, tmp_path):
    path = lines(tmp_path / "chats.jsonl", {"messages": SAID})
    with pytest.raises(PromptError, match="a base model has no chat template") as raised:
        list(read_pieces(path, 0, base))
    assert '"text"' in raised.value.hint


def test_files_are_listed_with_those_of_folders_in_order(tmp_path):
    folder = tmp_path / "texts"
    (folder / "b").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name in ("z.txt", "a.txt", "b/c.md", ".hidden", ".git/x"):
        (folder / name).write_text(name)
    (tmp_path / "first.txt").write_text("12345")
    found = list_files([tmp_path / "first.txt", folder])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["first.txt", "texts/a.txt", "texts/b/c.md", "texts/z.txt"]
    assert found[tmp_path / "first.txt"] == 5


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(PromptError, match=r"absent\.txt cannot be read: No such file"):
        list_files([tmp_path / "absent.txt"])
    (tmp_path / "empty.txt").touch()
    with pytest.raises(PromptError, match=r"empty\.txt is empty"):
        list_files([tmp_path / "empty.txt"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(PromptError, match="folder is empty"):
        list_files([tmp_path / "folder"])


def test_a_file_that_goes_away_is_named(base, tmp_path):
    with pytest.raises(PromptError, match=r"gone\.txt cannot be read"):
        list(read_pieces(tmp_path / "gone.txt", 0, base))
