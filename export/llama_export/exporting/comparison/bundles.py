"""Run two bundles of one vocabulary over a text, and hold each against the other.

They may be of two targets, or of a model before and after it was trained further. Both run as they
are shipped, token by token, in their own runtimes. It knows sessions; it opens no bundle and prints
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from llama_export.errors import BundleError
from llama_export.exporting.comparison.bundle_pair import OpenedBundle
from llama_export.exporting.comparison.figures import (
    BundleComparison,
    BundleFigures,
    ReadText,
    TextFigures,
)
from llama_export.exporting.comparison.identity import Identity
from llama_export.exporting.comparison.request import NamedText
from llama_export.exporting.comparison.texts import cut_text, describe_text
from llama_export.exporting.pipeline import Progress
from llama_export.targets import registry
from llama_export.targets.session import Session
from llama_export.verification.measure.feed import single_steps
from llama_export.verification.measure.metrics import Logits
from llama_export.verification.measure.yardstick import Rows, TextWindows, read_both_ways


def compare_bundles(
    pair: tuple[OpenedBundle, OpenedBundle],
    texts: Sequence[NamedText],
    positions: int,
    threads: int | None,
    identity: Identity,
    progress: Progress,
) -> BundleComparison:
    """Read the texts with both bundles, each window from an empty session.

    Args:
        pair: two bundles of one vocabulary.
        texts: texts to read.
        positions: most positions to read of each.
        threads: number of runtime threads; None leaves it to the runtime.
        identity: what the figures depend on besides.
        progress: where the steps are shown.

    Raises:
        PromptError: a text is too short.
        BundleError: the tokenizers read a text differently, or an artifact cannot be loaded.
        LlamaExportError: a logit is no number.
    """
    windows = [_cut(pair, text, positions) for text in texts]
    total = 2 * sum(each.positions for each in windows)
    there: list[TextFigures] = []
    back: list[TextFigures] = []
    read: list[ReadText] = []
    with progress.step("Reading with both bundles") as advance, ExitStack() as stack:
        tick = _counter(total, advance)
        sessions = [
            stack.enter_context(
                closing(
                    registry.get(each.bundle.manifest.target).open_session(
                        each.artifact, threads=threads
                    )
                )
            )
            for each in pair
        ]
        for text, cut in zip(texts, windows, strict=True):
            one, other = (session_rows(each, cut, tick) for each in sessions)
            second, first = read_both_ways(cut, one, other)
            there.append(TextFigures.of(second, first.nats))
            back.append(TextFigures.of(first, second.nats))
            read.append(describe_text(text, cut, first.nats))
    figures = _figures(pair[0], back), _figures(pair[1], there)
    return BundleComparison(tuple(read), figures, identity)


def session_rows(session: Session, text: TextWindows, tick: Callable[[], None]) -> Rows:
    """Return what feeds a session a text's windows token by token, each from its beginning."""

    def rows(window: int, positions: slice) -> Logits:
        if positions.start == 0:
            session.rewind(0)
        return single_steps(session, text.ids[window, positions].tolist(), tick)

    return rows


def _cut(pair: tuple[OpenedBundle, OpenedBundle], text: NamedText, positions: int) -> TextWindows:
    """Cut a text into windows that both contexts hold."""
    one, other = pair
    shortest = min(each.bundle.manifest.spec.max_context for each in pair)
    cut, again = (cut_text(text, each.tokenizer, one.config, positions, shortest) for each in pair)
    if cut.ids.tolist() != again.ids.tolist() or cut.targets.tolist() != again.targets.tolist():
        message = f"the tokenizers of {one.name} and {other.name} read {text.name} differently"
        raise BundleError(message, "compare bundles of one vocabulary")
    return cut


def _figures(opened: OpenedBundle, texts: list[TextFigures]) -> BundleFigures:
    manifest = opened.bundle.manifest
    return BundleFigures(
        name=opened.name,
        model=manifest.model.name,
        target=manifest.target,
        recipe=str(manifest.quantization.get("recipe", "")),
        size_bytes=opened.bundle.size_bytes,
        texts=tuple(texts),
    )


def _counter(total: int, advance: Callable[[int, int], None]) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        advance(done, total)

    return tick
