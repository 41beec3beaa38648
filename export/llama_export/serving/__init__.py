"""A server with OpenAI's and ollama's protocols. Knows no target, no weights and no terminal."""
