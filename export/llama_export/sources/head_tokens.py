"""Choose the tokens that a pruned head keeps: those of some texts, and those that end a text.

It knows a tokenizer and a config; the rows of the head are the checkpoint's business.
"""

from __future__ import annotations

from dataclasses import replace

from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.errors import UsageError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.config_keys import MOST_TOKEN_IDS
from llama_export.tokenizer.tokenizer import Tokenizer
from llama_quantize.printable import shown_name


def with_head_tokens(
    config: LlamaConfig, tokenizer: Tokenizer, options: ReadOptions
) -> LlamaConfig:
    """Return a config whose head keeps what the user wants the model to be able to write.

    Args:
        config: completed config, with every token that ends a text; it stays as it is when the
            user wants all tokens.
        tokenizer: tokenizer of the model.
        options: how the user wants the checkpoint to be read.

    Raises:
        UsageError: a text has no token, or one that the model cannot write; or they are too many.
    """
    if not options.head_tokens:
        return config
    ids = set(config.eos_token_id)
    for text in options.head_tokens:
        ids |= _ids_of(text, tokenizer, config)
    if len(ids) > MOST_TOKEN_IDS:
        message = f"--head-tokens: {len(ids)} tokens are to be kept, at most {MOST_TOKEN_IDS}"
        raise UsageError(message, "leave the option out for a model that writes text")
    return replace(config, head_tokens=tuple(sorted(ids)), tie_word_embeddings=False)


def _ids_of(text: str, tokenizer: Tokenizer, config: LlamaConfig) -> set[int]:
    special = tokenizer.special_tokens.get(text)
    ids = tokenizer.encode(text) if special is None else [special]
    if not ids or max(ids) >= config.vocab_size:
        found = "has no token" if not ids else "has a token that is not in the model's table"
        message = f"--head-tokens: {shown_name(text)} {found}"
        raise UsageError(message, "name texts that the model answers with, such as safe and unsafe")
    return set(ids)
