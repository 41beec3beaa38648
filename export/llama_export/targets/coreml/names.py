"""Names of weights in a package, and back: MIL's names have no dots.

It knows nothing else. A name of a Llama's weight holds no two underscores side by side.
"""

from __future__ import annotations

_DOT = "__"
# Biases of nothing, by their length.
ZEROS = "zeros_"
# The rotation's two matrices, by their side.
HADAMARD = "hadamard_"
COS_TABLE, SIN_TABLE = "rotary__cos", "rotary__sin"


def const_name(weight: str) -> str:
    """Return the name of a weight's constant."""
    return weight.replace(".", _DOT)


def weight_name(const: str) -> str:
    """Return the Hugging Face name of a constant's weight."""
    return const.replace(_DOT, ".")
