"""The one error of this package; it knows nothing of exit codes or of who shows it."""

from __future__ import annotations

from llama_quantize.printable import clipped, printable


class QuantizationError(ValueError):
    """A weight, a recipe or a quantised checkpoint that cannot be used as it is.

    `str(error)` is the message alone; the hint is a note of the exception (PEP 678), which a
    traceback of Python 3.11 and later prints below it. Both are cut to a length that can be read,
    and hold no control character but line breaks.

    Args:
        message: what is wrong and where, what was expected and what was found.
        hint: what to do next; empty when the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = clipped(printable(message))
        self.hint = clipped(printable(hint))
        super().__init__(self.message)
        if hint:
            # What `add_note` does, which Python 3.10 does not have yet.
            self.__notes__ = [f"what to do: {self.hint}"]
