"""What quantising did to each tensor, in numbers, and how they are written and read as data.

It knows no tensor and no file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name

KEPT = "kept"
"""In place of a method's name: the codes came as they are, from a source that was quantised."""


_MOST_DIMENSIONS = 8
_MOST_COUNT = 2**60  # of bytes or of elements, far above any file


@dataclass(frozen=True)
class TensorStats:
    """Size and error of one stored tensor.

    Args:
        name: name of the tensor.
        label: storage form for people, such as `int4 g32`.
        method: name of the method that chose the codes, or `KEPT`; None: floats, which have none.
        shape: shape of the weight, not of its stored parts.
        sqnr_db: ratio of signal to what storing changed: by rounding, or of codes that were kept by
            the rounding of their scales; infinite where nothing was lost.
        bits_per_weight: stored bits for each weight, scales included.
        size_bytes: stored bytes, scales included.
    """

    name: str
    label: str
    method: str | None
    shape: tuple[int, ...]
    sqnr_db: float
    bits_per_weight: float
    size_bytes: int

    def to_json(self) -> dict[str, object]:
        """Describe the tensor as plain data; an infinite ratio becomes null."""
        return {
            "name": self.name,
            "label": self.label,
            "method": self.method,
            "shape": list(self.shape),
            "sqnr_db": db_to_json(self.sqnr_db),
            "bits_per_weight": round(self.bits_per_weight, 6),
            "size_bytes": self.size_bytes,
        }

    @classmethod
    def from_json(cls, data: object) -> TensorStats:
        """Read what `to_json` wrote.

        Raises:
            QuantizationError: anything is missing or of the wrong type.
        """
        match data:
            case {
                "name": str(name),
                "label": str(label),
                "method": (str() | None) as method,
                "shape": [*shape],
                "sqnr_db": (int() | float() | None) as sqnr_db,
                "bits_per_weight": (int() | float()) as bits_per_weight,
                "size_bytes": int(size_bytes),
            } if (
                len(shape) <= _MOST_DIMENSIONS
                and all(map(is_count, (*shape, size_bytes)))
                and not isinstance(sqnr_db, bool)
                and not isinstance(bits_per_weight, bool)
            ):
                return cls(
                    name=name,
                    label=label,
                    method=method,
                    shape=tuple(shape),
                    sqnr_db=db_from_json(sqnr_db),
                    bits_per_weight=float(bits_per_weight),
                    size_bytes=size_bytes,
                )
        message = f"not the figures of a tensor: {shown_name(repr(data), 200)}"
        raise QuantizationError(message)


@dataclass(frozen=True)
class QuantSummary:
    """The figures of a whole model.

    Args:
        stats: figures of each stored tensor, in model order.
        sqnr_db: ratio of all tensors that were rounded to integers together, weighted by energy;
            infinite if there are none. Codes that were kept do not count: the most that was lost
            of them was lost before.
        hits: number of tensors that each rule of the recipe took.
    """

    stats: tuple[TensorStats, ...]
    sqnr_db: float
    hits: tuple[int, ...]

    @property
    def weights(self) -> int:
        """Number of unique weights."""
        return sum(math.prod(stats.shape) for stats in self.stats)

    @property
    def size_bytes(self) -> int:
        """Stored bytes of all tensors, scales included."""
        return sum(stats.size_bytes for stats in self.stats)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each of the unique weights, scales included."""
        return 8 * self.size_bytes / max(1, self.weights)


def is_count(value: object) -> bool:
    """Whether a value of a file is a whole number that can count bytes, elements or tensors."""
    return type(value) is int and 0 <= value < _MOST_COUNT


def ratio_db(signal: float, noise: float) -> float:
    """Turn two energies into decibels; infinite without noise."""
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def db_to_json(ratio: float) -> float | None:
    """Write decibels; infinity, which is not JSON, becomes null."""
    return None if math.isinf(ratio) else round(ratio, 3)


def db_from_json(value: float | None) -> float:
    """Read decibels; null is infinity."""
    return math.inf if value is None else float(value)
