"""Token ids to text one at a time, in whole characters only.

It knows what one id's bytes are from whoever makes a decoder, and no vocabulary.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


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

    def flush(self) -> str:
        """Return U+FFFD for a character that was never finished, or "", and start afresh."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
