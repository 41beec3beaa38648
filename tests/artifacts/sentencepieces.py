"""Small SentencePiece models, trained on a few lines: such as Llama 2 and OpenLLaMA v1 have."""

from __future__ import annotations

import io
from functools import cache

import sentencepiece

LINES = [
    "The king had a daughter, and the daughter had a golden ball.",
    "Once upon a time there was a little girl who was loved by everyone.",
    "  In the   middle of the garden 123 apples grew, 45 of them red.",
    "Der König war alt; die Prinzessin spielte am Brunnen mit der Kugel.",
    "中文字符 測試 日本語",
] * 20


@cache
def trained(*, removes_blanks: bool = False, model_type: str = "bpe", size: int = 400) -> bytes:
    """Train a model with byte fallback and the control tokens of a Llama."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=out,
        vocab_size=size,
        model_type=model_type,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=removes_blanks,
        allow_whitespace_only_pieces=not removes_blanks,
        split_digits=True,
        character_coverage=0.98,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()
