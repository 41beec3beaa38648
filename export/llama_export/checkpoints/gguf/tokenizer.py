"""The tokenizer of a model in GGUF, given back the form that its own library reads.

`gpt2` is a byte-level BPE, which becomes a tokenizer.json; `llama` is SentencePiece, which becomes
its tokenizer.model again. The file says by name alone how text is split; a name that stands in no
table here is refused, because a guess gives wrong ids in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llama_export.checkpoints.gguf.files import GgufModel
from llama_export.checkpoints.gguf.metadata import Metadata
from llama_export.checkpoints.gguf.splits import SPLITS, Split
from llama_export.checkpoints.gguf.vocabulary import (
    CONTROL,
    TOKENS_KEY,
    UNUSED,
    USER_DEFINED,
    token_id,
    token_types,
)
from llama_export.errors import TokenizerError
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from llama_export.tokenizer.tokenizer import Tokenizer

_MODEL_KEY, _SPLIT_KEY = "tokenizer.ggml.model", "tokenizer.ggml.pre"
_MERGES_KEY = "tokenizer.ggml.merges"
_BOS_KEY, _PREFIX_KEY = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix"
_WHOLE_KEY = "tokenizer.huggingface.json"
_BYTE_LEVEL, _SENTENCEPIECE = "gpt2", "llama"
_CONVERT = "convert the model again with today's llama.cpp"
_NAMED = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}


def read_tokenizer(model: GgufModel) -> Tokenizer:
    """Make the tokenizer of a model.

    Raises:
        TokenizerError: there is none, it is damaged, or of a kind that is not known.
        ConfigError, CheckpointError: a key has another kind of value, or the file is damaged.
    """
    metadata = Metadata(model.path, model.metadata)
    settings = token_settings(metadata)
    where = str(model.path)
    if (whole := metadata.text(_WHOLE_KEY)) is not None:
        return _from_json(whole.encode("utf-8"), settings, where)
    kind = metadata.text(_MODEL_KEY)
    if kind == _BYTE_LEVEL:
        return _from_json(tokenizer_json(metadata), settings, where)
    if kind == _SENTENCEPIECE:
        from llama_export.checkpoints.gguf.sentencepiece import tokenizer_model
        from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer.from_bytes(tokenizer_model(metadata), settings, where)
    found = "no tokenizer" if kind is None else f"a tokenizer of the kind {shown_name(repr(kind))}"
    message = f"{model.path} has {found}, expected {_BYTE_LEVEL!r} or {_SENTENCEPIECE!r}"
    raise TokenizerError(message, _CONVERT)


def token_settings(metadata: Metadata) -> dict[str, object]:
    """Return the keys of the tokenizer_config.json that the file's tokenizer would have.

    Raises:
        TokenizerError: a key names a token that there is none of.
        ConfigError, CheckpointError: a key has another kind of value, or the file is damaged.
    """
    tokens = tokens_of(metadata)
    found: dict[str, object] = {}
    for key, part in _NAMED.items():
        number = token_id(metadata, part)
        if number is None:
            continue
        if number >= len(tokens):
            message = f"{metadata.path}: its {part} token is {number}, of {len(tokens)} tokens"
            raise TokenizerError(message, _CONVERT)
        found[key] = tokens[number]
    return found | {"add_bos_token": adds_first_token(metadata)}


def tokens_of(metadata: Metadata) -> list[str]:
    """Read the tokens by their ids.

    Raises:
        TokenizerError: there are none.
        ConfigError, CheckpointError: they are damaged.
    """
    tokens = metadata.texts(TOKENS_KEY)
    if not tokens:
        message = f"{metadata.path} has no tokenizer: {TOKENS_KEY} is missing or empty"
        raise TokenizerError(message, _CONVERT)
    return tokens


def adds_first_token(metadata: Metadata) -> bool:
    """Whether the first token comes before every text; of a silent file, what llama.cpp does."""
    if metadata.text(_MODEL_KEY) == _SENTENCEPIECE:
        default = True
    else:
        split = SPLITS.get(metadata.text(_SPLIT_KEY) or "")
        default = split is not None and split.adds_first_token
    return metadata.flag(_BOS_KEY, default=default) and token_id(metadata, "bos") is not None


def tokenizer_bytes(model: GgufModel) -> int:
    """Return the size of the tokenizer in a bundle, about: its tokens and merges, and their ids."""
    metadata = Metadata(model.path, model.metadata)
    return sum(metadata.size_bytes(key) for key in (TOKENS_KEY, _MERGES_KEY)) * 3 // 2


def tokenizer_json(metadata: Metadata) -> bytes:
    """Write the tokenizer.json of a byte-level BPE.

    Raises:
        TokenizerError: its parts are missing, do not fit together, or it splits text in a way that
            is not known.
        ConfigError, CheckpointError: a key has another kind of value, or the file is damaged.
    """
    split = _split_of(metadata)
    tokens = tokens_of(metadata)
    types = token_types(metadata, len(tokens))
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    # Added tokens are among them, because the library numbers what is not by itself. What is unused
    # stands for ids that the original has no token for.
    vocabulary = {
        token: number
        for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind != UNUSED
    }
    if len(vocabulary) != len(tokens) - types.count(UNUSED):
        message = f"{metadata.path}: {TOKENS_KEY} has a token twice"
        raise TokenizerError(message, _CONVERT)
    prefix = metadata.flag(_PREFIX_KEY, default=False)
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": split.normalizer,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*split.steps, _byte_level(prefix=prefix, splits=split.splits_words)],
        },
        "post_processor": _post_processor(metadata, tokens),
        "decoder": _byte_level(prefix=True, splits=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": split.ignores_merges,
            "vocab": vocabulary,
            "merges": _merges(metadata, vocabulary),
        },
    }
    return json.dumps(document, ensure_ascii=False).encode("utf-8")


def _split_of(metadata: Metadata) -> Split:
    name = metadata.text(_SPLIT_KEY)
    found = SPLITS.get(name or "")
    if found is None:
        known = ", ".join(SPLITS)
        what = "does not say how text is split" if name is None else "splits text in a way unknown"
        message = f"{metadata.path} {what}: {_SPLIT_KEY} is {shown_name(repr(name))}"
        raise TokenizerError(message, f"{known} are known; else export the original model")
    return found


def _merges(metadata: Metadata, vocabulary: Mapping[str, int]) -> Sequence[Sequence[str]]:
    merges = metadata.texts(_MERGES_KEY)
    if merges is None:
        message = f"{metadata.path} has no {_MERGES_KEY}, which a byte-level tokenizer needs"
        raise TokenizerError(message, _CONVERT)
    pairs = [each.split(" ") for each in merges]
    for pair in pairs:
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            found = shown_name(repr(" ".join(pair)))
            message = f"{metadata.path}: the merge {found} joins what are no two tokens to one"
            raise TokenizerError(message, _CONVERT)
    return pairs


def _byte_level(*, prefix: bool, splits: bool) -> dict[str, object]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": prefix,
        "trim_offsets": True,
        "use_regex": splits,
    }


def _post_processor(metadata: Metadata, tokens: Sequence[str]) -> dict[str, object] | None:
    """Put the first token before a text, where the model wants it."""
    number = token_id(metadata, "bos")
    if number is None or not adds_first_token(metadata):
        return None
    name = tokens[number]

    def sequence(which: str, type_id: int) -> list[dict[str, object]]:
        return [
            {"SpecialToken": {"id": name, "type_id": type_id}},
            {"Sequence": {"id": which, "type_id": type_id}},
        ]

    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": sequence("A", 0) + sequence("B", 1),
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }


def _from_json(data: bytes, settings: Mapping[str, object], where: str) -> Tokenizer:
    from llama_export.tokenizer.json_tokenizer import JsonTokenizer

    return JsonTokenizer.from_bytes(data, settings, where)
