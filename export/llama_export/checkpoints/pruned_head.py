"""A model whose head keeps the rows of some tokens alone, the only ones that it can then write.

What `lm_head.weight` was, or the token table where both are one, is read row by row; a tied head
becomes a small matrix of its own. Which tokens are kept says the config. It knows no tokenizer and
no format of the model below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.errors import CheckpointError
from llama_export.llama.names import HEAD, TABLE, expected_shapes
from llama_quantize.printable import shown_name
from llama_quantize.recipe import DEFAULT_METHOD, QuantRecipe, QuantRule

if TYPE_CHECKING:
    from torch import Tensor

    from llama_export.llama.config import LlamaConfig
    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor

_HEAD_RULE = r"lm_head\.weight"


def lay_head_over(base: Checkpoint, config: LlamaConfig) -> Checkpoint:
    """Return a checkpoint whose head has the rows that a config keeps.

    Args:
        base: opened checkpoint.
        config: shape of the model, with the tokens that are kept; the base's own, if it keeps none.

    Raises:
        CheckpointError: the base is pruned already, to other tokens.
    """
    own = base.config.head_tokens
    if own == config.head_tokens:
        return base
    if own:
        message = f"the head of {base.folder} is pruned to {len(own)} tokens already"
        raise CheckpointError(message, "leave --head-tokens out, or name the whole model")
    return PrunedHead(base, config, expected_shapes(config))


@dataclass(frozen=True)
class PrunedHead:
    """A checkpoint with fewer rows in its head.

    Args:
        base: model below, with all rows.
        config: shape of the model with the tokens that are kept.
        shapes: shape of each tensor.
    """

    base: Checkpoint
    config: LlamaConfig
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)

    @property
    def folder(self) -> Path:
        """Where the model is, with its small files."""
        return self.base.folder

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors in model order."""
        return tuple(self.shapes)

    @property
    def tied(self) -> Mapping[str, str]:
        """Nothing: the head is a matrix of its own."""
        return {}

    @property
    def size_bytes(self) -> int:
        """Size of the tensors below, less what is not read of them, about."""
        size, whole = self.base.size_bytes, self.base.config.num_parameters
        return size + (self.config.num_parameters - whole) * size // max(1, whole)

    @property
    def recipe(self) -> QuantRecipe | None:
        """What the model's own says; a head that was the table is stored as the table is."""
        recipe = self.base.recipe
        if recipe is None or any(rule.matches(HEAD) for rule in recipe.rules):
            return recipe
        found = recipe.resolve(self.base.shapes)
        method = found.methods.get(TABLE, DEFAULT_METHOD)
        rule = QuantRule(_HEAD_RULE, found.schemes[TABLE], method)
        return replace(recipe, rules=(*recipe.rules, rule))

    @property
    def weights_folder(self) -> None:
        """Nothing: the head is in another form."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the model's reader noted, and how many tokens are left to write."""
        kept, of = self.config.num_logits, self.config.vocab_size
        note = f"the head is pruned to {kept} of {of} tokens: no other is ever written"
        return (*self.base.notes, note)

    def tensor(self, name: str) -> Tensor | LazyTensor | QuantizedTensor:
        """Return a tensor of the model, or the rows of its head that are kept.

        Raises:
            CheckpointError: there is no tensor of that name, or the files are damaged.
        """
        if name not in self.shapes:
            message = f"the checkpoint {self.folder} has no tensor called {shown_name(name)}"
            raise CheckpointError(message)
        if name != HEAD:
            return self.base.tensor(name)
        return _rows(self.base.tensor(self.base.tied.get(HEAD, HEAD)), self.config.head_tokens)

    def release(self) -> None:
        """Return mapped pages to the system; a later read maps the files again."""
        self.base.release()


def _rows(
    head: Tensor | LazyTensor | QuantizedTensor, ids: tuple[int, ...]
) -> Tensor | LazyTensor | QuantizedTensor:
    import torch

    from llama_quantize.lazy import LazyTensor
    from llama_quantize.tensor import QuantizedTensor

    kept = torch.tensor(ids, dtype=torch.int64)
    if isinstance(head, LazyTensor):
        shape = (len(ids), *head.shape[1:])
        return LazyTensor(shape, head.dtype, head.row_bytes, lambda rows: head[kept[rows]])
    if not isinstance(head, QuantizedTensor):
        return head[kept]
    rows = len(ids), head.shape[1]
    return replace(head, shape=rows, codes=head.codes[kept], scales=head.scales[kept])
