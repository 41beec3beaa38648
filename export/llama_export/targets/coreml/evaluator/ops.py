"""The table of ops: what the evaluator knows."""

from __future__ import annotations

from llama_export.targets.coreml.evaluator import (
    ops_creation,
    ops_elementwise,
    ops_gather,
    ops_linear,
    ops_reduction,
    ops_shape,
    ops_slicing,
)
from llama_export.targets.coreml.evaluator.arguments import Op

OPS: dict[str, Op] = {
    **ops_creation.OPS,
    **ops_elementwise.OPS,
    **ops_gather.OPS,
    **ops_linear.OPS,
    **ops_reduction.OPS,
    **ops_shape.OPS,
    **ops_slicing.OPS,
}
READ, WRITE = "read_state", "write_state"
UPDATE = "slice_update"
KNOWN = frozenset({*OPS, READ, WRITE})
