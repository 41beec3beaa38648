"""Text from a bundle: sessions, conversations, sampling. Knows no target and no terminal."""
