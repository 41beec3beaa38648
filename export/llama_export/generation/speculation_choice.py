"""What a user chooses to draft with, and what of it a bundle can do.

It compares bundles and vocabularies, and neither drafts nor writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.bundle import Bundle
from llama_export.errors import UsageError
from llama_export.generation.drafting import DraftModel
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Speculation:
    """Where drafts come from.

    Args:
        draft: folder of a smaller model's bundle; None: from what the text said before.
    """

    draft: Path | None = None


def choose_speculation(*, lookup: bool, draft: str | Path | None) -> Speculation | None:
    """Return where drafts come from; None: there are none.

    Raises:
        UsageError: both are asked for.
    """
    if lookup and draft is not None:
        message = f"drafts come from the text itself (lookup) or from {draft}, and not from both"
        raise UsageError(
            message, "choose one: lookup for what is copied, a draft model for the rest"
        )
    if draft is not None:
        return Speculation(Path(draft))
    return Speculation() if lookup else None


def require_every_row(bundle: Bundle) -> None:
    """Refuse a bundle that cannot check a draft with one run.

    Raises:
        UsageError: it gives the logits of the last position alone.
    """
    if not bundle.manifest.spec.all_logits:
        message = (
            f"{bundle.folder} gives the logits of the last position alone, and a draft is checked "
            "by those of each position"
        )
        hint = "export it again with --all-logits (Core ML: without --functions prefill+decode)"
        raise UsageError(message, hint)


def draft_model(
    cache: PrefixCache, tokenizer: Tokenizer, own: Tokenizer, folder: Path
) -> DraftModel:
    """Return what drafts with a smaller model; its cache is closed where that is refused.

    Args:
        cache: the smaller model's cache.
        tokenizer: its tokenizer.
        own: tokenizer of the model that writes.
        folder: folder of its bundle, for the error.

    Raises:
        UsageError: the vocabularies differ.
    """
    difference = _difference(tokenizer, own)
    if difference:
        cache.close()
        message = f"{folder} cannot draft: {difference}"
        hint = "take a smaller model with the same vocabulary, such as 3.2-1B for 3.2-3B"
        raise UsageError(message, hint)
    return DraftModel(cache, own.vocab_size)


def _difference(tokenizer: Tokenizer, own: Tokenizer) -> str:
    """Name the first difference of two vocabularies; empty: texts show none."""
    if tokenizer.vocab_size != own.vocab_size:
        return f"its vocabulary has {tokenizer.vocab_size} tokens, and not {own.vocab_size}"
    for token in range(own.vocab_size):
        theirs, ours = tokenizer.decode([token]), own.decode([token])
        if theirs != ours:
            return f"its token {token} is {theirs!r}, and not {ours!r}"
    return ""
