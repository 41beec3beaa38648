"""How far two models' logits are apart, and how well one predicts a text.

Everything is added up in float64 over blocks of positions, so that a vocabulary of 128256 costs
megabytes. A NaN never becomes a figure: it becomes a named fault, and every figure its worst value.
It knows arrays; it knows neither models, nor the meaning of tokens, nor limits.

Shapes: P positions, V vocab_size, K key/value heads, D head_dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from llama_export.llama.intermediates import FloatArray
from llama_export.verification.estimate import Estimate
from llama_export.verification.measure.in_blocks import Doubles, exponential, mean_in_blocks

Logits = FloatArray  # [P, V]
Bools = npt.NDArray[np.bool_]
Floats = Logits | Doubles
Ids = Sequence[int] | npt.NDArray[np.int64]

# 16 rows of a 128256-word vocabulary are 16 MB in float64.
_BLOCK_POSITIONS = 16


@dataclass(frozen=True)
class LogitMetrics:
    """Distance of a candidate's logits from a reference's.

    Args:
        positions: number of positions compared.
        kl_mean: mean of KL(reference || candidate), in nats.
        kl_max: KL of the worst position.
        kl_p50: median KL.
        kl_p90: KL that 90 % of the positions stay within.
        kl_p99: KL that 99 % of the positions stay within.
        top1: share of positions where both give the same most likely token.
        max_abs: largest difference of two logits.
        rel_rms: root mean square of the difference over that of the reference.
        centred_rms: the same of logits less their mean at each position, which no softmax sees.
        centred_rms_p99: the same position by position, over the reference there: what 99 % of the
            positions stay within.
        kl: KL of each position, float64 `[P]`.
        same: whether both give the same most likely token at each position, bool `[P]`.
        fault: reason why there are no figures; empty when there are. With a fault every distance
            is infinite and `top1` is 0, so that no limit lets it pass.
        own: number of the first positions that no text repeats; None: all of them. A repeated one
            counts in the means, since a fault does wherever it is, and is no draw of its own.
    """

    positions: int
    kl_mean: float
    kl_max: float
    kl_p50: float
    kl_p90: float
    kl_p99: float
    top1: float
    max_abs: float
    rel_rms: float
    centred_rms: float
    centred_rms_p99: float
    kl: Doubles = field(repr=False, compare=False)
    same: Bools = field(repr=False, compare=False)
    fault: str = ""
    own: int | None = None

    @property
    def kl_estimate(self) -> Estimate:
        """Return the mean KL; its standard error and count are of the text's own positions."""
        return replace(mean_in_blocks(self.own_kl), value=self.kl_mean)

    @property
    def top1_estimate(self) -> Estimate:
        """Return the share of equal most likely tokens; error and count are as the KL's."""
        own = self.same[: self.own].astype(np.float64)
        return replace(mean_in_blocks(own), value=self.top1)

    @property
    def own_kl(self) -> Doubles:
        """Return the KL of each position that no text repeats."""
        return self.kl[: self.own]

    @property
    def sqnr_db(self) -> float:
        """Return the reference's energy over the difference's, in decibels; infinite if equal."""
        if self.fault:
            return -math.inf
        return -20 * math.log10(self.rel_rms) if self.rel_rms > 0 else math.inf

    def to_json(self) -> dict[str, float | int | str | None]:
        """Return the figures without the positions' KL; an infinite one is None."""
        figures: dict[str, float | int | str | None] = {"positions": self.positions}
        for name in ("kl_mean", "kl_max", "kl_p50", "kl_p90", "kl_p99", "top1", "max_abs"):
            figures[name] = _finite_or_none(getattr(self, name))
        figures["kl_mean_error"] = _finite_or_none(self.kl_estimate.error)
        figures["top1_error"] = _finite_or_none(self.top1_estimate.error)
        for name in ("rel_rms", "centred_rms", "centred_rms_p99"):
            figures[name] = _finite_or_none(getattr(self, name))
        figures["sqnr_db"] = _finite_or_none(self.sqnr_db)
        figures["fault"] = self.fault
        return figures


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    Args:
        tokens: number of predictions scored.
        nats_per_token: mean negative log-likelihood.
        nats: negative log-likelihood of each token, float64 `[P]`.
        fault: reason why there is no figure; empty when there is one.
    """

    tokens: int
    nats_per_token: float
    nats: Doubles = field(repr=False, compare=False)
    fault: str = ""

    @property
    def perplexity(self) -> float:
        """Return the exponential of `nats_per_token`; infinite where float64 ends."""
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else math.inf

    @property
    def perplexity_estimate(self) -> Estimate:
        """Return the perplexity with its standard error."""
        if self.fault:
            return Estimate(math.inf, math.nan, self.tokens)
        return exponential(mean_in_blocks(self.nats))

    def ratio(self, base: Perplexity) -> Estimate:
        """Divide a perplexity by that of the same tokens with another model.

        A token that is hard is hard for both, so the error is that of the differences.
        """
        if self.fault or base.fault:
            return Estimate(math.inf, math.nan, self.tokens)
        return exponential(mean_in_blocks(self.nats - base.nats))

    def to_json(self) -> dict[str, float | int | str | None]:
        """Return the figures; an infinite one is None."""
        return {
            "tokens": self.tokens,
            "nats_per_token": _finite_or_none(self.nats_per_token),
            "perplexity": _finite_or_none(self.perplexity),
            "perplexity_error": _finite_or_none(self.perplexity_estimate.error),
            "fault": self.fault,
        }


class LogitComparison:
    """A running sum of the distance between two models' logits, block by block."""

    def __init__(self, own: int | None = None) -> None:
        """Begin a comparison.

        Args:
            own: number of the first positions that no text repeats; None: all of them.
        """
        self._own = own
        self._kl: list[Doubles] = []
        self._same: list[Bools] = []
        self._positions = 0
        self._max_abs = 0.0
        self._difference_squared = 0.0
        self._reference_squared = 0.0
        self._centred: list[tuple[Doubles, Doubles]] = []
        self._fault = ""

    def add(self, reference: Floats, candidate: Floats) -> None:
        """Compare the next positions.

        Args:
            reference: logits `[P, V]` to compare with.
            candidate: logits `[P, V]` to judge.
        """
        if np.shape(reference) != np.shape(candidate):
            self._blame(
                f"the candidate's logits have shape {np.shape(candidate)}, the reference's "
                f"{np.shape(reference)}"
            )
            return
        for start in range(0, len(reference), _BLOCK_POSITIONS):
            rows = slice(start, start + _BLOCK_POSITIONS)
            self._add_block(
                np.asarray(reference[rows], dtype=np.float64),
                np.asarray(candidate[rows], dtype=np.float64),
            )

    def metrics(self) -> LogitMetrics:
        """Return the figures of everything added so far."""
        if not self._positions:
            self._blame("no positions were compared")
        if self._fault:
            return LogitMetrics(
                self._positions,
                *(math.inf,) * 5,
                top1=0.0,
                max_abs=math.inf,
                rel_rms=math.inf,
                centred_rms=math.inf,
                centred_rms_p99=math.inf,
                kl=np.full(self._positions, math.inf),
                same=np.zeros(self._positions, dtype=np.bool_),
                fault=self._fault,
                own=self._own,
            )
        kl, same = np.concatenate(self._kl), np.concatenate(self._same)
        differences, references = map(np.concatenate, zip(*self._centred, strict=True))
        p50, p90, p99 = (float(value) for value in np.percentile(kl, (50, 90, 99)))
        return LogitMetrics(
            positions=self._positions,
            kl_mean=float(kl.mean()),
            kl_max=float(kl.max()),
            kl_p50=p50,
            kl_p90=p90,
            kl_p99=p99,
            top1=float(same.mean()),
            max_abs=self._max_abs,
            rel_rms=relative_rms(self._difference_squared, self._reference_squared),
            centred_rms=relative_rms(float(differences.sum()), float(references.sum())),
            centred_rms_p99=_p99(
                list(map(relative_rms, differences.tolist(), references.tolist()))
            ),
            kl=kl,
            same=same,
            own=self._own,
        )

    def _add_block(self, reference: Doubles, candidate: Doubles) -> None:
        first = self._positions
        self._positions += len(reference)
        for name, logits in (("reference", reference), ("candidate", candidate)):
            if fault := _not_finite(logits, first):
                self._blame(f"the {name}'s logits {fault}")
                return
        log_p, log_q = _log_softmax(reference), _log_softmax(candidate)
        divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
        # KL is never negative; the sum of V roundings may be, by about 1e-16.
        self._kl.append(np.maximum(divergence, 0.0))
        self._same.append(reference.argmax(axis=-1) == candidate.argmax(axis=-1))
        difference = candidate - reference
        self._max_abs = max(self._max_abs, float(np.abs(difference).max()))
        self._difference_squared += float(np.square(difference).sum())
        self._reference_squared += float(np.square(reference).sum())
        self._centred.append((_centred_squared(difference), _centred_squared(reference)))

    def _blame(self, fault: str) -> None:
        self._fault = self._fault or fault


