"""The tokens of a model in GGUF: its keys, kinds and the ids that begin and end a text.

It knows numbers and names; how text becomes tokens is not its business.
"""

from __future__ import annotations

from llama_export.checkpoints.gguf.metadata import Metadata
from llama_export.errors import TokenizerError
from llama_quantize.printable import shown_name

TOKENS_KEY = "tokenizer.ggml.tokens"
TYPES_KEY = "tokenizer.ggml.token_type"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""What a token is; SentencePiece has the same numbers."""
_TYPES = range(NORMAL, BYTE + 1)
_ID_KEY = "tokenizer.ggml.{}_token_id"
_ENDS = ("eos", "eot", "eom")
# The file names one end, and Llama 3 has three.
_LLAMA_3_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


def token_id(metadata: Metadata, name: str) -> int | None:
    """Return the id of a token by its part, such as `bos` or `eos`; None: the file names none."""
    found = metadata.integer_or_none(_ID_KEY.format(name))
    # llama.cpp writes -1, or the largest number, where there is none.
    return None if found is None or not 0 <= found < 2**31 else found


def begin_id(metadata: Metadata) -> int | None:
    """Return the id that a text begins with; None: the file names none."""
    return token_id(metadata, "bos")


def end_ids(metadata: Metadata) -> tuple[int, ...]:
    """Return the ids that end an answer: those that the file names, and of Llama 3 all three.

    Raises:
        ConfigError, CheckpointError: the tokens are damaged.
    """
    named = [found for name in _ENDS if (found := token_id(metadata, name)) is not None]
    tokens = metadata.texts(TOKENS_KEY) or []
    spelled = {tokens[each] for each in named if each < len(tokens)}
    if spelled & set(_LLAMA_3_ENDS):
        named += [tokens.index(each) for each in _LLAMA_3_ENDS if each in tokens]
    return tuple(dict.fromkeys(named))


def token_types(metadata: Metadata, count: int) -> list[int]:
    """Read what each of `count` tokens is; without a list all are normal.

    Raises:
        TokenizerError: there are more or fewer than tokens, or one is of no known type.
        ConfigError, CheckpointError: the list is damaged.
    """
    found = metadata.numbers(TYPES_KEY)
    if found is None:
        return [NORMAL] * count
    if len(found) != count:
        message = f"{metadata.path}: {TYPES_KEY} has {len(found)} entries for {count} tokens"
        raise TokenizerError(message, "convert the model again")
    odd = next((at for at, each in enumerate(found) if each not in _TYPES), None)
    if odd is not None:
        message = (
            f"{metadata.path}: {TYPES_KEY} says {shown_name(repr(found[odd]))} of token {odd}, "
            f"expected {NORMAL} to {BYTE}"
        )
        raise TokenizerError(message, "convert the model again, or download the file again")
    return [int(each) for each in found]
