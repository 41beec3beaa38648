"""Estimates of ONNX exports, as tests ask for them."""

from __future__ import annotations

from llama_export.exporting.estimate import estimate
from llama_export.sources.catalogue import shape_of
from llama_export.targets.onnx.options import OnnxOptions
from llama_quantize.recipe import recipe


def estimated(model: str, name: str = "int4", group_size: int | None = None, **choices):
    """Estimate an export to ONNX, with the choices of `estimate`."""
    shape = shape_of(model)
    context = choices.pop("max_context", None)
    used = shape.recipe or recipe(name, group_size, table=choices.pop("table", None))
    options = {"verify": True, "cores": 2} | choices
    return estimate(shape, ("onnx",), used, context, {"onnx": OnnxOptions()}, **options)
