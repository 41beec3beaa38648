"""What a `.pte` holds, read from its bytes without running it."""
