"""The ExecuTorch target: a `.pte` for phones, its session, and what can be read back from it."""
