"""The tokenizer against Meta's published ids, Hugging Face's libraries, and broken files."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import tiktoken
import tokenizers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llama_export.errors import TokenizerError
from llama_export.tokenizer.special_tokens import END_OF_TURN, LLAMA3_SPLIT, SPECIAL_TOKENS

TORTURE = {
    "plain": "The quick brown fox, aged 42, wasn't jumping; it'd rather they'LL jump.",
    "contractions": "I'm you're he'S we'Ve they'd 'tis ''s 's't '\u017f x's'll",
    "emoji": "😀😃 👍🏽 ☎️ 🇩🇪🇫🇷 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "zero width joiners": "👨‍👩‍👧‍👦 👩🏿‍🚀 क्‍ष \u200d\u200c\u200b",
    "cjk": "中文字符測試。「日本語」カタカナひらがな 한국어 조합 ㍿ 𠮷野家",
    "thai": "กำลังทดสอบภาษาไทยที่ไม่มีช่องว่าง ๑๒๓๔ น้ำ",
    "right to left": "שָׁלוֹם עולם \u202bمرحبا بالعالم\u202c ١٢٣٤ \u200f(abc)",  # noqa: RUF001
    "combining": "Z̸̡̛a̶͘l̵g̷o é e\u0301 \ufb01 ǆ",
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x85\x9f\ufeff\ufffd\uffff\U0010ffff",
    "line ends": "a\r\nb\n\rc\r\r\nd \r\n \n\t\n  e\u2028f\u2029g\x0bh\x0ci",
    "blanks": "a  b   c\t\td \xa0 e\u3000\u3000f\u1680g" + " " * 700 + "h" + "\t" * 600,
    "numbers": "1 12 123 1234 12345678901234567890 3.14e-10 ½ ² Ⅷ 一二三 ٣",
    "code": "def f(x):\n    return {'a': x[0]}  # ??!!\n\n\n\n\tif __name__ == '__main__':\n",
    "special": f"{SPECIAL_TOKENS[0]}x{END_OF_TURN}<|start_header_id|>system<|end_header_id|>",
}
PLAIN_TORTURE = [text for name, text in TORTURE.items() if name != "special"]
LONG = {letter: letter * 100_000 for letter in ("a", "Z", "中", "!", " ", "\n", "é", "\u0301", "0")}


@pytest.fixture(scope="module")
def small_hf_ids(small_folder):
    """Encode with Hugging Face's library."""
    return hf_encoder(tokenizers.Tokenizer.from_file(str(small_folder / "tokenizer.json")))


@pytest.fixture(scope="module")
def llama3_hf_ids(llama3_folder):
    return hf_encoder(tokenizers.Tokenizer.from_file(str(llama3_folder / "tokenizer.json")))


def hf_encoder(hf):
    """Return a function: a failing test would print all of the vocabulary otherwise."""

    def encode(text):
        return hf.encode(text, add_special_tokens=False).ids

    return encode


# Text to ids


def test_special_tokens_follow_the_last_rank(small):
    ranks = len(small.vocabulary.ranks)
    assert small.vocab_size == ranks + 256
    assert small.bos_token_id == ranks
    assert list(small.special_tokens) == list(SPECIAL_TOKENS)
    assert small.special_tokens[END_OF_TURN] == ranks + 9


def test_a_whole_piece_in_the_vocabulary_is_one_token(small):
    assert small.encode(" king") == [small.vocabulary.ranks[b" king"]]
    assert [small.decode([token]) for token in small.encode(" kings")] == [" ", "k", "ing", "s"]


def test_published_ids(llama3):
    """The ids in the tests of Meta's own llama3 repository."""
    assert llama3.vocab_size == 128256
    assert llama3.encode("This is a test sentence.") == [2028, 374, 264, 1296, 11914, 13]
    assert llama3.decode([2028, 374, 264, 1296, 11914, 13]) == "This is a test sentence."
    assert llama3.special_tokens["<|eom_id|>"] == 128008
    assert llama3.special_tokens["<|python_tag|>"] == 128010
    assert llama3.special_tokens["<|reserved_special_token_247|>"] == 128255


@pytest.mark.parametrize("name", TORTURE)
def test_torture_text_comes_back(llama3, name):
    assert llama3.decode(llama3.encode(TORTURE[name])) == TORTURE[name]


@pytest.mark.parametrize("name", [name for name in TORTURE if name != "special"])
def test_torture_text_has_hugging_face_ids(llama3, llama3_hf_ids, name):
    assert llama3.encode(TORTURE[name]) == llama3_hf_ids(TORTURE[name])


def test_both_files_give_the_same_ids(llama3, llama3_from_json, llama3_hf_ids):
    text = "\n".join(TORTURE.values())
    assert llama3_from_json.encode(text) == llama3.encode(text)
    assert llama3_from_json.special_tokens == llama3.special_tokens
    mixed = " ".join(PLAIN_TORTURE) + "".join(PLAIN_TORTURE)
    assert llama3.encode(mixed) == llama3_hf_ids(mixed)


