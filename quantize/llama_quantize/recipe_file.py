"""A recipe that a person writes: a built-in one, and other storage forms for named tensors.

    {"base": "int4", "group_size": 32,
     "rules": [{"match": "model.layers.0.*.down_proj", "scheme": "int8 row"}]}

The first rule that matches a tensor wins, and the built-in recipe has what is left. It knows names
and forms; whether a model has such names, the recipe finds when it is resolved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_quantize.errors import QuantizationError
from llama_quantize.printable import shown_name
from llama_quantize.recipe import (
    DEFAULT_METHOD,
    GROUP_SIZES,
    QuantRecipe,
    QuantRule,
    method_for,
    recipe,
)
from llama_quantize.scheme import Float, GroupedInt, Scheme
from llama_quantize.strict_json import JsonFault, read_object

_MOST_BYTES = 1 << 20
_MOST_RULES = 900  # with those of the built-in recipe and of a model's rare tensors below 1000
_MOST_LETTERS = 300
# Each lets a match be tried at as many places as a name has letters.
_MOST_STARS = 4
_NAME = re.compile(r"(?![/\\~]|[A-Za-z]:[/\\])[^\x00-\x1f\x7f\ud800-\udfff]{1,100}")
_WEIGHT = ".weight"
_TABLES = ("model.embed_tokens", "lm_head")
_OF_A_BLOCK = r"(?<=_proj\.weight)"
_FORMS: Mapping[str, Scheme] = {
    **{f"int{bits} g{size}": GroupedInt(bits, size) for bits in (4, 8) for size in GROUP_SIZES},
    "int8 row": GroupedInt(8, None),
    "bf16": Float("bfloat16"),
    "fp16": Float("float16"),
}
_WORDS = {scheme: word for word, scheme in _FORMS.items()}
_HINT = (
    'a recipe is, for example: {"base": "int4", "group_size": 64, "rules": '
    '[{"match": "model.layers.0.*.down_proj", "scheme": "int8 row"}]}'
)


@dataclass(frozen=True)
class WrittenRule:
    """Tensors by name, and their storage form.

    Args:
        matches: whole names, without or with `.weight`; `*` stands for any letters, and in an
            integer form's for those of matrices in the blocks alone.
        scheme: storage form of what matches.
    """

    matches: tuple[str, ...]
    scheme: Scheme

    def to_json(self) -> dict[str, object]:
        """Describe the rule as it is written."""
        match: object = self.matches[0] if len(self.matches) == 1 else list(self.matches)
        return {"match": match, "scheme": _WORDS[self.scheme]}


@dataclass(frozen=True)
class WrittenRecipe:
    """What a recipe file says.

    Args:
        name: name of the recipe in records and manifests.
        rules: rules that come before the built-in ones.
        base: built-in recipe of everything else.
        group_size: number of weights that share a scale there; None: the built-in's own.
        note: anything, for whoever reads the file.
        table: form of the token table and the output head; None: the built-in's own.
    """

    name: str
    rules: tuple[WrittenRule, ...]
    base: str = "int4"
    group_size: int | None = None
    note: str = ""
    table: str | None = None

    def recipe(self, quality: str | None = None) -> QuantRecipe:
        """Return the rules: those that were written, then the built-in ones.

        Codes are chosen as the quality says, but those of int8 tables by the weights alone.

        Args:
            quality: how codes are chosen, as in `llama_quantize.recipe.recipe`.

        Raises:
            QuantizationError: there is no such built-in recipe, group size, table or quality, or
                too many rules.
        """
        built_in = recipe(self.base, self.group_size, table=self.table)
        if not isinstance(built_in.rules[0].scheme, Float):
            built_in = recipe(self.base, self.group_size, table=self.table, quality=quality)
        method = method_for(quality)
        own = tuple(
            QuantRule(
                _pattern(match, rule.scheme),
                rule.scheme,
                _method(match, rule.scheme, method),
                match,
            )
            for rule in self.rules
            for match in rule.matches
        )
        if len(own) > _MOST_RULES:
            message = f"recipe {self.name}: {len(own)} names to match, at most {_MOST_RULES}"
            raise QuantizationError(message, "say with * what the names have in common")
        return QuantRecipe(self.name, (*own, *built_in.rules))

    def to_json(self) -> dict[str, object]:
        """Describe the recipe as it is written."""
        data: dict[str, object] = {"name": self.name, "base": self.base}
        if self.group_size is not None:
            data["group_size"] = self.group_size
        if self.table is not None:
            data["table"] = self.table
        data["rules"] = [rule.to_json() for rule in self.rules]
        return data | ({"note": self.note} if self.note else {})

    def to_text(self) -> str:
        """Return the text of a recipe file."""
        return json.dumps(self.to_json(), indent=2) + "\n"


def read_recipe(path: Path) -> WrittenRecipe:
    """Read a recipe file.

    Raises:
        QuantizationError: it cannot be read, is no JSON, or says anything that no recipe says.
    """
    where = f"the recipe {shown_name(str(path), 200)}"
    try:
        data = read_object(path, most_bytes=_MOST_BYTES)
    except OSError as error:
        message = f"{where} cannot be read: {error.strerror or error}"
        raise QuantizationError(message, "name a file: --recipe recipe.json") from error
    except JsonFault as error:
        message = f"{where} is not valid JSON: {error}"
        raise QuantizationError(message, _HINT) from None
    try:
        return written_recipe(data, shown_name(path.stem, 60) or "written")
    except QuantizationError as error:
        message = f"{where}: {error.message}"
        raise QuantizationError(message, error.hint or _HINT) from None


def written_recipe(data: Mapping[str, object], name: str = "written") -> WrittenRecipe:
    """Check what a recipe file holds.

    Args:
        data: its object.
        name: name of the recipe where the object has none.

    Raises:
        QuantizationError: a key is unknown, or has another value than it may have.
    """
    unknown = set(data) - {"name", "base", "group_size", "table", "rules", "note"}
    if unknown:
        message = f"unknown key {shown_name(repr(min(unknown)))}"
        raise QuantizationError(message)
    named, base, note = (
        _text(data, key, default)
        for key, default in (("name", name), ("base", "int4"), ("note", ""))
    )
    if not _NAME.fullmatch(named):
        message = f"name: expected up to 100 letters and no path, found {shown_name(repr(named))}"
        raise QuantizationError(message)
    group_size = data.get("group_size")
    if group_size is not None and type(group_size) is not int:
        message = f"group_size: expected a whole number, found {shown_name(repr(group_size))}"
        raise QuantizationError(message)
    table = _text(data, "table", "") if "table" in data else None
    rules = data.get("rules", [])
    if not isinstance(rules, list):
        message = f"rules: expected a list, found {shown_name(repr(rules))}"
        raise QuantizationError(message)
    written = tuple(_rule(number, each) for number, each in enumerate(rules, 1))
    found = WrittenRecipe(named, written, base, group_size, note, table)
    found.recipe()  # refuses what there is not
    return found


def _text(data: Mapping[str, object], key: str, default: str) -> str:
    value = data.get(key, default)
    if not isinstance(value, str):
        message = f"{key}: expected a text, found {shown_name(repr(value))}"
        raise QuantizationError(message)
    return value


def _rule(number: int, data: object) -> WrittenRule:
    """Check one rule, which is called by its number from 1."""
    match data:
        case {"match": str(one), "scheme": str(word), **rest} if not rest:
            matches: tuple[object, ...] = (one,)
        case {"match": [_, *_] as several, "scheme": str(word), **rest} if not rest:
            matches = tuple(several)
        case _:
            message = f"rule {number}: expected match and scheme, found {shown_name(repr(data))}"
            raise QuantizationError(message)
    if word not in _FORMS:
        message = f"rule {number}: unknown scheme {shown_name(repr(word))}"
        raise QuantizationError(message, f"schemes are {', '.join(_FORMS)}")
    for each in matches:
        _require_match(number, each)
    return WrittenRule(tuple(map(str, matches)), _FORMS[word])


def _require_match(number: int, match: object) -> None:
    if not isinstance(match, str) or not 0 < len(match) <= _MOST_LETTERS:
        message = f"rule {number}: expected names to match, found {shown_name(repr(match))}"
        raise QuantizationError(message)
    if match.count("*") > _MOST_STARS:
        message = f"rule {number}: {shown_name(match)} has more than {_MOST_STARS} stars"
        raise QuantizationError(message, "write more of the names, or a list of them")


def _method(match: str, scheme: Scheme, method: str) -> str:
    """Choose the method of a rule; an int8 table loses too little to be calibrated."""
    if isinstance(scheme, Float):
        return DEFAULT_METHOD
    if match.removesuffix(_WEIGHT) in _TABLES and scheme.bits == 8:
        method = DEFAULT_METHOD
    # A row of int8 gains nothing from a search of its scale.
    return "nearest" if scheme.group_size is None and method == DEFAULT_METHOD else method


def _pattern(match: str, scheme: Scheme) -> str:
    """Turn a match into a regular expression for whole names."""
    pattern = ".*".join(map(re.escape, match.split("*")))
    if not match.endswith(("*", _WEIGHT)):
        pattern += r"(\.weight)?"
    # "model.layers.0.*" in a form for matrices means those of the layer, and not its norms.
    inner = "*" in match and not isinstance(scheme, Float)
    return pattern + _OF_A_BLOCK if inner else pattern
