"""What a Core ML package holds, read from its bytes without running it."""
