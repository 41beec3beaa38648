"""GPT-2's letters: a printable character for each byte, in which byte-level vocabularies are spelt.

It knows no vocabulary.
"""

from __future__ import annotations


def _byte_alphabet() -> dict[str, int]:
    """Map GPT-2's printable stand-ins to bytes: themselves where printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printable))
    stand_ins = {chr(0x100 + index): byte for index, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | stand_ins


BYTE_OF = _byte_alphabet()
_LETTER_OF = {byte: letter for letter, byte in BYTE_OF.items()}


def spell(token: bytes) -> str:
    """Spell bytes in letters."""
    return "".join([_LETTER_OF[byte] for byte in token])
