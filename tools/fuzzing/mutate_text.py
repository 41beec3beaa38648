"""Mutations of texts, of a vocabulary's lines, of command lines and of a saved chat's arrays."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from random import Random

from fuzzing.edits import Edit, apply_all
from fuzzing.mutate_bytes import ESCAPES
from fuzzing.mutate_json import JSON_AWARE

_PIECES = (
    *(
        "",
        "\0",
        "\ufeff",
        "\u202e",
        "\u200d",
        "👩‍👩‍👧‍👦",
        "é",
        "e\u0301",
        "中文",
        "\r\n",
        "\r",
        "\t",
    ),
    *(
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|reserved_special_token_5|>",
        "<|",
        "|>",
        "[/]",
        "/save",
    ),
    *("/help", "/undo", "/system x", "/load nothing", "/set temperature -1", "/retry", "/nothing"),
    *(" " * 500, "a" * 3000, "9" * 400, "\n" * 50, "\U0010ffff", "\x1b]0;pwned\x07", "{{ x }}"),
)
_BROKEN = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82", b"\xfe\xff")
_LINES = (
    *(b"\n", b"x\n", b"IQ== -1\n", b"IQ== 0 0\n", b"=== 5\n", b"IQ== 99999999999999999999\n"),
    *(b"IQ==\t5\n", b" IQ== 5\n", b"IQ== 5.0\n", b"IQ== 1e3\n", b"\xff 7\n", b"IQ== 256\n"),
)
_VERBS = (
    "generate",
    "chat",
    "verify",
    "bench",
    "inspect",
    "list",
    "help",
    "export",
    "GENERATE",
    "",
)
_OPTIONS = (
    *("--target", "--model", "--output", "--revision", "--token", "--force", "--quantize"),
    *("--group-size", "--max-context", "--no-verify", "--dry-run", "--json", "--verbose", "--help"),
    *("--version", "--prompt", "--file", "--chat", "--max-tokens", "--temperature", "--top-p"),
    *(
        "--top-k",
        "--seed",
        "--threads",
        "--hashes",
        "--checkpoint",
        "--weights",
        "--text",
        "--quick",
    ),
    *("--strict", "--html", "--load", "--save", "--system", "--context", "--overflow", "--repeat"),
    *(
        "--prompt-lengths",
        "--contexts",
        "--decode-tokens",
        "--kv-cache",
        "--delegate",
        "--all-logits",
    ),
    *(
        "--functions",
        "--deployment-target",
        "--accuracy-level",
        "--no-such-option",
        "-n",
        "-p",
        "--",
    ),
)
_VALUES = (
    *("", "0", "-1", "1", "2", "1e999", "nan", "inf", "-inf", "99999999999999999999", "0x10", "٣"),
    *("onnx", "all", "onnx,coreml", "demo", "int4", "{ck}", "{bundle}", "{weights}", "{out}", "x"),
    *("{bundle}/manifest.json", "{bundle}/../..", "/", "/dev/null", "/dev/full", "a/b", "~", "\n"),
    *("\x1b]0;pwned\x07", "\u202e", "[/]", "a" * 5000, "{chat}", "{out}/x.npz", "-", "main", "ask"),
    *("32", "512", "1,2,3", "1,,2", "0.7", "stop", "prefill+decode", "iOS17", "C:\\x", "%s", "é"),
)
_LEAST_HEADER = 10
_BODIES = (
    *("", "null", "[]", "5", '"x"', "[" * 200_000, "<html>no</html>", '{"sha":', "\xff\xfe", "{}"),
    *('{"siblings":[1,2]}', '{"siblings":null,"sha":"x"}', '{"siblings":{"a":1}}', "1" * 5000),
)
_FIELDS = ("status", "etag", "size", "commit", "location", "cut", "content", "extra")
_LIES: Mapping[str, Sequence[object]] = {
    "status": (206, 301, 302, 304, 401, 403, 404, 416, 418, 500, 503),
    "etag": ("", "x", "../../x", "0" * 40, "0" * 64, 'a"b', "W/x", "\x1b]0;pwned\x07", "A" * 9000),
    "size": ("", "-1", "0", "1", "x", "99999999999999999999", "1e9", "1, 2"),
    "commit": ("", "x", "../..", "f" * 40, "\x1b[2J"),
    "location": (
        "//127.0.0.1:1/x",
        "file:///etc/passwd",
        "/",
        "http://",
        "x",
        "http://[::1",
        "a b",
    ),
    "cut": (0, 1, 100, -1),
    "content": ("", "x", "{", "null", "[]", "\xff" * 100, "[" * 100_000),
    "extra": (
        {"X-Error-Code": "GatedRepo"},
        {"X-Error-Message": "\x1b]0;pwned\x07"},
        {"X-Error-Message": "A" * 9000},
        {"Content-Encoding": "gzip"},
        {"Content-Length": "5"},
        {"Transfer-Encoding": "chunked"},
        {"Content-Range": "bytes 5-1/x"},
    ),
}


def change_text(content: bytes, rng: Random) -> list[Edit]:
    """Put a piece that is hard to read into a text, valid UTF-8 or not."""
    at = rng.randrange(len(content) + 1)
    piece = rng.choice(_PIECES).encode() if rng.random() < 0.7 else rng.choice(_BROKEN)
    return [Edit(at, rng.choice((0, 0, 3)), piece)]


def other_text(content: bytes, rng: Random) -> list[Edit]:
    """Put a text of such pieces in the place of a text."""
    pieces = [rng.choice(_PIECES).encode() for _ in range(rng.randint(0, 6))]
    return [Edit(0, len(content), rng.choice((b"", b" ", b"\n")).join(pieces))]


def change_line(content: bytes, rng: Random) -> list[Edit]:
    """Change a line of a vocabulary: another one's, a damaged one, none, or the token alone."""
    lines = content.splitlines(keepends=True)
    index = rng.randrange(len(lines))
    at = sum(map(len, lines[:index]))
    token, _, rank = lines[index].partition(b" ")
    new = rng.choice(
        (
            b"",
            rng.choice(lines),
            rng.choice(_LINES),
            base64.b64encode(rng.randbytes(rng.randint(0, 5))) + b" " + rank,
            token + b" " + str(int(rank) + rng.choice((-1, 1, 256, 2**31))).encode() + b"\n",
            base64.b64encode(rng.choice(ESCAPES)) + b" " + rank,
            lines[index] * 2,
        )
    )
    return [Edit(at, len(lines[index]), new)]


