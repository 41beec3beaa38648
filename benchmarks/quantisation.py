"""Compare ways to quantise a model: KL, top-1 and perplexity against its own weights, on texts.

    python benchmarks/quantisation.py --text fairy-tales-valid.txt --positions 12288
    python benchmarks/quantisation.py --model SmolLM2.gguf --text wiki.txt --text tales.txt \
        --method fast --method good --seed 0 --seed 1 --weights "best=smollm2/weights"

`--weights` measures what an export kept, whatever it was made with. Everything is computed by the
eager model in float32, so the figures are the quantisation's alone; the ratio is to plain rounding
into the very same forms. Results go to `benchmarks/results/`.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from quality import cut_windows, open_reference
from quality_report import Measured, QualityResults, markdown, write_results

from llama_export.calibration.calibrate import Place, calibration_for
from llama_export.calibration.options import OWN_TEXT, CalibrationOptions
from llama_export.calibration.streamed import StreamedCalibration
from llama_export.exporting.plan import fitted_recipe
from llama_export.sources.chat_settings import own_chat_format
from llama_export.sources.source import Source
from llama_export.verification.measure.nearest import (
    NEAREST,
    methods_of_linears,
    rounded_to_nearest,
)
from llama_export.verification.measure.yardstick import TextReading, Yardstick
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.methods.method import find_method
from llama_quantize.recipe import GROUP_SIZES, QUALITIES, QuantRecipe, QuantRule, recipe
from llama_quantize.scheme import Float, GroupedInt

Key = tuple[tuple[str, str, str | None], ...]
RESULTS = Path(__file__).resolve().parent / "results"
TABLE_ONLY = QuantRecipe(
    "int8 table alone",
    (
        QuantRule(r"(model\.embed_tokens|lm_head)\.weight", GroupedInt(8, None), NEAREST),
        QuantRule(r".*", Float("bfloat16")),
    ),
)


@dataclass(frozen=True)
class Candidate:
    """Weights to measure.

    Args:
        line: line of the plot that they are a point of.
        recipe: rules that they are made by; None: they lie in `folder`.
        calibration: text of a calibration, for a method that asks for one.
        folder: folder of weights that were made before.
    """

    line: str
    recipe: QuantRecipe | None = None
    calibration: CalibrationOptions = OWN_TEXT
    folder: Path | None = None


def by_method(bits: int, group_size: int, method: str) -> QuantRecipe:
    """Return the recipe of that many bits, with the codes of its groups chosen by a method."""
    base = recipe(f"int{bits}", group_size)
    rules = tuple(
        replace(rule, method=method)
        if isinstance(rule.scheme, GroupedInt) and rule.scheme.group_size is not None
        else rule
        for rule in base.rules
    )
    return QuantRecipe(f"{base.name}-{method}", rules)


def candidates(
    methods: tuple[str, ...],
    group_sizes: tuple[int, ...],
    calibrations: tuple[CalibrationOptions, ...],
    kept: tuple[str, ...],
) -> Iterator[Candidate]:
    """List what is compared; plain rounding comes first, because the others are held against it."""
    yield Candidate("table alone", TABLE_ONLY)
    yield Candidate("clip_search", by_method(8, 32, "clip_search"))
    for method in dict.fromkeys((NEAREST, *(QUALITIES.get(each, each) for each in methods))):
        for size in group_sizes:
            for each in calibrations if find_method(method).needs else (OWN_TEXT,):
                text = " with " + ", ".join(file.name for file in each.files) if each.files else ""
                yield Candidate(method + text, by_method(4, size, method), each)
    for named in kept:
        line, _, folder = named.rpartition("=")
        yield Candidate(line or folder, folder=Path(folder))


class Comparison:
    """Measures candidates, and plain rounding into each set of forms once.

    Args:
        source: model that is quantised.
        yardstick: what the weights are read with.
        scratch: folder in which calibrations work; what two of them share is made there once.
    """

    def __init__(self, source: Source, yardstick: Yardstick, scratch: Path) -> None:
        self._source = source
        self._yardstick = yardstick
        self._scratch = scratch
        self._rounded: dict[Key, tuple[TextReading, ...]] = {}

    def measure(self, candidate: Candidate, folder: Path) -> Measured:
        """Make a candidate's weights where there are none, and read all texts with them."""
        begun = time.perf_counter()
        if candidate.recipe is not None:
            fitted = fitted_recipe(candidate.recipe, self._source.config)
            calibration = self._calibration(fitted, candidate.calibration)
            quantize_to(folder, self._source.checkpoint, fitted, calibration)
        elapsed_s = time.perf_counter() - begun
        weights = QuantizedWeights.open(candidate.folder or folder)
        readings = self._yardstick.read(weights.get)
        return Measured(
            line=candidate.line,
            forms=forms_of_linears(weights),
            bits_per_weight=weights.summary.bits_per_weight,
            size_bytes=weights.summary.size_bytes,
            elapsed_s=None if candidate.recipe is None else elapsed_s,
            calibration=weights.calibration or {},
            readings=readings,
            rounded=self._rounding(weights, readings),
        )

    def _calibration(
        self, fitted: QuantRecipe, options: CalibrationOptions
    ) -> StreamedCalibration | None:
        source = self._source
        settings = source.tokenizer_config()
        form = own_chat_format(source.info.name, source.tokenizer, settings)
        # Those with other options must not share a folder.
        text = "given" if options.files else "own"
        place = Place(self._scratch / f"{text}-{options.seed}", shown)
        return calibration_for(fitted, source.checkpoint, form, options, place)

    def _rounding(
        self, weights: QuantizedWeights, own: tuple[TextReading, ...]
    ) -> tuple[TextReading, ...] | None:
        """Read the texts with plain rounding into the same forms; None: there are no groups."""
        methods = methods_of_linears(weights)
        if not methods:
            return None
        key = tuple(
            (each.name, each.label, None if each.name in methods else each.method)
            for each in weights.stats
        )
        if key not in self._rounded:
            rounded = rounded_to_nearest(weights, self._source.checkpoint.tensor)
            is_plain = set(methods.values()) == {NEAREST}
            self._rounded[key] = own if is_plain else self._yardstick.read(rounded)
        return self._rounded[key]


