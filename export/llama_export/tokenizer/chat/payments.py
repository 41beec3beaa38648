"""What single operations of a chat template cost: operators, methods of values, filters.

Each is paid for before it is done, because one alone could take all memory.
"""

# ruff: noqa: ANN401 - the values of a template are of any type

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any

from llama_export.tokenizer.chat.budget import (
    Budget,
    ForbiddenError,
    OverBudgetError,
    current,
    named,
)

_MOST_DIGITS = 1_000
# Widths, indents and counts that multiply a text; real templates use less than 10.
_MOST_WIDTH = 1_000
_PERCENT_FIELD = re.compile(r"%(?:\([^)]*\))?([-#0 +.\d*]*)")
_WIDE = re.compile(r"\*|\{|\d{4}")
_TEXT_METHODS = named(
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal "
    "isdigit islower isnumeric isspace istitle isupper lower lstrip partition removeprefix "
    "removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith strip "
    "swapcase title upper"
)
_WIDTH_METHODS = named("center ljust rjust zfill")
_HOLDER_METHODS = named("copy count get index items keys values")


def pay_for_operator(operator: str, left: Any, right: Any) -> None:
    """Pay for `left operator right`.

    Raises:
        OverBudgetError: the result would be too much.
    """
    budget = current()
    budget.spend()
    if operator == "*":
        spend_product(budget, left, right)
    elif operator == "**":
        spend_power(left, right)
    elif operator == "%" and isinstance(left, str):
        spend_percent_format(budget, left, right)
    elif operator == "+":
        budget.spend_text(sum(len(each) for each in (left, right) if _has_length(each)))


def require_modest(*widths: object) -> None:
    """Refuse numbers that would make a long text out of a short one.

    Raises:
        OverBudgetError: one is too large.
    """
    for width in widths:
        if isinstance(width, int | float) and not -_MOST_WIDTH <= width <= _MOST_WIDTH:
            message = f"it asks for a width or a count of {width!r:.20}"
            raise OverBudgetError(message)


def require_small_number(value: object) -> None:
    """Refuse a whole number of very many digits.

    Raises:
        OverBudgetError: it is one.
    """
    if isinstance(value, int) and value.bit_length() > 4 * _MOST_DIGITS:
        message = "it computes with numbers of too many digits"
        raise OverBudgetError(message)


def spend_product(budget: Budget, left: object, right: object) -> None:
    """Pay for `left * right` before it is computed.

    Raises:
        OverBudgetError: the result would be too long.
    """
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | Sequence) and isinstance(other, int):
            budget.spend_text(len(one) * max(other, 0))
    if isinstance(left, int) and isinstance(right, int):
        require_small_number(left)
        require_small_number(right)


def spend_power(left: object, right: object) -> None:
    """Refuse powers that no template needs, before they are computed.

    Raises:
        OverBudgetError: the base or the exponent is large.
    """
    require_small_number(left)
    require_modest(right)
    if isinstance(left, int) and isinstance(right, int):
        require_small_number(1 << min(abs(left).bit_length() * max(right, 0), 8 * _MOST_DIGITS))


def spend_replacement(budget: Budget, text: str, old: str, new: str) -> None:
    """Pay for `text.replace(old, new)` before it is made."""
    budget.spend_text(len(text))
    budget.spend_text(len(text) + text.count(old) * len(new))


def spend_join(budget: Budget, separator: object, items: Collection[object]) -> None:
    """Pay for joining items before it is done."""
    budget.spend_text(budget.weigh(items) + len(str(separator)) * len(items))


def spend_percent_format(budget: Budget, pattern: str, values: object) -> None:
    """Pay for `pattern % values` before it is computed.

    Raises:
        OverBudgetError: a field is very wide, or the result would be too long.
    """
    fields = _PERCENT_FIELD.findall(pattern)
    if any(_WIDE.search(field) for field in fields):
        message = "it formats with a very wide field"
        raise OverBudgetError(message)
    budget.spend_text(len(pattern) + len(fields) * (budget.weigh(values) + _MOST_WIDTH))


def spend_brace_format(budget: Budget, pattern: str, values: object) -> None:
    """Pay for `pattern.format(*values)` before it is computed.

    Raises:
        OverBudgetError: a field is very wide, or the result would be too long.
    """
    fields = [spec or "" for _, name, spec, _ in Formatter().parse(pattern) if name is not None]
    if any(_WIDE.search(spec) for spec in fields):
        message = "it formats with a very wide field"
        raise OverBudgetError(message)
    budget.spend_text(len(pattern) + len(fields) * (budget.weigh(values) + _MOST_WIDTH))


def pay_for_method(owner: Any, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pay for a method of a text, a list or a mapping.

    Raises:
        OverBudgetError: it would make too long a text.
        ForbiddenError: it is a method that no template needs.
    """
    budget = current()
    args = tuple(list(each) if isinstance(each, Iterator) else each for each in args)
    for each in args:
        budget.weigh(each)
    if not isinstance(owner, str):
        known = name in _HOLDER_METHODS
        budget.spend_text(len(owner))
    elif name == "join":
        known = True
        spend_join(budget, owner, args[0] if args and _has_length(args[0]) else ())
    elif name == "replace":
        known = True
        if len(args) > 1 and all(isinstance(each, str) for each in args[:2]):
            spend_replacement(budget, owner, args[0], args[1])
    else:
        known = name in _TEXT_METHODS or name in _WIDTH_METHODS
        budget.spend_text(len(owner))
        if name in _WIDTH_METHODS:
            require_modest(*args)
    if not known:
        message = f"it calls the method {name} of {type(owner).__name__}"
        raise ForbiddenError(message)
    return args


def pay_for_filter(name: str, args: list[Any], kwargs: Mapping[str, Any]) -> None:
    """Pay for what some filters make out of little, before they do.

    Raises:
        OverBudgetError: it is too much.
    """
    budget, options = current(), [*args[1:], *kwargs.values()]
    value = args[0] if args else None
    if name in {"center", "indent", "batch", "slice", "round", "tojson", "int"}:
        require_modest(*options)
        if name in {"indent", "tojson"}:
            # Every line, and that is at most every character, may get so many blanks or letters.
            widths = [
                len(each) if isinstance(each, str) else int(each)
                for each in options
                if isinstance(each, str | int)
            ]
            budget.spend_text((1 + max(widths, default=0)) * budget.weigh(value))
    elif name == "replace":
        texts = [each for each in options if isinstance(each, str)]
        if len(texts) > 1:
            spend_replacement(budget, str(value), texts[0], texts[1])
    elif name == "join" and _has_length(value):
        spend_join(budget, options[0] if options else "", args[0])
    elif name == "format":
        spend_percent_format(budget, str(value), options)
    elif name == "sum" and any(isinstance(each, list | tuple) for each in options):
        message = "it adds lists up"
        raise ForbiddenError(message)


def _has_length(value: object) -> bool:
    return isinstance(value, str | list | tuple)
