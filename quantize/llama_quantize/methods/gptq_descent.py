"""GPTQ towards full-precision targets, then coordinate descent over codes and scales.

It asks for a weight's inputs and for what its output lacks: the target is the weight that would
make up for it. `curvature_descent` goes on from here.

Shapes: N rows, K columns, G groups in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from llama_quantize.calibration import InputStatistics, Needs
from llama_quantize.errors import QuantizationError
from llama_quantize.groupwise import check_range
from llama_quantize.methods.solving.damping import damped, upper_factor
from llama_quantize.methods.solving.descent import descend
from llama_quantize.methods.solving.feedback import round_with_feedback
from llama_quantize.methods.solving.targets import corrected
from llama_quantize.scheme import GroupedInt

# Shares of the mean diagonal, and not of each channel's own or of a typical one: where a model
# keeps a huge value for every text's first token, that value decides what may be lost.
RIDGE, DAMP = 0.15, 0.1
_SWEEPS = 4
# Of a width of 2048 in float32 they are 67 MB, and half a dozen such arrays are needed.
_BLOCK_ROWS = 8192


class GptqDescent:
    """The method `gptq_descent`; see the module."""

    name = "gptq_descent"
    needs = Needs.TARGETS

    @property
    def settings(self) -> Mapping[str, str]:
        """What decides its codes besides the inputs; kept in the record."""
        return {"ridge": f"{RIDGE}", "damp": f"{DAMP}", "sweeps": f"{_SWEEPS}"}

    @torch.no_grad()
    def quantize(
        self, weight: Tensor, scheme: GroupedInt, inputs: InputStatistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """Quantise a matrix `[N, K]`, as `Method.quantize` says."""
        return row_by_row(weight, scheme, required(self.name, inputs), _SWEEPS)


def required(method: str, inputs: InputStatistics | None) -> InputStatistics:
    """Return the statistics of a weight's inputs.

    Raises:
        QuantizationError: there are none, or they are not finite.
    """
    if inputs is None:
        message = f"the method {method} needs the statistics of a weight's inputs"
        raise QuantizationError(message, "give a calibration, or name another method")
    for part in (inputs.gram, inputs.cross, inputs.curvature):
        if part is not None and not bool(part.isfinite().all()):
            message = "what the model computes of the text to calibrate on is not finite"
            hint = "another weight is damaged; or choose a method that needs no inputs"
            raise QuantizationError(message, hint)
    return inputs


def prepared(weight: Tensor, inputs: InputStatistics) -> tuple[Tensor, Tensor]:
    """Return the target `[N, K]` and the damped Gram matrix `[K, K]`, both float32."""
    target = corrected(weight.to(torch.float32), inputs, RIDGE)
    return target, damped(inputs.gram, DAMP)


def row_by_row(
    weight: Tensor, scheme: GroupedInt, inputs: InputStatistics, sweeps: int
) -> tuple[Tensor, Tensor]:
    """Quantise a matrix `[N, K]` whose rows know nothing of each other.

    They go a block at a time: a token table has a hundred thousand.

    Returns:
        Codes int8 `[N, K]` and scales bfloat16 `[N, G]`.

    Raises:
        QuantizationError: a weight is NaN, infinite or too large for a scale.
    """
    check_range(weight, scheme)
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, dtype=torch.int8)
    scales = torch.empty(rows, scheme.groups(columns), dtype=torch.bfloat16)
    factor: Tensor | None = None
    for start in range(0, rows, _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        cross = None if inputs.cross is None else inputs.cross[part]
        target, gram = prepared(weight[part], replace(inputs, cross=cross))
        factor = upper_factor(gram) if factor is None else factor
        found, found_scales = round_with_feedback(target, factor, scheme)
        descend(target, found, found_scales, gram, scheme, sweeps)
        codes[part], scales[part] = found.to(torch.int8), found_scales.to(torch.bfloat16)
    return codes, scales
