"""Which tensor becomes what, and by which method: rules by name, as data.

Rules are tried in order and the first match wins. Nothing is skipped in silence: a tensor that no
rule names, and a rule that names no tensor, are errors. It knows no arithmetic and no files, and
no more of a method than its name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name
from llama_quantize.scheme import Float, GroupedInt, Scheme, scheme_from_json

GROUP_SIZES = (32, 64, 128, 256)
DEFAULT_GROUP_SIZE = 32
RECIPES = ("int4", "int8", "bf16", "fp16")
TABLES = ("int8", "int4")
"""Forms of the token table and the output head beside linears with codes, the default first."""

DEFAULT_METHOD = "clip_search"
METHODS_WITHOUT_INPUTS = (DEFAULT_METHOD, "nearest")
"""The built-in methods that need no calibration, known before torch is imported."""
QUALITIES = {"fast": DEFAULT_METHOD, "good": "gptq_descent", "best": "curvature_descent"}
"""What a user calls the methods that choose codes, the quickest first."""

_MOST_PATTERN, _MOST_RULES = 1000, 1000
_INT4_TABLE = GroupedInt(4, 32)

_LINEARS = r"model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj\.weight"
# One rule for both, because a tied model has no head of its own.
_TABLES = r"(model\.embed_tokens|lm_head)\.weight"
_NORMS = r"model\.(norm|layers\.\d+\.(input|post_attention)_layernorm)\.weight"
_EVERYTHING = r".*"
_BUILT_IN = (_LINEARS, _TABLES, _NORMS, _EVERYTHING)
# What few models have beside their linears; such a rule is there only where it names something.
_BESIDE = (
    r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.bias",
    r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.adaptor\.[AB]\.weight",
)


@dataclass(frozen=True)
class QuantRule:
    """What becomes of the tensors that it names.

    Args:
        pattern: regular expression that matches their whole names.
        scheme: storage form.
        method: name of the method that chooses codes and scales; floats have none.
        written: what a person wrote for the pattern, for messages; "": the pattern itself.
    """

    pattern: str
    scheme: Scheme
    method: str = DEFAULT_METHOD
    written: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.scheme, Float) and self.method != DEFAULT_METHOD:
            message = f"rule {self.pattern!r}: {self.scheme.label} needs no method {self.method!r}"
            raise QuantizationError(message, "leave the method out; floats are rounded to nearest")
        if len(self.pattern) > _MOST_PATTERN:
            message = f"a rule pattern has {len(self.pattern)} characters, at most {_MOST_PATTERN}"
            raise QuantizationError(message, "match names by what they have in common")
        try:
            re.compile(self.pattern)
        except (re.error, RecursionError, OverflowError) as error:
            message = f"rule pattern {self.pattern!r} is not a regular expression: {error}"
            raise QuantizationError(message) from error

    def matches(self, name: str) -> bool:
        """Whether the rule speaks about the tensor `name`."""
        return re.fullmatch(self.pattern, name) is not None

    def to_json(self) -> dict[str, object]:
        """Describe the rule as plain data; only a form with codes has a method beside it."""
        data: dict[str, object] = {"pattern": self.pattern, "scheme": self.scheme.to_json()}
        return data if isinstance(self.scheme, Float) else data | {"method": self.method}


@dataclass(frozen=True)
class ResolvedRecipe:
    """What a recipe means for one model.

    Args:
        recipe: the rules.
        schemes: storage form of each tensor.
        methods: name of the method for each tensor that gets codes.
        hits: number of tensors that each rule takes.
    """

    recipe: QuantRecipe
    schemes: Mapping[str, Scheme]
    methods: Mapping[str, str]
    hits: tuple[int, ...]


@dataclass(frozen=True)
class QuantRecipe:
    """An ordered list of rules under a name.

    Args:
        name: name of the recipe.
        rules: rules, of which the first match wins.
        taken: number of the rule of each tensor, of a recipe that was read with the weights that it
            made: its patterns are a stranger's, and are not tried. None: the patterns decide.
    """

    name: str
    rules: tuple[QuantRule, ...]
    taken: Mapping[str, int] | None = field(default=None, compare=False, repr=False)

    def resolve(self, shapes: Mapping[str, tuple[int, ...]]) -> ResolvedRecipe:
        """Choose a scheme for every tensor of a model.

        Args:
            shapes: shapes of the unique tensors, a tied head not among them.

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
        rules_hits = zip(self.rules, hits, strict=True)
        idle = [repr(rule.written or rule.pattern) for rule, n in rules_hits if not n]
        if idle:
            message = f"recipe {self.name}: no tensor matches the pattern {_few(idle)}"
            raise QuantizationError(message, "correct the pattern, its order, or drop the rule")
        rules = {name: self.rules[index] for name, index in used.items() if index is not None}
        schemes = {name: rule.scheme for name, rule in rules.items()}
        for name, scheme in schemes.items():
            _check_fits(name, shapes[name], scheme)
        methods = {name: method for name in shapes if (method := self.method_of(name))}
        return ResolvedRecipe(self, schemes, methods, hits)

    def method_of(self, name: str) -> str | None:
        """Return the method that chooses a tensor's codes; None: it has no codes, or no rule."""
        index = self._rule_of(name)
        if index is None or isinstance(self.rules[index].scheme, Float):
            return None
        return self.rules[index].method

    def to_json(self) -> dict[str, object]:
        """Describe the recipe as plain data."""
        return {"name": self.name, "rules": [rule.to_json() for rule in self.rules]}

    @property
    def is_calibrated(self) -> bool:
        """Whether a method looks at the inputs of weights."""
        methods = {rule.method for rule in self.rules if isinstance(rule.scheme, GroupedInt)}
        return not methods <= set(METHODS_WITHOUT_INPUTS)

    @classmethod
    def from_json(cls, data: object) -> QuantRecipe:
        """Read a recipe that `to_json` wrote.

        Raises:
            QuantizationError: anything is missing, unknown or of the wrong type.
        """
        match data:
            case {"name": str(name), "rules": [*rules], **rest} if (
                not rest and len(rules) <= _MOST_RULES and len(name) <= _MOST_PATTERN
            ):
                return cls(name, tuple(_rule_from_json(rule) for rule in rules))
        message = f"not a recipe: {shown_name(repr(data), 200)}"
        raise QuantizationError(message)

    def _rule_of(self, name: str) -> int | None:
        if self.taken is not None:
            return self.taken.get(name)
        return next((i for i, rule in enumerate(self.rules) if rule.matches(name)), None)


