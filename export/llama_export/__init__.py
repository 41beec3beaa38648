"""llama-export: turn a Llama checkpoint into artifacts that run on phones and desktops.

`load`, `export`, `verify` and `inspect` do from Python what the command line does; docs/python.md
shows how. Importing this package imports nothing else: the names in `_PLACES` arrive when they are
used, and until the command line stands nothing can go wrong with them.
"""

from __future__ import annotations

from llama_export.version import __version__

# What type checkers know by this name is not worth an import of `typing` here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from llama_export.bundle.bundle import Bundle
    from llama_export.calibration.options import CalibrationOptions
    from llama_export.checkpoints.checkpoint import ReadOptions
    from llama_export.errors import (
        BackendUnavailableError,
        BundleError,
        ChatTemplateError,
        CheckpointError,
        ConfigError,
        EvaluationError,
        GatedModelError,
        HubError,
        LlamaExportError,
        LoweringError,
        OutOfMemoryError,
        OutputError,
        PromptError,
        TokenizerError,
        UnsupportedModelError,
        UsageError,
    )
    from llama_export.examine.inspection import Inspection
    from llama_export.exporting.result import ExportResult
    from llama_export.generation.conversation import Conversation
    from llama_export.generation.decoding import GenerationStats
    from llama_export.generation.grammar import Grammar
    from llama_export.generation.overflow import Overflow
    from llama_export.generation.sampling import Sampling
    from llama_export.generation.session_file import Turn
    from llama_export.generation.text_session import TextSession
    from llama_export.generation.text_stream import Completion, TextStream
    from llama_export.generation.tools import Reply, Tools
    from llama_export.python_interface import (
        ExportSettings,
        HubModel,
        export,
        inspect,
        load,
        verify,
    )
    from llama_export.targets.coreml.options import CoremlOptions
    from llama_export.targets.executorch.options import ExecutorchOptions
    from llama_export.targets.onnx.options import OnnxOptions
    from llama_export.tokenizer.chat.call_reader import CallDelta, TextDelta
    from llama_export.tokenizer.chat.messages import Message, ToolCall
    from llama_export.verification.rows import VerificationFailedError, VerifyReport
    from llama_quantize.errors import QuantizationError

__all__ = [
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "CalibrationOptions",
    "CallDelta",
    "ChatTemplateError",
    "CheckpointError",
    "Completion",
    "ConfigError",
    "Conversation",
    "CoremlOptions",
    "EvaluationError",
    "ExecutorchOptions",
    "ExportResult",
    "ExportSettings",
    "GatedModelError",
    "GenerationStats",
    "Grammar",
    "HubError",
    "HubModel",
    "Inspection",
    "LlamaExportError",
    "LoweringError",
    "Message",
    "OnnxOptions",
    "OutOfMemoryError",
    "OutputError",
    "Overflow",
    "PromptError",
    "QuantizationError",
    "ReadOptions",
    "Reply",
    "Sampling",
    "TextDelta",
    "TextSession",
    "TextStream",
    "TokenizerError",
    "ToolCall",
    "Tools",
    "Turn",
    "UnsupportedModelError",
    "UsageError",
    "VerificationFailedError",
    "VerifyReport",
    "__version__",
    "export",
    "inspect",
    "load",
    "verify",
]

# Where the names are that are imported when they are used.
_PLACES = {
    "llama_export.bundle.bundle": ("Bundle",),
    "llama_export.calibration.options": ("CalibrationOptions",),
    "llama_export.checkpoints.checkpoint": ("ReadOptions",),
    "llama_export.errors": (
        "BackendUnavailableError",
        "BundleError",
        "ChatTemplateError",
        "CheckpointError",
        "ConfigError",
        "EvaluationError",
        "GatedModelError",
        "HubError",
        "LlamaExportError",
        "LoweringError",
        "OutOfMemoryError",
        "OutputError",
        "PromptError",
        "TokenizerError",
        "UnsupportedModelError",
        "UsageError",
    ),
    "llama_export.python_interface": (
        "ExportSettings",
        "HubModel",
        "export",
        "inspect",
        "load",
        "verify",
    ),
    "llama_export.examine.inspection": ("Inspection",),
    "llama_export.exporting.result": ("ExportResult",),
    "llama_export.generation.conversation": ("Conversation",),
    "llama_export.generation.decoding": ("GenerationStats",),
    "llama_export.generation.grammar": ("Grammar",),
    "llama_export.generation.overflow": ("Overflow",),
    "llama_export.generation.sampling": ("Sampling",),
    "llama_export.generation.session_file": ("Turn",),
    "llama_export.generation.text_session": ("TextSession",),
    "llama_export.generation.text_stream": ("Completion", "TextStream"),
    "llama_export.generation.tools": ("Reply", "Tools"),
    "llama_export.tokenizer.chat.call_reader": ("CallDelta", "TextDelta"),
    "llama_export.targets.coreml.options": ("CoremlOptions",),
    "llama_export.targets.executorch.options": ("ExecutorchOptions",),
    "llama_export.targets.onnx.options": ("OnnxOptions",),
    "llama_export.tokenizer.chat.messages": ("Message", "ToolCall"),
    "llama_export.verification.rows": ("VerificationFailedError", "VerifyReport"),
    "llama_quantize.errors": ("QuantizationError",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
