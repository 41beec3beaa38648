"""Checkpoint formats, one module each; every reader yields Hugging Face names and row order."""