def recipe(
    name: str,
    group_size: int | None = None,
    *,
    table: str | None = None,
    quality: str | None = None,
) -> QuantRecipe:
    """Return one of the built-in recipes for Llama names.

    `int4` and `int8` quantise the linears in groups (32 by default) with searched scales, the token
    table and the output head as int8 with one scale a row or as int4 in groups of 32, and keep the
    norms in bfloat16. `bf16` and `fp16` keep everything as floats.

    Args:
        name: one of `RECIPES`.
        group_size: number of weights that share a scale, one of `GROUP_SIZES`; None: the default.
        table: form of the token table and the output head, one of `TABLES`; None: the default.
        quality: how codes of linears and of int4 tables are chosen, one of `QUALITIES`; None: the
            quickest. The others need a calibration.

    Raises:
        QuantizationError: an unknown name, or a group size, a table or a quality that is unknown or
            makes no sense.
    """
    if name not in RECIPES:
        message = f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}"
        raise QuantizationError(message)
    if name in ("bf16", "fp16"):
        if group_size is not None:
            message = f"recipe {name} has no groups, but group size {group_size} was asked for"
            raise QuantizationError(message, "leave the group size out, or choose int4 or int8")
        if table is not None:
            message = f"recipe {name} keeps its tables as floats, but {table} was asked for"
            raise QuantizationError(message, "leave the table out, or choose int4 or int8")
        if quality is not None:
            message = f"recipe {name} has no codes, but quality {quality} was asked for"
            raise QuantizationError(message, "leave the quality out, or choose int4 or int8")
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[name]
        return QuantRecipe(name, (QuantRule(_EVERYTHING, Float(dtype)),))
    group = DEFAULT_GROUP_SIZE if group_size is None else group_size
    if group not in GROUP_SIZES:
        message = f"group size {group}: expected one of {', '.join(map(str, GROUP_SIZES))}"
        raise QuantizationError(message)
    rules = (
        QuantRule(_LINEARS, GroupedInt(4 if name == "int4" else 8, group), method_for(quality)),
        _table_rule(table or TABLES[0], quality),
        QuantRule(_NORMS, Float("bfloat16")),
    )
    return QuantRecipe(name, rules)


