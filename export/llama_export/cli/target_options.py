"""The options of all targets' artifacts, built from what each target declares.

An option that several targets have is one option of the command line: it takes the values of all
of them, and goes to each target that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from typing_extensions import override

from llama_export.cli.verb import Section
from llama_export.targets import registry
from llama_export.targets.options import OptionSpec, TargetOptions, option_specs, with_chosen

# Generic from click 8.2 on only.
if TYPE_CHECKING:
    _TextChoice = click.Choice[str]
else:
    _TextChoice = click.Choice


class _Listed(_TextChoice):
    """Choices that the help lists and each target judges, in its own words."""

    def __init__(self, choices: Sequence[str], kind: type) -> None:
        super().__init__(choices)
        self._plain = click.types.convert_type(kind)

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        self._plain.convert(value, param, ctx)  # no number where one is due is refused here
        return str(value)


def _declarations() -> dict[str, dict[str, OptionSpec]]:
    """Return the declarations of every option, by its name and by target."""
    found: dict[str, dict[str, OptionSpec]] = {}
    for target in registry.TARGETS:
        for spec in option_specs(registry.get(target).Options):
            found.setdefault(spec.name, {})[target] = spec
    return found


def _option(declarations: Mapping[str, OptionSpec]) -> click.Option:
    """Build an option whose value is None unless it is typed: each target has its own default."""
    specs = list(declarations.values())
    widest = max(specs, key=lambda spec: len(spec.choices))
    default = per_target({target: spec.default for target, spec in declarations.items()})
    help_text = widest.help
    if 1 < len(declarations) < len(registry.TARGETS):
        help_text = f"{' and '.join(declarations)}: {help_text}"
    if widest.kind is bool:
        contrary = f"/--no-{widest.flag.removeprefix('--')}" if widest.default else ""
        return click.Option(
            [widest.flag + contrary],
            is_flag=True,
            default=None,
            help=help_text,
            show_default="on" if widest.default else None,
        )
    ordered = [widest, *specs]
    choices = dict.fromkeys(str(choice) for spec in ordered for choice in spec.choices)
    return click.Option(
        [widest.flag],
        type=_Listed(tuple(choices), widest.kind) if choices else widest.kind,
        help=help_text,
        show_default=default,
    )


def per_target(values: Mapping[str, object]) -> str:
    """Write what the targets have: `32`, or `io for onnx, state for executorch and coreml`."""
    targets: dict[str, list[str]] = {}
    for target, value in values.items():
        targets.setdefault(str(value), []).append(target)
    if len(targets) == 1:
        return next(iter(targets))
    return ", ".join(f"{value} for {' and '.join(names)}" for value, names in targets.items())


_DECLARED = _declarations()
_BUILT = {name: _option(declarations) for name, declarations in _DECLARED.items()}

TARGET_OPTIONS = tuple(_BUILT.values())
# What more than one target has, and for each target a section of what no other has.
SHARED_OPTIONS = tuple(_BUILT[name] for name, owners in _DECLARED.items() if len(owners) > 1)
OWN_SECTIONS = tuple(
    Section(
        registry.get(target).title,
        tuple(_BUILT[name] for name, owners in _DECLARED.items() if tuple(owners) == (target,)),
    )
    for target in registry.TARGETS
)


def chosen_options(typed: Mapping[str, object], targets: Sequence[str]) -> dict[str, TargetOptions]:
    """Return the options of each target: its defaults, and what was typed.

    Args:
        typed: values by the option's name.
        targets: names of the export's targets.

    Raises:
        UsageError: none of the targets has an option that was typed.
    """
    registry.require_wanted(typed, targets)
    # click gives a choice as text.
    values = {
        name: next(iter(_DECLARED[name].values())).kind(value) for name, value in typed.items()
    }
    return {target: with_chosen(registry.get(target).Options(), values) for target in targets}
