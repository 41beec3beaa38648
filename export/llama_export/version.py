"""The version of llama-export: it stands alone, so that every module may name it."""

__version__ = "0.1.0"
