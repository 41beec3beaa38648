"""Llamas in GGUF, llama.cpp's format."""
