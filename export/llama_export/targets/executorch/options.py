"""The options of a `.pte`."""

from __future__ import annotations

from dataclasses import dataclass

from llama_export.bundle.graph_spec import IO, STATE
from llama_export.targets.options import TargetOptions, option

XNNPACK, VULKAN, COREML = "xnnpack", "vulkan", "coreml"


@dataclass(frozen=True)
class ExecutorchOptions(TargetOptions):
    """What a user may choose about a `.pte`."""

    kv_cache: str = option(
        STATE,
        choices=(STATE, IO),
        help="Keep the KV cache inside (state), or take and give it (io).",
    )
    all_logits: bool = option(False, help="Give every position's logits, not the last's.")
    kv_dtype: str = option("float32", choices=("float32", "float16"), help="Type of the KV cache.")
    delegate: str = option(
        XNNPACK,
        choices=(XNNPACK, VULKAN, COREML),
        help="What computes; vulkan and coreml are not run here.",
    )
    share_table: bool = option(True, help="Store a tied token table once.")
