"""What a response of `/v1/responses` is made of: a message, calls of tools, and the events of each.

Items come in the order in which the model writes them, whole or as a stream. It knows shapes; it
does not know requests, and writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from llama_export.serving.wording import new_id
from llama_export.tokenizer.chat.call_reader import CallDelta, CallReader, Delta, TextDelta

Item = dict[str, object]
# A kind of event, and what it tells beside its number.
Event = tuple[str, dict[str, object]]


class ResponseItems:
    """The items of one response.

    Args:
        reader: what reads calls; None: there are no tools, and all is text.
    """

    def __init__(self, reader: CallReader | None) -> None:
        self.done: list[Item] = []
        self._reader = reader
        self._id = ""
        self._text: str | None = None  # of the message that is open
        self._call: CallDelta | None = None  # first of the call that is open
        self._arguments = ""

    def push(self, text: str) -> Iterator[Event]:
        """Read more of the text, and yield what there is to tell."""
        found: list[Delta] = [TextDelta(text)] if self._reader is None else self._reader.push(text)
        for delta in found:
            yield from self._take(delta)

    def finish(self, status: str) -> Iterator[Event]:
        """Yield what there is to tell at the end of the text.

        Args:
            status: "completed", or "incomplete" where the text would have gone on.
        """
        for delta in () if self._reader is None else self._reader.finish():
            yield from self._take(delta)
        if not self.done and self._call is None and self._text is None:
            yield from self._open_message()  # a response without a word has a message still
        yield from self._close(status)

    def _take(self, delta: Delta) -> Iterator[Event]:
        if isinstance(delta, TextDelta):
            if self._text is None:
                yield from self._close("completed")
                yield from self._open_message()
            self._text = (self._text or "") + delta.text
            yield (
                "response.output_text.delta",
                {**self._place(), "content_index": 0, "delta": delta.text, "logprobs": []},
            )
            return
        if delta.id:
            yield from self._close("completed")
            self._id, self._call, self._arguments = new_id("fc_"), delta, ""
            yield "response.output_item.added", self._added(self._call_item("in_progress"))
        if delta.arguments:
            self._arguments += delta.arguments
            kind = "response.function_call_arguments.delta"
            yield kind, {**self._place(), "delta": delta.arguments}

    def _open_message(self) -> Iterator[Event]:
        self._id, self._text = new_id("msg_"), ""
        yield "response.output_item.added", self._added(self._message("in_progress", []))
        part = {**self._place(), "content_index": 0, "part": _part("")}
        yield "response.content_part.added", part

    def _close(self, status: str) -> Iterator[Event]:
        """Yield the end of the item that is open, if one is."""
        if self._text is not None:
            place, text = {**self._place(), "content_index": 0}, self._text
            yield "response.output_text.done", {**place, "text": text, "logprobs": []}
            yield "response.content_part.done", {**place, "part": _part(text)}
            item = self._message(status, [_part(text)])
        elif self._call is not None:
            told = {"name": self._call.name, "arguments": self._arguments}
            yield "response.function_call_arguments.done", {**self._place(), **told}
            item = self._call_item("completed")
        else:
            return
        yield "response.output_item.done", self._added(item)
        self.done.append(item)
        self._text = self._call = None

    def _place(self) -> dict[str, object]:
        return {"item_id": self._id, "output_index": len(self.done)}

    def _added(self, item: Item) -> dict[str, object]:
        return {"output_index": len(self.done), "item": item}

    def _message(self, status: str, content: list[dict[str, object]]) -> Item:
        return {
            "type": "message",
            "id": self._id,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _call_item(self, status: str) -> Item:
        call = self._call or CallDelta(0)
        return {
            "type": "function_call",
            "id": self._id,
            "call_id": call.id,
            "name": call.name,
            "arguments": self._arguments,
            "status": status,
        }


def _part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
