"""The Core ML target: packages for Apple's devices, and an evaluator that runs them anywhere.

`Evaluator`, `EvaluatorState` and `evaluate` are imported when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_export.targets.coreml.evaluator import Evaluator, EvaluatorState, evaluate

__all__ = ["Evaluator", "EvaluatorState", "evaluate"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.evaluator"), name)
