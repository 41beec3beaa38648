"""A server that speaks OpenAI's and ollama's protocols. Knows no target, no weights, no terminal."""
