"""An interpreter for saved Core ML packages, on any operating system.

It reads `model.mlmodel` and `weight.bin` and nothing else: it needs no Core ML and no coremltools,
and shares no code with the lowering that it checks. Of llama_export it knows the error classes
alone. docs/evaluator.md is its manual.
"""

from __future__ import annotations

from coreml_evaluator.description import Feature, Signature
from coreml_evaluator.interpreter import Evaluator, EvaluatorState, evaluate

__all__ = ["Evaluator", "EvaluatorState", "Feature", "Signature", "evaluate"]
