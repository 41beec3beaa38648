"""An interpreter for saved Core ML packages, on any operating system.

It reads `model.mlmodel` and `weight.bin`, and nothing else: no Core ML, no coremltools, and no code
of this project's lowering. See docs/evaluator.md.
"""

from __future__ import annotations

from coreml_evaluator.description import Feature, Signature
from coreml_evaluator.interpreter import Evaluator, EvaluatorState, evaluate

__all__ = ["Evaluator", "EvaluatorState", "Feature", "Signature", "evaluate"]
