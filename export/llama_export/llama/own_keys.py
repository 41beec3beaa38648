"""What Hugging Face's config.json has no key for: under one key of ours, and only where it is set.

It knows SpinQuant's rotation, QLoRA's side branches and the tokens of a pruned head as fields; it
knows nothing of the maths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config_keys import Fields, shown
from llama_quantize.printable import shown_name

if TYPE_CHECKING:
    from llama_export.llama.config import LlamaConfig

OWN_KEY = "llama_export"
# Programs that go by this name would leave out what they do not know; ONNX's clients, which run the
# graph as it is, go by `model_type`.
PLAIN_ARCHITECTURE, OWN_ARCHITECTURE = "LlamaForCausalLM", "LlamaExportForCausalLM"
_ROTATION, _RANK, _SCALE = "down_proj_rotation", "adaptor_rank", "adaptor_scale"
_HEAD = "head_tokens"


def read_own_keys(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a config that stand under our key.

    Args:
        raw: keys of config.json.
        where: name of the file, for messages.

    Raises:
        ConfigError: a value is of another type.
        UnsupportedModelError: a key is unknown: a newer version may have written it.
    """
    own = raw.get(OWN_KEY)
    if own is None:
        return {}
    if not isinstance(own, Mapping):
        message = f"{where}: {OWN_KEY} must be an object, found {shown(own)}"
        raise ConfigError(message, "correct config.json")
    if unknown := sorted(set(own) - {_ROTATION, _RANK, _SCALE, _HEAD}):
        names = ", ".join(map(shown_name, unknown))
        message = f"{where}: {OWN_KEY} has keys that are not implemented: {names}"
        raise UnsupportedModelError(message, "upgrade llama-export, and retry")
    field = Fields(own, f"{where}: {OWN_KEY}")
    fields: dict[str, Any] = {_ROTATION: field.boolean(_ROTATION, default=False)}
    if _RANK in own or _SCALE in own:
        fields |= {_RANK: field.integer(_RANK), _SCALE: field.number(_SCALE)}
    if _HEAD in own:
        fields[_HEAD] = field.token_ids(_HEAD)
    return fields


def own_keys(config: LlamaConfig) -> dict[str, Any]:
    """Return what stands under our key; empty: transformers computes the same."""
    keys: dict[str, Any] = {_ROTATION: True} if config.down_proj_rotation else {}
    if config.adaptor_rank:
        keys |= {_RANK: config.adaptor_rank, _SCALE: config.adaptor_scale}
    if config.head_tokens:
        keys[_HEAD] = list(config.head_tokens)
    return keys


def with_own_keys(keys: dict[str, Any], config: LlamaConfig) -> dict[str, Any]:
    """Add what a config has of ours to the keys of its config.json."""
    own = own_keys(config)
    if not own:
        return keys
    return keys | {"architectures": [OWN_ARCHITECTURE], OWN_KEY: own}
