"""What an artifact is made of, in bytes: the vocabulary of inspecting, estimating and measuring.

It knows kinds of weights and adds them up. It does not know how a target stores them; each
target describes its own artifacts in these words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Of a KV cache, by the type that a graph declares.
CACHE_ITEM_BYTES: Mapping[str, int] = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class Part:
    """Bytes of one kind.

    Args:
        kind: name of the kind, such as "int4 codes".
        size_bytes: size in the file.
        read_bytes: share of the size that decoding one token reads.
    """

    kind: str
    size_bytes: int
    read_bytes: int


@dataclass(frozen=True)
class Footprint:
    """A whole artifact.

    Args:
        parts: parts by kind, the largest first.
        kv_bytes_per_token: growth of the KV cache, and of what decoding reads, by one position.
        files: description of each of the target's own files.
        counted: names of the files whose bytes are among the parts.
        resident_bytes: memory of the loaded artifact without its KV cache, about; 0: not known, as
            of an artifact that was described and not predicted.
    """

    parts: tuple[Part, ...]
    kv_bytes_per_token: int
    files: Mapping[str, str] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    resident_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """All parts together."""
        return sum(part.size_bytes for part in self.parts)

    def read_bytes_per_token(self, context: int) -> int:
        """Return what decoding a token reads at a context: the weights, and the cache so far."""
        return sum(part.read_bytes for part in self.parts) + context * self.kv_bytes_per_token

    def memory(self) -> dict[str, int]:
        """Return what a manifest says of the memory that running it takes."""
        return {
            "resident_bytes": self.resident_bytes,
            "kv_bytes_per_token": self.kv_bytes_per_token,
        }


def merge(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Add parts of the same kind; the largest comes first."""
    sums: dict[str, Part] = {}
    for part in parts:
        known = sums.get(part.kind, Part(part.kind, 0, 0))
        sums[part.kind] = Part(
            part.kind, known.size_bytes + part.size_bytes, known.read_bytes + part.read_bytes
        )
    return tuple(sorted(sums.values(), key=lambda part: (-part.size_bytes, part.kind)))


SCALES = "scales"
NORMS = "norms"
ROTARY = "rotary tables"
BIASES = "biases"
ADAPTORS = "adaptors"
PADDING = "padding to pages"
GRAPH = "graph"


def weights_kind(storage: str, *, is_table: bool) -> str:
    """Name the kind of a matrix: "int4 codes", "bfloat16 weights", and "int8 table" for tokens."""
    if is_table:
        return f"{storage} table"
    return f"{storage} codes" if storage.startswith("int") else f"{storage} weights"
