"""Which tensor becomes what: rules by name, as data. Knows no arithmetic and no files.

Rules are tried in order and the first match wins. Nothing is skipped in silence: a tensor that no
rule names, and a rule that names no tensor, are errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llama_quantize.errors import QuantizationError
from llama_quantize.scheme import Float, GroupedInt, Scheme, scheme_from_json
from llama_quantize.tensor import stored_forms

GROUP_SIZES = (32, 64, 128, 256)
DEFAULT_GROUP_SIZE = 32
RECIPES = ("int4", "int8", "bf16", "fp16")

_LINEARS = r"model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj\.weight"
# One rule for both, because a tied model has no head of its own.
_TABLES = r"(model\.embed_tokens|lm_head)\.weight"
_NORMS = r"model\.(norm|layers\.\d+\.(input|post_attention)_layernorm)\.weight"


@dataclass(frozen=True)
class QuantRule:
    """Tensors whose whole name matches `pattern` take `scheme`."""

    pattern: str
    scheme: Scheme

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            message = f"rule pattern {self.pattern!r} is not a regular expression: {error}"
            raise QuantizationError(message) from error

    def matches(self, name: str) -> bool:
        """Say whether the rule speaks about the tensor `name`."""
        return re.fullmatch(self.pattern, name) is not None


@dataclass(frozen=True)
class ResolvedRecipe:
    """What a recipe means for one model: a scheme per tensor, and how often each rule was used."""

    recipe: QuantRecipe
    schemes: Mapping[str, Scheme]
    hits: tuple[int, ...]


@dataclass(frozen=True)
class QuantRecipe:
    """An ordered list of rules under a name."""

    name: str
    rules: tuple[QuantRule, ...]

    def resolve(self, shapes: Mapping[str, tuple[int, ...]]) -> ResolvedRecipe:
        """Choose a scheme for every tensor of a model.

        Args:
            shapes: the unique tensors (a tied head is not among them) and their shapes.

        Raises:
            QuantizationError: a tensor that matches no rule, a rule that matches no tensor, or a
                group that does not divide a row.
        """
        used = {name: self._rule_of(name) for name in shapes}
        unmatched = [name for name, index in used.items() if index is None]
        if unmatched:
            message = f"recipe {self.name}: no rule for {_few(unmatched)}"
            raise QuantizationError(message, "add a rule whose pattern matches the whole name")
        found = list(used.values())
        hits = tuple(found.count(index) for index in range(len(self.rules)))
        idle = [repr(rule.pattern) for rule, n in zip(self.rules, hits, strict=True) if not n]
        if idle:
            message = f"recipe {self.name}: no tensor matches the pattern {_few(idle)}"
            raise QuantizationError(message, "correct the pattern, its order, or drop the rule")
        schemes = {name: self.rules[i].scheme for name, i in used.items() if i is not None}
        for name, scheme in schemes.items():
            _check_fits(name, shapes[name], scheme)
        return ResolvedRecipe(self, schemes, hits)

    def to_json(self) -> dict[str, object]:
        """Describe the recipe as plain data."""
        rules = [{"pattern": rule.pattern, "scheme": rule.scheme.to_json()} for rule in self.rules]
        return {"name": self.name, "rules": rules}

    @classmethod
    def from_json(cls, data: object) -> QuantRecipe:
        """Read a recipe that `to_json` wrote.

        Raises:
            QuantizationError: anything missing, unknown or of the wrong type.
        """
        match data:
            case {"name": str(name), "rules": [*rules], **rest} if not rest:
                return cls(name, tuple(_rule_from_json(rule) for rule in rules))
        message = f"not a recipe: {data!r}"
        raise QuantizationError(message)

    def _rule_of(self, name: str) -> int | None:
        return next((i for i, rule in enumerate(self.rules) if rule.matches(name)), None)


def recipe(name: str, group_size: int | None = None) -> QuantRecipe:
    """Give one of the built-in recipes for Llama names.

    `int4` and `int8` quantise the linears in groups (32 by default) with searched scales, the token
    table and the output head as int8 with one scale a row, and keep the norms in bfloat16. `bf16`
    and `fp16` keep everything as floats.

    Raises:
        QuantizationError: an unknown name, or a group size that is unknown or makes no sense.
    """
    if name not in RECIPES:
        message = f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}"
        raise QuantizationError(message)
    if name in ("bf16", "fp16"):
        if group_size is not None:
            message = f"recipe {name} has no groups, but group size {group_size} was asked for"
            raise QuantizationError(message, "leave the group size out, or choose int4 or int8")
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[name]
        return QuantRecipe(name, (QuantRule(r".*", Float(dtype)),))
    group = DEFAULT_GROUP_SIZE if group_size is None else group_size
    if group not in GROUP_SIZES:
        message = f"group size {group}: expected one of {', '.join(map(str, GROUP_SIZES))}"
        raise QuantizationError(message)
    rules = (
        QuantRule(_LINEARS, GroupedInt(4 if name == "int4" else 8, group)),
        QuantRule(_TABLES, GroupedInt(8, None, clip_search=False)),
        QuantRule(_NORMS, Float("bfloat16")),
    )
    return QuantRecipe(name, rules)


def _check_fits(name: str, shape: tuple[int, ...], scheme: Scheme) -> None:
    if isinstance(scheme, Float):
        return
    try:
        stored_forms(scheme, shape)
    except QuantizationError as error:
        fitting = [str(g) for g in GROUP_SIZES if len(shape) == 2 and shape[1] % g == 0]
        hint = f"choose a group size of {' or '.join(fitting)}" if fitting else error.hint
        message = f"{name}: {error.message} ({scheme.label})"
        raise QuantizationError(message, hint) from error


def _rule_from_json(data: object) -> QuantRule:
    match data:
        case {"pattern": str(pattern), "scheme": scheme, **rest} if not rest:
            return QuantRule(pattern, scheme_from_json(scheme))
    message = f"not a rule of a recipe: {data!r}"
    raise QuantizationError(message)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
