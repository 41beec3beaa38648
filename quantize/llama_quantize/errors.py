"""The one error of this package; it knows nothing of exit codes or of who shows it."""

from __future__ import annotations


class QuantizationError(ValueError):
    """A weight, a recipe or a quantised checkpoint that cannot be used as it is.

    Args:
        message: what is wrong and where, what was expected and what was found.
        hint: what to do next; empty when the message already says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
