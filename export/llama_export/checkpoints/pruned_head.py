"""A model whose head keeps the rows of some tokens alone, the only ones that it can then write.

What `lm_head.weight` was, or the token table where both are one, is read row by row; a tied head
becomes a small matrix of its own. Which tokens are kept says the config. It knows no tokenizer and
no format of the model below.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llama_export.checkpoints.checkpoint import Checkpoint
from llama_export.checkpoints.laid_over import LaidOver
from llama_export.errors import CheckpointError
from llama_export.llama.names import HEAD, TABLE, expected_shapes
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
    return PrunedHead(config, expected_shapes(config), base)


@dataclass(frozen=True)
class PrunedHead(LaidOver):
    """A checkpoint with fewer rows in its head, which is a matrix of its own."""

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
        self.require(name, self.folder)
        if name != HEAD:
            return self.base.tensor(name)
        return _rows(self.base.tensor(self.base.tied.get(HEAD, HEAD)), self.config.head_tokens)


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
