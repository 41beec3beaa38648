"""Dialogs encoded as the demo's own template writes them, with a date of one's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llama_export.sources.resolve import DEMO_FOLDER
from llama_export.tokenizer.chat.chat_format import ChatFormat, Dialog
from llama_export.tokenizer.chat.messages import Message
from llama_export.tokenizer.tokenizer import Tokenizer

DEMO_TEMPLATE = (DEMO_FOLDER / "chat_template.jinja").read_text(encoding="utf-8")


def demo_format(tokenizer: Tokenizer) -> ChatFormat:
    return ChatFormat.of(tokenizer, tokenizer.config_keys() | {"chat_template": DEMO_TEMPLATE})


def encode_dialog(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, object]] = (),
    date: str | None = None,
) -> list[int]:
    """Encode a dialog; without a date, Meta's lines of dates are left out."""
    dialog = Dialog(messages, tools=tools, arguments={"date_string": date})
    return demo_format(tokenizer).encode(dialog)
