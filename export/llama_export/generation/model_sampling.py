"""How a model wants its tokens drawn: what the generation_config.json of its bundle says.

Where the file says nothing of a value, ours holds. It reads a bundle's file, and draws nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.drawing import drawing_of
from llama_export.errors import NOTICE, BundleError
from llama_export.generation.sampling import Sampling
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

_SETTINGS = "generation_config.json"

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
    """Return the sampling that a generation_config.json asks for, as `drawing_of` judges it.

    A value that no sampling can have is passed over, with a notice.

    Args:
        settings: keys of the file.
    """
    values, refused = drawing_of(settings)
    for key, value in refused.items():
        shown = shown_name(repr(value))
        _log.log(NOTICE, "%s: %s cannot be %s; it is passed over", _SETTINGS, key, shown)
    return Sampling(
        temperature=values["temperature"],
        top_p=values["top_p"],
        top_k=int(values["top_k"]),
        min_p=values["min_p"],
        repetition_penalty=values["repetition_penalty"],
    )
