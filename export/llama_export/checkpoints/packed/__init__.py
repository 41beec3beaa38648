"""Weights that other programs quantised, one file a method: the tensors, and what they mean."""
