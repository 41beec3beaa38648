"""The results of an evaluation, and how they are written as data.

It is data: how it was measured, and how it is shown, is not known here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_export.evaluation.perplexity import Perplexity
    from llama_export.verification.estimate import Estimate
    from llama_export.verification.identity import Identity

FIRST_LINE = '{"made_by": "llama-export evaluate",'
"""First line of a file of results, by which an earlier one is known."""


@dataclass(frozen=True)
class Score:
    """One figure of a task.

    Args:
        task: name of the task or group.
        metric: name of the figure.
        filter: how the answers were read before it, as lm-eval calls it.
        value: the figure; None: there is none.
        error: its standard error; None: lm-eval knows none for it.
        higher_is_better: whether more is better; None: nobody said.
        num_fewshot: examples before each question.
        documents: number of documents; None: of a group nobody counted them.
        version: version of the task.
    """

    task: str
    metric: str
    filter: str
    value: float | None
    error: float | None
    higher_is_better: bool | None
    num_fewshot: int | None
    documents: int | None
    version: str


@dataclass(frozen=True)
class TaskScores:
    """Scores of a bundle on tasks.

    Args:
        scores: figures, task by task.
        shortened: number of requests whose context lost its beginning, because it did not fit.
    """

    scores: tuple[Score, ...]
    shortened: int


@dataclass(frozen=True)
class TextScore:
    """How well a bundle foretells a text.

    Args:
        files: names of its files.
        sha256: hash over their bytes.
        perplexity: how well its documents are foretold.
    """

    files: tuple[str, ...]
    sha256: str
    perplexity: Perplexity


@dataclass(frozen=True)
class Evaluation:
    """What a bundle was scored on, and how it did.

    Args:
        bundle: name, target and sha256 of the bundle.
        max_context: positions that a request could use.
        settings: limit, examples and chat template, as they were asked for.
        tasks: scores on tasks; None: none were asked for.
        text: score on a text; None: none was asked for.
        identity: what else the figures depend on.
    """

    bundle: Mapping[str, str]
    max_context: int
    settings: Mapping[str, object]
    tasks: TaskScores | None
    text: TextScore | None
    identity: Identity

    def to_json(self) -> dict[str, object]:
        """Return plain data; what is not finite is None."""
        return {
            "made_by": "llama-export evaluate",
            "format_version": 1,
            "bundle": dict(self.bundle),
            "max_context": self.max_context,
            "settings": dict(self.settings),
            "scores": [] if self.tasks is None else [_score_json(s) for s in self.tasks.scores],
            "shortened_requests": None if self.tasks is None else self.tasks.shortened,
            "text": None if self.text is None else _text_json(self.text),
            "made": self.identity.to_json(),
        }

    def to_text(self) -> str:
        """Return the file of the results, which begins with `FIRST_LINE`."""
        text = json.dumps(self.to_json(), indent=2)
        return FIRST_LINE + text.removeprefix(f"{{\n  {FIRST_LINE[1:]}") + "\n"


def _score_json(score: Score) -> dict[str, object]:
    finite = {"value": _finite(score.value), "error": _finite(score.error)}
    return {**asdict(score), **finite}


def _text_json(text: TextScore) -> dict[str, object]:
    found = text.perplexity
    return {
        "files": list(text.files),
        "sha256": text.sha256,
        "perplexity": _estimate_json(found.perplexity),
        "bits_per_byte": _estimate_json(found.bits_per_byte),
        "documents": found.documents,
        "tokens": found.tokens,
        "windows": found.windows,
        "error_unit": found.unit,
        "error_units": found.units,
    }


def _estimate_json(estimate: Estimate) -> dict[str, float | None]:
    return {"value": _finite(estimate.value), "error": _finite(estimate.error)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
