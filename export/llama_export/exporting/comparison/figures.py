"""The figures of a comparison, and how they are written as data.

It is data: how it was measured, and how it is shown, is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from llama_export.exporting.comparison.identity import Identity

if TYPE_CHECKING:
    from llama_export.verification.estimate import Estimate
    from llama_export.verification.measure.in_blocks import Doubles
    from llama_export.verification.measure.yardstick import TextReading


@dataclass(frozen=True)
class ReadText:
    """A text that was read.

    Args:
        name: name of the text.
        sha256: hash of its content, as UTF-8, as far as it was read into memory.
        positions: number of positions that were compared.
        window: positions of a window, each of which is read as a text of its own.
        blocks: number of blocks of positions, over which errors are computed.
        perplexity: perplexity of the reference.
    """

    name: str
    sha256: str
    positions: int
    window: int
    blocks: int
    perplexity: Estimate

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {**asdict(self), "perplexity": estimate_json(self.perplexity)}


@dataclass(frozen=True)
class TextFigures:
    """What a model makes of a text beside the reference.

    Args:
        kl: mean KL(reference || model) in nats.
        kl_p90: KL that 90 % of the positions stay within.
        kl_p99: KL that 99 % of the positions stay within.
        kl_max: KL of the worst position.
        top1: share of positions with the reference's most likely token.
        perplexity: perplexity of the model.
        ratio: that over the reference's.
    """

    kl: Estimate
    kl_p90: float
    kl_p99: float
    kl_max: float
    top1: Estimate
    perplexity: Estimate
    ratio: Estimate

    @classmethod
    def of(cls, reading: TextReading, reference_nats: Doubles) -> TextFigures:
        """Add a reading up.

        Args:
            reading: what the model makes of the text.
            reference_nats: loss of the reference on each block, float64 `[N]`.
        """
        p90, p99, most = (float(v) for v in np.percentile(reading.kl_of_positions, (90, 99, 100)))
        return cls(
            kl=reading.mean_kl,
            kl_p90=p90,
            kl_p99=p99,
            kl_max=most,
            top1=reading.top1,
            perplexity=reading.perplexity,
            ratio=reading.perplexity_over(reference_nats),
        )

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "kl": estimate_json(self.kl),
            "kl_p90": self.kl_p90,
            "kl_p99": self.kl_p99,
            "kl_max": self.kl_max,
            "top1": estimate_json(self.top1),
            "perplexity": estimate_json(self.perplexity),
            "perplexity_ratio": estimate_json(self.ratio),
        }


@dataclass(frozen=True)
class LinearCost:
    """What the form of one linear costs.

    Args:
        name: name of the weight.
        form: storage form of it.
        share: its share of what the forms of all linears cost together.
    """

    name: str
    form: str
    share: float


@dataclass(frozen=True)
class JudgedPhone:
    """A phone, and what arithmetic says of a bundle on it.

    Args:
        name: name of the phone.
        target: target whose bundle it would run.
        fits: "yes", "perhaps" or "no".
        tokens_per_s: bound on the speed of decoding; None: its memory's speed is not known, or the
            bundle does not fit.
    """

    name: str
    target: str
    fits: str
    tokens_per_s: float | None


@dataclass(frozen=True)
class RecipeFigures:
    """What a recipe makes of a model.

    Args:
        name: the recipe in a word, as an export takes it.
        export_options: words that ask an export for it.
        rules: its rules as they fit the model, as plain data.
        calibration: what decided the calibration; empty: there was none.
        size_bytes: stored bytes of all tensors.
        bits_per_weight: stored bits for each weight, scales included.
        texts: figures on each text, in the comparison's order.
        costliest: linears that cost most, the most first; empty: no linear has codes.
        targets: targets that have such an artifact.
        phones: phones, judged; empty: the model is too small for that, or no target runs it.
    """

    name: str
    export_options: tuple[str, ...]
    rules: Mapping[str, object]
    calibration: Mapping[str, str]
    size_bytes: int
    bits_per_weight: float
    texts: tuple[TextFigures, ...]
    costliest: tuple[LinearCost, ...] = ()
    targets: tuple[str, ...] = ()
    phones: tuple[JudgedPhone, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return plain data, the texts by number."""
        return {
            "recipe": self.name,
            "rules": dict(self.rules),
            "calibration": dict(self.calibration),
            "size_bytes": self.size_bytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "texts": [each.to_json() for each in self.texts],
            "costliest": [asdict(each) for each in self.costliest],
            "targets": list(self.targets),
            "phones": [asdict(each) for each in self.phones],
        }


@dataclass(frozen=True)
class RecipeComparison:
    """Recipes side by side.

    Args:
        model: name of the model.
        origin: where it comes from, such as a repository and its commit.
        reference: name of the checkpoint that all are held against.
        texts: texts that were read.
        recipes: recipes in the order in which they were named.
        identity: what else decides the figures.
    """

    model: str
    origin: Mapping[str, str]
    reference: str
    texts: tuple[ReadText, ...]
    recipes: tuple[RecipeFigures, ...]
    identity: Identity

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "format_version": 1,
            "model": self.model,
            "origin": dict(self.origin),
            "reference": self.reference,
            "texts": [each.to_json() for each in self.texts],
            "recipes": [each.to_json() for each in self.recipes],
            "made": self.identity.to_json(),
        }


@dataclass(frozen=True)
class BundleFigures:
    """One of two bundles, held against the other.

    Args:
        name: its folder, as it was named.
        model: name of its model.
        target: target of it.
        recipe: name of its recipe.
        size_bytes: size of its files.
        texts: figures on each text with the other bundle as the reference.
    """

    name: str
    model: str
    target: str
    recipe: str
    size_bytes: int
    texts: tuple[TextFigures, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {**asdict(self), "texts": [each.to_json() for each in self.texts]}


@dataclass(frozen=True)
class BundleComparison:
    """Two bundles, each held against the other.

    Args:
        texts: texts that were read; the perplexity is the first bundle's.
        bundles: the two.
        identity: what else decides the figures.
    """

    texts: tuple[ReadText, ...]
    bundles: tuple[BundleFigures, BundleFigures]
    identity: Identity

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "format_version": 1,
            "texts": [each.to_json() for each in self.texts],
            "bundles": [each.to_json() for each in self.bundles],
            "made": self.identity.to_json(),
        }


def estimate_json(estimate: Estimate) -> dict[str, float | None]:
    """Return a figure and its error; what is not finite is None."""
    found = {"value": estimate.value, "error": estimate.error}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
