"""A recipe in one word: `int4`, `int4:g64`, `int4:g128:tableint4:best`, or the name of a file.

The word is `SCHEME[:gN][:tableFORM][:QUALITY]`, its parts in any order behind the scheme, and in
place of the scheme a recipe file may stand, with a quality alone behind it. It knows words; it
opens no file but a recipe's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from llama_export.errors import UsageError
from llama_quantize.printable import shown_name
from llama_quantize.recipe import (
    DEFAULT_GROUP_SIZE,
    QUALITIES,
    RECIPES,
    TABLES,
    QuantRecipe,
    recipe,
)
from llama_quantize.recipe_file import read_recipe

DEFAULT_QUALITY = {"int4": "good"}
"""How the codes of a built-in recipe are chosen, where nothing else is asked for."""
GRAMMAR = "SCHEME[:gN][:tableFORM][:QUALITY]"
_Part = TypeVar("_Part", int, str)
_FLOATS = ("bf16", "fp16")
_GROUP = re.compile(r"g([1-9][0-9]{0,3})")
# How others name their forms: `float16`, `bf16`; `Q4_0`, `IQ4_XS`, `w4a16`, `nf4`, `4bit`, `INT4`.
_FLOAT_WORD = re.compile(r"(b?)(?:fp?|float)_?16|half")
_BITS_WORD = re.compile(r"(?:q|iq|tq|w|u|i|int|nf|fp|mxfp)?_?([2-8])(?![0-9])")
_TABLE = "table"
_FILE = ".json"
_HINT = f"for example int4, int4:g64, int8, int4:g128:tableint4:best; it is {GRAMMAR}"


@dataclass(frozen=True)
class RecipeName:
    """What a word asks for.

    Args:
        scheme: one of `RECIPES`; of a recipe file, what it builds on.
        group_size: number of weights that share a scale; None: the recipe's own.
        table: form of the token table and the output head; None: the recipe's own.
        quality: how codes are chosen; None: as an export chooses them.
        file: recipe file in place of the scheme; None: there is none.
    """

    scheme: str
    group_size: int | None = None
    table: str | None = None
    quality: str | None = None
    file: Path | None = None

    def __str__(self) -> str:
        """Return a word that asks for the same, in every version of the defaults."""
        if self.file is not None:
            return f"{self.file}:{self.quality}" if self.quality else str(self.file)
        if self.scheme in _FLOATS:
            return self.scheme
        parts = [self.scheme, f"g{self.group_size or DEFAULT_GROUP_SIZE}"]
        parts += [f"{_TABLE}{self.table}"] if self.table not in (None, TABLES[0]) else []
        return ":".join([*parts, *([self.quality] if self.quality else [])])

    def beside(self, group_size: int | None, table: str | None, quality: str | None) -> RecipeName:
        """Return it with what options of their own ask for.

        Raises:
            UsageError: the word says it too.
        """
        return replace(
            self,
            group_size=_one("--group-size", self.group_size, group_size),
            table=_one("--table", self.table, table),
            quality=_one("--quality", self.quality, quality),
        )

    def with_quality(self, quality: str | None) -> RecipeName:
        """Return it with a quality where it has codes and names none."""
        if quality is None or self.quality is not None or self.scheme in _FLOATS:
            return self
        return replace(self, quality=quality)

    def resolved(self) -> RecipeName:
        """Return it with all that an export would choose, so that names of one recipe are equal."""
        quality = self.quality or DEFAULT_QUALITY.get(self.scheme)
        if self.file is not None or self.scheme in _FLOATS:
            return replace(self, quality=quality)
        return replace(
            self,
            group_size=self.group_size or DEFAULT_GROUP_SIZE,
            table=self.table or TABLES[0],
            quality=quality,
        )

    def export_options(self) -> tuple[str, ...]:
        """Return the words that ask an export for it."""
        if self.file is None:
            return ("--quantize", str(self))
        quality = ("--quality", self.quality) if self.quality else ()
        return ("--recipe", str(self.file), *quality)

    def recipe(self) -> QuantRecipe:
        """Return the recipe.

        Raises:
            QuantizationError: there is no such group size, table or quality, or it makes no sense.
        """
        if self.file is not None:
            return read_recipe(self.file).recipe(self.quality)
        return recipe(self.scheme, self.group_size, table=self.table, quality=self.quality)


def parse_recipe_name(word: str) -> RecipeName:
    """Take a word apart.

    Raises:
        UsageError: it is no such word.
        QuantizationError: it names a recipe file that cannot be read.
    """
    if word.partition(":")[0] not in RECIPES:
        return _named_file(word)
    return parse_built_in(word)


def parse_built_in(word: str) -> RecipeName:
    """Take a word apart that names no file.

    Raises:
        UsageError: a part of it is none.
        QuantizationError: there is no such scheme.
    """
    head, *parts = word.split(":")
    if head not in RECIPES:
        recipe(head)  # refuses it
    name = RecipeName(head)
    for part in parts:
        name = _with_part(name, part, word)
    return name


def near_scheme(word: str) -> str:
    """Return the scheme that a word may mean, such as `Q4_K_M`, `nf4` or `float16`; empty: none."""
    plain = word.lower()
    if floats := _FLOAT_WORD.fullmatch(plain):
        return "bf16" if floats[1] else "fp16"
    bits = _BITS_WORD.match(plain)
    if bits is None:
        return ""
    return "int4" if int(bits[1]) <= 4 else "int8"


def _one(option: str, named: _Part | None, beside: _Part | None) -> _Part | None:
    if named is None or beside is None:
        return beside if named is None else named
    message = f"the recipe's own word says {named}, and {option} {beside}"
    raise UsageError(message, f"leave {option} out")


def _named_file(word: str) -> RecipeName:
    """Take `FILE[:QUALITY]` apart; a drive's colon stands before a path, and no quality behind."""
    path, _, quality = word.rpartition(":")
    if quality not in QUALITIES or not path:
        path, quality = word, ""
    if not path.endswith(_FILE):
        message = f"{shown_name(repr(word))} is no recipe: expected {', '.join(RECIPES)}, or a file"
        message += f" that ends in {_FILE}"
        near = near_scheme(word)
        raise UsageError(message, f"did you mean {near}? {_HINT}" if near else _HINT)
    file = Path(path)
    return RecipeName(read_recipe(file).base, quality=quality or None, file=file)


def _with_part(name: RecipeName, part: str, word: str) -> RecipeName:
    """Add what a part asks for."""
    group = _GROUP.fullmatch(part)
    if group is not None and name.group_size is None:
        return replace(name, group_size=int(group[1]))
    if part in QUALITIES and name.quality is None:
        return replace(name, quality=part)
    table = part.removeprefix(_TABLE)
    if part.startswith(_TABLE) and table in TABLES and name.table is None:
        return replace(name, table=table)
    fault = f"{shown_name(repr(part))} of the recipe {shown_name(repr(word))}"
    message = f"{fault}: expected a group such as g64, {' or '.join(_TABLE + e for e in TABLES)}, "
    message += f"or {', '.join(QUALITIES)}, each once"
    raise UsageError(message, _HINT)
