"""Rewrite a parsed chat template so that it pays for what it would do without asking the sandbox.

A compiled template loops, joins by `~`, compares, slices and writes by itself. Each of these is
wrapped in a filter of ours here, which pays from the budget and passes the value on. Import it
inside functions: it loads jinja2.
"""

# ruff: noqa: ANN401 - the values of a template are of any type

from __future__ import annotations

from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import TemplateSyntaxError
from jinja2.runtime import Context, str_join
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from llama_export.tokenizer.chat.budget import ForbiddenError, current

# What a part of an expression costs, such as an element of a list that is written out.
_CHARACTERS_A_PART = 8


class Meter(NodeTransformer):
    """Rewrites what a compiled template would do without asking the sandbox."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Let each turn pay, and each test of an item."""
        self.generic_visit(node)
        node.body.insert(0, _tick(node))
        if node.test is not None:
            # `_turn` gives "", so that the test itself decides.
            node.test = nodes.Or(_turn_of(node, 0), node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        """Let each call pay for the text in it."""
        self.generic_visit(node)
        node.body.insert(0, _tick(node))
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        """Let what is written pay."""
        self.generic_visit(node)
        node.nodes = [
            each if isinstance(each, nodes.TemplateData) else _filtered(each, "_shown")
            for each in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        """Join by `~` as Jinja2 does, but paid for."""
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        """Let both sides of a comparison pay."""
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "_weighed")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "_weighed")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        """Let a slice pay."""
        self.generic_visit(node)
        return _filtered(node, "_weighed") if isinstance(node.arg, nodes.Slice) else node

    def visit_Include(self, node: nodes.Node) -> nodes.Node:
        """Refuse whatever loads another template."""
        message = "it loads another template"
        raise TemplateSyntaxError(message, node.lineno)

    visit_Import = visit_FromImport = visit_Extends = visit_Include


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    if isinstance(node, nodes.Const):
        weight = len(node.value) if isinstance(node.value, str) else 0
        if name == "_weighed" and not weight:
            return node  # type: ignore[return-value]
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _turn_of(node: nodes.Node, characters: int) -> nodes.Filter:
    return _filtered(nodes.Const(characters, lineno=node.lineno), "_turn")


def _tick(node: nodes.For | nodes.Macro) -> nodes.Output:
    """Return what pays for one turn of a body: for the text that it writes, and for its length."""
    characters = sum(len(each.data) for part in node.body for each in _plain_texts(part))
    parts = sum(1 for part in node.body for _ in part.find_all(nodes.Node))
    return nodes.Output(
        [_turn_of(node, characters + parts * _CHARACTERS_A_PART)], lineno=node.lineno
    )


def _plain_texts(node: nodes.Node) -> list[nodes.TemplateData]:
    return [node] if isinstance(node, nodes.TemplateData) else [*node.find_all(nodes.TemplateData)]


# Given the context, no filter is computed while the template is compiled.
@pass_context
def _turn(_: Context, characters: int) -> str:
    current().spend_text(characters)
    return ""


@pass_context
def _weighed(_: Context, value: Any) -> Any:
    current().weigh(value)
    return value


@pass_context
def _shown(_: Context, value: Any) -> Any:
    if isinstance(value, Namespace):
        message = "it writes a namespace"
        raise ForbiddenError(message)
    current().weigh(value)
    return value


@pass_context
def _concat(_: Context, parts: list[Any]) -> str:
    budget = current()
    budget.spend_text(sum(budget.weigh(each) for each in parts))
    return str_join(parts)


METER_FILTERS = {"_concat": _concat, "_weighed": _weighed, "_shown": _shown, "_turn": _turn}
"""The filters that `Meter` puts in, by name."""
