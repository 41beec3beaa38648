"""A target in memory: its artifact is whatever session and weights it is made with."""

from __future__ import annotations

from collections.abc import Callable

from llama_export.targets.costs import Cost, Costs
from llama_export.targets.footprint import Footprint, Part
from llama_export.targets.onnx.target import OnnxTarget
from llama_export.targets.options import TargetOptions
from llama_export.targets.session import Session
from llama_export.targets.stored import StoredArtifact, StoredWeights
from llama_export.targets.target import Target


class FakeTarget(Target):
    """Judged by ONNX's limits; it lowers nothing.

    Args:
        open_session: called with `threads` and `exact`.
        stored: weights that any artifact holds.
    """

    name = "fake"
    toolkits = ()
    default_max_context = 64
    Options = TargetOptions
    limits = OnnxTarget.limits
    costs = Costs(
        unchecked=(Cost(1, 1e6, 1.0), Cost(10**9, 1e9, 10.0)),
        checked=(Cost(1, 2e6, 2.0), Cost(10**9, 2e9, 20.0)),
    )

    def __init__(self, open_session: Callable[..., Session], stored: StoredWeights) -> None:
        self._open_session = open_session
        self._stored = stored

    def check(self, options, schemes=None, max_context=None):
        return None

    def lower(self, traced, weights, folder, options, metadata):
        raise NotImplementedError

    def open_session(self, artifact: StoredArtifact, *, exact=False, threads=None, verbose=False):
        return self._open_session(threads=threads, exact=exact)

    def stored(self, artifact):
        return self._stored

    def rounded_inputs(self, artifact):
        return {}

    def predict(self, config, shapes, schemes, max_context, options):
        raise NotImplementedError

    def describe(self, artifact):
        return Footprint((Part("scales", 7, 7),), 0)
