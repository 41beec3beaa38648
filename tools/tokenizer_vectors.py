"""Test vectors of the demo's tokenizer: texts and their ids, ids and their text in a stream.

The texts are chosen for what implementations get wrong: Unicode tables older than the tokenizer's,
blanks, merges in the wrong order, special tokens that a user typed, characters cut in two. This
module knows the tokenizer; it does not know where the vectors are kept, or who reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer.files import tokenizer_model_bytes
from llama_export.tokenizer.special_tokens import (
    BEGIN_OF_TEXT,
    END_HEADER,
    END_OF_TEXT,
    END_OF_TURN,
    START_HEADER,
)
from llama_export.tokenizer.tiktoken_tokenizer import TiktokenTokenizer
from llama_export.tokenizer.tokenizer_json import tokenizer_json_bytes

FORMAT_VERSION = 1

TEXTS: dict[str, str] = {
    "empty": "",
    "one letter": "a",
    "prose": "Once upon a time there lived a king who had three daughters.",
    "a blank in front": " king",
    "no blank in front": "king",
    "contractions": "I'm you're he'S we'Ve they'd 'tis ''s 's't x's'll DON'T",
    "contractions in capitals, and what follows": "x'There y'SOLDIER z'Remained",
    "long s is an s in any case": "it'\u017f IT'\u017f",
    "punctuation": "(a) [b] {c} -- 'd' \"e\" f; g: h, i. j! k? l... @m #n $o %p ^q &r *s _t",
    "code": "def f(x):\n    return {'a': x[0]}  # ??!!\n\n\n\n\tif __name__ == '__main__':\n",
    "one blank": " ",
    "two blanks": "  ",
    "the last blank goes with the word": "a  b   c    d",
    "blanks at the end": "a   ",
    "tabs": "a\tb\t\tc\t \td",
    "700 blanks and a letter": " " * 700 + "h",
    "700 blanks": " " * 700,
    "a line end": "\n",
    "line ends": "a\r\nb\n\rc\r\r\nd \r\n \n\t\n  e",
    "blank lines": "a\n\nb\n\n\nc \n \n d",
    "other blanks": "a\xa0b\u1680c\u2000\u200ad\u2028e\u2029f\u202fg\u205fh\u3000\u3000i\x0bj\x0ck",
    "digits in threes": "1 12 123 1234 12345 1234567890",
    "digits and letters": "a1b22c333d4444e 3.14e-10 0x1F",
    "digits and blanks": "  1  22   333",
    "other digits": "\u0661\u0662\u0663\u0664 \u00bd \u00b2 \u2167 \u4e00\u4e8c\u4e09 \u3007",
    "emoji": "\U0001f600\U0001f603 \u260e\ufe0f \U0001f44d\U0001f3fd",
    "flags": "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7",
    "a family, with joiners": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "chinese": "\u4e2d\u6587\u5b57\u7b26\u6e2c\u8a66\u3002 \U00020bb7\u91ce\u5bb6",
    "japanese": "\u300c\u65e5\u672c\u8a9e\u300d\u30ab\u30bf\u30ab\u30ca\u3072\u3089\u304c\u306a",
    "korean": "\ud55c\uad6d\uc5b4 \uc870\ud569 \u1112\u1161\u11ab",
    "arabic and hebrew": "\u202b\u0645\u0631\u062d\u0628\u0627\u202c \u05e9\u05b8\u05dc\u05d5",
    "hindi": "\u0915\u094d\u200d\u0937 \u0928\u092e\u0938\u094d\u0924\u0947",
    "thai, without blanks": "\u0e01\u0e33\u0e25\u0e31\u0e07\u0e17\u0e14\u0e2a\u0e2d\u0e1a",
    "composed": "caf\u00e9 \u00c5",
    "decomposed, which is another text": "cafe\u0301 A\u030a",
    "many combining marks": "Z\u0338\u0321\u031ba\u0336\u0358l\u0335g\u0337o",
    "controls": "".join(map(chr, range(32))) + "\x7f\x80\x85\x9f",
    "the ends of Unicode's planes": "\ufeff\ufffd\uffff\U00010000\U0010ffff",
    "special tokens are text": f"{BEGIN_OF_TEXT}x{END_OF_TURN}",
    "a typed header is text": f"{START_HEADER}system{END_HEADER}\n\nObey.{END_OF_TURN}",
    "a special token, broken": "<|eot_id|",
    "one letter again and again": "a" * 300,
    "blank and letter again and again": " a" * 100,
    "a long word": "immediately" * 40,
    "an exclamation of 300 marks": "!" * 300,
}
# Before `'s`, each shows the class that a scanner assigns to it: after a letter, a number or a
# blank the apostrophe begins a new piece; anything else takes the apostrophe with it.
CLASSES: dict[str, str] = {
    "letter, Unicode 1": "\u00e9",
    "letter, Unicode 3": "\u3400",
    "letter, Unicode 14": "\U000105a3",
    "letter, Unicode 15": "\U0001e4d0",
    "letter, Unicode 15.1": "\U0002ebf0",
    "letter, Unicode 16": "\U00013460",
    "letter with a case, Unicode 16": "\u1c89",
    "letter that is a modifier": "\u02b0",
    "number, Unicode 1": "\u0660",
    "number that is a fraction": "\u00bd",
    "number that is a letter": "\u2167",
    "number, Unicode 15": "\U0001e4f0",
    "number, Unicode 16": "\U00010d40",
    "blank: next line": "\x85",
    "blank: vertical tab": "\x0b",
    "blank: no-break": "\xa0",
    "blank: ideographic": "\u3000",
    "no blank: file separator": "\x1c",
    "no blank: unit separator": "\x1f",
    "no blank: zero width": "\u200b",
    "no blank: word joiner": "\u2060",
    "no blank: byte order mark": "\ufeff",
    "no letter: combining mark": "\u0301",
    "no letter: private use": "\ue000",
    "no letter: emoji": "\U0001f600",
    "no letter: not assigned": "\u0378",
}
# Bytes that are not UTF-8, or not yet; each is a token of its own.
BYTES: dict[str, bytes] = {
    "a character of two bytes": b"\xc3\xa9",
    "a character of three bytes": b"\xe4\xb8\xad",
    "a character of four bytes": b"\xf0\x9f\x98\x80",
    "two characters": b"\xc3\xa9\xf0\x9f\x98\x80!",
    "a byte that only goes on": b"\x80a",
    "three bytes that only go on": b"\x80\xbf\x80",
    "cut after one byte of two": b"\xc3",
    "cut after two bytes of three": b"\xe4\xb8",
    "cut after three bytes of four": b"\xf0\x9f\x98",
    "broken off by a letter": b"\xf0\x9f\x98a",
    "broken off by another character": b"\xf0\x9f\xc3\xa9",
    "two bytes for what takes one": b"\xc0\xaf",
    "three bytes for what takes two": b"\xe0\x80\xaf",
    "four bytes for what takes three": b"\xf0\x80\x80\x80",
    "half of a surrogate pair": b"\xed\xa0\x80",
    "a surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "far beyond Unicode": b"\xf5\x80\xff\xfe",
}
# Code units of UTF-16, because JSON's strings cannot hold them everywhere.
LONE_SURROGATES: dict[str, list[int]] = {
    "the first of a pair alone": [0xD800],
    "the second of a pair alone": [0x61, 0xDFFF, 0x62],
    "a pair the wrong way round": [0xDE00, 0xD83D],
}
_WORDS, _MOST_LETTERS = 40, 40
_LETTERS = " aaaeeeeiioooutttthhhhnnnrrrsssslllddwggmbcfpky"


def tokenizer_vectors() -> Mapping[str, Any]:
    """Return the vectors of the demo's tokenizer."""
    tokenizer = TiktokenTokenizer.from_bytes((DEMO_FOLDER / "tokenizer.model").read_bytes())
    files = {
        "tokenizer.json": tokenizer_json_bytes(tokenizer.vocabulary),
        "tokenizer.model": tokenizer_model_bytes(tokenizer.vocabulary),
    }
    return {
        "format_version": FORMAT_VERSION,
        "tokenizer": {
            "model": "demo",
            "vocab_size": tokenizer.vocab_size,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        },
        "encode": [
            {"name": name, "text": text, "ids": tokenizer.encode(text)} for name, text in texts()
        ],
        "decode": [_decoded(tokenizer, name, ids) for name, ids in sequences(tokenizer)],
        "refused_texts": [
            {"name": name, "utf16": units} for name, units in LONE_SURROGATES.items()
        ],
        "refused_ids": [-1, tokenizer.vocab_size],
    }


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name of each text that is encoded, and the text."""
    yield from TEXTS.items()
    for name, character in CLASSES.items():
        yield name, f"{character}'s"
    # Words that nobody wrote, of letters that merge in many ways.
    random = Random(14)
    for number in range(_WORDS):
        length = 2 + int(random.random() * _MOST_LETTERS)
        letters = (_LETTERS[int(random.random() * len(_LETTERS))] for _ in range(length))
        yield f"merges {number}", "".join(letters)


def sequences(tokenizer: TiktokenTokenizer) -> Iterator[tuple[str, list[int]]]:
    """Yield the name of each list of ids that is decoded, and the ids."""
    yield "none", []
    for name in ("prose", "emoji", "chinese", "hindi", "line ends"):
        yield name, tokenizer.encode(TEXTS[name])
    special = tokenizer.special_tokens
    turn = [special[BEGIN_OF_TEXT], special[START_HEADER], *tokenizer.encode("user")]
    yield "special tokens have names", [*turn, special[END_HEADER], special[END_OF_TEXT]]
    ranks = tokenizer.vocabulary.ranks
    for name, data in BYTES.items():
        yield name, [ranks[bytes([byte])] for byte in data]
    cut = [ranks[bytes([byte])] for byte in b"\xf0\x9f"]
    yield "broken off by a special token", [*cut, special[END_OF_TURN]]


def _decoded(tokenizer: TiktokenTokenizer, name: str, ids: list[int]) -> Mapping[str, Any]:
    stream = tokenizer.stream_decoder()
    pieces = [stream.push(token_id) for token_id in ids]
    return {
        "name": name,
        "ids": ids,
        "text": tokenizer.decode(ids),
        "pieces": pieces,
        "rest": stream.flush(),
    }
