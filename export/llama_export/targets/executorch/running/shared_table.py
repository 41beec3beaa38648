"""Check the one region of a `.pte` that two names point to: the tied token table.

A file in which a delegate's constant and a constant of the program overlap is unusual, so it is
looked at before it is used: the bytes that the head gets must be those that its key is the hash of,
and the lookup must read the same bytes. It knows the file's layout; it runs nothing.
"""

from __future__ import annotations

import hashlib

from llama_export.errors import BundleError
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.weights import LOOKUPS

_CHUNK_BYTES = 4 * 2**20


def shared_keys(pte: Pte) -> dict[str, tuple[int, int]]:
    """Return the keys whose bytes lie among the program's constants, with offset and length."""
    number, _, _ = pte.constant_segment
    constants = pte.segments[number]
    stop = constants.offset + constants.size_bytes
    found = {}
    for key, index in pte.named.items():
        segment = pte.segments[index]
        if constants.offset <= segment.offset < stop:
            found[key] = (segment.offset, segment.size_bytes)
    return found


def check_shared_table(pte: Pte) -> None:
    """Hash what both names point to.

    Raises:
        BundleError: the head's bytes are not what its key says, or the lookup reads others.
    """
    try:
        shared = shared_keys(pte)
        if not shared:
            return
        lookup = next(call for call in pte.calls if call.operator in LOOKUPS)
        tables = [pte.tensors[index] for index in lookup.arguments[:2]]
        places = {(pte.constant_at(table.constant), table.size_bytes) for table in tables}
        for key, (offset, size_bytes) in shared.items():
            found = _sha256(pte, offset, size_bytes)
            if (offset, size_bytes) not in places or not key.endswith(found):
                message = f"{pte.path}: the tied table is not what {key[:20]}... says"
                raise BundleError(message, "the file was changed: export the bundle again")
    except (ValueError, LookupError, StopIteration) as error:
        message = f"{pte.path} is damaged: {error}"
        raise BundleError(message, "export the bundle again") from error


def _sha256(pte: Pte, offset: int, size_bytes: int) -> str:
    digest = hashlib.sha256()
    with pte.path.open("rb") as file:
        file.seek(pte.segments_at + offset)
        while size_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, size_bytes))):
            digest.update(chunk)
            size_bytes -= len(chunk)
    return digest.hexdigest()
