"""The errors that a user can meet: one tree, with an exit code and a hint each.

A message says what is wrong, where, what was expected and what was found; the hint says what to
do next. A failed verification is a result, not an error, and does not appear here.
"""

from __future__ import annotations

from llama_quantize.printable import clipped, printable

# Exit codes of what is no error of the input's: 0 is success, 1 a failed verification.
NOT_PROVED_EXIT_CODE = 17
OUR_FAULT_EXIT_CODE = 70

# A log level above WARNING: what a user should know although nothing failed. The libraries'
# warnings are switched off, these are not.
NOTICE = 35


class LlamaExportError(Exception):
    """Base of every error that is the input's fault and not a bug.

    `str(error)` is the message alone. Both texts may quote a file of anybody's, so both are cut to
    a length that can be read, and hold no control character but line breaks. The hint is a note
    of the exception (PEP 678): Python 3.11 and later print it below the message in a traceback;
    3.10 itself prints the message alone, but pytest and IPython show the note there too.

    Args:
        message: what is wrong, where, and what was expected and found.
        hint: what to do next; empty when the message already says it.
    """

    exit_code = 10

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = clipped(printable(message))
        self.hint = clipped(printable(hint))
        super().__init__(self.message)
        if hint:
            # What `add_note` does, which Python 3.10 does not have yet.
            self.__notes__ = [f"what to do: {self.hint}"]


class UsageError(LlamaExportError):
    """The options, or the arguments of a call, do not make a request."""

    exit_code = 2


class ConfigError(LlamaExportError):
    """config.json is unreadable or incomplete, or says something that we would get wrong."""

    exit_code = 3


class CheckpointError(LlamaExportError):
    """A weight file is damaged, incomplete, or does not match its config."""

    exit_code = 4


class UnsupportedModelError(LlamaExportError):
    """The checkpoint is well formed, but it is not a Llama that this tool can export."""

    exit_code = 5


class BackendUnavailableError(LlamaExportError):
    """A target's toolkit is not installed, or is not the version that works."""

    exit_code = 6


class LoweringError(LlamaExportError):
    """The traced graph holds something for which the target has no operator."""

    exit_code = 7


class BundleError(LlamaExportError):
    """A bundle is damaged, was changed, or has a newer format."""

    exit_code = 8


# 9 is llama_quantize.QuantizationError: it knows nothing of this package, the command line maps it.


class OutputError(LlamaExportError):
    """The output folder exists, cannot be written, or the disk is full."""

    exit_code = 11


class HubError(LlamaExportError):
    """The hub gave or took no model: no network, no such repository, a broken transfer."""

    exit_code = 12


class GatedModelError(HubError):
    """A licence that this account has not accepted, or a token that is missing or may not do it."""

    exit_code = 13


class TokenizerError(LlamaExportError):
    """The tokenizer is missing, damaged or another model's, or cannot encode a text."""

    exit_code = 14


class PromptError(LlamaExportError):
    """The prompt cannot be used: it is empty or not UTF-8, or it does not fit."""

    exit_code = 15


class EvaluationError(LlamaExportError):
    """The evaluator cannot run a package: an op is unknown, or a result is not what it declares."""

    exit_code = 16


class OutOfMemoryError(LlamaExportError):
    """The system gave no more memory."""

    exit_code = 18


class ChatTemplateError(LlamaExportError):
    """A chat template is no Jinja, or does what no template of a chat needs to do."""

    exit_code = 19
