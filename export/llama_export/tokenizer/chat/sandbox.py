"""Jinja2's immutable sandbox, as transformers sets it up, with a budget on everything that it does.

Filters, tests, operators, calls and loops are the ways in which a template can work; each of them
pays for what it makes before it makes it (`payments`), and what compiled templates do without
asking the sandbox is rewritten (`meter`). The module knows no message and no token. Import it
inside functions: it loads jinja2.
"""

# ruff: noqa: ANN401 - the values of a template are of any type

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import nodes, pass_eval_context
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import (
    ImmutableSandboxedEnvironment,
    modifies_known_mutable,
    safe_range,
)
from jinja2.utils import Cycler, Joiner, Namespace

from llama_export.tokenizer.chat.budget import ForbiddenError, current, named
from llama_export.tokenizer.chat.meter import METER_FILTERS, Meter
from llama_export.tokenizer.chat.payments import (
    pay_for_filter,
    pay_for_method,
    pay_for_operator,
    require_small_number,
    spend_brace_format,
)

_MOST_DATE_FORMAT = 200
# Chance, web pages and pretty printing: no template of a chat uses them.
_NO_FILTERS = ("filesizeformat", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
# These look at the outside of a value alone; what they pass on lazily is paid for item by item.
_LIGHT_FILTERS = named(
    "attr count d default first items last length map reject rejectattr safe select selectattr"
)
_LIGHT_TESTS = named(
    "boolean callable defined divisibleby even false filter float integer iterable mapping "
    "none number odd sameas sequence string test true undefined"
)


class RefusedDialogError(TemplateError):
    """The template itself said no, by `raise_exception`."""


class Clock:
    """What the time is to a template, which may be set for tests and proofs."""

    def __init__(self) -> None:
        self.fixed: datetime | None = None

    def strftime_now(self, format: str) -> str:
        """Write the time, as transformers lets templates ask for it."""
        if not isinstance(format, str) or len(format) > _MOST_DATE_FORMAT:
            message = "strftime_now was not given a short format"
            raise ForbiddenError(message)
        return (self.fixed or datetime.now()).strftime(format)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one chat template. It renders inside `budgeted()` only."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self) -> None:
        # Nothing is computed while a template is compiled.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            optimized=False,
        )
        self.clock = Clock()
        own: dict[str, Callable[..., Any]] = {**self.filters, "tojson": _tojson}
        own = {name: _paying(name, each) for name, each in own.items() if name not in _NO_FILTERS}
        for name in self.tests.keys() - _LIGHT_TESTS:
            test: Any = self.tests[name]
            self.tests[name] = _paying(name, test)
        self.filters = {**own, **METER_FILTERS}
        self.globals = {
            "range": safe_range,
            "dict": _Dict(),
            "namespace": _namespace,
            "cycler": Cycler,
            "joiner": Joiner,
            "raise_exception": _raise_exception,
            "strftime_now": self.clock.strftime_now,
        }
        self._own_calls = (*self.globals.values(),)

    def parse_metered(self, source: str) -> nodes.Template:
        """Parse a template, and let everything in it pay.

        Raises:
            TemplateError: it is no Jinja, or loads other templates.
        """
        tree = self.parse(source)
        metered = Meter().visit(tree)
        metered.set_environment(self)
        return metered  # type: ignore[no-any-return]

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Pay for an operator, then compute it."""
        pay_for_operator(operator, left, right)
        result = super().call_binop(context, operator, left, right)
        require_small_number(result)
        return result

    def _paid_call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Pay for a call, then make it; what is not known to be harmless is not called."""
        current().spend()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | list | tuple | dict):
            args = pay_for_method(owner, __obj.__name__, args)
        elif not __self._is_ours(__obj, owner):
            message = f"it calls {type(__obj).__name__} {getattr(__obj, '__name__', '')}"
            raise ForbiddenError(message)
        return super().call(__context, __obj, *args, **kwargs)

    call = _paid_call

    def _is_ours(self, called: Any, owner: object) -> bool:
        # To call what is undefined is the template's mistake, which Jinja2 names itself.
        if isinstance(called, Macro | LoopContext | Joiner | _PaidFormat | Undefined):
            return True
        if isinstance(owner, LoopContext | Cycler | _Dict | _Generation):
            return True
        return any(called == each for each in self._own_calls)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse Python's own attributes at once: nobody asks for one by accident.

        A method that changes a list or a mapping is undefined, as a key of its name may be.
        """
        if modifies_known_mutable(obj, attribute):
            return super().unsafe_undefined(obj, attribute)
        message = f"it reads the attribute {attribute:.80} of {type(obj).__name__}"
        raise ForbiddenError(message)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Let `str.format` pay, wherever it is reached from."""
        inner = super().wrap_str_format(value)
        return None if inner is None else _PaidFormat(value.__self__, inner)


class _PaidFormat:
    """`str.format` of one text."""

    def __init__(self, pattern: str, inner: Callable[..., str]) -> None:
        self._pattern, self._inner = pattern, inner

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        spend_brace_format(current(), self._pattern, [*args, *kwargs.values()])
        return self._inner(*args, **kwargs)


class _Generation(Extension):
    """transformers' `{% generation %}`: it marks the model's words, and writes them as they are."""

    tags = {"generation"}  # noqa: RUF012 - Jinja2's own declaration

    def parse(self, parser: Parser) -> nodes.CallBlock:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_passed_on"), [], [], body, lineno=line)

    @pass_eval_context
    def _passed_on(self, _: object, caller: Macro) -> str:
        return str(caller())


def _paying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter or a test pay for its value, its arguments and its result."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def _paid(*given: Any, **kwargs: Any) -> Any:
        budget, before, args = current(), given[:first], list(given[first:])
        budget.spend()
        if name not in _LIGHT_FILTERS:
            args = [list(each) if isinstance(each, Iterator) else each for each in args]
            for each in (*args, *kwargs.values()):
                budget.weigh(each)
            pay_for_filter(name, args, kwargs)
        result = function(*before, *args, **kwargs)
        if isinstance(result, Iterator):
            return budget.counted(result)
        if isinstance(result, str | list | tuple):
            budget.spend_text(len(result))
        return result

    return _paid


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: object) -> None:
    raise RefusedDialogError(str(message))


class _Dict:
    """`dict` without the attributes of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace that keeps no name of Python's own."""

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _namespace(*args: Any, **kwargs: Any) -> _Namespace:
    attributes = dict(*args, **kwargs)
    for name in attributes:
        _refuse_private(name)
    return _Namespace(attributes)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        message = f"it keeps {name!r:.80} in a namespace"
        raise ForbiddenError(message)
