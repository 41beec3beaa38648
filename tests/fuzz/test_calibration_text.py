"""Whatever stands in a text or in a file of windows, it is read or refused by a named error."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from artifacts.dialogs import demo_format
from artifacts.tiny import TINY, write_byte_vocabulary

from fuzzing.edits import apply_all
from fuzzing.mutate_bytes import ANY_LENGTH
from fuzzing.mutate_json import JSON_AWARE
from fuzzing.mutate_text import change_text, other_text
from llama_export.calibration.user_text import UserText
from llama_export.calibration.windows import CalibrationWindows, ids_sha256
from llama_export.calibration.windows_file import read_windows, write_windows
from llama_export.errors import CheckpointError, PromptError
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_quantize.checkpoint.files import CALIBRATION_FILE

CASES = 150
LINES = [
    {"messages": [{"role": "user", "content": "Köln 天気"}, {"role": "assistant", "content": "x"}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"text": "a text"},
]


def mutated(content: bytes, mutators, seed: int) -> bytes:
    random = Random(seed)
    return apply_all(random.choice(mutators)(content, random), content)


@pytest.fixture(scope="module")
def form(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    write_byte_vocabulary(folder / "tokenizer.model")
    return demo_format(load_tokenizer(folder))


def outcomes(read, seeds: range, refusal: type[Exception]) -> set[str]:
    found = set()
    for seed in seeds:
        try:
            read(seed)
            found.add("read")
        except refusal as error:
            found.add("refused")
            said = error.message
            if not said.replace("\n", "").isprintable():
                found.add(f"unfit for a terminal: {said!r}")
    return found


def test_lines_of_json(form, tmp_path):
    path = tmp_path / "chats.jsonl"

    def read(seed: int) -> None:
        lines = [json.dumps(line, ensure_ascii=False).encode() for line in LINES]
        at = seed % len(lines)
        lines[at] = mutated(lines[at], (*JSON_AWARE, *ANY_LENGTH), seed)
        path.write_bytes(b"\n".join(lines))
        for window in UserText.of([path], form).windows(2 + 98 * (seed % 2), 30, seed):
            assert min(window.ids) >= 0
            assert max(window.ids) < TINY.vocab_size

    assert outcomes(read, range(CASES), PromptError) == {"read", "refused"}


def test_plain_text(form, tmp_path):
    path = tmp_path / "tale.txt"
    whole = "".join(f"Line {number}: Köln, 天気.\n" for number in range(60)).encode()

    def read(seed: int) -> None:
        path.write_bytes(mutated(whole, (change_text, other_text, *ANY_LENGTH), seed))
        for window in UserText.of([path], form).windows(2 + 98 * (seed % 2), 30, seed):
            assert len(window.ids) <= 30

    assert outcomes(read, range(CASES), PromptError) == {"read", "refused"}


def test_a_file_of_windows(tmp_path):
    ids = torch.arange(60).reshape(3, 20)
    origin = {"ids_sha256": ids_sha256(ids), "seed": "7"}
    write_windows(tmp_path, CalibrationWindows(ids, torch.zeros(3, dtype=torch.bool), origin))
    path = tmp_path / CALIBRATION_FILE
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")

    def read(seed: int) -> None:
        used = len(whole[:header].rstrip())
        start, end = ((0, used), (header, len(whole)))[seed % 3 == 0]
        path.write_bytes(whole[:start] + mutated(whole[start:end], ANY_LENGTH, seed) + whole[end:])
        found = read_windows(tmp_path, TINY)
        assert torch.equal(found.ids, ids)

    assert outcomes(read, range(CASES), CheckpointError) == {"read", "refused"}
