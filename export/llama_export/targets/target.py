"""What a target is given, and what its lowering returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_export.bundle.graph_spec import GraphSpec


@dataclass(frozen=True)
class LoweringOptions:
    """What a user may choose about an artifact; a target reads what concerns it.

    Args:
        accuracy_level: ONNX: of int4 products, 4 computes in int8, 1 in float32.
        all_logits: give the logits of every position, not of the last alone.
        kv_cache: "io" or "state"; None: what the target's clients expect.
        kv_dtype: of the KV cache, "float32" or "float16".
        share_table: ExecuTorch: store a tied table once.
        delegate: ExecuTorch: "xnnpack", "vulkan" or "coreml".
        functions: Core ML: "main" of flexible shapes, or "prefill+decode" of fixed ones.
        deployment_target: Core ML: "iOS18" or "iOS17".
    """

    accuracy_level: int = 4
    all_logits: bool = False
    kv_cache: str | None = None
    kv_dtype: str = "float32"
    share_table: bool = True
    delegate: str = "xnnpack"
    functions: str = "main"
    deployment_target: str = "iOS18"


@dataclass(frozen=True)
class Lowered:
    """What a lowering wrote into the bundle's folder.

    Args:
        artifact: path in the folder.
        graph: the artifact's signature.
        config_keys: what the target's stock clients read in config.json beyond the model's own.
        runs_here: whether this machine's runtime can run it, and so prove it.
    """

    artifact: str
    graph: GraphSpec
    config_keys: Mapping[str, object] = field(default_factory=dict)
    runs_here: bool = True


@dataclass(frozen=True)
class About:
    """What an artifact may say about itself, beyond its graph.

    Args:
        name: the model's.
        hub_id: its repository on the hub; None: it did not come from there.
        revision: the commit of it.
        notice: the text of the bundle's NOTICE, with the licence of the weights.
        tokenizer_file: beside the artifact.
        bos_token_id: what a text begins with.
        stop_token_ids: where a client should stop.
        quantization: of the weights, in words.
        weights_bytes: of the quantised weights.
        version: of llama-export.
    """

    name: str
    hub_id: str | None
    revision: str | None
    notice: str
    tokenizer_file: str
    bos_token_id: int
    stop_token_ids: tuple[int, ...]
    quantization: str
    weights_bytes: int
    version: str

    @property
    def author(self) -> str:
        """Who made the model, and who converted it."""
        owner = self.hub_id.split("/")[0] if self.hub_id and "/" in self.hub_id else ""
        converted = f"converted by llama-export {self.version}"
        return f"{owner}; {converted}" if owner else converted
