"""Token ids to text one at a time, in whole characters only.

It knows what an id stands for from whoever makes a decoder, and no vocabulary. What comes out of a
decoder, put together, is what decoding all ids at once gives.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence

_REPLACEMENT = "\ufffd"
_BLANK = " "


class ByteStreamDecoder:
    """Decodes ids that each stand for some bytes, whatever comes before them.

    Args:
        decode_bytes: function that returns the bytes of some ids.
    """

    def __init__(self, decode_bytes: Callable[[Sequence[int]], bytes]) -> None:
        self._decode_bytes = decode_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the text that an id completes; an unfinished character waits for the next id.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        return self._utf8.decode(self._decode_bytes([token_id]))

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes that an id adds to a text.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        return self._decode_bytes([token_id])

    def flush(self) -> str:
        """Return U+FFFD for a character that was never finished, or "", and start afresh."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


class PieceStreamDecoder:
    """Decodes ids that each stand for a text, or for one byte of a character that has no piece.

    Args:
        piece_of: function that returns the text of an id, or its byte.
        drops_blanks: how many blanks fall away at the very beginning; None: all.
        keeps_bytes: whether a blank that came as a byte stays, and those after it.
    """

    def __init__(
        self,
        piece_of: Callable[[int], str | bytes],
        *,
        drops_blanks: int | None = 0,
        keeps_bytes: bool = False,
    ) -> None:
        self._piece_of, self._keeps_bytes = piece_of, keeps_bytes
        self._drops_blanks = drops_blanks
        self._left = drops_blanks
        self._bytes = b""

    def push(self, token_id: int) -> str:
        """Return the text that an id completes; an unfinished character waits for the next id.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        piece = self._piece_of(token_id)
        if isinstance(piece, bytes):
            self._bytes += piece
            text, self._bytes = _whole_characters(self._bytes)
            if text and self._keeps_bytes:
                self._left = 0
            return self._without_blanks(text)
        return self._without_blanks(self._end_of_bytes() + piece)

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes that an id adds to a text that goes on.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        piece = self._piece_of(token_id)
        return piece if isinstance(piece, bytes) else piece.encode("utf-8")

    def flush(self) -> str:
        """Return U+FFFD for each byte that became no character, or "", and start afresh."""
        rest = self._without_blanks(self._end_of_bytes())
        self._left = self._drops_blanks
        return rest

    def _end_of_bytes(self) -> str:
        rest, self._bytes = self._bytes, b""
        return _REPLACEMENT * len(rest)

    def _without_blanks(self, text: str) -> str:
        if self._left == 0 or not text:
            return text
        kept = text.lstrip(_BLANK)
        if self._left is not None:
            kept = text[min(len(text) - len(kept), self._left) :]
            self._left -= len(text) - len(kept)
        if kept:
            self._left = 0
        return kept


class WholeStreamDecoder:
    """Decodes ids whose text depends on their neighbours in ways that are not known here.

    Every text is decoded from its beginning, and comes out as soon as the next one begins with it.

    Args:
        decode: function that decodes all ids.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._before, self._shown = "", 0

    def push(self, token_id: int) -> str:
        """Return what is certain of the text after one more id.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        self._ids.append(token_id)
        text = self._decode(self._ids)
        # A U+FFFD at the end may be a part of a character that is not whole yet.
        same = _shared_length(self._before, text.rstrip(_REPLACEMENT))
        shown, self._before = max(self._shown, same), text
        piece, self._shown = text[self._shown : shown], shown
        return piece

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes that an id adds to a text that goes on; none where that depends.

        What it adds behind itself must be what it adds behind the first token, and leave what
        follows as it is.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        before, own = self._decode([0]), self._decode([token_id])
        twice, both = self._decode([token_id, token_id]), self._decode([0, token_id])
        added = twice.removeprefix(own)
        depends = both != before + added or self._decode([0, token_id, token_id]) != both + added
        return b"" if depends or _REPLACEMENT in added else added.encode("utf-8")

    def flush(self) -> str:
        """Return the rest, and start afresh."""
        rest = self._before[self._shown :]
        self._ids, self._before, self._shown = [], "", 0
        return rest


def joined(stream: PieceStreamDecoder, ids: Iterable[int]) -> str:
    """Decode all ids with a fresh stream."""
    pieces = [stream.push(token_id) for token_id in ids]
    return "".join(pieces) + stream.flush()


def _whole_characters(data: bytes) -> tuple[str, bytes]:
    """Decode what are whole characters, each byte that can begin none as U+FFFD; and the rest."""
    text = ""
    while data:
        try:
            return text + data.decode("utf-8"), b""
        except UnicodeDecodeError as error:
            text += data[: error.start].decode("utf-8")
            data = data[error.start :]
            if error.end - error.start == len(data) and error.reason == "unexpected end of data":
                return text, data
            text, data = text + _REPLACEMENT, data[1:]
    return text, b""


def _shared_length(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return min(len(one), len(other))
