"""Which of two files counts where a folder has a `tokenizer.json` and a `tokenizer.model`.

It loads both and compares what they do; it writes neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llama_export.errors import TokenizerError
from llama_export.tokenizer.files import JSON_FILE, Kind
from llama_export.tokenizer.json_tokenizer import JsonTokenizer
from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama_export.tokenizer.tiktoken_tokenizer import TiktokenTokenizer
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_export.tokenizer.torture import TORTURE
from llama_quantize.printable import shown_name

# Ours is written without blanks; every other program indents it, and need not be compared.
_OWN_BEGINNING = b'{"version":"1.0",'


def choose(
    own: tuple[Path, bytes], beside: tuple[Path, Kind, bytes], settings: Mapping[str, object]
) -> Tokenizer:
    """Choose the tokenizer that counts.

    Args:
        own: the tokenizer.json, and its content.
        beside: the tokenizer.model, what it is, and its content.
        settings: keys of the tokenizer_config.json.

    Raises:
        TokenizerError: the one that counts is damaged.
    """
    place, data = own
    model, kind, content = beside
    if kind is Kind.RANKS:
        if data.startswith(_OWN_BEGINNING):
            ranks = TiktokenTokenizer.from_bytes(content, settings, str(model))
            if ranks.files()[JSON_FILE] == data:
                return ranks
        return JsonTokenizer.from_bytes(data, settings, str(place))
    document = JsonTokenizer.from_bytes(data, settings, str(place))
    if kind is Kind.JSON:
        return document
    known = {**settings, "add_bos_token": bool(document.prefix_ids)}
    pieces = SentencePieceTokenizer.from_bytes(content, known, str(model))
    if document.tokens() - pieces.tokens():
        return document
    different = [text for text in TORTURE if not _same(document, pieces, text)]
    if not different:
        return pieces.with_json(data)
    shown = shown_name(repr(different[0]), 60)
    note = (
        f"{place.name} gives other ids than {model.name} for {len(different)} of {len(TORTURE)} "
        f"texts, such as {shown}; {model.name} counts, because the model was trained with it"
    )
    return pieces.with_note(note)


def _same(document: JsonTokenizer, pieces: SentencePieceTokenizer, text: str) -> bool:
    try:
        return document.encode(text) == pieces.encode(text)
    except TokenizerError:
        return False
