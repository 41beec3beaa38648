"""Open two bundles, and refuse those that cannot be held against each other.

It knows manifests and tokenizers; it runs nothing, and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.unchanged import require_unchanged
from llama_export.errors import BundleError
from llama_export.llama.config import LlamaConfig
from llama_export.targets import registry
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer


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


def _open(folder: Path) -> OpenedBundle:
    bundle = Bundle.open(folder)
    registry.require_runs_here(bundle)
    require_unchanged(bundle)
    tokenizer = load_tokenizer(bundle.path(str(bundle.manifest.tokenizer["file"])))
    config = LlamaConfig.from_hf(bundle.manifest.model.config, where="manifest.json")
    return OpenedBundle(str(folder), bundle, tokenizer, config, StoredArtifact.of(bundle))


def _piece(tokenizer: Tokenizer, token: int) -> str | None:
    """Return what a token stands for; None: the tokenizer does not have it."""
    if token >= tokenizer.vocab_size:
        return None
    name = tokenizer.token_name(token)
    return tokenizer.decode([token]) if name is None else name
