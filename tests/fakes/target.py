"""A target in memory: its artifact is whatever session and weights it is made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from llama_export.llama.activations import EXACT_INPUTS, RoundedInputs
from llama_export.llama.intermediates import Probe
from llama_export.targets.costs import Cost, Costs
from llama_export.targets.footprint import Footprint, Part
from llama_export.targets.limits import Limits
from llama_export.targets.onnx.target import OnnxTarget
from llama_export.targets.options import TargetOptions
from llama_export.targets.session import Session
from llama_export.targets.stored import StoredArtifact, StoredWeights
from llama_export.targets.target import Target
from llama_export.targets.wiring import Lookup, Wiring


class FakeTarget(Target):
    """Judged by ONNX's limits unless it is given others; it lowers nothing.

    Args:
        open_session: called with `threads` and `exact`.
        stored: weights that any artifact holds.
        limits: how far an artifact may be off.
        rounding: what it says of how its products round; None: it does not know.
        probe: looks into any artifact; None: nothing does.
        open_reference: opens what computes as the runtime should.
        wiring: operators of any artifact; None: they are not followed.
        lookup: the rows that any artifact looks up; None: it cannot be cut.
    """

    name = "fake"
    title = "Fake"
    toolkits = ()
    default_max_context = 64
    Options = TargetOptions
    limits = OnnxTarget.limits
    phone_systems: ClassVar = {"Android": 3}
    costs = Costs(
        unchecked=(Cost(1, 1e6, 1.0), Cost(10**9, 1e9, 10.0)),
        checked=(Cost(1, 2e6, 2.0), Cost(10**9, 2e9, 20.0)),
    )

    def __init__(
        self,
        open_session: Callable[..., Session],
        stored: StoredWeights,
        *,
        limits: Limits = OnnxTarget.limits,
        rounding: RoundedInputs | None = EXACT_INPUTS,
        probe: Probe | None = None,
        open_reference: Callable[[], Session | None] = lambda: None,
        wiring: Wiring | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self._open_session = open_session
        self._stored = stored
        self.limits = limits
        self._rounding = rounding
        self._probe = probe
        self._open_reference = open_reference
        self._wiring = wiring
        self._lookup = lookup

    def check(self, options, schemes=None, max_context=None):
        return None

    def lower(self, traced, weights, folder, options, metadata):
        raise NotImplementedError

    def open_session(self, artifact: StoredArtifact, *, exact=False, threads=None, verbose=False):
        return self._open_session(threads=threads, exact=exact)

    def stored(self, artifact):
        return self._stored

    def rounded_inputs(self, artifact):
        return self._rounding

    def probe(self, artifact, *, threads=None):
        return self._probe

    def wiring(self, artifact, config):
        return self._wiring

    def open_lookup(self, artifact, *, threads=None):
        return self._lookup

    def open_reference(self, artifact, *, threads=None):
        return self._open_reference()

    def predict(self, config, shapes, schemes, max_context, options):
        raise NotImplementedError

    def describe(self, artifact):
        return Footprint((Part("scales", 7, 7),), 0)