@pytest.mark.parametrize("letter", LONG)
def test_a_hundred_kilobytes_of_one_letter(llama3, llama3_hf_ids, letter):
    start = time.perf_counter()
    ids = llama3.encode(LONG[letter])
    elapsed_s = time.perf_counter() - start
    assert ids == llama3_hf_ids(LONG[letter])
    # Measured: 0.04 s. What grows with the square of the length takes minutes.
    assert elapsed_s < 60


@pytest.mark.parametrize("text", [" " * 2_000_000 + "x", "\t" * 1_500_000, "a" * 1_500_000])
def test_more_blanks_than_the_engine_keeps_states_for(small, text):
    assert small.decode(small.encode(text)) == text


@given(st.text(alphabet="aB1!é中'sl \t\n\r\xa0\u2028", max_size=40), st.integers(0, 530))
@settings(max_examples=300, deadline=None)
def test_the_engine_splits_as_llama3_does(small, text, blanks):
    plain = tiktoken.Encoding(
        "plain",
        pat_str=LLAMA3_SPLIT,
        mergeable_ranks=dict(small.vocabulary.ranks),
        special_tokens={},
    )
    text = text[:20] + " " * blanks + text[20:]
    assert small.encode(text) == plain.encode_ordinary(text)


@given(st.text())
@settings(max_examples=500, deadline=None)
def test_text_comes_back(small, text):
    assert small.decode(small.encode(text)) == text


@given(st.one_of(st.text(), st.text(alphabet="abehinrst W'12\n  ", max_size=60)))
@example(" king")
@settings(max_examples=500, deadline=None)
def test_hugging_face_gives_the_same_ids(small, small_hf_ids, text):
    # Hugging Face takes a typed special token for the token; this package never does.
    assume("<|" not in text)
    assert small.encode(text) == small_hf_ids(text)


@pytest.mark.parametrize("name", SPECIAL_TOKENS[:12])
def test_a_typed_special_token_is_text(small, name):
    ids = small.encode(f"a{name}b")
    assert max(ids) < small.bos_token_id
    assert small.decode(ids) == f"a{name}b"
    assert small.decode([small.special_tokens[name]]) == name


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d\ude00", "caf\udce9"])
def test_lone_surrogates_are_refused(small, text):
    with pytest.raises(TokenizerError, match=r"lone surrogate, U\+D"):
        small.encode(text)


@pytest.mark.parametrize("token_id", [-1, 543, 10**12])
def test_ids_outside_the_vocabulary_are_refused(small, token_id):
    assert small.vocab_size == 543
    with pytest.raises(TokenizerError, match="outside the vocabulary of 543"):
        small.decode([0, token_id])


# Ids to text, one at a time


def test_the_stream_holds_back_an_unfinished_character(small):
    stream = small.stream_decoder()
    assert [stream.push(byte) for byte in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    assert stream.push(0xE4) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.push(ord("a")) == "a"


def test_the_stream_replaces_what_is_no_text(small):
    stream = small.stream_decoder()
    assert stream.push(0xE4) == ""
    assert stream.push(ord("a")) == "\ufffda"
    with pytest.raises(TokenizerError):
        stream.push(543)


@given(st.lists(st.integers(0, 542), max_size=30))
@settings(max_examples=300, deadline=None)
def test_the_stream_gives_what_decode_gives(small, ids):
    stream = small.stream_decoder()
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.flush() == small.decode(ids)


def test_transformers_loads_the_real_json(llama3, llama3_folder):
    fast = PreTrainedTokenizerFast.from_pretrained(llama3_folder)
    assert len(fast) == 128256
    assert (fast.bos_token_id, fast.eos_token_id) == (128000, 128009)
    for text in PLAIN_TORTURE:
        ids = fast(text)["input_ids"]
        assert ids == [128000, *llama3.encode(text)]
        assert fast.decode(ids[1:]) == text


def test_nothing_is_loaded_early_and_nothing_is_fetched(small_tokenizer_model):
    program = (
        "import socket, sys\n"
        "def refuse(*arguments): raise SystemExit('opened a socket')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from pathlib import Path\n"
        "from llama_export.tokenizer.tokenizer import load_tokenizer\n"
        "import llama_export.tokenizer.chat.chat_format\n"
        "assert 'tiktoken' not in sys.modules\n"
        f"ids = load_tokenizer(Path({str(small_tokenizer_model)!r})).encode(' king')\n"
        "assert 'tiktoken' in sys.modules and 'requests' not in sys.modules\n"
        "print(ids)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "[276]\n"), result.stderr


def test_names_that_a_template_wrote_become_ids(small):
    bos, eot = small.bos_token_id, small.special_tokens[END_OF_TURN]
    assert small.encode_rendered(f"{SPECIAL_TOKENS[0]}ab{END_OF_TURN}") == [
        bos,
        *small.encode("ab"),
        eot,
    ]
    assert (small.token_name(eot), small.token_name(65)) == (END_OF_TURN, None)
    assert (small.prefix_ids, small.eos_token_id) == ((bos,), eot)
    with pytest.raises(TokenizerError, match="lone surrogate"):
        small.encode_rendered("\ud800")
