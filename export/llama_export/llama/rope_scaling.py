"""How a Llama's rotary frequencies are stretched: the types of config.json, read and written.

It knows the parameters of each type, which of them transformers completes, and both spellings of
the file; it computes no frequency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config_bounds import beyond_bounds
from llama_export.llama.config_keys import Fields, shown
from llama_quantize.printable import shown_name


class _Bounded:
    """What all types have: parameters within bounds, and no change of the attention's scores."""

    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse parameters of which no frequency can be computed."""
        faults = beyond_bounds(vars(self))
        if not faults:
            faults = self._faults()
        if faults:
            message = "rope_scaling cannot be computed: " + "; ".join(faults)
            raise ConfigError(message, "correct config.json")

    def _faults(self) -> list[str]:
        return []


@dataclass(frozen=True)
class RopeScaling(_Bounded):
    """Llama 3.1's stretching of the slow rotary frequencies (`rope_type: llama3`)."""

    rope_type: ClassVar[str] = "llama3"
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def _faults(self) -> list[str]:
        """Find factors that divide by zero, or that take the fast frequencies for the slow."""
        if self.low_freq_factor < self.high_freq_factor:
            return []
        return [
            f"low_freq_factor ({self.low_freq_factor}) must be below high_freq_factor "
            f"({self.high_freq_factor})"
        ]


@dataclass(frozen=True)
class LinearScaling(_Bounded):
    """All frequencies divided by one factor (`linear`, of long Llama 2)."""

    rope_type: ClassVar[str] = "linear"
    factor: float


@dataclass(frozen=True)
class DynamicScaling(_Bounded):
    """Frequencies that change once a text is longer than the model's positions (`dynamic`).

    Up to there they are those of no scaling, and further an artifact with fixed tables cannot go.
    """

    rope_type: ClassVar[str] = "dynamic"
    factor: float


@dataclass(frozen=True)
class YarnScaling(_Bounded):
    """Slow frequencies stretched, fast ones kept, both tables scaled (`yarn`).

    Args:
        factor: divisor of the slow frequencies.
        original_max_position_embeddings: positions that the model was first trained on.
        attention_factor: number that cosines and sines are multiplied with.
        beta_fast: rotations within the original positions from which on a frequency is kept.
        beta_slow: rotations up to which a frequency is divided.
        truncate: whether the border pairs are whole numbers.
    """

    rope_type: ClassVar[str] = "yarn"
    factor: float
    original_max_position_embeddings: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True)
class LongRopeScaling(_Bounded):
    """A divisor for each frequency, others for long texts than for short ones (`longrope`).

    An artifact with fixed tables holds the short ones, so it ends where the long ones begin.

    Args:
        short_factor: divisors `[D/2]` of texts of up to the original positions.
        long_factor: divisors `[D/2]` of longer texts; carried along, never used.
        original_max_position_embeddings: positions that the model was first trained on.
        attention_factor: number that cosines and sines are multiplied with.
    """

    rope_type: ClassVar[str] = "longrope"
    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int
    attention_factor: float


AnyScaling = RopeScaling | LinearScaling | DynamicScaling | YarnScaling | LongRopeScaling

_DEFAULT = "default"
_TYPES = (RopeScaling, LinearScaling, DynamicScaling, YarnScaling, LongRopeScaling)
_KNOWN = (_DEFAULT, *(each.rope_type for each in _TYPES))
_MOST_FACTORS = 2**14


def scaling_keys(scaling: AnyScaling) -> dict[str, Any]:
    """Return the `rope_scaling` of a config.json that transformers 4 and 5 both read."""
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(scaling).items()}
    return {"rope_type": scaling.rope_type, **values}


def read_rope(
    raw: Mapping[str, Any], max_positions: int, where: str
) -> tuple[float, AnyScaling | None]:
    """Read both spellings: `rope_parameters` (transformers 5), or `rope_scaling` + `rope_theta`.

    Args:
        raw: keys of config.json.
        max_positions: its `max_position_embeddings`.
        where: name of the file, for messages.

    Returns:
        Base of the frequencies, and their scaling; None: there is none.

    Raises:
        ConfigError: a parameter is missing, of the wrong type, or given twice.
        UnsupportedModelError: a type that is not implemented.
    """
    merged = _merged(raw, where)
    theta = merged.pop("rope_theta", None)
    if theta is None:
        theta = raw.get("rope_theta")
    elif raw.get("rope_theta") is not None:
        _require_equal(f"{where}: rope_theta", raw["rope_theta"], theta)
    theta = Fields({"rope_theta": theta}, where).number("rope_theta", 10000.0)
    rope_type = _type_of(merged, where)
    if _partial(merged, raw) not in (None, 1):
        message = f"{where}: partial_rotary_factor is {shown(_partial(merged, raw))}"
        raise UnsupportedModelError(message, "a Llama rotates its heads whole")
    if (outer := raw.get("original_max_position_embeddings")) is not None:
        merged["original_max_position_embeddings"] = outer
    field = Fields(merged, f"{where}: rope_scaling")
    return theta, None if rope_type == _DEFAULT else _read(rope_type, field, max_positions, theta)


