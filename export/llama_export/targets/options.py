"""The options of a target's artifacts, as data: the command line is built from them.

Each target declares a frozen dataclass of its own. This module knows how an option is declared,
what may be read off it, and how a wrong value is refused; it knows no target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from llama_export.errors import UsageError


@dataclass(frozen=True)
class TargetOptions:
    """What a user may choose about one target's artifacts; the base class of each target's own."""


_KINDS: Mapping[type, str] = {bool: "True or False", int: "a whole number", str: "a text"}

OptionsT = TypeVar("OptionsT", bound=TargetOptions)


def option(default: object, *, help: str, choices: tuple[object, ...] = ()) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Declare a field of a `TargetOptions`.

    Args:
        default: value of the field when nobody chooses another.
        help: one line for the command line's help.
        choices: values that the field may have; empty when its type says enough.
    """
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class OptionSpec:
    """One option, as a command line needs it.

    Args:
        name: name of the field.
        flag: name of the long option, such as "--kv-cache".
        kind: type of the value: `bool`, `int` or `str`.
        default: value when nobody chooses another.
        choices: values that it may have; empty when its kind says enough.
        help: one line of help.
    """

    name: str
    flag: str
    kind: type
    default: bool | int | str
    choices: tuple[bool | int | str, ...]
    help: str


def option_specs(options: type[TargetOptions]) -> tuple[OptionSpec, ...]:
    """List a target's options in the order of their declaration."""
    defaults = vars(options())
    return tuple(
        OptionSpec(
            each.name,
            f"--{each.name.replace('_', '-')}",
            type(defaults[each.name]),
            defaults[each.name],
            each.metadata["choices"],
            each.metadata["help"],
        )
        for each in fields(options)
    )


def with_chosen(options: OptionsT, chosen: Mapping[str, object]) -> OptionsT:
    """Return options with some values replaced; names that these options lack are passed over.

    Args:
        options: values to start from.
        chosen: values by the option's name, perhaps of several targets.
    """
    names = {each.name for each in fields(options)}
    return replace(options, **{name: value for name, value in chosen.items() if name in names})


def own_options(options: TargetOptions, kind: type[OptionsT]) -> OptionsT:
    """Return options as those of a target, each value of its declared type.

    Raises:
        UsageError: they are another target's, or a value has another type.
    """
    if not isinstance(options, kind):
        message = f"expected {kind.__name__}, found {type(options).__name__}"
        raise UsageError(message, "give each target the options of its own class")
    for spec in option_specs(kind):
        value = vars(options)[spec.name]
        # 4.0 == 4 and True == 1, so that no comparison with the choices would tell.
        if type(value) is not spec.kind:
            known = _listed(spec.choices) if spec.choices else _KINDS[spec.kind]
            message = f"{spec.flag}: expected {known}, found {value!r}"
            raise UsageError(message)
    return options


def require_known_choices(options: TargetOptions, hints: Mapping[str, str]) -> None:
    """Refuse a value that is not among an option's choices.

    Args:
        options: values to judge.
        hints: what to do next, by the option's name.

    Raises:
        UsageError: names the option, its choices, and what was found.
    """
    values = vars(options)
    for spec in option_specs(type(options)):
        if spec.choices and values[spec.name] not in spec.choices:
            message = f"{spec.flag}: expected {_listed(spec.choices)}, found {values[spec.name]!r}"
            raise UsageError(message, hints.get(spec.name, ""))


def _listed(choices: tuple[object, ...]) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last
