"""Prove that a bundle computes what its checkpoint says, in comparisons that are never mixed.

The lowering error is the artifact against the eager model with the same quantised weights; the
quantisation error is those weights against the checkpoint's. `measure` has the figures, `judge`
their limits, `locate` finds the first wrong operator, `report` has the layouts. Nothing here knows
a runtime: a bundle is run through `llama_export.targets.session.Session`.
"""
