"""The targets, one package each, and what they have in common: options, results, `Session`.

A target turns a traced model and its quantised weights into an artifact, and opens the artifact
again as a session. Targets never import each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from llama_export.graph import GraphSpec

FloatArray = NDArray[np.float32]
KeyValueArrays = tuple[FloatArray, FloatArray]


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


class Session(Protocol):
    """A loaded artifact with one conversation's KV cache.

    Shapes: V vocab_size, K key/value heads, D head_dim.
    """

    @property
    def vocab_size(self) -> int:
        """Length of the logits."""

    @property
    def max_context(self) -> int:
        """The most positions that the cache can hold."""

    @property
    def num_layers(self) -> int:
        """How many layers have a cache."""

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens (one or many) and return the logits `[V]` after the last of them.

        Raises:
            PromptError: there are none, one is outside the vocabulary, or they do not fit.
        """

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on."""

    def cache(self, layer: int) -> KeyValueArrays:
        """Return a layer's keys and values so far, `[K, position, D]` each, as copies."""

    def restore(self, layers: Sequence[KeyValueArrays]) -> None:
        """Replace the conversation with one whose `cache` was kept, layer by layer.

        Raises:
            PromptError: it is the cache of another model, or longer than the context.
        """

    def fork(self) -> Session:
        """Return a second conversation that begins with the same tokens; the weights are shared."""
