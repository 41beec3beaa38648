"""Calls of tools, rendered in every form that models write, and templates that ask for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from llama_export.tokenizer.chat.call_form import (
    HERMES,
    LLAMA_JSON,
    MISTRAL,
    PYTHONIC,
    CallForm,
)
from llama_export.tokenizer.chat.call_reader import CallReader, TextDelta
from llama_export.tokenizer.chat.messages import ToolCall

NAMES = ("weather", "clock", "brave_search", "get-time.now", "2fa")
CLOCK = {"name": "clock", "description": "The time", "parameters": {}}

# As Llama 3.2 is told in Python's form, and as it then calls.
PYTHONIC_TEMPLATE = (
    "{{ bos_token }}{% if tools %}Answer with a list of calls, such as "
    "[func_name(name=value, other=value)].{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{% endif %}{% for message in messages %}{{ '<|start_header_id|>' + message.role + "
    "'<|end_header_id|>\n\n' }}{% if message.tool_calls %}[{% for call in message.tool_calls %}"
    "{{ call.function.name }}({% for key, value in call.function.arguments.items() %}{{ key }}="
    "{{ value }}{% if not loop.last %}, {% endif %}{% endfor %}){% if not loop.last %}, "
    "{% endif %}{% endfor %}]{% else %}{{ message.content }}{% endif %}<|eot_id|>{% endfor %}"
)
# It tells of the tags, and has no place for calls that were made.
TOLD_ONLY_TEMPLATE = (
    '{% if tools %}For each call write <tool_call>\n{"name": <function-name>, "arguments": '
    "<args-json-object>}\n</tool_call>{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{% endif %}{% for message in messages %}{{ message.content }}{% endfor %}"
)
# Describes tools, and calls in a form of its own.
STRANGE_TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}{{ message.content }}{% endfor %}"
)


def _json(call: ToolCall, key: str) -> str:
    return json.dumps({"name": call.name, key: call.arguments}, ensure_ascii=False)


def _python(call: ToolCall, method: str = "") -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in call.arguments.items())
    return f"{call.name}{method}({arguments})"


def as_llama(calls: Sequence[ToolCall]) -> str:
    return "; ".join(_json(call, "parameters") for call in calls)


def as_list(calls: Sequence[ToolCall]) -> str:
    return json.dumps([{"name": call.name, "arguments": call.arguments} for call in calls])


def as_typed(calls: Sequence[ToolCall]) -> str:
    values = [
        {"type": "function", "parameters": json.dumps(call.arguments), "name": call.name}
        for call in calls
    ]
    return "\n".join(json.dumps(value, indent=2) for value in values) + "<|eom_id|>"


def as_python(calls: Sequence[ToolCall]) -> str:
    return f"[{', '.join(map(_python, calls))}]"


def as_tagged(calls: Sequence[ToolCall]) -> str:
    return "\n".join(f"<tool_call>\n{_json(call, 'arguments')}\n</tool_call>" for call in calls)


def as_tagged_list(calls: Sequence[ToolCall]) -> str:
    return f"<tool_call>{as_list(calls)}</tool_call>"


def as_marked(calls: Sequence[ToolCall]) -> str:
    return f"[TOOL_CALLS] {as_list(calls)}"


def as_python_tag(calls: Sequence[ToolCall]) -> str:
    return "".join(f"<|python_tag|>{_json(call, 'parameters')}" for call in calls)


def as_builtin(calls: Sequence[ToolCall]) -> str:
    return "<|eom_id|>".join(f"<|python_tag|>{_python(call, '.call')}" for call in calls)


FORMS: dict[str, tuple[CallForm, Callable[[Sequence[ToolCall]], str]]] = {
    "llama": (LLAMA_JSON, as_llama),
    "list": (LLAMA_JSON, as_list),
    "typed": (LLAMA_JSON, as_typed),
    "python tag": (LLAMA_JSON, as_python_tag),
    "builtin": (LLAMA_JSON, as_builtin),
    "python": (PYTHONIC, as_python),
    "marked": (MISTRAL, as_marked),
    "tagged": (HERMES, as_tagged),
    "tagged list": (HERMES, as_tagged_list),
}


def read_reply(
    form: CallForm, pieces: Sequence[str], names: Sequence[str] = NAMES
) -> tuple[str, list[ToolCall]]:
    """Read a reply piece by piece, and hold its deltas against its calls."""
    reader = CallReader(form, names)
    deltas = [delta for piece in pieces for delta in reader.push(piece)] + reader.finish()
    text = "".join(each.text for each in deltas if isinstance(each, TextDelta))
    named: list[tuple[str, str]] = []
    arguments: list[str] = []
    for delta in deltas:
        if isinstance(delta, TextDelta):
            assert delta.text
        elif delta.name:
            assert (delta.index, delta.arguments) == (len(named), "")
            named.append((delta.id, delta.name))
            arguments.append("")
        else:
            assert (delta.index, delta.id) == (len(named) - 1, "")
            arguments[-1] += delta.arguments
    assert named == [(call.id, call.name) for call in reader.calls]
    assert list(map(json.loads, arguments)) == [call.arguments for call in reader.calls]
    return text, reader.calls
