"""A `.pte` in ExecuTorch's runtime, as a session."""
