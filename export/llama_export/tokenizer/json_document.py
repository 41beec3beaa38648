"""A `tokenizer.json` as a document: read within limits, and what it says of its tokens.

Its pipeline is left to the `tokenizers` library, which sees the file only after this. Nothing is
encoded here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llama_export.errors import TokenizerError
from llama_export.tokenizer.byte_letters import BYTE_OF
from llama_export.tokenizer.files import MOST_BYTES
from llama_export.tokenizer.text import BLANK_LETTER
from llama_export.tokenizer.vocabulary import (
    GET_ANOTHER,
    MOST_TOKENS,
    check_special_tokens,
    is_id,
    some,
)
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, parse_object

_MOST_TOKEN_CHARACTERS = 2**12
_MOST_PATTERN_CHARACTERS = 2**14
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_BYTE_LEVEL = "ByteLevel"


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """Parse the bytes of a `tokenizer.json`, and refuse what no tokenizer has.

    Args:
        data: bytes of the file.
        where: name of the file, for messages.

    Raises:
        TokenizerError: the file is damaged, or its tokens are more or longer than any model's.
    """
    try:
        raw = parse_object(data, most_bytes=MOST_BYTES)
    except JsonFault as fault:
        message = f"{where} is not valid JSON: {fault}"
        raise TokenizerError(message, GET_ANOTHER) from None
    try:
        _require_vocabulary(raw["model"], where)
        added = [(each["content"], each["id"]) for each in raw.get("added_tokens") or []]
        check_special_tokens(added, where)
        patterns = [pattern for step in _STEPS for pattern in _patterns(raw.get(step))]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        found = shown_name(repr(error), 200)
        message = f"{where} is not built like a tokenizer.json: {found}"
        raise TokenizerError(message, GET_ANOTHER) from None
    longest = max(map(len, patterns), default=0)
    if longest > _MOST_PATTERN_CHARACTERS:
        message = f"{where} has a pattern of {longest} characters, expected at most "
        raise TokenizerError(message + str(_MOST_PATTERN_CHARACTERS), GET_ANOTHER)
    return raw


def names_of_added(raw: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether each added token is a control token, by its name."""
    return {each["content"]: each.get("special") is True for each in raw.get("added_tokens") or []}


def without_merges_of(raw: dict[str, Any], names: set[str]) -> dict[str, Any] | None:
    """Return the document without merges that put a control token's name together.

    Some converters wrote them; typed text would become the control token by them.

    Returns:
        None: it has no such merges.
    """
    merges = raw["model"].get("merges") or []
    kept = [each for each in merges if _result(each) not in names]
    if len(kept) == len(merges):
        return None
    return raw | {"model": raw["model"] | {"merges": kept}}


def decodes_bytes(raw: Mapping[str, Any]) -> bool:
    """Return whether every token stands for bytes, in GPT-2's letters."""
    return [step.get("type") for step in _decoders(raw)] == [_BYTE_LEVEL]


def dropped_blanks(raw: Mapping[str, Any]) -> int | None:
    """Return how many blanks fall away before a text of pieces; None: it decodes another way.

    The way that is meant is SentencePiece's: a letter for a blank, and bytes for what has no piece.
    """
    steps = list(_decoders(raw))
    if steps[:3] != [
        {"type": "Replace", "pattern": {"String": BLANK_LETTER}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]:
        return None
    rest = [{key: step[key] for key in step if key != "type"} for step in steps[3:]]
    if not rest:
        return 0
    strips = steps[3].get("type") == "Strip" and rest == [{"content": " ", "start": 1, "stop": 0}]
    return 1 if strips else None


def splits_by_blank_letter(raw: Mapping[str, Any]) -> bool:
    """Return whether a pre-tokenizer writes the letter for a blank, and not a normaliser."""
    step = raw.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers") if step.get("type") == "Sequence" else [step]
    return any(each.get("type") == "Metaspace" for each in steps or [])


def without_first_blank(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the document of text that continues; None: such text is encoded as any other.

    A pre-tokenizer may put a blank before a text, and not before what follows a special token.
    """
    step = raw.get("pre_tokenizer") or {}
    inner = step.get("pretokenizers")
    steps = [step] if inner is None else inner
    changed = [
        each | {"prepend_scheme": "never"} if each.get("prepend_scheme") == "first" else each
        for each in steps
    ]
    if changed == steps:
        return None
    return {
        **raw,
        "pre_tokenizer": changed[0] if inner is None else step | {"pretokenizers": changed},
    }


def token_bytes(token: str) -> bytes:
    """Return the bytes that a token in GPT-2's letters stands for; others are text as it is."""
    try:
        return bytes([BYTE_OF[letter] for letter in token])
    except KeyError:
        return token.encode("utf-8")


def _require_vocabulary(model: Mapping[str, Any], where: str) -> None:
    vocabulary = model["vocab"]
    listed = isinstance(vocabulary, list)  # Unigram: pairs of token and score
    tokens = [each[0] for each in vocabulary] if listed else list(vocabulary)
    odd = [] if listed else [each for each in vocabulary.values() if not is_id(each)]
    longest = max((len(token) for token in tokens), default=0)
    fault = ""
    if len(tokens) > MOST_TOKENS:
        fault = f"it has {len(tokens)} tokens, expected at most {MOST_TOKENS}"
    elif odd:
        fault = f"an id must be a whole number, found {some(odd)}"
    elif longest > _MOST_TOKEN_CHARACTERS:
        fault = f"it has a token of {longest} characters, expected at most {_MOST_TOKEN_CHARACTERS}"
    elif not listed and (twice := _given_twice(vocabulary)):
        fault = f"the tokens {shown_name(twice[0])} and {shown_name(twice[1])} have one id"
    if fault:
        message = f"{where}: {fault}"
        raise TokenizerError(message, GET_ANOTHER)


def _given_twice(vocabulary: Mapping[str, int]) -> tuple[str, str] | None:
    """Return two tokens with one id, which the library would take; None: each has its own."""
    if len(set(vocabulary.values())) == len(vocabulary):
        return None
    seen: dict[int, str] = {}
    for token, token_id in vocabulary.items():
        if token_id in seen:
            return seen[token_id], token
        seen[token_id] = token
    return None


def _patterns(node: object) -> Iterator[str]:
    """Find the regular expressions of a step, wherever they stand."""
    if isinstance(node, dict):
        found = node.get("Regex")
        if isinstance(found, str):
            yield found
        for each in node.values():
            yield from _patterns(each)
    elif isinstance(node, list):
        for each in node:
            yield from _patterns(each)


def _result(merge: object) -> str:
    """Return what a merge makes, in either spelling."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return "".join(map(str, parts)) if isinstance(parts, list) else ""


def _decoders(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    decoder = raw.get("decoder") or {}
    steps = decoder.get("decoders") if decoder.get("type") == "Sequence" else [decoder]
    yield from steps if isinstance(steps, list) else []
