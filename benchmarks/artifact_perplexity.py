"""Measure the perplexity of a text in artifacts as they run here, beside the eager model's.

    python benchmarks/artifact_perplexity.py --model SmolLM2.gguf --text wiki.txt \
        smol/onnx=4096 smol/executorch=4096 smol/coreml=1024

Each bundle is read token by token through its own runtime (onnxruntime, ExecuTorch, and for Core ML
our evaluator), over as many positions as are given after its name, 1024 by default: some are slow.
Beside it stand the checkpoint and the bundle's quantised weights, both in the eager model, over the
same positions. Results go to `benchmarks/results/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from quality import WINDOW, cut_windows, open_reference

from llama_export.bundle.bundle import Bundle
from llama_export.sources.resolve import model_name
from llama_export.sources.source import WEIGHTS_FOLDER, Source
from llama_export.targets import registry
from llama_export.targets.session import Session
from llama_export.targets.stored import StoredArtifact
from llama_export.verification.measure.metrics import TokenLoss
from llama_export.verification.measure.yardstick import TextWindows, Yardstick
from llama_quantize.checkpoint.weights import QuantizedWeights

RESULTS = Path(__file__).resolve().parent / "results"
POSITIONS = 1024


@dataclass(frozen=True)
class Found:
    """Perplexities of one text over the same positions.

    Args:
        target: target of the bundle.
        positions: number of predictions that were scored.
        artifact: perplexity of the artifact as it runs.
        weights: perplexity of its quantised weights in the eager model.
        checkpoint: perplexity of the checkpoint in the eager model.
    """

    target: str
    positions: int
    artifact: float
    weights: float
    checkpoint: float


def read_artifact(session: Session, text: TextWindows) -> float:
    """Read windows of a text token by token, each from an empty session; return the perplexity.

    Raises:
        ValueError: a window is longer than the context, or a logit is no number.
    """
    length = text.ids.shape[1]
    if session.max_context < length:
        message = f"a context of {session.max_context} is shorter than a window of {length}"
        raise ValueError(message)
    loss = TokenLoss()
    for ids, targets in zip(text.ids.tolist(), text.targets.tolist(), strict=True):
        session.rewind(0)
        for token, target in zip(ids, targets, strict=True):
            loss.add(np.array(session.prefill((token,)), dtype=np.float32)[None], (target,))
    result = loss.result()
    if result.fault:
        raise ValueError(result.fault)
    return result.perplexity


def measure(folder: Path, source: Source, text: TextWindows) -> Found:
    """Read a text with a bundle, with its weights and with its checkpoint."""
    bundle = Bundle.open(folder)
    registry.require_runs_here(bundle)
    weights = QuantizedWeights.open(folder.parent / WEIGHTS_FOLDER)
    eager = (
        Yardstick(source.config, read, [text]).perplexities[0]
        for read in (weights.get, source.checkpoint.tensor)
    )
    target = registry.get(bundle.manifest.target)
    with closing(target.open_session(StoredArtifact.of(bundle))) as session:
        perplexity = read_artifact(session, text)
    return Found(target.name, text.positions, perplexity, *eager)


def markdown(name: str, text: str, found: Sequence[Found]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        f"# Perplexity of {name} in each artifact, as it runs",
        "",
        f"{text}, windows of {WINDOW} tokens read one token at a time. The eager model computes in "
        "float32, over the same positions.",
        "",
        "| artifact | positions | as it runs | its weights, eager | the checkpoint, eager |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.target} | {each.positions} | **{each.artifact:.3f}** | {each.weights:.3f} "
        f"| {each.checkpoint:.3f} |"
        for each in found
    ]
    return "\n".join([*lines, ""])


PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE[=POSITIONS]...")
@click.option("--model", default="demo", show_default=True, help="As for the export.")
@click.option("--text", type=PATH, required=True, help="Text that the model was not trained on.")
@click.option("--name", help="Name of the model in the results; the model's own by default.")
@click.option("--output", type=PATH, default=RESULTS, show_default=True)
def main(bundles: tuple[str, ...], model: str, text: Path, name: str | None, output: Path) -> None:
    """Measure, print a Markdown table, and write it with JSON."""
    source = open_reference(model)
    ids = source.tokenizer.encode(text.read_text(encoding="utf-8"))
    found = []
    for each in bundles:
        folder, _, count = each.partition("=")
        windows = cut_windows(text.name, ids, int(count or POSITIONS))
        found.append(measure(Path(folder), source, windows))
        click.echo(f"measured {folder}", err=True)
    shown = name or source.info.name
    page = markdown(shown, text.name, found)
    stem = f"artifact-perplexity-{model_name(shown).lower()}"
    output.mkdir(parents=True, exist_ok=True)
    results = {"model": shown, "text": text.name, "artifacts": [asdict(each) for each in found]}
    (output / f"{stem}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (output / f"{stem}.md").write_text(page, encoding="utf-8")
    click.echo(page)


if __name__ == "__main__":
    main()