class TokenLoss:
    """A running sum of the negative log-likelihood of a text, block by block."""

    def __init__(self) -> None:
        self._nats: list[Doubles] = []
        self._tokens = 0
        self._fault = ""

    def add(self, logits: Floats, targets: Ids) -> None:
        """Score the next positions.

        Args:
            logits: predictions `[P, V]`.
            targets: token that follows each position, `[P]`.
        """
        wanted = np.asarray(targets, dtype=np.int64)
        for start in range(0, len(logits), _BLOCK_POSITIONS):
            block = np.asarray(logits[start : start + _BLOCK_POSITIONS], dtype=np.float64)
            picked = wanted[start : start + len(block)]
            fault = _not_finite(block, self._tokens)
            if picked.max() >= block.shape[-1]:
                fault = f"have no entry for token {picked.max()}: there are {block.shape[-1]}"
            if fault:
                self._fault = self._fault or f"the logits {fault}"
            else:
                self._nats.append(-_log_softmax(block)[np.arange(len(block)), picked])
            self._tokens += len(block)

    def result(self) -> Perplexity:
        """Return the figures of everything added so far."""
        fault = self._fault or ("" if self._tokens else "no tokens were scored")
        if fault:
            return Perplexity(self._tokens, math.inf, np.full(self._tokens, math.inf), fault)
        nats = np.concatenate(self._nats)
        return Perplexity(self._tokens, float(nats.mean()), nats)


