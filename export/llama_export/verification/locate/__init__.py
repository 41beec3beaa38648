"""Name the first operator of an artifact that is wrong on its own input."""
