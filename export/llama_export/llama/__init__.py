"""The model: its shape, its one definition in PyTorch, its trace, and its streamed reference."""
