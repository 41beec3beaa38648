"""The options of an ONNX artifact."""

from __future__ import annotations

from dataclasses import dataclass

from llama_export.bundle.graph_spec import IO
from llama_export.targets.options import TargetOptions, option


@dataclass(frozen=True)
class OnnxOptions(TargetOptions):
    """What a user may choose about an ONNX artifact."""

    kv_cache: str = option(IO, choices=(IO,), help="Take and give the KV cache at each call (io).")
    all_logits: bool = option(False, help="Give every position's logits, not the last's.")
    accuracy_level: int = option(
        4, choices=(4, 1), help="int4 products: 4 computes in int8, 1 in float32 (slow)."
    )
