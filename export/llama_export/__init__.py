"""llama-export: turn a Llama checkpoint into artifacts that run on phones and desktops."""

__version__ = "0.1.0"
