"""What the stock clients of an ONNX artifact want to know beside the graph.

onnxruntime-genai reads genai_config.json, transformers.js some keys of config.json. It knows their
formats; it does not know the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_export.bundle.drawing import drawing_of
from llama_export.llama.config import LlamaConfig
from llama_export.targets.onnx.layout import padded_head
from llama_export.targets.own_description import ClientSettings

GENAI_FILE = "genai_config.json"
TRANSFORMERS_JS_KEY = "transformers.js_config"
# transformers.js makes the name of a model's file from a dtype, and this one adds no suffix. In a
# browser its default would add "_quantized".
_DTYPE_WITHOUT_SUFFIX = "fp32"
_DATA_FILES = 1


def client_settings(
    config: LlamaConfig, max_context: int, model_file: str, generation: Mapping[str, object]
) -> ClientSettings:
    """Return what onnxruntime-genai and transformers.js need to run the artifact unmodified.

    Nothing for a pruned head: they would take a logit's index for the token.

    Args:
        config: shape of the model.
        max_context: number of positions of the artifact.
        model_file: name of the graph; its data is in the one file `<model_file>_data`.
        generation: keys of the bundle's generation_config.json.
    """
    if config.head_tokens:
        return ClientSettings()
    settings = {
        "dtype": _DTYPE_WITHOUT_SUFFIX,
        "use_external_data_format": {model_file: _DATA_FILES},
    }
    return ClientSettings(
        config_keys={TRANSFORMERS_JS_KEY: settings},
        files={GENAI_FILE: _genai_config(config, max_context, model_file, generation)},
    )


def _genai_config(
    config: LlamaConfig, max_context: int, model_file: str, generation: Mapping[str, object]
) -> dict[str, Any]:
    return {
        "model": {
            "type": "llama",
            "bos_token_id": config.bos_token_id,
            "eos_token_id": list(config.eos_token_id),
            "pad_token_id": config.eos_token_id[0],
            "vocab_size": config.vocab_size,
            "context_length": max_context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": model_file,
                "head_size": padded_head(config.head_dim),
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.num_attention_heads,
                "num_hidden_layers": config.num_hidden_layers,
                "num_key_value_heads": config.num_key_value_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "max_length": max_context,
            "past_present_share_buffer": True,
            "num_beams": 1,
            **_drawing(generation),
        },
    }


def _drawing(generation: Mapping[str, object]) -> dict[str, object]:
    """Write how tokens are drawn, as our own commands draw them; genai knows no min-p."""
    values, _ = drawing_of(generation)
    penalty = {"repetition_penalty": values["repetition_penalty"]}
    if values["temperature"] == 0:
        return {"do_sample": False, **penalty}
    names = ("temperature", "top_p", "top_k")
    return {"do_sample": True, **{name: values[name] for name in names}, **penalty}
