"""An output as a repository of the hub: its card, its root, and what is sent of it."""
