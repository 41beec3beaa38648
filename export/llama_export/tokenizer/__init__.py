"""Text to token ids and back: vocabularies, their files, and the chat format."""
