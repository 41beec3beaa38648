"""An ONNX artifact in onnxruntime: as a session, or tapped at its intermediates."""
