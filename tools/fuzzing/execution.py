"""Run one case: stage it, run the command in a child, compare with the input as it was, judge.

It also holds what stands in for the slow parts: on surfaces that only read a checkpoint, an export
writes its files and lowers nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

from fuzzing.cases import Case, surface_of
from fuzzing.child import Outcome, Run, run_forked
from fuzzing.fixtures import HUB
from fuzzing.judge import NO_NUMBERS, Seen, Verdict, judge, result_of
from fuzzing.lying_hub import export_from_hub
from fuzzing.staging import stage

_VOCABULARY = 512
# A prompt of every token in some order, and short ones: their logits depend on every row of the
# table and on the positions that the context has.
_PROBES = ((500, 1), (64, 2), (3, 3))


@dataclass
class Runner:
    """What runs cases one after another, in a folder of its own.

    Args:
        base: folder of the fixtures.
        work: folder that it may fill and empty.
    """

    base: Path
    work: Path
    _baselines: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    _numbers: dict[str, bytes] = field(default_factory=dict)

    def run(self, case: Case) -> tuple[Verdict, Outcome]:
        """Run a case in a child of its own, and judge it."""
        return self.run_all([case], together=False)[0]

    def run_all(
        self, cases: Sequence[Case], *, together: bool = True
    ) -> list[tuple[Verdict, Outcome]]:
        """Run cases of one surface and judge each of them.

        Args:
            cases: cases.
            together: whether one child runs them all; a case that then fails is run again in a
                child of its own, whose verdict counts.
        """
        for case in cases:
            self._baseline(case)
        found: list[tuple[Verdict, Outcome]] = []
        while len(found) < len(cases):
            rest = cases[len(found) :]
            outcomes = self._outcomes(rest if together else rest[:1])
            for index, (case, outcome) in enumerate(zip(rest, outcomes, strict=False)):
                verdict = self._judged(case, outcome, self.work / str(index))
                if verdict.failed and together:
                    clean(self.work / "alone")
                    verdict, outcome = Runner(self.base, self.work / "alone").run(case)
                found.append((verdict, outcome))
        return found

    def _judged(self, case: Case, outcome: Outcome, folder: Path) -> Verdict:
        original = (self.base / case.path).read_bytes()
        target = surface_of(case).target
        seen = Seen(
            case,
            outcome,
            folder,
            self._baseline(case),
            original,
            case.content(self.base),
            partial(self._logits, folder / target),
            partial(self._right_logits, target),
        )
        return judge(seen)

    def _outcomes(self, cases: Sequence[Case]) -> list[Outcome]:
        """Run cases in one child, each in a folder that has its number for a name."""
        runs = []
        for index, case in enumerate(cases):
            staged = stage(case, self.base, self.work / str(index))
            notes = self.work / f"run-{index}"
            inside = None
            if case.path == HUB:
                inside = partial(export_from_hub, self.work / str(index), staged.arguments)
            runs.append(Run(staged.arguments, notes, staged.stdin, inside))
        self.work.mkdir(parents=True, exist_ok=True)
        lean = surface_of(cases[0]).writes_files_only
        lower_nothing = partial(write_files_only, self.base / "onnx" / "manifest.json")
        return run_forked(runs, lower_nothing if lean else None)

    def _baseline(self, case: Case) -> bytes:
        """Return what a command makes of an input that has no mutation."""
        key = (case.surface, case.verb, case.path)
        if key not in self._baselines:
            whole = Case(case.surface, case.verb, case.path, ())
            outcome = self._outcomes([whole])[0]
            if outcome.code or outcome.signal:
                message = f"{case.surface}: {case.verb} fails without a mutation: {outcome}"
                raise RuntimeError(message)
            self._baselines[key] = result_of(outcome, self.work / "0")
        return self._baselines[key]

    def _right_logits(self, target: str) -> bytes:
        if target not in self._numbers:
            self._numbers[target] = self._logits(self.base / target)
        return self._numbers[target]

    def _logits(self, bundle: Path) -> bytes:
        """Return a hash of the logits after a few prompts; empty where the bundle gives none."""

        def body() -> None:
            import numpy as np

            from llama_export import load

            digest, finite = hashlib.sha256(), True
            with load(bundle, threads=1) as session:
                for length, seed in _PROBES:
                    ids = Random(seed).sample(range(_VOCABULARY), length)
                    logits = session.logits(ids)
                    digest.update(logits.tobytes())
                    finite &= bool(np.isfinite(logits).all())
            sys.stdout.write(digest.hexdigest() if finite else NO_NUMBERS)

        return run_forked([Run((), self.work / "logits", inside=body)])[0].stdout


def set_up_process(home: Path) -> None:
    """Keep this process and its children from this machine's settings, caches and network.

    To be called before huggingface_hub is imported, which reads its settings then.
    """
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("HF_", "HUGGING", "LLAMA_EXPORT")):
            del os.environ[name]
    home.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "HOME": str(home),
        "HF_HOME": str(home / "hub"),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }


def warm_up(targets: set[str]) -> None:
    """Import what the commands need, so that no child has to; nothing is run."""
    import contextlib
    import gc
    import logging
    import warnings

    warnings.simplefilter("ignore")
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        import huggingface_hub  # noqa: F401
        import rich.console  # noqa: F401
        import torch

        import llama_export.cli.app
        import llama_export.exporting.pipeline
        import llama_export.exporting.recipe_name
        import llama_export.generation.text_session
        import llama_export.verification.verify

        # Thousands of exports: what a calibration reads has surfaces of its own.
        llama_export.exporting.recipe_name.DEFAULT_QUALITY.clear()
        torch.set_num_threads(1)
        _import_toolkits(targets)
    logging.disable(logging.NOTSET)
    gc.collect()
    gc.freeze()


def _import_toolkits(targets: set[str]) -> None:
    import importlib

    modules = {
        "onnx": ("onnx", "onnxruntime", "llama_export.targets.onnx.running.session"),
        "executorch": ("executorch.runtime", "llama_export.targets.executorch.running.session"),
        "coreml": ("coreml_evaluator", "llama_export.targets.coreml.running.session"),
    }
    for target in targets:
        for module in modules[target]:
            importlib.import_module(module)


def write_files_only(manifest: Path) -> None:
    """Let an export to ONNX quantise, hash and publish, without a trace and without a graph.

    Args:
        manifest: manifest of the fixtures' bundle, whose signature the exports get.
    """
    from llama_export.bundle.graph_spec import GraphSpec
    from llama_export.exporting import pipeline
    from llama_export.targets.onnx.target import OnnxTarget
    from llama_export.targets.target import Lowered

    signature = GraphSpec.from_json(json.loads(manifest.read_bytes())["graph"])

    def lower(_self: object, traced: int, weights: object, folder: Path, *_rest: object) -> Lowered:
        (folder / "model.onnx").write_bytes(b"nothing")
        return Lowered("model.onnx", replace(signature, max_context=traced))

    mock.patch.object(pipeline, "trace", lambda _config, max_context: max_context).start()
    mock.patch.object(OnnxTarget, "lower", lower).start()


def clean(folder: Path) -> None:
    """Remove a folder."""
    shutil.rmtree(folder, ignore_errors=True)