def another_command(content: bytes, rng: Random) -> list[Edit]:
    """Write another command line: a verb, a place, and options with values that fit or do not."""
    words = [rng.choice(_VERBS)] if rng.random() < 0.85 else []
    if rng.random() < 0.8:
        words.append(rng.choice(("{bundle}", "{weights}", "{ck}", rng.choice(_VALUES))))
    for _ in range(rng.randint(0, 4)):
        words.append(rng.choice(_OPTIONS))
        if rng.random() < 0.7:
            words.append(rng.choice(_VALUES))
    if rng.random() < 0.3:
        words += ["-p", "x", "-n", "1"]
    return [Edit(0, len(content), json.dumps(words).encode())]


def another_lie(content: bytes, rng: Random) -> list[Edit]:
    """Write other answers of a hub: about the repository, or about one or two of its files."""
    says = json.loads(content)
    if rng.random() < 0.4:
        answer = json.dumps(says["answer"]).encode()
        body = apply_all(rng.choice(JSON_AWARE)(answer, rng), answer).decode("latin-1")
        says["raw"] = body if rng.random() < 0.7 else rng.choice(_BODIES)
        says["status"] = 200 if rng.random() < 0.8 else rng.choice(_LIES["status"])
    else:
        for _ in range(rng.randint(1, 2)):
            field = rng.choice(_FIELDS)
            says["files"][rng.choice(sorted(says["files"]))][field] = rng.choice(_LIES[field])
    return [Edit(0, len(content), json.dumps(says).encode())]


def change_array(content: bytes, rng: Random) -> list[Edit]:
    """Change the header of a `.npy` array, or some of its numbers to what is none."""
    length = int.from_bytes(content[8:10], "little")
    if rng.random() < 0.5:
        at = _LEAST_HEADER + rng.randrange(max(1, length))
        return [Edit(at, 1, rng.choice((b"(", b"\\", b"9", b"[", b"'", b"\0", b"-", b"\n", b"O")))]
    place = _LEAST_HEADER + length + rng.randrange(max(1, (len(content) - length) // 4)) * 4
    number = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f"))
    count = rng.choice((1, 16, 10**6))
    count = max(1, min(count, (len(content) - place) // 4))
    return [Edit(place, 4 * count, number * count)]
