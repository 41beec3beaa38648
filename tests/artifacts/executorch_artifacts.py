"""Artifacts of the ExecuTorch target, each made once for all tests that read them.

Lowering a kind of segment takes seconds, so what was lowered for one artifact is remembered for the
next. `test_executorch.py` compares with a process that remembers nothing.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts.tiny import TINY, UNTIED, write_checkpoint

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.checkpoints.hugging_face import HfCheckpoint
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.llama.config import LlamaConfig
from llama_export.llama.streamed import Pass, reference_head, run_passes
from llama_export.llama.trace import trace
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.executorch.reading.activations import rounded_inputs
from llama_export.targets.executorch.running.session import ExecutorchSession
from llama_export.targets.executorch.xnnpack import lower as lowering
from llama_export.targets.executorch.xnnpack.lower import MODEL_FILE
from llama_export.targets.stored import StoredArtifact
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, QuantRule, recipe
from llama_quantize.scheme import GroupedInt

CONTEXT = 128
DEMO_CONTEXT = 256
STOPS = TINY.eos_token_id
INT4 = recipe("int4")
INT4_TABLE = recipe("int4", table="int4")
# One scale a row, which is the int8 that XNNPACK multiplies; the built-in recipe has groups.
INT8_ROWS = QuantRecipe(
    "int8 rows",
    (
        QuantRule(r".*_proj\.weight", GroupedInt(8, None)),
        *recipe("int8").rules[1:],
    ),
)

_lower_kind = lowering.lower_kind
_kinds: dict[object, object] = {}
_weights: dict[object, Path] = {}
_made: dict[object, object] = {}


@contextmanager
def remembered_kinds():
    """Lower each kind of segment once in this process, whatever artifact it is for."""

    def remember(kind, max_context):
        key = (kind, max_context)
        if key not in _kinds:
            _kinds[key] = _lower_kind(kind, max_context)
        return _kinds[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lowering, "lower_kind", remember)
        yield


@dataclass(frozen=True)
class Artifact:
    path: Path
    config: LlamaConfig
    weights: QuantizedWeights
    spec: GraphSpec

    @property
    def stored(self) -> StoredArtifact:
        return StoredArtifact(self.path, self.spec)

    def session(self, **options) -> ExecutorchSession:
        return ExecutorchSession.open(self.stored, **options)

    def expected(self, tokens: list[int], *, exact: bool = False) -> np.ndarray:
        """The eager model's logits `[S, V]`, its products' inputs rounded as the artifact says."""
        rounding = {} if exact else rounded_inputs(self.path)
        chosen = Pass(torch.tensor([tokens]), rounding=rounding)
        (states,) = run_passes(self.config, self.weights.get, [chosen])
        return reference_head(self.config, self.weights.get, states.hidden, rounding)[0].numpy()


def lower_to(folder: Path, config: LlamaConfig, weights: QuantizedWeights, **options) -> Artifact:
    with remembered_kinds():
        chosen = ExecutorchOptions(**options)
        spec = lowering.lower(trace(config, CONTEXT), weights, folder, chosen, stop_token_ids=STOPS)
    return Artifact(folder / MODEL_FILE, config, weights, spec)


class Workshop:
    """Makes an artifact when it is asked for the first time."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders

    def tiny(self, config: LlamaConfig = TINY, chosen: QuantRecipe = INT4, **options) -> Artifact:
        """Return a random model's artifact."""
        key = (config, chosen, tuple(sorted(options.items())))
        if key not in _made:
            folder = self._folders.mktemp("pte")
            _made[key] = lower_to(folder, config, self.weights(config, chosen), **options)
        return _made[key]

    def weights(self, config: LlamaConfig = TINY, chosen: QuantRecipe = INT4) -> QuantizedWeights:
        return QuantizedWeights.open(self.weights_folder(config, chosen), check_hash=False)

    def weights_folder(self, config: LlamaConfig = TINY, chosen: QuantRecipe = INT4) -> Path:
        key = (config, chosen)
        if key not in _weights:
            folder = self._folders.mktemp("weights")
            checkpoint = HfCheckpoint.open(write_checkpoint(folder / "checkpoint", config))
            _weights[key] = folder / "weights"
            _weights[key].mkdir()
            quantize_to(_weights[key], checkpoint, chosen)
        return _weights[key]

    def bundle(self, model: Path | str, max_context: int, **options) -> Path:
        """Return the folder of a model's bundle."""
        key = (str(model), max_context, tuple(sorted(options.items())))
        if key not in _made:
            output = self._folders.mktemp("bundle")
            request = ExportRequest(
                str(model),
                ("executorch",),
                output,
                max_context=max_context,
                options={"executorch": ExecutorchOptions(**options)},
                keep_weights=False,
                verify=False,
            )
            with remembered_kinds():
                _made[key] = export_bundle(request, Silent()).bundles[0].bundle.folder
        return _made[key]


class Silent:
    @contextmanager
    def step(self, label):
        yield lambda done, total: None


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Workshop:
    pytest.importorskip("executorch", reason="needs the executorch extra")
    return Workshop(tmp_path_factory)


@pytest.fixture(scope="session")
def tiny(workshop) -> Artifact:
    return workshop.tiny()


@pytest.fixture(scope="session")
def demo_bundle(workshop) -> Path:
    return workshop.bundle("demo", DEMO_CONTEXT)


def one_layer(config: LlamaConfig = TINY) -> LlamaConfig:
    return dataclasses.replace(config, num_hidden_layers=1)


__all__ = ["TINY", "UNTIED", "demo_bundle", "tiny", "workshop"]
