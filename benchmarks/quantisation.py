"""Compare quantisation recipes on the demo model: KL and top-1 against its own bf16 weights.

    python benchmarks/quantisation.py --text fairy-tales-valid.txt --positions 12000

Everything is computed by the eager model in float32, so the figures are the quantisation's alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import torch

from llama_export.checkpoints.formats import open_checkpoint
from llama_export.llama.streamed import reference_logits
from llama_export.sources.resolve import resolve_model
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.measure.metrics import compare_logits
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import QuantRecipe, QuantRule, recipe
from llama_quantize.scheme import Float, GroupedInt

WINDOW = 512


def recipes() -> dict[str, QuantRecipe]:
    """Return the recipes that are compared, by their names in the table."""
    table_only = QuantRecipe(
        "int8 table alone",
        (
            QuantRule(r"model\.embed_tokens\.weight", GroupedInt(8, None), "nearest"),
            QuantRule(r".*", Float("bfloat16")),
        ),
    )
    found = {"int8 table alone": table_only, "int8 g32": recipe("int8")}
    for group_size in (32, 64, 128):
        searched = recipe("int4", group_size)
        found[f"int4 g{group_size}, round to nearest"] = without_search(searched)
        found[f"int4 g{group_size}, scale search"] = searched
    return found


def without_search(searched: QuantRecipe) -> QuantRecipe:
    """Return the recipe with every scale taken from its group's largest value."""
    rules = tuple(
        replace(rule, method="nearest") if isinstance(rule.scheme, GroupedInt) else rule
        for rule in searched.rules
    )
    return QuantRecipe(f"{searched.name}-nearest", rules)


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--text", type=PATH, required=True, help="Text that the model was not trained on.")
@click.option(
    "--positions", type=int, default=12000, show_default=True, help="How many tokens to compare."
)
def main(
    text: Path,
    positions: int,
) -> None:
    """Print a Markdown table."""
    folder = resolve_model("demo").path
    checkpoint = open_checkpoint(folder)
    ids = load_tokenizer(folder).encode(text.read_text(encoding="utf-8"))[:positions]
    windows = torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)
    reference = reference_logits(checkpoint.config, checkpoint.tensor, windows).flatten(0, 1)
    click.echo("| weights | bits per weight | SQNR dB | KL nats | top-1 % |\n|---|---|---|---|---|")
    for name, chosen in recipes().items():
        with tempfile.TemporaryDirectory() as place:
            out = Path(place)
            summary = quantize_to(out, checkpoint, chosen)
            weights = QuantizedWeights.open(out)
            found = reference_logits(checkpoint.config, weights.get, windows).flatten(0, 1)
        metrics = compare_logits(reference.numpy(), found.numpy())
        click.echo(
            f"| {name} | {summary.bits_per_weight:.2f} | {summary.sqnr_db:.2f} "
            f"| {metrics.kl_mean:.5f} | {100 * metrics.top1:.1f} |"
        )


if __name__ == "__main__":
    main()
