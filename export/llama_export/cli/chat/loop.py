"""The chat itself: take a message or a command, answer, and print the figures, until input ends.

In a terminal an error is shown and the chat goes on; in a pipe nobody reads it, so it ends the run.
It knows a conversation and a console, and neither options nor bundles.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from llama_export.cli.chat.input import ReadLine, read_message
from llama_export.cli.chat.slash_commands import Commands, Quit, Retry
from llama_export.cli.chat.wording import answer_line, overflow_hint, say, say_special_text
from llama_export.cli.output import StreamedText, write_json, write_text
from llama_export.cli.signals import InterruptedBySignal, Press, noted_press
from llama_export.cli.terminal import show_error
from llama_export.errors import LlamaExportError, PromptError
from llama_export.generation.overflow import Overflow
from llama_export.generation.text_stream import TextStream
from llama_export.tokenizer.tokenizer import special_names_in

_OVERFLOW_CHOICES = """\
  1  drop the {dropped} oldest messages, and go on ({kept} tokens are read again)
  2  forget the conversation (/reset), and send this message first
  3  do not send this message
"""
# How often a long message says how much of it has been read.
_REPORTED_TOKENS = 512


@dataclass(frozen=True)
class LoopSettings:
    """How a chat behaves.

    Args:
        interactive: whether somebody sits there; an error then does not end the chat.
        as_json: whether answers are JSON objects, each on a line, instead of text.
        ask: whether to ask what to do when the context is full.
        drop_oldest: whether to make room without asking.
    """

    interactive: bool
    as_json: bool
    ask: bool
    drop_oldest: bool


class ChatLoop:
    """One chat.

    Args:
        commands: the conversation, and the commands that begin with a slash.
        console: where everything goes that is no answer.
        settings: behaviour.
        read_line: source of the messages.
    """

    def __init__(
        self, commands: Commands, console: Console, settings: LoopSettings, read_line: ReadLine
    ) -> None:
        self._commands = commands
        self._console = console
        self._settings = settings
        self._read_line = read_line
        self._special_noted = False

    def run(self, first: str | None) -> None:
        """Talk until the input ends or /quit.

        Args:
            first: message to begin with, before anything is read; None: begin by reading.

        Raises:
            LlamaExportError: something went wrong, in a pipe.
            InterruptedBySignal: Ctrl-C twice at the prompt, or once in a pipe; SIGTERM or SIGHUP.
        """
        if first is not None and not self._guarded(lambda: self._say(first)):
            return
        while self._guarded(self._turn):
            pass

    def _guarded(self, step: Callable[[], bool]) -> bool:
        """Do one step; return whether the chat goes on."""
        try:
            return step()
        except LlamaExportError as error:
            if not self._settings.interactive:
                raise
            show_error(self._console, error.message, error.hint)
            return True

    def _turn(self) -> bool:
        text = self._next_message()
        if text is None:
            return False
        if not text.startswith("/"):
            return self._say(text)
        if text.startswith("//"):
            return self._say(text[1:])
        match self._commands.run(text):
            case Quit():
                return False
            case Retry():
                self._write(self._commands.conversation.retry)
        return True

    def _next_message(self) -> str | None:
        """Read a message; Ctrl-C at the prompt says how to end, and a second one ends."""
        pressed = False
        while True:
            try:
                text = read_message(self._read_line)
            except InterruptedBySignal as interrupted:
                stay = _is_press(interrupted) and not pressed
                if not (stay and self._settings.interactive):
                    raise
                pressed = True
                say(self._console, "\nCtrl-D or /quit ends the chat.")
            else:
                if text is None and self._settings.interactive:
                    say(self._console, "")
                return text

    def _say(self, text: str) -> bool:
        conversation = self._commands.conversation
        self._note_special(f"{conversation.system} {text}")
        overflow = conversation.overflow(text)
        if overflow is None or self._make_room(overflow):
            self._write(lambda: conversation.stream(text))
        return True

    def _note_special(self, text: str) -> None:
        """Note once in a chat that names of special tokens stay text."""
        conversation = self._commands.conversation
        if self._special_noted or conversation.parse_special:
            return
        names = special_names_in(conversation.session.tokenizer, text)
        say_special_text(self._console, names)
        self._special_noted = bool(names)

    def _make_room(self, overflow: Overflow) -> bool:
        """Drop turns, as the options or the user say; return whether to send the message.

        Raises:
            PromptError: dropping does not help, or is not wanted.
        """
        conversation = self._commands.conversation
        can_drop = overflow.kept_tokens is not None
        if self._settings.drop_oldest and can_drop:
            dropped, kept = overflow.dropped_turns, overflow.kept_tokens
            say(self._console, f"{overflow}: dropped the {dropped} oldest messages; {kept} tokens")
            conversation.drop_oldest(dropped)
            return True
        if not self._settings.ask or not can_drop:
            hint = overflow_hint(overflow, interactive=self._settings.interactive)
            raise PromptError(str(overflow), hint)
        choice = self._ask(overflow)
        if choice == "1":
            conversation.drop_oldest(overflow.dropped_turns)
        elif choice == "2":
            conversation.reset()
        return choice in ("1", "2")

    def _ask(self, overflow: Overflow) -> str:
        say(self._console, f"{overflow}.")
        say(
            self._console,
            _OVERFLOW_CHOICES.format(dropped=overflow.dropped_turns, kept=overflow.kept_tokens),
        )
        while True:
            try:
                answer = self._read_line("1, 2 or 3? ")
            except InterruptedBySignal as interrupted:
                if not _is_press(interrupted):
                    raise
                say(self._console, "\nthe message was not sent")
                return "3"
            if answer is None or answer.strip() in ("1", "2", "3"):
                return (answer or "3").strip()

    def _write(self, begin: Callable[[], TextStream]) -> None:
        """Write one answer; Ctrl-C ends it, and what is there is kept."""
        cache, taken_back = self._commands.conversation.session.cache, False
        with noted_press(self._say_stopping) as press:
            cache.on_progress = self._reading(press)
            try:
                stream = begin()
                self._write_pieces(stream, press)
            except InterruptedBySignal:
                if not self._settings.interactive or not press.noted:
                    raise
                taken_back = True
            finally:
                cache.on_progress = None
        if taken_back:  # said out here, where "stopping..." has been said
            say(self._console, "stopped before the first word; the message was taken back")
            return
        self._report(stream)
        if press.noted and not self._settings.interactive:
            raise InterruptedBySignal(signal.SIGINT)

    def _write_pieces(self, stream: TextStream, press: Press) -> None:
        shown = StreamedText()
        try:
            for piece in stream:
                press.awaited = False
                if not self._settings.as_json:
                    shown.write(piece)
                if press.noted:
                    break
        finally:
            stream.close()
            if stream.completion.token_ids and not self._settings.as_json:
                shown.end()
                write_text("\n")

    def _reading(self, press: Press) -> Callable[[int, int], None]:
        def between_pieces(done: int, total: int) -> None:
            press.refuse()
            if self._settings.interactive and done % _REPORTED_TOKENS == 0:
                say(self._console, f"reading: {done} of {total} tokens", "dim")

        return between_pieces

    def _say_stopping(self) -> None:
        say(self._console, "stopping...", "dim")

    def _report(self, stream: TextStream) -> None:
        conversation, completion = self._commands.conversation, stream.completion
        cached, most = conversation.cached, conversation.session.max_context
        if self._settings.as_json:
            record = {
                "answer": completion.text,
                "context_tokens": cached,
                "max_context": most,
                "stats": completion.stats.to_json(),
            }
            write_json(record, indent=None)
        say(self._console, answer_line(completion.stats, cached, most), "dim")


def _is_press(interrupted: InterruptedBySignal) -> bool:
    return interrupted.exit_code == 128 + signal.SIGINT
