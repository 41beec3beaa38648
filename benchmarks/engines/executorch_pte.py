"""A `.pte` in ExecuTorch's Python runtime: `executorch_pte.py FILE THREADS`.

It runs programs of ExecuTorch's own signature: `forward(tokens [1, S], input_pos [1])` returns
logits, and the KV cache is inside. It knows that a call may take fewer tokens than a prompt has; it
does not know how a program was made.
"""

from __future__ import annotations

from importlib import metadata

import executorch.kernels.quantized  # noqa: F401 - registers operators
import torch
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401 - registers operators
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime, Verification
from protocol import serve


class Program:
    """`Runtime.load_program` and `Method.execute`, as ExecuTorch's documentation has them.

    The next token is torch's argmax of the logits, which `execute` copies out of the program.
    """

    def __init__(self, file: str, threads: int) -> None:
        portable_lib._unsafe_reset_threadpool(threads)
        # Minimal is what our session has too: the file's structure is not checked first.
        program = Runtime.get().load_program(file, verification=Verification.Minimal)
        forward, most = (program.load_method(name) for name in ("forward", "get_max_seq_len"))
        assert forward is not None
        assert most is not None
        self._program, self._forward = program, forward
        # export_llm's token axis ends one before its longest sequence.
        self._chunk = int(most.execute([])[0]) - 1
        self._position = 0
        self._logits = torch.empty(0)

    def version(self) -> str:
        """Return the library's name and version."""
        return f"executorch {metadata.version('executorch')}"

    def clear(self) -> None:
        """Forget the conversation."""
        self._position = 0

    def prefill(self, tokens: list[int]) -> None:
        """Append tokens and compute the logits after the last of them."""
        for begin in range(0, len(tokens), self._chunk):
            chunk = torch.tensor([tokens[begin : begin + self._chunk]])
            inputs = (chunk, torch.tensor([self._position]))
            self._logits = self._forward.execute(inputs)[0]
            self._position += chunk.shape[1]

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""
        self._position = position

    def step(self) -> None:
        """Append the likeliest next token, and compute the logits after it."""
        self.prefill([int(self._logits.view(-1).argmax())])


serve(Program)