def compare_logits(reference: Floats, candidate: Floats) -> LogitMetrics:
    """Measure how far a candidate's logits are from a reference's.

    Args:
        reference: logits `[P, V]` to compare with.
        candidate: logits `[P, V]` to judge.
    """
    comparison = LogitComparison()
    comparison.add(reference, candidate)
    return comparison.metrics()


def relative_rms(difference_squared: float, reference_squared: float) -> float:
    """Return the root of a square over another's; infinite where the first is NaN, or alone."""
    if math.isnan(difference_squared):
        return math.inf
    if reference_squared == 0.0:
        return 0.0 if difference_squared == 0.0 else math.inf
    return math.sqrt(difference_squared / reference_squared)


def _log_softmax(logits: Doubles) -> Doubles:
    """Return the log-probabilities of logits `[..., V]`."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _centred_squared(logits: Doubles) -> Doubles:
    """Return the energy `[P]` of logits `[P, V]` less their mean."""
    result: Doubles = np.square(logits - logits.mean(axis=-1, keepdims=True)).sum(axis=-1)
    return result


def _not_finite(logits: Doubles, first: int) -> str:
    bad = ~np.isfinite(logits)
    if not bad.any():
        return ""
    row = int(bad.any(axis=-1).argmax())
    return f"hold {int(bad[row].sum())} NaN or infinite values at position {first + row}"


def _p99(values: Sequence[float]) -> float:
    """Return what 99 % of values stay within; infinite where one is, as no NaN may come of it."""
    return float(np.percentile(values, 99)) if np.isfinite(values).all() else math.inf


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
