"""Run an artifact beside the eager model, and measure how far they are apart."""