def _merged(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = raw.get(key)
        value = None if value is False else value  # as transformers takes it
        if value is not None and not isinstance(value, dict):
            message = f"{where}: {key} must be an object, found {shown(value)}"
            raise ConfigError(message, "correct config.json")
        for name, new in (value or {}).items():
            _require_equal(f"{where}: {shown_name(name)}", merged.setdefault(name, new), new)
    return merged


def _type_of(merged: dict[str, Any], where: str) -> str:
    rope_type, old_type = merged.pop("rope_type", None), merged.pop("type", None)
    rope_type, old_type = rope_type or old_type, old_type or rope_type
    _require_equal(f"{where}: rope_type", rope_type, old_type)
    if rope_type is None:
        return _DEFAULT
    if rope_type == "proportional":  # of heads that are rotated whole, it is the same
        merged.setdefault("factor", 1.0)
        return LinearScaling.rope_type
    if rope_type not in _KNOWN:
        message = f"{where}: rope_type {shown(rope_type)} is not implemented"
        raise UnsupportedModelError(message, f"{', '.join(_KNOWN)} are")
    return str(rope_type)


def _partial(merged: Mapping[str, Any], raw: Mapping[str, Any]) -> object:
    return merged.get("partial_rotary_factor", raw.get("partial_rotary_factor"))


def _read(rope_type: str, field: Fields, max_positions: int, theta: float) -> AnyScaling:
    """Read the parameters of a type; what it does not have is left over, and passed over."""
    if rope_type == LinearScaling.rope_type:
        return LinearScaling(field.number("factor"))
    if rope_type == DynamicScaling.rope_type:
        return DynamicScaling(field.number("factor"))
    original = field.integer("original_max_position_embeddings", max_positions)
    if rope_type == RopeScaling.rope_type:
        return RopeScaling(
            factor=field.number("factor"),
            low_freq_factor=field.number("low_freq_factor"),
            high_freq_factor=field.number("high_freq_factor"),
            original_max_position_embeddings=original,
        )
    # transformers takes a missing or empty factor from the positions, before and after.
    factor = field.number("factor", max_positions / max(original, 1))
    if rope_type == LongRopeScaling.rope_type:
        return LongRopeScaling(
            short_factor=field.numbers("short_factor", _MOST_FACTORS),
            long_factor=field.numbers("long_factor", _MOST_FACTORS),
            original_max_position_embeddings=original,
            attention_factor=field.number("attention_factor", _longrope_factor(factor, original)),
        )
    if theta <= 1:
        message = f"rope_scaling cannot be computed: yarn needs a rope_theta above 1, found {theta}"
        raise ConfigError(message, "correct config.json")
    return YarnScaling(
        factor=factor,
        original_max_position_embeddings=original,
        attention_factor=field.number("attention_factor", _yarn_factor(factor, field)),
        beta_fast=field.number("beta_fast", 0.0) or 32.0,
        beta_slow=field.number("beta_slow", 0.0) or 1.0,
        truncate=field.boolean("truncate", default=True),
    )


def _longrope_factor(factor: float, original: int) -> float:
    """Return how much longrope sharpens attention, where the file does not say it."""
    if not factor > 1 or original < 2:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(original))


def _yarn_factor(factor: float, field: Fields) -> float:
    """Return how much yarn sharpens attention, where the file does not say it."""
    mscale, all_dim = field.number("mscale", 0.0), field.number("mscale_all_dim", 0.0)
    if mscale and all_dim:
        below = _yarn_scale(factor, all_dim)
        return _yarn_scale(factor, mscale) / below if below else 0.0
    return _yarn_scale(factor, 1.0)


def _yarn_scale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _require_equal(what: str, one: object, other: object) -> None:
    if one != other:
        message = f"{what} is given twice, as {shown(one)} and as {shown(other)}"
        raise ConfigError(message, "keep the right one")
