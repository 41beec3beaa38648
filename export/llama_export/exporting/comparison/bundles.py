"""Run two bundles of one vocabulary over a text, and hold each against the other.

They may be of two targets, or of a model before and after it was trained further. Both run as they
are shipped, token by token, in their own runtimes. It knows sessions and tokenizers; it lowers and
prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.unchanged import require_unchanged
from llama_export.errors import BundleError
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
from llama_export.llama.config import LlamaConfig
from llama_export.targets import registry
from llama_export.targets.session import Session
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_export.verification.measure.feed import single_steps
from llama_export.verification.measure.metrics import Logits
from llama_export.verification.measure.yardstick import Rows, TextWindows, read_both_ways


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle that may be compared.

    Args:
        name: its folder, as it was named.
        bundle: the bundle.
        tokenizer: its tokenizer.
        config: shape of its model.
        artifact: its artifact.
    """

    name: str
    bundle: Bundle
    tokenizer: Tokenizer
    config: LlamaConfig
    artifact: StoredArtifact

    @property
    def vocabulary_sha256(self) -> str:
        """Hash of the tokenizer's own file."""
        manifest = self.bundle.manifest
        return manifest.files[str(manifest.tokenizer["file"])].sha256

    def figures(self, texts: tuple[TextFigures, ...]) -> BundleFigures:
        """Describe it, with what was measured."""
        manifest = self.bundle.manifest
        return BundleFigures(
            name=self.name,
            model=manifest.model.name,
            target=manifest.target,
            recipe=str(manifest.quantization.get("recipe", "")),
            size_bytes=self.bundle.size_bytes,
            texts=texts,
        )


def open_pair(one: Path, other: Path) -> tuple[OpenedBundle, OpenedBundle]:
    """Open two bundles, and refuse those that cannot be held against each other.

    Raises:
        BundleError: one is damaged or changed, has a pruned head, or another vocabulary.
        BackendUnavailableError: this machine cannot run one.
        TokenizerError: a tokenizer is damaged.
    """
    first, second = _open(one), _open(other)
    for each in (first, second):
        if each.artifact.head_tokens:
            message = f"{each.name}: a head that lacks a text's tokens cannot be scored on it"
            raise BundleError(message, "compare bundles with whole heads")
    sizes = [each.artifact.vocab_size for each in (first, second)]
    if sizes[0] != sizes[1]:
        message = f"{first.name} has {sizes[0]} logits, and {second.name} {sizes[1]}"
        raise BundleError(message, "compare bundles of one vocabulary")
    if first.vocabulary_sha256 == second.vocabulary_sha256:
        return first, second
    if fault := tokenizer_fault(first.tokenizer, second.tokenizer, sizes[0]):
        message = f"the tokenizers of {first.name} and {second.name} do not agree: {fault}"
        raise BundleError(message, "compare bundles of one vocabulary")
    return first, second


def tokenizer_fault(one: Tokenizer, other: Tokenizer, vocab_size: int) -> str:
    """Name the first token in which two vocabularies differ; empty: they are one.

    Args:
        one: tokenizer of a bundle.
        other: tokenizer of another one.
        vocab_size: number of logits of both.
    """
    if one.prefix_ids != other.prefix_ids:
        return f"a text begins with {list(one.prefix_ids)} and {list(other.prefix_ids)}"
    for token in range(min(vocab_size, max(one.vocab_size, other.vocab_size))):
        pair = [_piece(each, token) for each in (one, other)]
        if pair[0] != pair[1]:
            return f"token {token} is {pair[0]!r} and {pair[1]!r}"
    return ""


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
    figures = pair[0].figures(tuple(back)), pair[1].figures(tuple(there))
    return BundleComparison(tuple(read), figures, identity)


def session_rows(session: Session, text: TextWindows, tick: Callable[[], None]) -> Rows:
    """Return what feeds a session a text's windows token by token, each from its beginning."""

    def rows(window: int, positions: slice) -> Logits:
        if positions.start == 0:
            session.rewind(0)
        return single_steps(session, text.ids[window, positions].tolist(), tick)

    return rows


def _open(folder: Path) -> OpenedBundle:
    bundle = Bundle.open(folder)
    registry.require_runs_here(bundle)
    require_unchanged(bundle)
    tokenizer = load_tokenizer(bundle.path(str(bundle.manifest.tokenizer["file"])))
    config = LlamaConfig.from_hf(bundle.manifest.model.config, where="manifest.json")
    return OpenedBundle(str(folder), bundle, tokenizer, config, StoredArtifact.of(bundle))


def _cut(pair: tuple[OpenedBundle, OpenedBundle], text: NamedText, positions: int) -> TextWindows:
    """Cut a text into windows that both contexts hold."""
    one, other = pair
    shortest = min(each.bundle.manifest.spec.max_context for each in pair)
    cut, again = (cut_text(text, each.tokenizer, one.config, positions, shortest) for each in pair)
    if cut.ids.tolist() != again.ids.tolist() or cut.targets.tolist() != again.targets.tolist():
        message = f"the tokenizers of {one.name} and {other.name} read {text.name} differently"
        raise BundleError(message, "compare bundles of one vocabulary")
    return cut


def _piece(tokenizer: Tokenizer, token: int) -> str | None:
    """Return what a token stands for; None: the tokenizer does not have it."""
    if token >= tokenizer.vocab_size:
        return None
    name = tokenizer.token_name(token)
    return tokenizer.decode([token]) if name is None else name


def _counter(total: int, advance: Callable[[int, int], None]) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        advance(done, total)

    return tick
