"""A GGUF file in llama.cpp, through llama-cpp-python: `llama_cpp_python.py FILE THREADS`."""

from __future__ import annotations

import llama_cpp
import numpy as np
from protocol import serve

CONTEXT = 2048
BATCH = 512


class LlamaCpp:
    """`llama_decode` in batches of 512, with its default cache in float16.

    The next token is numpy's argmax, as in our engine: the library's own sampler, called from
    Python, would cost it a millisecond a token.
    """

    def __init__(self, file: str, threads: int) -> None:
        self._llama = llama_cpp.Llama(
            file,
            n_ctx=CONTEXT,
            n_batch=BATCH,
            n_ubatch=BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=False,
            verbose=False,
        )

    def version(self) -> str:
        """Return the library's name and version."""
        return f"llama.cpp in llama-cpp-python {llama_cpp.__version__}"

    def clear(self) -> None:
        """Forget the conversation."""
        self._llama.reset()
        self._llama._ctx.kv_cache_clear()

    def prefill(self, tokens: list[int]) -> None:
        """Append tokens and compute the logits after the last of them."""
        self._llama.eval(tokens)

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""
        self._llama.n_tokens = position
        self._llama._ctx.kv_cache_seq_rm(-1, position, -1)

    def step(self) -> None:
        """Append the likeliest next token, and compute the logits after it."""
        logits = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        best = np.ctypeslib.as_array(logits, shape=(self._llama.n_vocab(),)).argmax()
        self._llama.eval([int(best)])


serve(LlamaCpp)
