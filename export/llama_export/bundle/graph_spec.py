"""GraphSpec: what an artifact takes and gives, as recorded in the manifest.

It knows names, shapes and dtypes; it does not know how any runtime is fed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llama_export.errors import BundleError

# Where the KV cache is: kept inside the artifact, or an input and an output of each call.
STATE, IO = "state", "io"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: a dimension is a number, or the name of what varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """The artifact's signature.

    Args:
        inputs: inputs of a call.
        outputs: outputs of a call.
        kv_cache: `STATE` or `IO`.
        max_context: largest number of positions in a conversation.
        all_logits: whether the logits of every position come out, or the last one's alone.
        delegate: what computes inside a `.pte`, and how much of it; empty for other artifacts.
        states: arrays that a Core ML package keeps inside.
        functions: number of tokens that a call takes, by the function of a Core ML package, whose
            signature above is the last one's; empty when there is one function, for any number.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kv_cache: str
    max_context: int
    all_logits: bool
    delegate: Mapping[str, Any] = field(default_factory=dict)
    states: tuple[TensorSpec, ...] = ()
    functions: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            "inputs": [_tensor_to_json(spec) for spec in self.inputs],
            "outputs": [_tensor_to_json(spec) for spec in self.outputs],
            "kv_cache": self.kv_cache,
            "max_context": self.max_context,
            "all_logits": self.all_logits,
            **({"delegate": dict(self.delegate)} if self.delegate else {}),
            **({"states": [_tensor_to_json(spec) for spec in self.states]} if self.states else {}),
            **({"functions": dict(self.functions)} if self.functions else {}),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> GraphSpec:
        """Read the manifest's form.

        Raises:
            BundleError: a field is missing or of the wrong type.
        """
        try:
            return cls(
                inputs=tuple(_tensor_from_json(spec) for spec in raw["inputs"]),
                outputs=tuple(_tensor_from_json(spec) for spec in raw["outputs"]),
                kv_cache=str(raw["kv_cache"]),
                max_context=int(raw["max_context"]),
                all_logits=_boolean(raw["all_logits"]),
                delegate=dict(raw.get("delegate", {})),
                states=tuple(_tensor_from_json(spec) for spec in raw.get("states", ())),
                functions={str(name): int(size) for name, size in raw.get("functions", {}).items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"manifest.json: the field `graph` is damaged: {error!r}"
            raise BundleError(message, "export the bundle again") from None


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        message = f"all_logits: expected true or false, found {raw!r}"
        raise TypeError(message)
    return raw


def _tensor_to_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _tensor_from_json(raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=raw["name"], dtype=raw["dtype"], shape=tuple(raw["shape"]))
