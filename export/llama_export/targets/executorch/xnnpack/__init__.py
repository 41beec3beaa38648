"""From the traced graph to a `.pte` for XNNPACK: segments lowered once, weights written in."""
