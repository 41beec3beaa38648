"""Run a `.pte` with ExecuTorch: conversations that share one loaded program.

With `STATE` the cache lives inside the program, which has room for one conversation. The
session reads and writes that memory by the buffers' names; where several conversations share a
program, the one that runs puts its own cache there first. With `IO` each conversation has its own
caches, which the program changes in place, so nothing is copied. It knows the program's signature;
it does not know tokens' texts or sampling.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import IO, STATE, GraphSpec
from llama_export.errors import BundleError
from llama_export.llama.intermediates import FloatArray
from llama_export.system.huge_pages import use_huge_pages
from llama_export.system.quiet import silenced
from llama_export.targets.damage import damage_named
from llama_export.targets.executorch.reading.memory_plan import require_bearable
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.reading.signature import (
    CACHE_SUFFIX,
    require_declared,
    require_signature,
)
from llama_export.targets.executorch.running.runtime import load_method
from llama_export.targets.executorch.running.shared_table import check_shared_table
from llama_export.targets.session import (
    KeyValueArrays,
    require_fitting_cache,
    require_held,
    require_open,
    require_tokens,
)

if TYPE_CHECKING:
    from executorch.extension.pybindings.portable_lib import ExecuTorchMethod
    from torch import Tensor

    from llama_export.targets.stored import StoredArtifact


class Program:
    """A loaded forward method, and which conversation's cache is in it.

    Args:
        method: ExecuTorch's object.
        spec: signature of the artifact, from the manifest.
        caches: names of the caches inside; empty when they are inputs.
        vocab_size: number of ids that may be read.
        verbose: let the runtime's messages through.
    """

    def __init__(
        self,
        method: ExecuTorchMethod,
        spec: GraphSpec,
        caches: Sequence[str],
        vocab_size: int,
        *,
        verbose: bool = False,
    ) -> None:
        self._method = method
        self._verbose = verbose
        self.spec = spec
        self.vocab_size = vocab_size
        self.inside = tuple(method.get_attribute(name) for name in caches)
        # Weak: a conversation that nobody has any more need not be put aside.
        self.holder: weakref.ref[ExecutorchSession] | None = None
        self._quiet = True

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """Call forward and return the logits.

        Raises:
            BundleError: the runtime fails.
        """
        try:
            if self._quiet:  # the first call loads more, and says so
                with silenced(verbose=self._verbose):
                    results = self._method(inputs)
                self._quiet = False
            else:
                results = self._method(inputs)
        except Exception as error:  # whatever the binding makes of it; it is re-raised as ours
            message = f"ExecuTorch cannot run the program: {error}"
            raise BundleError(message, "export the bundle again") from error
        if len(results) != 1 or results[0].shape[-1] != self.spec.outputs[0].shape[-1]:
            message = f"the program gives {len(results)} results, not the logits alone"
            raise BundleError(message, "export the bundle again")
        logits: Tensor = results[0]
        return logits


class ExecutorchSession:
    """A conversation; satisfies `Session`.

    Args:
        program: the loaded program; forks share it, and its weights.
    """

    def __init__(self, program: Program) -> None:
        self._open_program: Program | None = program
        self._spec = program.spec
        self._position = 0
        # Its own caches where they are inputs; else its rows while another conversation runs.
        self._own: list[Tensor] = []
        if self._spec.kv_cache == IO:
            import torch

            self._own = [
                torch.zeros([int(size) for size in cache.shape], dtype=getattr(torch, cache.dtype))
                for cache in self._spec.inputs[2:]
            ]

    @classmethod
    def open(
        cls,
        artifact: StoredArtifact,
        *,
        threads: int | None = None,
        verbose: bool = False,
    ) -> ExecutorchSession:
        """Load an artifact.

        Args:
            artifact: model.pte.
            threads: number of runtime threads; None leaves it to ExecuTorch.
            verbose: let the runtime's messages through.

        Raises:
            BackendUnavailableError: executorch is not installed, or is another version.
            BundleError: the program is damaged, of another schema, or cannot be loaded.
        """
        model, spec = artifact.path, artifact.spec
        require_signature(spec)
        pte = Pte.open(model)
        with damage_named(model):
            require_bearable(pte)
            require_declared(spec, pte)
        check_shared_table(pte)
        with damage_named(model):
            named = {tensor.name for tensor in pte.tensors.values()}
        names = {name for name in named if CACHE_SUFFIX in name}
        if spec.kv_cache == STATE and (not names or len(names) % 2):
            message = f"{model} keeps {len(names)} caches inside; expected keys and values a layer"
            raise BundleError(message, "export the bundle again")
        method = load_method(model, threads=threads, verbose=verbose)
        with damage_named(model):
            caches = sorted(names, key=_layer_and_part)
            program = Program(method, spec, caches, artifact.vocab_size, verbose=verbose)
        use_huge_pages()
        return cls(program)

    @property
    def vocab_size(self) -> int:
        """Number of token ids that may be read."""
        return self._program.vocab_size

    @property
    def max_context(self) -> int:
        """Slots of the KV cache."""
        return self._spec.max_context

    @property
    def num_layers(self) -> int:
        """How many layers have a cache."""
        return len(self._program.inside or self._own) // 2

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
        import torch

        total = self._position + len(input_ids)
        require_tokens(
            input_ids,
            self._position,
            max_context=self.max_context,
            vocab_size=self.vocab_size,
        )
        caches = self._caches()
        tokens = torch.tensor([list(input_ids)], dtype=torch.int64)
        start = torch.tensor([self._position], dtype=torch.int64)
        logits = self._program.run((tokens, start, *(() if self._program.inside else caches)))
        self._position = total
        result: FloatArray = logits.reshape(-1, logits.shape[-1]).numpy()
        return result

    def rewind(self, position: int) -> None:
        """Forget every token from `position` on; their slots are written again later.

        Raises:
            PromptError: the position is after the last token.
        """
        require_held(position, self._position)
        self._position = position

    def cache(self, layer: int) -> KeyValueArrays:
        """Return a layer's keys and values so far, `[K, position, D]` each, as copies."""
        key, value = (
            rows[0, : self._position].transpose(0, 1).float().contiguous().numpy().copy()
            for rows in self._caches()[2 * layer : 2 * layer + 2]
        )
        return key, value

    def restore(self, layers: Sequence[KeyValueArrays]) -> None:
        """Replace the conversation with one whose cache was taken from such a session.

        Args:
            layers: what `cache` returned, layer by layer.

        Raises:
            PromptError: it is the cache of another model, or longer than the context.
        """
        import torch

        caches = self._caches()
        _, _, heads, head_dim = caches[0].shape
        position = require_fitting_cache(
            layers,
            num_layers=self.num_layers,
            heads=heads,
            head_dim=head_dim,
            max_context=self.max_context,
        )
        self._position = 0
        for layer, pair in enumerate(layers):
            for cache, rows in zip(caches[2 * layer : 2 * layer + 2], pair, strict=True):
                cache[0, :position] = torch.tensor(rows).transpose(0, 1)
        self._position = position

    def fork(self) -> ExecutorchSession:
        """Return a second conversation that begins with the same tokens; the weights are shared."""
        other = ExecutorchSession(self._program)
        rows = [cache[:, : self._position].clone() for cache in self._caches()]
        if self._program.inside:
            other._own = rows
        else:
            for cache, begun in zip(other._own, rows, strict=True):
                cache[:, : self._position] = begun
        other._position = self._position
        return other

    def close(self) -> None:
        """Let go of the program and the cache; forks keep theirs. Closing twice does nothing."""
        program, self._open_program = self._open_program, None
        self._own, self._position = [], 0
        if program is not None and program.holder is not None and program.holder() is self:
            program.holder = None

    @property
    def _program(self) -> Program:
        return require_open(self._open_program)

    def _caches(self) -> Sequence[Tensor]:
        """Return this conversation's caches, `[1, C, K, D]` each, in use by the program."""
        inside, holder = self._program.inside, self._program.holder
        before = None if holder is None else holder()
        if not inside:
            return self._own
        if before is not self:
            if before is not None:
                before._own = [cache[:, : before._position].clone() for cache in inside]
            # Nobody's while it is written: an interrupt leaves every conversation its own rows.
            self._program.holder = None
            for cache, rows in zip(inside, self._own, strict=False):
                cache[:, : rows.shape[1]] = rows
            self._program.holder, self._own = weakref.ref(self), []
        return inside


def _layer_and_part(name: str) -> tuple[int, str]:
    part, _, layer = name.partition(CACHE_SUFFIX)
    return int(layer), part
