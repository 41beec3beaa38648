"""The messages of a dialog, as Python gives them and as a chat template reads them.

Which roles there are, and in which order, is the template's business. The module renders nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llama_export.errors import PromptError

ASSISTANT = "assistant"
_OWN_KEYS = ("role", "content", "tool_calls")


@dataclass(frozen=True)
class ToolCall:
    """A call of a function that the assistant asks for.

    Args:
        name: name of the function.
        arguments: its arguments by name, or their JSON as the model wrote it.
        id: name of the call, by which its result can be told; "" for none.
    """

    name: str
    arguments: Mapping[str, object] | str
    id: str = ""

    def to_json(self) -> dict[str, object]:
        """Return it as a chat template reads it."""
        function = {"name": self.name, "arguments": self.arguments}
        named = {"id": self.id} if self.id else {}
        return {**named, "type": "function", "function": function}


@dataclass(frozen=True)
class Message:
    """One message of a dialog.

    Args:
        role: "system", "user", "assistant", "tool", or another that the model was trained on.
        content: the text; parts such as `{"type": "text", "text": ...}`; or the result of a tool as
            a mapping. None where calls say everything.
        tool_calls: calls by the assistant.
        fields: more keys that a template may read, such as `name` or `tool_call_id`.

    Raises:
        PromptError: the role is no text, or the parts do not go together.
    """

    role: str
    content: str | Mapping[str, object] | Sequence[Mapping[str, object]] | None = ""
    tool_calls: tuple[ToolCall, ...] = ()
    fields: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no template has a place for."""
        message = ""
        if not isinstance(self.role, str) or not self.role.strip():
            message = f"a message's role: expected a text, found {self.role!r:.80}"
        elif self.tool_calls and self.role != ASSISTANT:
            message = f"a message of the {self.role} has tool calls; only the assistant's can"
        elif self.content is None and not self.tool_calls:
            message = f"the message of the {self.role} has neither content nor calls"
        elif not _is_content(self.content):
            message = f"the content of a message must be text or parts, found {self.content!r:.80}"
        elif any(key in _OWN_KEYS for key in self.fields):
            message = f"{', '.join(_OWN_KEYS)} have places of their own in a message"
        if message:
            raise PromptError(message, 'give {"role": "user", "content": "..."}')

    @property
    def text(self) -> str:
        """The content as plain text: of parts, those that are text."""
        if isinstance(self.content, str):
            return self.content
        if self.content is None or isinstance(self.content, Mapping):
            return ""
        return "".join(str(part.get("text", "")) for part in self.content)

    def to_json(self) -> dict[str, object]:
        """Return it as a chat template reads it."""
        found: dict[str, object] = {"role": self.role}
        if self.content is not None:
            found["content"] = self.content
        if self.tool_calls:
            found["tool_calls"] = [call.to_json() for call in self.tool_calls]
        return {**found, **self.fields}


def _is_content(content: object) -> bool:
    """Whether something is a text, a tool's result, parts, or nothing."""
    if content is None or isinstance(content, str | Mapping):
        return True
    if not isinstance(content, Sequence):
        return False
    return all(isinstance(part, Mapping) for part in content)
