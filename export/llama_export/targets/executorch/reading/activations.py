"""How the products of a `.pte` round their input: every row to int8 with a zero point.

It knows what XNNPACK's kernels do with a dynamically quantised input; it computes nothing.
"""

from __future__ import annotations

from pathlib import Path

from llama_export.llama.activations import ActivationQuantization, RoundedInputs
from llama_export.llama.names import TABLE
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.weights import read_weights

_ROW = ActivationQuantization(bits=8, block=None, zero_point=True)


def rounded_inputs(model: Path) -> RoundedInputs | None:
    """Return the rounding of each product's input by the name of its weight.

    Args:
        model: path of model.pte.

    Raises:
        BundleError: the file is damaged or laid out in another way.
    """
    products = read_weights(Pte.open(model)).products
    # A tied head goes by the table's name, under which its weight is stored.
    return {TABLE: _ROW} | {product.weight: _ROW for product in products}
