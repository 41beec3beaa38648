"""Run an ONNX artifact with onnxruntime: one conversation, its KV cache in shared buffers.

The past and the present of a layer are the same memory, so a step appends its rows and copies
nothing; buffers double when they are full, so a short conversation takes little. It knows the
graph's names; it does not know tokens' texts or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.errors import BundleError
from llama_export.llama.intermediates import FloatArray
from llama_export.system.huge_pages import use_huge_pages
from llama_export.targets.onnx.running.runtime import load_runtime
from llama_export.targets.onnx.signature import require_declared, require_signature
from llama_export.targets.session import (
    KeyValueArrays,
    require_fitting_cache,
    require_held,
    require_open,
    require_tokens,
)

if TYPE_CHECKING:
    import onnxruntime

    from llama_export.targets.stored import StoredArtifact

# Slots of the first buffers. At 1B a slot is 64 kB.
_FIRST_SLOTS = 512
_PAST = "past_key_values"


class OnnxSession:
    """A loaded artifact; satisfies `Session`.

    Args:
        runtime: the loaded graph; forks share it, and its weights.
        spec: signature of the graph, from the manifest.
        vocab_size: number of ids that may be read; None: as many as there are logits.
    """

    def __init__(
        self,
        runtime: onnxruntime.InferenceSession,
        spec: GraphSpec,
        vocab_size: int | None = None,
    ) -> None:
        self._runtime: onnxruntime.InferenceSession | None = runtime
        self._spec = spec
        self._num_logits = int(spec.outputs[0].shape[2])
        self._vocab_size = vocab_size or self._num_logits
        self._binding: onnxruntime.IOBinding | None = runtime.io_binding()
        # Outputs come back in the order of their first binding: the logits are number 0.
        self._binding.bind_output("logits")
        self._position = 0
        self._buffers = self._allocate(min(_FIRST_SLOTS, spec.max_context))
        self._bound: dict[str, FloatArray] | None = None

    @classmethod
    def open(
        cls,
        artifact: StoredArtifact,
        *,
        exact: bool = False,
        threads: int | None = None,
        verbose: bool = False,
    ) -> OnnxSession:
        """Load an artifact.

        Args:
            artifact: model.onnx, with its data file beside it.
            exact: compute every quantised product in float32, slowly.
            threads: number of runtime threads; None leaves it to onnxruntime (one a physical core).
            verbose: let the runtime's messages through.

        Raises:
            BackendUnavailableError: onnxruntime is not installed.
            BundleError: the runtime cannot load the artifact, or it is not what the manifest says.
        """
        require_signature(artifact.spec)
        runtime = load_runtime(artifact.path, threads=threads, exact=exact, verbose=verbose)
        require_declared(artifact.spec, runtime.get_inputs(), runtime.get_outputs())
        use_huge_pages()
        return cls(runtime, artifact.spec, artifact.vocab_size)

    @property
    def vocab_size(self) -> int:
        """Number of token ids that may be read."""
        return self._vocab_size

    @property
    def max_context(self) -> int:
        """Slots of the KV cache."""
        return self._spec.max_context

    @property
    def num_layers(self) -> int:
        """How many layers have a cache."""
        return len(self._buffers) // 2

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""
        return self._position

    @property
    def all_logits(self) -> bool:
        """Whether `run` gives a row of logits for each token, or for the last one alone."""
        return self._spec.all_logits

    def prefill(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return the logits `[V]` after the last of them.

        Raises:
            PromptError: there are none, one is outside the vocabulary, or they do not fit.
        """
        last: FloatArray = self.run(input_ids)[-1]
        return last

    def run(self, input_ids: Sequence[int]) -> FloatArray:
        """Append tokens and return every row of logits that the artifact gives, `[rows, V]`.

        Raises:
            PromptError: there are none, one is outside the vocabulary, or they do not fit.
        """
        total = self._position + len(input_ids)
        require_tokens(
            input_ids,
            self._position,
            max_context=self.max_context,
            vocab_size=self.vocab_size,
        )
        binding, runtime = require_open(self._binding), require_open(self._runtime)
        self._reserve(total)
        binding.bind_cpu_input("input_ids", np.asarray([input_ids], dtype=np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, total), dtype=np.int64))
        binding.bind_output("logits")
        logits = self._computed(runtime, binding, len(input_ids))
        self._position = total
        return logits

    def _computed(
        self, runtime: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, tokens: int
    ) -> FloatArray:
        """Run the graph over what is bound and return its logits, `[rows, V]`.

        Raises:
            BundleError: the graph cannot be run, or gives something else.
        """
        try:
            runtime.run_with_iobinding(binding)
            logits = binding.get_outputs()[0].numpy()
        except Exception as error:  # its classes share no base but this; it is re-raised as ours
            message = f"onnxruntime cannot run the artifact over {tokens} tokens: {error}"
            raise BundleError(message, "export the bundle again") from error
        expected = (1, tokens if self._spec.all_logits else 1, self._num_logits)
        if logits.dtype != np.float32 or logits.shape != expected:
            message = (
                f"the artifact's logits: expected float32 {expected}, found {logits.dtype} "
                f"{logits.shape}"
            )
            raise BundleError(message, "export the bundle again")
        rows: FloatArray = logits[0]
        return rows

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on; their slots are written again later.

        Raises:
            PromptError: the position is after the last token.
        """
        require_held(position, self._position)
        self._position = position

    def cache(self, layer: int) -> KeyValueArrays:
        """Return a layer's keys and values so far, `[K, position, D]` each, as copies."""
        key, value = (rows[:, : self._position].copy() for rows in self._layer(layer))
        return key, value

    def restore(self, layers: Sequence[KeyValueArrays]) -> None:
        """Replace the conversation with one whose cache was taken from such a session.

        Args:
            layers: what `cache` returned, layer by layer.

        Raises:
            PromptError: it is the cache of another model, or longer than the context.
        """
        heads, _, head_dim = self._layer(0)[0].shape
        position = require_fitting_cache(
            layers,
            num_layers=self.num_layers,
            heads=heads,
            head_dim=head_dim,
            max_context=self.max_context,
        )
        self._position = 0
        self._reserve(position)
        for layer, pair in enumerate(layers):
            for buffer, rows in zip(self._layer(layer), pair, strict=True):
                buffer[:, :position] = rows
        self._position = position

    def fork(self) -> OnnxSession:
        """Return a second conversation that begins with the same tokens; the weights are shared."""
        other = OnnxSession(require_open(self._runtime), self._spec, self._vocab_size)
        other._reserve(self._position)
        for name, buffer in self._buffers.items():
            other._buffers[name][:, :, : self._position] = buffer[:, :, : self._position]
        other._position = self._position
        return other

    def close(self) -> None:
        """Let go of the runtime and the cache; forks keep theirs. Closing twice does nothing."""
        self._runtime = self._binding = self._bound = None
        self._buffers = {}
        self._position = 0

    def _reserve(self, total: int) -> None:
        """Make room for so many tokens, at least twice the room that there was.

        Whatever interrupts this, the session has the old buffers whole, or the new ones.
        """
        slots = self._layer(0)[0].shape[1]
        if total > slots:
            grown = self._allocate(min(max(total, 2 * slots), self.max_context))
            for name, buffer in self._buffers.items():
                grown[name][:, :, : self._position] = buffer[:, :, : self._position]
            self._buffers = grown
        if self._bound is not self._buffers:
            self._bind(self._buffers)

    def _layer(self, layer: int) -> KeyValueArrays:
        """Return views of a layer's whole buffers, `[K, C, D]` each."""
        require_open(self._runtime)
        stem = f"{_PAST}.{layer}"
        return self._buffers[f"{stem}.key"][0], self._buffers[f"{stem}.value"][0]

    def _allocate(self, slots: int) -> dict[str, FloatArray]:
        """Make one zeroed buffer a cache, `[1, K, slots, D]`.

        All of them are one block of memory: large enough for numpy to ask for huge pages, without
        which a token at position 1000 waits for 16,000 translations of addresses.
        """
        caches = [tensor for tensor in self._spec.inputs if tensor.name.startswith(_PAST)]
        heads, head_dim = int(caches[0].shape[1]), int(caches[0].shape[3])
        block = np.zeros((len(caches), 1, heads, slots, head_dim), dtype=np.float32)
        return {tensor.name: buffer for tensor, buffer in zip(caches, block, strict=True)}

    def _bind(self, buffers: dict[str, FloatArray]) -> None:
        """Bind each buffer as a cache's input and as its output."""
        import onnxruntime

        binding = require_open(self._binding)
        self._bound = None  # until all are: an interrupt must not leave some of each
        for name, buffer in buffers.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace(_PAST, "present"), value)
        self._bound = buffers
