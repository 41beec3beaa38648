"""Run the way from ids to the first layer alone, cut out of a `.pte`'s own program.

It knows how such a program is called; it does not know what it looks up.

Shapes: n ids, E hidden_size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llama_export.errors import BundleError
from llama_export.llama.intermediates import FloatArray
from llama_export.targets.damage import damage_named
from llama_export.targets.executorch.reading.first_layer import capacity, cut, find_ends
from llama_export.targets.executorch.reading.memory_plan import require_bearable
from llama_export.targets.executorch.reading.pte import Pte
from llama_export.targets.executorch.running.runtime import load_method

if TYPE_CHECKING:
    from executorch.extension.pybindings.portable_lib import ExecuTorchMethod
    from torch import Tensor

    from llama_export.targets.stored import StoredArtifact


class ExecutorchLookup:
    """The cut programs in ExecuTorch; satisfies `Lookup`.

    Args:
        methods: loaded program and its bytes, by the number of the value that it gives.
        ends: number of the value that each consumer takes.
        caches: empty caches, where the program takes them as inputs.
        capacity: most ids of a call.
    """

    def __init__(
        self,
        methods: Mapping[int, tuple[ExecuTorchMethod, bytes]],
        ends: Mapping[str, int],
        caches: Sequence[Tensor],
        capacity: int,
    ) -> None:
        self._methods = dict(methods)
        self._ends = ends
        self._caches = tuple(caches)
        self._capacity = capacity

    @classmethod
    def open(cls, artifact: StoredArtifact, *, threads: int | None = None) -> ExecutorchLookup:
        """Cut the program and load what is left of it.

        Args:
            artifact: model.pte.
            threads: number of runtime threads; None leaves it to ExecuTorch.

        Raises:
            BackendUnavailableError: executorch is not installed, or is another version.
            BundleError: the program is damaged, its first layer has another form, or the runtime
                cannot load it.
        """
        import torch

        pte = Pte.open(artifact.path)
        with damage_named(artifact.path):
            require_bearable(pte)
            ends = find_ends(pte)
            programs = {value: cut(pte, value) for value in set(ends.values())}
            most = capacity(pte)
        methods = {
            value: (load_method(artifact.path, threads=threads, content=content), content)
            for value, content in programs.items()
        }
        caches = [
            torch.zeros([int(size) for size in cache.shape], dtype=getattr(torch, cache.dtype))
            for cache in artifact.spec.inputs[2:]
        ]
        return cls(methods, ends, caches, most)

    def rows(self, input_ids: Sequence[int]) -> Mapping[str, FloatArray]:
        """Look ids up, `[n, E]` for each consumer.

        Raises:
            BundleError: the runtime cannot run the program.
        """
        found = {value: self._looked_up(value, input_ids) for value in self._methods}
        return {consumer: found[value] for consumer, value in self._ends.items() if found}

    def _looked_up(self, value: int, input_ids: Sequence[int]) -> FloatArray:
        import torch

        method, _ = self._methods[value]
        rows = []
        for start in range(0, len(input_ids), self._capacity):
            ids = list(input_ids[start : start + self._capacity])
            inputs = (torch.tensor([ids]), torch.zeros(1, dtype=torch.int64), *self._caches)
            try:
                (result,) = method(inputs)
            except RuntimeError as error:
                message = f"ExecuTorch cannot look {len(ids)} ids up: {error}"
                raise BundleError(message, "export the bundle again") from error
            rows.append(result[0].float().numpy())
        return np.concatenate(rows)

    def close(self) -> None:
        """Let go of the programs."""
        self._methods = {}
