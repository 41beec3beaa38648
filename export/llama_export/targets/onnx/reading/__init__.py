"""What an ONNX artifact holds, read from its bytes without running it."""
