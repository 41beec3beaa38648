"""How a model wants its tokens drawn: what the generation_config.json of its bundle says.

Where the file says nothing of a value, ours holds. It reads a bundle's file, and draws nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llama_export.bundle.bundle import Bundle
from llama_export.errors import NOTICE, BundleError, UsageError
from llama_export.generation.sampling import Sampling
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

_SETTINGS = "generation_config.json"
_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")

_log = logging.getLogger(__name__)


def read_sampling(bundle: Bundle) -> Sampling:
    """Read how the model of a bundle wants its tokens drawn.

    Raises:
        BundleError: the file cannot be read.
    """
    if _SETTINGS not in bundle.manifest.files:
        return Sampling()
    path = bundle.path(_SETTINGS)
    try:
        return sampling_of(read_object(path))
    except (OSError, JsonFault) as error:
        message = f"{path} cannot be read: {error}"
        raise BundleError(message, "export the bundle again") from error


def sampling_of(settings: Mapping[str, object]) -> Sampling:
    """Return the sampling that a generation_config.json asks for.

    A value that no sampling can have is passed over, with a notice. `do_sample: false` takes the
    likeliest token; a file without that key says nothing of it.

    Args:
        settings: keys of the file.
    """
    found = Sampling()
    for key in _KEYS:
        value = settings.get(key)
        if value is None:
            continue
        try:
            found = replace(found, **_change(key, value))
        except UsageError:
            shown = shown_name(repr(value))
            _log.log(NOTICE, "%s: %s cannot be %s; it is passed over", _SETTINGS, key, shown)
    return replace(found, temperature=0.0) if settings.get("do_sample") is False else found


def _change(key: str, value: object) -> dict[str, Any]:
    """Return a value by its name, as a sampling has it: a count, or a float.

    Raises:
        UsageError: it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        message = f"{key} is no number"
        raise UsageError(message)
    return {key: value if key == "top_k" else float(value)}