def method_for(quality: str | None) -> str:
    """Return the name of the method that a quality stands for; None: the quickest.

    Raises:
        QuantizationError: there is no such quality.
    """
    if quality is not None and quality not in QUALITIES:
        message = f"unknown quality {quality!r}: expected one of {', '.join(QUALITIES)}"
        raise QuantizationError(message)
    return DEFAULT_METHOD if quality is None else QUALITIES[quality]


def quality_words(methods: str) -> str:
    """Return what a user calls methods, in the order of their names.

    Args:
        methods: names of methods, with commas between them. One that no quality stands for is
            called by its name.
    """
    words = {method: quality for quality, method in QUALITIES.items()}
    return ", ".join(words.get(each, each) for each in methods.split(", "))


def quality_and_method(methods: str) -> str:
    """Return what a user calls methods, and behind it their names: `good (gptq_descent)`."""
    words = quality_words(methods)
    return words if words == methods else f"{words} ({methods})"


def _table_rule(table: str, quality: str | None) -> QuantRule:
    if table not in TABLES:
        message = f"unknown table {table!r}: expected one of {', '.join(TABLES)}"
        raise QuantizationError(message)
    if table == "int4":
        return QuantRule(_TABLES, _INT4_TABLE, method_for(quality))
    return QuantRule(_TABLES, GroupedInt(8, None), "nearest")


def with_rules_beside(recipe: QuantRecipe, names: Collection[str]) -> QuantRecipe:
    """Add rules for a model's biases and adaptors that a recipe does not name: bfloat16.

    A recipe that names them already comes back as it is, and so does one for a model without any.

    Args:
        recipe: rules for the other tensors.
        names: names of the model's unique tensors.
    """
    left = [name for name in names if not any(rule.matches(name) for rule in recipe.rules)]
    rules = [QuantRule(pattern, Float("bfloat16")) for pattern in _BESIDE]
    added = tuple(rule for rule in rules if any(map(rule.matches, left)))
    return replace(recipe, rules=(*recipe.rules, *added)) if added else recipe


def without_spent_rules(recipe: QuantRecipe, names: Collection[str]) -> QuantRecipe:
    """Drop built-in rules all of whose tensors are taken by the rules before them.

    A rule that somebody wrote stays, and is refused where it takes nothing.

    Args:
        recipe: rules for the model.
        names: names of its unique tensors.
    """
    taken = {next((rule for rule in recipe.rules if rule.matches(name)), None) for name in names}
    rules = tuple(
        rule
        for rule in recipe.rules
        if rule in taken or rule.pattern not in _BUILT_IN or not any(map(rule.matches, names))
    )
    return recipe if rules == recipe.rules else replace(recipe, rules=rules)


def _check_fits(name: str, shape: tuple[int, ...], scheme: Scheme) -> None:
    if isinstance(scheme, Float):
        return
    try:
        scheme.stored_shapes(shape)
    except QuantizationError as error:
        fitting = [str(g) for g in GROUP_SIZES if len(shape) == 2 and shape[1] % g == 0]
        hint = f"choose a group size of {' or '.join(fitting)}" if fitting else error.hint
        message = f"{name}: {error.message} ({scheme.label})"
        raise QuantizationError(message, hint) from error


def _rule_from_json(data: object) -> QuantRule:
    match data:
        case {"pattern": str(pattern), "scheme": scheme, "method": str(method), **rest} if not rest:
            return QuantRule(pattern, scheme_from_json(scheme), method)
        case {"pattern": str(pattern), "scheme": {"type": "float"} as scheme, **rest} if not rest:
            return QuantRule(pattern, scheme_from_json(scheme))
    message = f"not a rule of a recipe: {shown_name(repr(data), 200)}"
    raise QuantizationError(message)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(shown_name, names[:3])) + more
