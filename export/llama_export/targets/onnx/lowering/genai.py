"""genai_config.json: what onnxruntime-genai wants to know beside the graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llama_export.llama.config import LlamaConfig

FILE_NAME = "genai_config.json"


def write_genai_config(
    folder: Path, config: LlamaConfig, max_context: int, model_file: str
) -> None:
    """Write the description with which onnxruntime-genai runs the artifact unmodified."""
    text = json.dumps(_genai_config(config, max_context, model_file), indent=2) + "\n"
    (folder / FILE_NAME).write_text(text, encoding="utf-8")


def _genai_config(config: LlamaConfig, max_context: int, model_file: str) -> dict[str, Any]:
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
                "head_size": config.head_dim,
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
            "do_sample": False,
            "num_beams": 1,
        },
    }
