"""Which products of an ONNX artifact round their input, read from the artifact's own graph.

It knows `MatMulNBits` and what onnxruntime's CPU kernels do with its accuracy level; it computes
nothing.
"""

from __future__ import annotations

import platform
from pathlib import Path

from llama_export.llama.activations import ActivationQuantization, RoundedInputs
from llama_export.targets.onnx.layout import WEIGHTS_KEY

# At this accuracy level the kernel multiplies in int8: it rounds each row of its input by blocks
# as wide as the weight's. At the levels below it multiplies floats.
_INT8_LEVEL = 4

# Where single operators were compared with the emulation, to the bit. Kernels of other processors
# may choose other scales.
_MEASURED_MACHINES = frozenset({"x86_64", "amd64"})


def rounded_inputs(model: Path) -> RoundedInputs | None:
    """Return the rounding of each product's input by the name of its weight.

    Args:
        model: path of model.onnx.

    Returns:
        Empty when nothing is rounded; None when something is, and it is not known how this
        machine's kernels do it.
    """
    import onnx

    proto = onnx.load(str(model), load_external_data=False)
    rounding: dict[str, ActivationQuantization] = {}
    for node in proto.graph.node:
        integers = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type != "MatMulNBits" or integers.get("accuracy_level") != _INT8_LEVEL:
            continue
        described = {entry.key: entry.value for entry in node.metadata_props}
        for weight in described.get(WEIGHTS_KEY, "").split():
            name = weight.split(":")[0]
            rounding[name] = ActivationQuantization(8, integers["block_size"])
    if rounding and platform.machine().lower() not in _MEASURED_MACHINES:
        return None
    return rounding
