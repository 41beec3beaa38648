"""How tokens are drawn: as a generation_config.json says, and by our defaults where it is silent.

One judgement for all that draw: our own commands, and the clients whose settings lie in a bundle.
The module draws nothing, and is light to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

DEFAULTS: Mapping[str, float] = MappingProxyType(
    {"temperature": 0.7, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
)
_INFINITY = float("inf")
_SOUND: Mapping[str, Callable[[float], bool]] = MappingProxyType(
    {
        "temperature": lambda value: 0 <= value < _INFINITY,
        "top_p": lambda value: 0 < value <= 1,
        "top_k": lambda value: isinstance(value, int) and value >= 0,
        "min_p": lambda value: 0 <= value <= 1,
        "repetition_penalty": lambda value: 0 < value < _INFINITY,
    }
)


def drawing_of(settings: Mapping[str, object]) -> tuple[dict[str, float], dict[str, object]]:
    """Return the values that tokens are drawn with.

    `do_sample: false` takes the likeliest token, which is temperature 0; a file without that key
    says nothing of it.

    Args:
        settings: keys of a generation_config.json.

    Returns:
        The value of each key of `DEFAULTS`; and the file's values that none can be.
    """
    values, refused = dict(DEFAULTS), {}
    for key, is_sound in _SOUND.items():
        value = settings.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_sound(value):
            refused[key] = value
        else:
            values[key] = value if key == "top_k" else float(value)
    if settings.get("do_sample") is False:
        values["temperature"] = 0.0
    return values, refused
