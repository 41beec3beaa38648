"""Run a Core ML package: one conversation, on whatever can run it.

The evaluator, which runs everywhere, and the real Core ML are the same to it. It knows positions
and what a session refuses; how the caches are kept is in `caches`, what a call is given in `calls`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.coreml.running.caches import Caches, open_caches
from llama_export.targets.coreml.running.layout import Layout
from llama_export.targets.coreml.running.runner import Runner, StateT
from llama_export.targets.session import (
    KeyValueArrays,
    require_fitting_cache,
    require_held,
    require_open,
    require_tokens,
)


class CoremlSession:
    """A conversation; satisfies `Session`.

    Args:
        runner: the loaded package; forks share it, and its weights.
        spec: signature of the package, from the manifest.
        vocab_size: number of ids that may be read; None: as many as there are logits.

    Raises:
        BundleError: the signature is not a Core ML package's.
    """

    def __init__(
        self, runner: Runner[StateT], spec: GraphSpec, vocab_size: int | None = None
    ) -> None:
        self._layout = Layout.of(spec)
        self._all_logits = spec.all_logits
        self._vocab_size = vocab_size or self._layout.num_logits
        self._open_caches: Caches | None = open_caches(runner, self._layout)
        self._position = 0

    @property
    def vocab_size(self) -> int:
        """Number of token ids that may be read."""
        return self._vocab_size

    @property
    def max_context(self) -> int:
        """The most positions that a conversation may have."""
        return self._layout.max_context

    @property
    def num_layers(self) -> int:
        """How many layers have a cache."""
        return self._layout.layers

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""
        return self._position

    @property
    def all_logits(self) -> bool:
        """Whether `run` gives a row of logits for each token, or for the last one alone."""
        return self._all_logits

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return the logits `[V]` after the last of them.

        An error on the way leaves the conversation as it was.

        Raises:
            PromptError: there are none, one is outside the vocabulary, or they do not fit.
            BundleError: the runtime cannot run the package, or it gives something else.
        """
        last: FloatArray = self._appended(input_ids, rows=1)[-1]
        return last

    def run(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return every row of logits that the package gives, `[rows, V]`.

        An error on the way leaves the conversation as it was.

        Raises:
            PromptError: there are none, one is outside the vocabulary, or they do not fit.
            BundleError: the runtime cannot run the package, or it gives something else.
        """
        return self._appended(input_ids, rows=len(input_ids) if self._all_logits else 1)

    def _appended(self, input_ids: Sequence[int], *, rows: int) -> FloatArray:
        require_tokens(
            input_ids,
            self._position,
            max_context=self.max_context,
            vocab_size=self.vocab_size,
        )
        logits = self._caches.append(input_ids, self._position, rows)
        self._position += len(input_ids)
        return logits

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on; their rows are written again later.

        Raises:
            PromptError: the position is after the last token.
        """
        require_held(position, self._position)
        self._position = position

    def cache(self, layer: int) -> KeyValueArrays:
        """Return a layer's keys and values so far, `[K, position, D]` each, as copies."""
        return self._caches.rows(layer, self._position)

    def restore(self, layers: Sequence[KeyValueArrays]) -> None:
        """Replace the conversation with one whose cache was taken from such a session.

        Args:
            layers: what `cache` returned, layer by layer.

        Raises:
            PromptError: it is the cache of another model, or longer than the context.
        """
        position = require_fitting_cache(
            layers,
            num_layers=self.num_layers,
            heads=self._layout.heads,
            head_dim=self._layout.head_dim,
            max_context=self.max_context,
        )
        caches = self._caches.restored(layers, position)
        self._position = 0  # an interrupt must not leave one's rows with the other's position
        self._open_caches = caches
        self._position = position

    def fork(self) -> CoremlSession:
        """Return a second conversation that begins with the same tokens; the weights are shared."""
        other = copy.copy(self)
        other._open_caches = self._caches.fork()
        return other

    def close(self) -> None:
        """Let go of the package and the cache; forks keep theirs. Closing twice does nothing."""
        self._open_caches, self._position = None, 0

    @property
    def _caches(self) -> Caches:
        return require_open(self._open_caches)
