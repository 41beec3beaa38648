"""What a calibrated method learns of a model: windows of tokens, hidden states, curvature."""
