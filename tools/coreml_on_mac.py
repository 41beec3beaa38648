"""Compare a Core ML bundle on a Mac with the evaluator, and print the result.

    python tools/coreml_on_mac.py out/coreml [--compute-units cpuOnly cpuAndGPU] [--steps 16]

A prompt and some steps run on Core ML, once for each choice of compute units, and on the evaluator,
which says what ideal float16 arithmetic gives. Then, for a package of flexible shapes that keeps
its cache inside, the masks of three kinds of clients must choose the same tokens. The exit status
is 1 when something is beyond its limit. With `--evaluator-only` no Mac is needed: the evaluator is
held against itself without rounding.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import LlamaExportError, PromptError
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.coreml.lowering.toolkit import coremltools_version
from llama_export.targets.coreml.running.core_ml import COMPUTE_UNITS, CoremlRuntime
from llama_export.targets.coreml.running.runner import Runner
from llama_export.targets.coreml.running.session import CoremlSession
from llama_export.targets.coreml.signature import CAUSAL_MASK, INPUT_IDS, LOGITS
from llama_export.targets.coreml.target import CoremlTarget
from llama_export.targets.session import Session
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.measure.metrics import LogitMetrics, compare_logits

# Longer than a call of `prefill` takes, so that a whole chunk, a padded one and steps run.
PROMPT = """\
Once upon a time there lived a king who had three sons. The eldest was proud, the second was
clever, and the youngest, whom they called Simpleton, was kind to every creature that he met. One
day the king fell ill, and no one in the whole land knew of anything that could help him. Then came
an old man to the gate of the castle, and said to the three brothers: """
STEPS = 16
# The evaluator rounds each result once. Core ML may add up in float16 too: nothing was measured
# yet, so these are a tenth of what int4 weights themselves cost, and one choice in ten.
MOST_KL_MEAN = CoremlTarget.limits.runtime_kl.value
MOST_KL = 20 * MOST_KL_MEAN
LEAST_TOP1 = 0.9
HIDDEN = np.finfo(np.float16).min


@dataclass(frozen=True)
class Finding:
    """One comparison.

    Args:
        name: name of what was compared.
        metrics: distance from the reference; None if there are no figures.
        least_top1: smallest share of equal choices that passes.
        fault: reason why there are no figures; empty if there are.
    """

    name: str
    metrics: LogitMetrics | None = None
    least_top1: float = LEAST_TOP1
    fault: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figures are within their limits."""
        found = self.metrics
        if found is None or found.fault:
            return False
        return (
            found.kl_mean <= MOST_KL_MEAN
            and found.kl_max <= MOST_KL
            and found.top1 >= self.least_top1
        )

    def line(self) -> str:
        """Return the finding as a line of the report."""
        word = "ok  " if self.passed else "FAIL"
        if self.metrics is None or self.metrics.fault:
            return f"{word} {self.name}: {self.fault or (self.metrics and self.metrics.fault)}"
        found = self.metrics
        return (
            f"{word} {self.name}: KL {found.kl_mean:.2e} (most {found.kl_max:.2e}), "
            f"top-1 {found.top1:.1%} of {found.positions} positions"
        )


# (new tokens, positions in all) -> causalMask `[1, 1, rows, columns]`
Mask = Callable[[int, int], NDArray[np.float16]]


def causal_mask(new: int, end: int) -> NDArray[np.float16]:
    """Return the mask of Apple's example: a row for each token, later tokens are hidden."""
    later = np.triu(np.ones((new, end), dtype=bool), k=1 + end - new)
    return np.where(later, HIDDEN, np.float16(0))[None, None]


def open_mask(new: int, end: int) -> NDArray[np.float16]:
    """Return this project's own mask: one row, nothing hidden."""
    return np.zeros((1, 1, 1, end), dtype=np.float16)


def stock_swift_mask(new: int, end: int) -> NDArray[np.float16]:
    """Return the mask of swift-transformers: one row, nothing hidden, one column too many."""
    return np.zeros((1, 1, 1, end + 1), dtype=np.float16)


MASKS: Mapping[str, Mask] = {
    "zeros [1, 1, 1, end]": open_mask,
    "Apple's causal [1, 1, q, end]": causal_mask,
    "swift-transformers' zeros [1, 1, 1, end + 1]": stock_swift_mask,
}


def choose(
    session: Session, prompt: Sequence[int], steps: int
) -> tuple[list[int], NDArray[np.float32]]:
    """Return the tokens that a session chooses, and its logits `[1 + steps, V]`."""
    rows: list[FloatArray] = [session.prefill(prompt)]
    tokens: list[int] = []
    for _ in range(steps):
        tokens.append(int(rows[-1].argmax()))
        rows.append(session.prefill(tokens[-1:]))
    return tokens, np.stack(rows)


def follow(session: Session, prompt: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float32]:
    """Return the logits `[1 + steps, V]` of a session that reads the given tokens."""
    return np.stack([session.prefill(prompt), *(session.prefill([token]) for token in tokens)])


