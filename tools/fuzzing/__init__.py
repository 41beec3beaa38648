"""Mutated inputs for every surface of the product, and what becomes of each."""
