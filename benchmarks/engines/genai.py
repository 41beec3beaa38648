"""A folder with a genai_config.json in onnxruntime-genai: `genai.py FOLDER THREADS`."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime_genai
from protocol import serve


class Genai:
    """The generator loop of onnxruntime-genai's own examples."""

    def __init__(self, folder: str, threads: int) -> None:
        config = onnxruntime_genai.Config(folder)
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
        config.overlay(json.dumps(options))
        self._model = onnxruntime_genai.Model(config)
        self.clear()

    def version(self) -> str:
        """Return the library's name and version."""
        return f"onnxruntime-genai {onnxruntime_genai.__version__}"

    def clear(self) -> None:
        """Forget the conversation."""
        parameters = onnxruntime_genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=2048, do_sample=False)
        self._generator = onnxruntime_genai.Generator(self._model, parameters)

    def prefill(self, tokens: list[int]) -> None:
        """Append tokens and compute the logits after the last of them."""
        self._generator.append_tokens(np.array([tokens], dtype=np.int32))

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""
        self._generator.rewind_to(position - 1)
        self._generator.append_tokens(np.array([[1000]], dtype=np.int32))

    def step(self) -> None:
        """Append the likeliest next token, and compute the logits after it."""
        self._generator.generate_next_token()


serve(Genai)
