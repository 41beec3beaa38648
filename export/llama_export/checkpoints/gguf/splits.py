"""How a byte-level tokenizer splits text before it joins letters, by the name that GGUF has for it.

Each is what the tokenizer.json of the models of that name says, in its words. It knows no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK_CODER = (
    "[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
)


@dataclass(frozen=True)
class Split:
    """A way to split text.

    Args:
        steps: pre-tokenizers before the one that turns bytes into letters.
        splits_words: whether that last one splits words too, as GPT-2 does.
        normalizer: what is done to the text before; None: nothing.
        ignores_merges: whether a word that is a token is taken whole.
        adds_first_token: whether a model of a silent file begins with its first token.
    """

    steps: tuple[Mapping[str, object], ...]
    splits_words: bool = False
    normalizer: Mapping[str, object] | None = None
    ignores_merges: bool = False
    adds_first_token: bool = False


def _by(pattern: str) -> Mapping[str, object]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


_DIGITS: Mapping[str, object] = {"type": "Digits", "individual_digits": True}
_LLAMA_3 = Split((_by(_CL100K % "{1,3}"),), ignores_merges=True, adds_first_token=True)
_CL100K_SPLIT = Split((_by(_CL100K % "{1,3}"),))
_GPT2 = Split((), splits_words=True)
_DIGITS_AND_GPT2 = Split((_DIGITS,), splits_words=True)

SPLITS: Mapping[str, Split] = {
    "llama-bpe": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "smollm": _DIGITS_AND_GPT2,
    "starcoder": _DIGITS_AND_GPT2,
    "refact": _DIGITS_AND_GPT2,
    "gpt-2": _GPT2,
    "dbrx": _CL100K_SPLIT,
    "smaug-bpe": _CL100K_SPLIT,
    "tekken": Split((_by(_TEKKEN),), ignores_merges=True, adds_first_token=True),
    "qwen2": Split((_by(_CL100K % ""),), normalizer={"type": "NFC"}),
    "deepseek-coder": Split((*map(_by, _DEEPSEEK_CODER), _DIGITS)),
}
"""The ways that are known, by the value of `tokenizer.ggml.pre`."""
