"""Packages of the Core ML target, each made once for all tests that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.small_bundle import Silent
from artifacts.tiny import TINY, UNTIED, write_checkpoint

from coreml_evaluator import Evaluator
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.llama.config import LlamaConfig
from llama_export.llama.streamed import Pass, reference_head, run_passes
from llama_export.llama.trace import trace
from llama_export.targets import registry
from llama_export.targets.coreml.lowering.lower import PACKAGE, lower
from llama_export.targets.coreml.options import CoremlOptions
from llama_export.targets.coreml.running.session import CoremlSession
from llama_export.targets.stored import StoredArtifact
from llama_export.targets.target import ArtifactMetadata
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, recipe

CONTEXT = 320
INT4 = recipe("int4")
ABOUT = ArtifactMetadata(
    name="tiny",
    hub_id="somebody/tiny",
    revision="0123456789abcdef",
    notice="Whose it is.\n",
    tokenizer_file="tokenizer.json",
    bos_token_id=TINY.bos_token_id,
    stop_token_ids=TINY.eos_token_id,
    quantization="int4 weights in groups of 32",
    weights_bytes=1000,
    version="1.2.3",
)
STATE = CoremlOptions()
FIXED = CoremlOptions(functions="prefill+decode")
IO = CoremlOptions(kv_cache="io")
IOS17 = CoremlOptions(kv_cache="io", deployment_target="iOS17")

_made: dict[object, Package] = {}
_weights: dict[object, QuantizedWeights] = {}


@dataclass(frozen=True)
class Package:
    path: Path
    config: LlamaConfig
    weights: QuantizedWeights
    spec: GraphSpec

    @property
    def stored(self) -> StoredArtifact:
        return StoredArtifact(self.path, self.spec)

    def session(self, mode: str = "fp32") -> CoremlSession:
        return CoremlSession(Evaluator.open(self.path, mode=mode), self.spec)

    def expected(self, tokens: list[int]) -> np.ndarray:
        """The eager model's logits with the quantised weights, `[S, V]`."""
        (states,) = run_passes(self.config, self.weights.get, [Pass(torch.tensor([tokens]))])
        return reference_head(self.config, self.weights.get, states.hidden, {})[0].numpy()


class Workshop:
    """Makes a package when it is asked for the first time."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders

    def tiny(
        self,
        form: CoremlOptions = STATE,
        config: LlamaConfig = TINY,
        chosen: QuantRecipe = INT4,
        context: int = CONTEXT,
    ) -> Package:
        key = (form, config, chosen, context)
        if key not in _made:
            folder, weights = self._folders.mktemp("package"), self.weights(config, chosen)
            spec = lower(trace(config, context), weights, folder, form, ABOUT)
            _made[key] = Package(folder / PACKAGE, config, weights, spec)
        return _made[key]

    def weights(self, config: LlamaConfig = TINY, chosen: QuantRecipe = INT4) -> QuantizedWeights:
        key = (config, chosen)
        if key not in _weights:
            folder = self._folders.mktemp("weights")
            checkpoint = HfCheckpoint.open(write_checkpoint(folder / "checkpoint", config))
            quantize_to(folder / "weights", checkpoint, chosen)
            _weights[key] = QuantizedWeights.open(folder / "weights", check_hash=False)
        return _weights[key]


def export_to(output: Path, model: str | Path = "demo", target: str = "coreml", **choices) -> Path:
    """Export without a check; return the target's bundle."""
    options = {target: registry.get(target).Options(**choices.pop("options", {}))}
    request = ExportRequest(str(model), (target,), output, verify=False, options=options, **choices)
    return export_bundle(request, Silent()).bundles[0].bundle.folder


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Workshop:
    return Workshop(tmp_path_factory)


__all__ = ["TINY", "UNTIED", "workshop"]
