"""The table of the ops that the evaluator knows."""

from __future__ import annotations

from coreml_evaluator.arguments import Op
from coreml_evaluator.ops import elementwise, gather, linear, reduction, shape, slicing

OPS: dict[str, Op] = {
    **elementwise.OPS,
    **gather.OPS,
    **linear.OPS,
    **reduction.OPS,
    **shape.OPS,
    **slicing.OPS,
}
READ, WRITE = "read_state", "write_state"
UPDATE = "slice_update"
KNOWN = frozenset({*OPS, READ, WRITE})
