"""What the KV cache of a session holds: read, cut back, kept in a file, let go of.

It knows tokens and files. What is written with the cache is in `text_session`.
"""

from __future__ import annotations

from pathlib import Path

from llama_export.generation.prefix_cache import PrefixCache
from llama_export.generation.session_file import (
    BundleIdentity,
    SavedSession,
    read_session_file,
    write_session_file,
)
from llama_export.generation.text_stream import TextStream


class CachedSession:
    """A KV cache, and the one stream that writes with it.

    Args:
        cache: KV cache of the artifact.
        identity: which bundle it belongs to.
    """

    def __init__(self, cache: PrefixCache, identity: BundleIdentity) -> None:
        self.cache = cache
        self.identity = identity
        self._stream: TextStream | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens in the KV cache."""
        return self.cache.tokens

    @property
    def position(self) -> int:
        """Number of tokens in the KV cache."""
        return self.cache.position

    @property
    def max_context(self) -> int:
        """Largest number of tokens of a prompt and its answer together."""
        return self.cache.max_context

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self.cache.is_closed

    def rewind(self, position: int) -> None:
        """Let the cache forget every token from `position` on; 0 forgets all.

        Raises:
            PromptError: there is no such position.
        """
        self.end_stream()
        self.cache.rewind(position)

    def save(self, path: str | Path) -> None:
        """Write the tokens and the KV cache into a file.

        Raises:
            OutputError: the file cannot be written.
        """
        self.end_stream()
        layers = self.cache.layers(self.position)
        write_session_file(Path(path), SavedSession(self.identity, self.tokens, layers))

    def restore(self, path: str | Path) -> None:
        """Replace the KV cache by a saved one.

        Args:
            path: file that `save`, or a conversation's `save`, wrote.

        Raises:
            PromptError: the file is missing, damaged, another bundle's, or of a newer version.
            UsageError: the session is closed.
        """
        self.adopt(read_session_file(Path(path), self.identity))

    def adopt(self, saved: SavedSession) -> None:
        """Replace the KV cache by one that was read from a file.

        Raises:
            PromptError: the cache does not fit into this context.
        """
        self.end_stream()
        self.cache.restore(saved.token_ids, saved.layers)

    def end_stream(self) -> None:
        """End a stream that is not finished: its next token would go to the wrong place."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Let go of the artifact and its memory; forks stay open. Closing twice does nothing."""
        self.end_stream()
        self.cache.close()