def forms_of_linears(weights: QuantizedWeights) -> str:
    """Name the forms of a model's linears, the most frequent first."""
    labels = Counter(each.label for each in weights.stats if "_proj." in each.name)
    return " + ".join(label for label, _ in labels.most_common())


@contextmanager
def shown(label: str) -> Iterator[Callable[[int, int], None]]:
    """Print the name of a step, and no progress."""
    click.echo(label, err=True)
    yield lambda done, total: None


def machine() -> dict[str, str]:
    """Describe what the seconds and the last digits depend on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--model", default="demo", show_default=True, help="As for the export.")
@click.option(
    "--text",
    "texts",
    type=PATH,
    multiple=True,
    required=True,
    help="Text that the model was not trained on; repeatable.",
)
@click.option("--positions", default=12288, show_default=True, help="Most tokens of each text.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=tuple(QUALITIES),
    show_default=True,
    help="Quality, or name of a method; repeatable. Plain rounding is always there.",
)
@click.option(
    "--group-size",
    "group_sizes",
    type=click.Choice(list(map(str, GROUP_SIZES))),
    multiple=True,
    default=("32", "64", "128"),
    show_default=True,
)
@click.option(
    "--seed", "seeds", type=int, multiple=True, default=(0,), help="Of calibrations; repeatable."
)
@click.option(
    "--calibration",
    type=PATH,
    multiple=True,
    help="Text for half of the windows, as for the export, in rows of their own; repeatable.",
)
@click.option("--calibration-tokens", default=OWN_TEXT.tokens, show_default=True)
@click.option(
    "--weights",
    "kept",
    multiple=True,
    metavar="NAME=FOLDER",
    help="Quantised weights that an export kept; repeatable. Rows of one NAME are one line.",
)
@click.option(
    "--timed/--no-timed", default=True, help="Leave seconds out where the machine does more."
)
@click.option("--name", help="Name of the model in the results; the model's own by default.")
@click.option("--output", type=PATH, default=RESULTS, show_default=True)
def main(
    model: str,
    texts: tuple[Path, ...],
    positions: int,
    methods: tuple[str, ...],
    group_sizes: tuple[str, ...],
    seeds: tuple[int, ...],
    calibration: tuple[Path, ...],
    calibration_tokens: int,
    kept: tuple[str, ...],
    timed: bool,
    name: str | None,
    output: Path,
) -> None:
    """Measure, print Markdown tables, and write them with JSON and a plot."""
    source = open_reference(model)
    windows = [
        cut_windows(text.name, source.tokenizer.encode(text.read_text(encoding="utf-8")), positions)
        for text in texts
    ]
    yardstick = Yardstick(source.config, source.checkpoint.tensor, windows)
    texts_of = tuple(
        CalibrationOptions(calibration_tokens, files, seed)
        for files in dict.fromkeys(((), calibration))
        for seed in seeds
    )
    measured = []
    with tempfile.TemporaryDirectory() as scratch:
        comparison = Comparison(source, yardstick, Path(scratch) / "calibration")
        for candidate in candidates(methods, tuple(map(int, group_sizes)), texts_of, kept):
            measured.append(comparison.measure(candidate, Path(scratch) / "weights"))
            shutil.rmtree(Path(scratch) / "weights", ignore_errors=True)
            click.echo(f"measured {measured[-1].name}", err=True)
    results = QualityResults(
        name or source.info.name,
        tuple(windows),
        yardstick.perplexities,
        tuple(each if timed else replace(each, elapsed_s=None) for each in measured),
        machine(),
    )
    write_results(output, results)
    click.echo(markdown(results))


if __name__ == "__main__":
    main()
