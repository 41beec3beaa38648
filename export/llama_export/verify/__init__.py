"""Proof that a bundle computes what its checkpoint says, in two comparisons that are never mixed.

Lowering error is the artifact against the eager model with the same quantised weights; quantisation
error is those weights against the checkpoint's. Nothing here knows a runtime: a bundle is run
through `llama_export.targets.Session`.
"""

from llama_export.verify.report.table import report_table
from llama_export.verify.rows import Row, VerifyReport
from llama_export.verify.verify import verify_bundle

__all__ = ["Row", "VerifyReport", "report_table", "verify_bundle"]
