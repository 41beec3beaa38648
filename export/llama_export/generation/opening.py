"""Open a bundle to write text with it: its files unchanged, its tokenizer, its runtime.

It brings them together, with what drafts for it, and knows nothing of what is written.
"""

from __future__ import annotations

import os
from pathlib import Path

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.unchanged import Steps, require_unchanged
from llama_export.generation.chat_model import is_for_chat, read_chat_format
from llama_export.generation.drafting import Drafter, PromptLookup
from llama_export.generation.model_sampling import read_sampling
from llama_export.generation.prefix_cache import PrefixCache
from llama_export.generation.speculation import Speculator
from llama_export.generation.speculation_choice import Speculation, draft_model, require_every_row
from llama_export.generation.text_session import TextSession
from llama_export.generation.validation import require_whole
from llama_export.targets import registry
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.tokenizer import load_tokenizer


def open_session(
    folder: str | Path,
    *,
    threads: int | None = None,
    max_context: int | None = None,
    verbose: bool = False,
    verify: bool = True,
    steps: Steps | None = None,
    speculation: Speculation | None = None,
) -> TextSession:
    """Load a bundle.

    Args:
        folder: folder of the bundle.
        threads: number of runtime threads, from 1 to the number of cores; None: one per core.
        max_context: most positions to use, out of the bundle's own; None: all of them.
        verbose: whether to let the runtime's messages through.
        verify: whether to compare the files with their hashes before they are used.
        steps: where that is shown when it takes long; None: nowhere.
        speculation: what drafts tokens ahead; None: nothing does.

    Raises:
        UsageError: a number is out of its range; the bundle cannot check drafts, or the bundle
            that is to draft has another vocabulary.
        BundleError: the folder is no bundle, or a damaged or changed one.
        ConfigError, UnsupportedModelError: the manifest's config is damaged, or a newer one.
        BackendUnavailableError: the target's runtime is not installed, or cannot run this.
        TokenizerError: the bundle's tokenizer is damaged.
    """
    if threads is not None:
        require_whole("threads", threads, os.cpu_count() or 1, "cores of this machine")
    bundle = Bundle.open(Path(folder))
    registry.require_runs_here(bundle)
    most = bundle.manifest.spec.max_context
    if max_context is not None:
        require_whole("max_context", max_context, most, "positions of this bundle")
    if speculation is not None:
        require_every_row(bundle)
    unchanged = require_unchanged(bundle, steps) if verify else None
    tokenizer = load_tokenizer(bundle.path(str(bundle.manifest.tokenizer["file"])))
    speculator = None
    if speculation is not None:
        drafter: Drafter = PromptLookup()
        if speculation.draft is not None:
            small = open_session(
                speculation.draft, threads=threads, verbose=verbose, verify=verify, steps=steps
            )
            drafter = draft_model(small.cache, small.tokenizer, tokenizer, speculation.draft)
        speculator = Speculator(drafter, bundle.manifest.tokenizer["stop_token_ids"])
    target = registry.get(bundle.manifest.target)
    artifact = StoredArtifact.of(bundle)
    kept = artifact.head_tokens
    session = target.open_session(artifact, threads=threads, verbose=verbose)
    cache = PrefixCache(session, max_context=max_context, head_tokens=kept)
    cache.speculator = speculator
    form = read_chat_format(bundle, tokenizer)
    opened = TextSession(
        cache,
        form,
        bundle.manifest,
        for_chat=is_for_chat(bundle, form),
        sampling=read_sampling(bundle),
    )
    if unchanged is not None:
        unchanged.require_still()
    return opened