def follow_with_mask(
    runner: Runner[Any], mask: Mask, prompt: Sequence[int], tokens: Sequence[int]
) -> NDArray[np.float32]:
    """Return the logits of `follow` for a client with this mask, the whole prompt in one call."""
    state = runner.make_state()
    rows, end = [], 0
    for piece in (prompt, *([token] for token in tokens)):
        end += len(piece)
        ids = np.array([list(piece)], dtype=np.int32)
        results = runner.predict({INPUT_IDS: ids, CAUSAL_MASK: mask(len(piece), end)}, state)
        rows.append(np.array(results[LOGITS][0, -1], dtype=np.float32))
    return np.stack(rows)


def examine(
    name: str,
    open_runner: Callable[[], Runner[Any]],
    spec: GraphSpec,
    prompt: Sequence[int],
    tokens: Sequence[int],
    expected: NDArray[np.float32],
) -> Iterator[Finding]:
    """Compare one way to run a package with the reference, then each mask with its session.

    Args:
        name: name of the way.
        open_runner: function that loads the package.
        spec: signature of the package.
        prompt: token ids of the prompt.
        tokens: token ids that the reference chose after it.
        expected: logits of the reference, `[1 + steps, V]`.
    """
    try:
        runner = open_runner()
        found = follow(CoremlSession(runner, spec), prompt, tokens)
        yield Finding(name, compare_logits(expected, found))
        if spec.kv_cache != "state" or spec.functions:
            return
        for title, mask in MASKS.items():
            logits = follow_with_mask(runner, mask, prompt, tokens)
            yield Finding(f"{name}, mask {title}", compare_logits(found, logits), least_top1=1.0)
    except LlamaExportError as error:
        yield Finding(name, fault=f"{error.message}; {error.hint}")


def examine_bundle(
    package: Path,
    spec: GraphSpec,
    prompt: Sequence[int],
    *,
    steps: int,
    compute_units: Sequence[str],
) -> Iterator[Finding]:
    """Compare each way to run a package with the evaluator.

    Args:
        package: path of model.mlpackage.
        spec: signature of the package.
        prompt: token ids of the prompt.
        steps: number of tokens after the prompt.
        compute_units: Core ML's choices of compute units; if empty, the evaluator's float16 is
            compared with its float32.
    """
    reference = CoremlSession(evaluator(package, "fp16" if compute_units else "fp32"), spec)
    tokens, expected = choose(reference, prompt, steps)
    ways: dict[str, Callable[[], Runner[Any]]] = {
        f"Core ML, {units}": partial(CoremlRuntime.open, package, compute_units=units)
        for units in compute_units
    }
    if not ways:
        ways["evaluator, float16"] = partial(evaluator, package, "fp16")
    for name, open_runner in ways.items():
        yield from examine(name, open_runner, spec, prompt, tokens, expected)


def evaluator(package: Path, mode: str) -> Runner[Any]:
    """Load a package into the evaluator."""
    from coreml_evaluator import Evaluator

    return Evaluator.open(package, mode=mode)


def cut_prompt(tokens: Sequence[int], max_context: int, steps: int) -> list[int]:
    """Return as much of a prompt as leaves room for the steps and for the slot that Swift loses.

    Raises:
        PromptError: nothing is left.
    """
    room = max_context - steps - 1
    if room < 1:
        message = f"{steps} steps do not fit into a context of {max_context}"
        raise PromptError(message, "give fewer --steps")
    return list(tokens[:room])


def machine() -> str:
    """Return the versions of macOS, Xcode and coremltools."""
    macos = platform.mac_ver()[0]
    system = f"macOS {macos}" if macos else platform.platform(terse=True)
    try:
        done = subprocess.run(["xcodebuild", "-version"], capture_output=True, text=True)
        xcode = ", ".join(done.stdout.split("\n")[:2]) or "no Xcode"
    except OSError:
        xcode = "no Xcode"
    return f"{system} {platform.machine()}; {xcode}; coremltools {coremltools_version() or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine one bundle and print a line for each comparison."""
    parser = argparse.ArgumentParser(description="Hold a Core ML bundle against the evaluator.")
    parser.add_argument("bundle", type=Path, help="what `llama-export --target coreml` wrote")
    parser.add_argument(
        "--compute-units",
        nargs="+",
        choices=list(COMPUTE_UNITS),
        default=["cpuOnly", "cpuAndGPU"],
        help="of Core ML (default: cpuOnly cpuAndGPU)",
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"after the prompt ({STEPS})")
    parser.add_argument(
        "--evaluator-only", action="store_true", help="on any system: its float16 and its float32"
    )
    options = parser.parse_args(arguments)
    print(machine(), flush=True)
    passed = True
    try:
        bundle = Bundle.open(options.bundle)
        spec = bundle.manifest.spec
        tokenizer = load_tokenizer(bundle.path(str(bundle.manifest.tokenizer["file"])))
        text = [*tokenizer.prefix_ids, *tokenizer.encode(PROMPT)]
        prompt = cut_prompt(text, spec.max_context, options.steps)
        for finding in examine_bundle(
            bundle.artifact,
            spec,
            prompt,
            steps=options.steps,
            compute_units=[] if options.evaluator_only else options.compute_units,
        ):
            print(finding.line(), flush=True)  # the next one may end the process
            passed = passed and finding.passed
    except LlamaExportError as error:
        print(f"error: {error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
