"""Run one case: stage it, run the command in a child, compare with the input as it was, judge.

It also holds what stands in for the slow parts: on surfaces that only read a checkpoint, an export
writes its files and lowers nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzzing.cases import Case, surface_of
from fuzzing.child import Outcome, run_forked, run_main
from fuzzing.judge import Seen, Verdict, judge, result_of
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
    _baselines: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _numbers: dict[str, bytes] = field(default_factory=dict)

    def run(self, case: Case) -> tuple[Verdict, Outcome]:
        """Run a case and judge it."""
        baseline = self._baseline(case)
        outcome = self._outcome(case, self.work / "case")
        return self._judged(case, outcome, baseline), outcome

    def _judged(self, case: Case, outcome: Outcome, baseline: bytes) -> Verdict:
        original = (self.base / case.path).read_bytes()
        folder, target = self.work / "case", surface_of(case).target
        seen = Seen(
            case,
            outcome,
            folder,
            baseline,
            original,
            case.content(self.base),
            lambda: self._logits(folder / target) == self._right_logits(target),
        )
        return judge(seen)

    def _outcome(self, case: Case, folder: Path) -> Outcome:
        staged = stage(case, self.base, folder)
        # In the folder of the case, so that a path in a message is short and always the same.
        lean = surface_of(case).writes_files_only
        return run_main(
            staged.arguments,
            self.work,
            stdin=staged.stdin,
            before=write_files_only if lean else None,
        )

    def _baseline(self, case: Case) -> bytes:
        """Return what a command writes of an input that has no mutation."""
        key = (case.surface, case.verb)
        if key not in self._baselines:
            whole = Case(case.surface, case.verb, case.path, ())
            outcome = self._outcome(whole, self.work / "case")
            if outcome.code or outcome.signal:
                message = f"{case.surface}: {case.verb} fails without a mutation: {outcome}"
                raise RuntimeError(message)
            self._baselines[key] = result_of(outcome, self.work / "case")
        return self._baselines[key]

    def _right_logits(self, target: str) -> bytes:
        if target not in self._numbers:
            self._numbers[target] = self._logits(self.base / target)
        return self._numbers[target]

    def _logits(self, bundle: Path) -> bytes:
        """Return a hash of the logits after a few prompts; empty where the bundle gives none."""

        def body() -> None:
            from llama_export import load

            digest = hashlib.sha256()
            with load(bundle, threads=1) as session:
                for length, seed in _PROBES:
                    ids = Random(seed).sample(range(_VOCABULARY), length)
                    digest.update(session.logits(ids).tobytes())
            sys.stdout.write(digest.hexdigest())

        return run_forked(body, self.work).stdout


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
        import llama_export.generation.text_session
        import llama_export.verification.verify  # noqa: F401

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


def write_files_only() -> None:
    """Let an export to ONNX quantise, hash and publish, without a trace and without a graph."""
    from llama_export.bundle.graph_spec import IO, GraphSpec, TensorSpec
    from llama_export.exporting import pipeline
    from llama_export.targets.onnx.target import OnnxTarget
    from llama_export.targets.target import Lowered

    def lower(_self: object, traced: int, weights: object, folder: Path, *_rest: object) -> Lowered:
        (folder / "model.onnx").write_bytes(b"nothing")
        tokens = TensorSpec("input_ids", "int64", ("batch", "tokens"))
        logits = TensorSpec("logits", "float32", ("batch", "tokens", _VOCABULARY))
        return Lowered("model.onnx", GraphSpec((tokens,), (logits,), IO, traced, False))

    pipeline.trace = lambda _config, max_context: max_context  # type: ignore[assignment]
    OnnxTarget.lower = lower  # type: ignore[assignment,method-assign]


def clean(folder: Path) -> None:
    """Remove a folder."""
    shutil.rmtree(folder, ignore_errors=True)
