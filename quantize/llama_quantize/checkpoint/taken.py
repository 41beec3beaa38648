"""Which rule of a record took each tensor, without trying a pattern on a name.

A record is anybody's file, and a pattern such as `(.*)*x` needs for ever on a long name. What a
rule took stands in the record twice besides: as the form and method of each tensor, and as a number
for each rule. It knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llama_quantize.checkpoint.summary import KEPT, TensorStats
from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name
from llama_quantize.recipe import QuantRecipe, QuantRule
from llama_quantize.scheme import Float


def rules_taken(
    recipe: QuantRecipe, stats: Sequence[TensorStats], hits: Sequence[int]
) -> Mapping[str, int]:
    """Return the number of the rule that took each tensor.

    Where two rules have one form and one method, it makes no difference which of them took a
    tensor; the first then take theirs first.

    Args:
        recipe: rules.
        stats: figures of each tensor.
        hits: number of tensors that each rule took.

    Raises:
        QuantizationError: the three do not fit together.
    """
    if len(hits) != len(recipe.rules) or sum(hits) != len(stats):
        message = f"the {len(recipe.rules)} rules take {list(hits[:9])} of {len(stats)} tensors"
        raise QuantizationError(message)
    left = list(hits)
    taken: dict[str, int] = {}
    # Codes that were kept fit every method, so they get what the others leave.
    for each in sorted(stats, key=lambda each: each.method == KEPT):
        index = next((i for i in _fitting(recipe.rules, each) if left[i]), None)
        if index is None:
            form = shown_name(f"{each.label} by {each.method}")
            message = f"no rule is left for {shown_name(each.name)}, {form}"
            raise QuantizationError(message)
        left[index] -= 1
        taken[each.name] = index
    return taken


def _fitting(rules: Sequence[QuantRule], tensor: TensorStats) -> Iterator[int]:
    for index, rule in enumerate(rules):
        method = None if isinstance(rule.scheme, Float) else rule.method
        if rule.scheme.label == tensor.label and tensor.method in (method, KEPT):
            yield index
