"""SentencePiece tokenizers against the library itself: ids, text, the tokenizer.json, damage."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from artifacts.sentencepieces import trained
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaTokenizer

from llama_export.errors import TokenizerError
from llama_export.tokenizer.json_tokenizer import JsonTokenizer
from llama_export.tokenizer.sentencepiece_model import SentencePieceModel
from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.tokenizer.torture import TORTURE

KINDS = {"llama": trained(), "open_llama_v1": trained(removes_blanks=True)}


@cache
def opened(name: str) -> tuple[SentencePieceTokenizer, sentencepiece.SentencePieceProcessor]:
    data = KINDS[name]
    own = sentencepiece.SentencePieceProcessor(model_proto=data)
    return SentencePieceTokenizer.from_bytes(data), own


@cache
def made_json(name: str) -> JsonTokenizer:
    return JsonTokenizer.from_bytes(opened(name)[0].files()["tokenizer.json"])


@pytest.fixture(params=KINDS)
def kind(request) -> tuple[SentencePieceTokenizer, sentencepiece.SentencePieceProcessor]:
    return opened(request.param)


@pytest.fixture
def llama() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.from_bytes(KINDS["llama"])


@pytest.fixture(scope="session")
def llama2_bytes(shared_data) -> bytes:
    return (shared_data / "llama2" / "tokenizer.model").read_bytes()


def test_ids_and_text_are_the_librarys(kind):
    ours, theirs = kind
    for text in TORTURE:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))


@given(st.one_of(st.text(), st.text(alphabet=" aethgkin1é中\u2581<s>\n", max_size=40)))
@settings(max_examples=300, deadline=None)
def test_any_text_has_the_librarys_ids_in_both_files(text):
    for name in KINDS:
        ours, theirs = opened(name)
        made = made_json(name)
        assert ours.encode(text) == theirs.encode(text)
        assert made.encode(text) == theirs.encode(text)


def test_a_blank_that_came_as_a_byte_is_one(kind):
    ours, theirs = kind
    byte, blank = theirs.piece_to_id("<0x20>"), theirs.piece_to_id("\u2581")
    for ids in ([byte], [byte, blank], [blank, byte], [blank, blank, byte, blank]):
        assert ours.decode(ids) == theirs.decode(ids), ids


@given(st.lists(st.integers(3, 399), max_size=20))
@settings(max_examples=300, deadline=None)
def test_the_stream_gives_what_decode_and_the_library_give(ids):
    for name in KINDS:
        ours, theirs = opened(name)
        known = [each for each in ids if each < ours.vocab_size]
        stream = ours.stream_decoder()
        text = "".join([stream.push(each) for each in known]) + stream.flush()
        assert text == ours.decode(known) == theirs.decode(known)


def test_a_blank_falls_at_the_beginning_of_a_text_and_nowhere_else(llama):
    ids = llama.encode("the king")
    continued = llama.stream_decoder(continues=True)
    assert "".join(map(continued.push, ids)) == " the king"
    fresh = llama.stream_decoder()
    assert "".join(map(fresh.push, ids)) + fresh.flush() == "the king"
    assert "".join(map(fresh.push, ids)) == "the king"


def test_bytes_wait_for_their_character(llama):
    ids = llama.encode("\U0001f600")[1:]
    stream = llama.stream_decoder()
    assert [stream.push(each) for each in ids] == ["", "", "", "\U0001f600"]
    assert stream.push(ids[0]) == ""
    assert stream.flush() == "\ufffd"


def test_typed_control_tokens_stay_text(llama):
    for name in ("<s>", "</s>", "<unk>"):
        ids = llama.encode(f"a {name} b")
        assert not {*llama.special_tokens.values()} & {*ids}
        assert llama.decode(ids) == f"a {name} b"
        assert llama.special_tokens[name] in llama.encode_rendered(f"a {name} b")
    with pytest.raises(TokenizerError, match="lone surrogate"):
        llama.encode("\ud800")
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        llama.decode([10**6])


def test_what_begins_and_ends_a_text(llama):
    assert (llama.bos_token_id, llama.eos_token_id, llama.prefix_ids) == (1, 2, (1,))
    assert llama.token_name(1) == "<s>"
    assert llama.token_name(300) is None
    none = SentencePieceTokenizer.from_bytes(
        KINDS["llama"], {"bos_token": None, "eos_token": {"content": "<unk>"}}
    )
    assert (none.bos_token_id, none.eos_token_id, none.prefix_ids) == (None, 0, ())
    without = SentencePieceTokenizer.from_bytes(KINDS["llama"], {"add_bos_token": False})
    assert (without.bos_token_id, without.prefix_ids) == (1, ())
    made = JsonTokenizer.from_bytes(without.files()["tokenizer.json"])
    assert made.prefix_ids == ()


def test_control_tokens_that_are_named_alone_are_added_as_by_transformers(llama, tmp_path):
    keys = {"eos_token": "<|im_end|>", "pad_token": "[PAD]", "bos_token": "<s>"}
    keys |= {"additional_special_tokens": ["<|im_start|>", "</s>"]}
    (tmp_path / "tokenizer.model").write_bytes(KINDS["llama"])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(keys))
    found, size = load_tokenizer(tmp_path), llama.vocab_size
    theirs = LlamaTokenizer.from_pretrained(tmp_path)
    names = ("<|im_end|>", "[PAD]", "<|im_start|>", "</s>")
    ids = [found.special_tokens[name] for name in names]
    assert ids == theirs.convert_tokens_to_ids(list(names)) == [size, size + 1, size + 2, 2]
    assert found.eos_token_id == theirs.eos_token_id
    rendered = found.encode_rendered("<|im_end|>the king[PAD]")
    assert (rendered[0], rendered[-1]) == (size, size + 1)
    assert size not in found.encode("<|im_end|>")
    for name, data in found.files().items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(found.config_keys()))
    assert load_tokenizer(tmp_path).special_tokens == found.special_tokens


def test_tokens_that_were_added_beside_the_file(llama, tmp_path):
    size = llama.vocab_size
    (tmp_path / "tokenizer.model").write_bytes(KINDS["llama"])
    added = {"<|im_start|>": size, "<tool_call>": size + 1}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    names = {"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_start|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    ours = load_tokenizer(tmp_path)
    assert (ours.vocab_size, ours.eos_token_id) == (size + 2, size)
    ids = ours.encode_rendered("<|im_start|>user\nthe king")
    assert ids == [size, *llama.encode("user\nthe king")]
    assert size not in ours.encode("<|im_start|>user")
    assert ours.encode("the<tool_call>king") == [
        *llama.encode("the"), size + 1, *llama.encode("king")
    ]  # fmt: skip
    assert ours.decode([size, size + 1]) == "<|im_start|><tool_call>"
    # A bundle says the same of itself.
    again = tmp_path / "bundle"
    again.mkdir()
    for name, content in ours.files().items():
        (again / name).write_bytes(content)
    (again / "tokenizer_config.json").write_text(json.dumps(ours.config_keys()))
    for loaded in (load_tokenizer(again / ours.file), load_tokenizer(again)):
        assert loaded.encode_rendered("<|im_start|>user<tool_call>") == ours.encode_rendered(
            "<|im_start|>user<tool_call>"
        )
        assert loaded.config_keys() == ours.config_keys()


def test_text_after_a_control_token_may_go_on(llama):
    other = SentencePieceTokenizer.from_bytes(KINDS["llama"], {"legacy": False})
    begun = llama.encode("king")
    assert llama.encode_rendered("<s>king") == [1, *begun]
    assert other.encode_rendered("<s>king") != [1, *begun]
    assert other.decode(other.encode_rendered("<s>king")) == "<s>king"
    assert other.encode_rendered("king") == begun


@pytest.mark.parametrize("name", KINDS)
def test_text_that_goes_on_is_the_json_s_without_its_first_blank(name):
    """So apps read it, which have no library that reads the model itself."""
    tokenizer = SentencePieceTokenizer.from_bytes(KINDS[name], {"legacy": False})
    document = json.loads(tokenizer.files()["tokenizer.json"])
    steps = document["normalizer"]["normalizers"]
    anywhere = {"Regex": r"\A(?=[\s\S])"}
    kept = [each for each in steps if each["type"] != "Prepend" and each.get("pattern") != anywhere]
    assert len(kept) == len(steps) - 1
    document["normalizer"]["normalizers"] = kept
    without = JsonTokenizer.from_bytes(json.dumps(document).encode())
    for text in TORTURE:
        assert tokenizer.encode(text, continues=True) == without.encode(text), text


def test_a_model_whose_json_cannot_be_proved_has_none():
    unigram = SentencePieceTokenizer.from_bytes(trained(model_type="unigram", size=380))
    theirs = sentencepiece.SentencePieceProcessor(
        model_proto=trained(model_type="unigram", size=380)
    )
    assert list(unigram.files()) == ["tokenizer.model"]
    assert "onnxruntime-genai and Swift cannot read" in unigram.notes[0]
    assert all(unigram.encode(text) == theirs.encode(text) for text in TORTURE)


def test_the_proof_sees_one_merge_that_is_missing(monkeypatch):
    from llama_export.tokenizer import sentencepiece_json

    original = sentencepiece_json._merges
    monkeypatch.setattr(sentencepiece_json, "_merges", lambda model: original(model)[1:])
    assert "tokenizer.json" not in SentencePieceTokenizer.from_bytes(KINDS["llama"]).files()


def folder_of(path: Path, llama: SentencePieceTokenizer, document: dict) -> Path:
    (path / "tokenizer.model").write_bytes(llama.files()["tokenizer.model"])
    (path / "tokenizer.json").write_text(json.dumps(document))
    return path


def test_a_json_that_agrees_is_kept_beside_the_model(llama, tmp_path):
    document = json.loads(llama.files()["tokenizer.json"])
    found = load_tokenizer(folder_of(tmp_path, llama, document))
    assert found.files()["tokenizer.json"] == (tmp_path / "tokenizer.json").read_bytes()
    assert (found.file, found.notes) == ("tokenizer.model", ())


def test_a_json_that_disagrees_gives_way_and_is_named(llama, tmp_path):
    document = json.loads(llama.files()["tokenizer.json"])
    document["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    found = load_tokenizer(folder_of(tmp_path, llama, document))
    assert found.encode("the king") == llama.encode("the king")
    assert "gives other ids than tokenizer.model" in found.notes[0]
    assert found.files() == llama.files()


def test_a_json_with_tokens_of_its_own_counts(llama, tmp_path):
    document = json.loads(llama.files()["tokenizer.json"])
    own = {**document["added_tokens"][0], "id": llama.vocab_size, "content": "<|im_start|>"}
    document["added_tokens"].append(own)
    found = load_tokenizer(folder_of(tmp_path, llama, document))
    assert list(found.files()) == ["tokenizer.json"]
    assert found.encode_rendered("<|im_start|>") == [llama.vocab_size]


DAMAGE = {
    "cut": (lambda data: data[:2001], "ends in the middle"),
    "no pieces": (lambda data: data[-40:], "no SentencePiece model, or a damaged one"),
    "a length of terabytes": (lambda data: b"\n\xff\xff\xff\xff\xff\x7f", "in the middle"),
    "a number without end": (lambda data: data + b"\xff" * 20, "does not end"),
    "a wrong kind": (lambda data: data + b"\x0a\x02\x0a\x00\x08\x05", "a number where bytes"),
    "no UTF-8": (lambda data: data + b"\x0a\x03\x0a\x01\xff", "codec can't decode"),
    "a piece twice": (lambda data: b"\x0a\x05\x0a\x03<s>" + data, "the library `sentencepiece`"),
    "a score that is no number": (
        lambda data: data + b"\x0a\x08\x0a\x01n\x15\x00\x00\xc0\x7f",
        "has the score nan",
    ),
    "a type that is none": (lambda data: data + b"\x0a\x05\x0a\x01n\x18\x07", "and the type 7"),
    "a piece of 100 kB": (
        lambda data: data + b"\x0a\xa4\x8d\x06\x0a\xa0\x8d\x06" + b"n" * 100_000,
        "a piece has 100000 bytes",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_models_are_named(name):
    change, match = DAMAGE[name]
    with pytest.raises(TokenizerError, match=match) as caught:
        SentencePieceTokenizer.from_bytes(change(KINDS["llama"]), where="tokenizer.model")
    assert len(caught.value.message) < 500
    assert caught.value.hint


def test_any_byte_may_be_wrong():
    """The library is C++: what it does with a damaged file must not end the process."""
    draw = random.Random(7)
    data, refused = KINDS["llama"], 0
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        try:
            found = SentencePieceTokenizer.from_bytes(bytes(changed))
            found.decode(found.encode("the king 中 \U0001f600"))
        except TokenizerError:
            refused += 1
    assert refused > 20


def test_the_parser_reads_what_the_library_wrote():
    for name, data in KINDS.items():
        model = SentencePieceModel.parse(data, "x")
        own = sentencepiece.SentencePieceProcessor(model_proto=data)
        assert [piece.text for piece in model.pieces] == [
            own.id_to_piece(each) for each in range(own.vocab_size())
        ]
        assert [piece.score for piece in model.pieces] == [
            own.get_score(each) for each in range(own.vocab_size())
        ]
        assert (model.model_type, model.byte_fallback) == (2, True)
        assert model.removes_blanks is (name == "open_llama_v1")
        assert (model.bos_id, model.eos_id) == (own.bos_id(), own.eos_id())


def test_llama_2s_own_vocabulary(llama2_bytes):
    ours = SentencePieceTokenizer.from_bytes(llama2_bytes)
    assert ours.encode("Hello world") == [15043, 3186]
    assert ours.encode_rendered("<s>[INST] Hi [/INST]")[:3] == [1, 518, 25580]
    assert (ours.vocab_size, ours.notes) == (32000, ())
    made = tokenizers.Tokenizer.from_str(ours.files()["tokenizer.json"].decode())
    assert made.encode("Hello world").ids == [1, 15043, 3186]


@pytest.mark.slow
def test_a_megabyte_of_mixed_text_has_the_librarys_ids(llama2_bytes, shared_data):
    files = sorted((shared_data / "corpus").iterdir())
    text = "\n".join(path.read_text(encoding="utf-8")[:250_000] for path in files)
    draw = random.Random(3)
    letters = [*range(0x20, 0x2FA0), *range(0x3040, 0xD7FF), *range(0xE000, 0x1FFFF)]
    odd = "".join(chr(draw.choice(letters)) for _ in range(150_000))
    blanks = "".join(
        draw.choice(["a", " ", "  ", "\n", "1", "é", "\u2581"]) for _ in range(100_000)
    )
    lines = [*text.splitlines(keepends=True)]
    lines += [each[at : at + 97] for each in (odd, blanks) for at in range(0, len(each), 97)]
    assert sum(map(len, lines)) > 950_000
    for data in (llama2_bytes, *KINDS.values()):
        ours = SentencePieceTokenizer.from_bytes(data)
        theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
        made = JsonTokenizer.from_bytes(ours.files()["tokenizer.json"])
        for line in lines:
            ids = theirs.encode(line)
            assert ours.encode(line) == ids
            assert made.encode(line) == ids, repr(line)
            assert ours.decode(ids) == theirs.decode(ids)
