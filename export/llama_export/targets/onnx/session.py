"""Run an ONNX artifact with onnxruntime: one conversation, its KV cache in shared buffers.

The past and the present of a layer are the same memory, so a step appends its rows and copies
nothing. It knows the graph's names; it does not know tokens' texts or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llama_export.errors import BackendUnavailableError, BundleError, PromptError
from llama_export.graph import GraphSpec
from llama_export.targets import FloatArray

if TYPE_CHECKING:
    import onnxruntime

# onnxruntime's own log level "error": warnings about the host are not the user's business.
_QUIET, _VERBOSE = 3, 1


class OnnxSession:
    """A loaded artifact; satisfies `llama_export.targets.Session`.

    Args:
        model: path of model.onnx.
        spec: its signature, from the manifest.
        threads: of the runtime; None leaves it to onnxruntime (one a physical core).
        accuracy_level: run every quantised product at this level instead of the artifact's own;
            level 1 computes in float32, slowly.
        verbose: let the runtime's messages through.

    Raises:
        BackendUnavailableError: onnxruntime is not installed.
        BundleError: the runtime cannot load the artifact.
    """

    def __init__(
        self,
        model: Path,
        spec: GraphSpec,
        *,
        threads: int | None = None,
        accuracy_level: int | None = None,
        verbose: bool = False,
    ) -> None:
        self._spec = spec
        self._session = _load(model, threads, accuracy_level, verbose=verbose)
        self._binding = self._session.io_binding()
        # Outputs come back in the order of their first binding: the logits are number 0.
        self._binding.bind_output("logits")
        self._position = 0
        self._buffers = self._allocate()

    @property
    def vocab_size(self) -> int:
        """Length of the logits."""
        return int(self._spec.outputs[0].shape[2])

    @property
    def max_context(self) -> int:
        """Slots of the KV cache."""
        return self._spec.max_context

    @property
    def position(self) -> int:
        """How many tokens the cache holds."""
        return self._position

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
        self._check(input_ids, total)
        binding = self._binding
        binding.bind_cpu_input("input_ids", np.asarray([input_ids], dtype=np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, total), dtype=np.int64))
        binding.bind_output("logits")
        self._session.run_with_iobinding(binding)
        self._position = total
        logits: FloatArray = binding.get_outputs()[0].numpy()[0]
        return logits

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on; their slots are written again later.

        Raises:
            PromptError: the position is after the last token.
        """
        if not 0 <= position <= self._position:
            message = (
                f"cannot rewind to position {position}: the cache holds {self._position} tokens"
            )
            raise PromptError(message)
        self._position = position

    def cache(self, layer: int) -> tuple[FloatArray, FloatArray]:
        """Return a layer's keys and values so far, `[K, position, D]` each, as copies."""
        key, value = (
            self._buffers[f"past_key_values.{layer}.{part}"][0, :, : self._position].copy()
            for part in ("key", "value")
        )
        return key, value

    def _allocate(self) -> dict[str, FloatArray]:
        """Bind one zeroed buffer a cache as input and as output; pages come as they are used."""
        import onnxruntime

        buffers: dict[str, FloatArray] = {}
        for tensor in self._spec.inputs:
            part = tensor.name.removeprefix("past_key_values")
            if part == tensor.name:
                continue
            heads, head_dim = int(tensor.shape[1]), int(tensor.shape[3])
            buffer = np.zeros((1, heads, self.max_context, head_dim), dtype=np.float32)
            value = onnxruntime.OrtValue.ortvalue_from_numpy(buffer)
            self._binding.bind_ortvalue_input(tensor.name, value)
            self._binding.bind_ortvalue_output(f"present{part}", value)
            buffers[tensor.name] = buffer
        return buffers

    def _check(self, input_ids: Sequence[int], total: int) -> None:
        if not input_ids:
            message = "there are no tokens to run"
            raise PromptError(message, "give a prompt of at least one token")
        if total > self.max_context:
            message = (
                f"{len(input_ids)} more tokens do not fit: the cache holds {self._position} of "
                f"{self.max_context} positions"
            )
            raise PromptError(message, "shorten the prompt, or export with a larger --max-context")
        outside = [token for token in input_ids if not 0 <= token < self.vocab_size]
        if outside:
            message = f"token {outside[0]} is outside the vocabulary of {self.vocab_size}"
            raise PromptError(message, "the tokenizer belongs to another model")


def _load(
    model: Path, threads: int | None, accuracy_level: int | None, *, verbose: bool
) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        message = f"onnxruntime is needed to run {model.name}, and it cannot be imported: {error}"
        raise BackendUnavailableError(message, "pip install 'llama-export[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _VERBOSE if verbose else _QUIET
    if threads is not None:
        options.intra_op_num_threads = threads
    source: str | bytes = str(model)
    if accuracy_level is not None:
        source = _at_accuracy_level(model, accuracy_level)
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(model.parent)
        )
    providers = ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except Exception as error:  # its classes share no base but this; it is re-raised as ours
        message = f"onnxruntime cannot load {model}: {error}"
        raise BundleError(message, "export the bundle again") from error


def _at_accuracy_level(model: Path, level: int) -> bytes:
    """Return the same graph with another accuracy level on every `MatMulNBits`."""
    import onnx

    proto = onnx.load(str(model), load_external_data=False)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = level
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized
