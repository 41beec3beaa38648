"""What a GGUF file says beside shape, tokenizer and weights: chat templates, ends, sampling.

It puts metadata into the words of the files that transformers would have; it renders nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama_export.checkpoints.checkpoint import Companions
from llama_export.checkpoints.companions import DEFAULT_TEMPLATE
from llama_export.checkpoints.gguf.files import GgufModel
from llama_export.checkpoints.gguf.metadata import Metadata
from llama_export.checkpoints.gguf.tokenizer import token_settings
from llama_export.checkpoints.gguf.vocabulary import begin_id, end_ids, token_id

_TEMPLATE_KEY = "tokenizer.chat_template"
_NAMED_TEMPLATE = f"{_TEMPLATE_KEY}."
_SAMPLING: Mapping[str, str] = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


def read_companions(model: GgufModel) -> Companions:
    """Read what a file says beside the rest.

    Raises:
        ConfigError: a key has another kind of value than it must have.
        TokenizerError, CheckpointError: the tokens are missing or damaged.
    """
    metadata = Metadata(model.path, model.metadata)
    settings: Mapping[str, object] = token_settings(metadata)
    return Companions(settings, _generation_config(metadata), _templates(metadata))


def _templates(metadata: Metadata) -> dict[str, str]:
    found = {
        key.removeprefix(_NAMED_TEMPLATE): metadata.text(key)
        for key in metadata.values
        if key.startswith(_NAMED_TEMPLATE)
    }
    found[DEFAULT_TEMPLATE] = metadata.text(_TEMPLATE_KEY) or found.get(DEFAULT_TEMPLATE)
    return {name: text for name, text in found.items() if text}


def _generation_config(metadata: Metadata) -> dict[str, object]:
    sampling = {
        name: metadata.number(f"general.sampling.{key}")
        for key, name in _SAMPLING.items()
        if f"general.sampling.{key}" in metadata
    }
    if "top_k" in sampling:
        sampling["top_k"] = int(sampling["top_k"])
    ids = {
        "bos_token_id": begin_id(metadata),
        "eos_token_id": list(end_ids(metadata)) or None,
        "pad_token_id": token_id(metadata, "padding"),
    }
    found: dict[str, object] = {key: value for key, value in ids.items() if value is not None}
    return found | ({"do_sample": True, **sampling} if sampling else {})
