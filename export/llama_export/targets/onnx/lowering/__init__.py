"""From the traced graph to model.onnx, and what stock clients read beside it."""
