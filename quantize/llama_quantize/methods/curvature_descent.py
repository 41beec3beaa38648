"""`gptq_descent`, then a descent that knows what the model makes of a weight's outputs.

Errors at a weight's output do not all matter: in the query projection of a small model 9 of 256
directions do. With the curvature there the rows of a weight make up for each other. Where it is not
known, the method is `gptq_descent`.

Shapes: N rows, K columns, G groups in a row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from llama_quantize.calibration import InputStatistics, Needs
from llama_quantize.groupwise import check_range
from llama_quantize.methods.gptq_descent import (
    DAMP,
    RIDGE,
    prepared,
    required,
    row_by_row,
)
from llama_quantize.methods.solving.coupled_descent import CoupledProblem, descend_coupled
from llama_quantize.methods.solving.damping import damped, upper_factor
from llama_quantize.methods.solving.feedback import round_with_feedback
from llama_quantize.scheme import GroupedInt

_CURVATURE_DAMP = 0.01
_SWEEPS = 4


class CurvatureDescent:
    """The method `curvature_descent`; see the module."""

    name = "curvature_descent"
    needs = Needs.CURVATURE

    @property
    def settings(self) -> Mapping[str, str]:
        """What decides its codes besides the inputs; kept in the record."""
        return {
            "ridge": f"{RIDGE}",
            "damp": f"{DAMP}",
            "curvature_damp": f"{_CURVATURE_DAMP}",
            "sweeps": f"{_SWEEPS}",
        }

    @torch.no_grad()
    def quantize(
        self, weight: Tensor, scheme: GroupedInt, inputs: InputStatistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """Quantise a matrix `[N, K]`, as `Method.quantize` says."""
        found = required(self.name, inputs)
        if found.curvature is None:
            return row_by_row(weight, scheme, found, _SWEEPS)
        check_range(weight, scheme)
        target, gram = prepared(weight, found)
        codes, scales = round_with_feedback(target, upper_factor(gram), scheme)
        curvature = damped(found.curvature, _CURVATURE_DAMP)
        problem = CoupledProblem(target, gram, curvature, scheme)
        descend_coupled(problem, codes, scales, _SWEEPS)
        return codes.to(torch.int8), scales.to(torch.bfloat16)
