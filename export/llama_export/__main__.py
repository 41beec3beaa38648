"""`python -m llama_export` is `llama-export`."""

from llama_export.cli.main import main

main()
