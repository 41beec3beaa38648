"""What a user types with a slash in a chat: each command is a function over a conversation.

It writes on the console only; the loop reads lines and writes answers.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console

from llama_export.cli.chat.wording import sampling_words, say, say_help
from llama_export.errors import PromptError, UsageError
from llama_export.generation.conversation import Conversation
from llama_export.generation.text_session import TextSession


@dataclass(frozen=True)
class Quit:
    """The chat ends."""


@dataclass(frozen=True)
class Retry:
    """The last message is to be answered again."""


@dataclass(frozen=True)
class Done:
    """The command was carried out, and nothing else is to be done."""


Outcome = Quit | Retry | Done


class Commands:
    """The commands of one chat.

    Args:
        conversation: conversation that they change; /load puts another in its place.
        console: where they print what they did.
    """

    def __init__(self, conversation: Conversation, console: Console) -> None:
        self.conversation = conversation
        self._console = console
        self._commands: Mapping[str, Callable[[str], Outcome]] = {
            "/help": self._help,
            "/system": self._system,
            "/reset": self._reset,
            "/retry": self._retry,
            "/undo": self._undo,
            "/save": self._save,
            "/load": self._load,
            "/stats": self._stats,
            "/quit": lambda _: Quit(),
        }

    def run(self, line: str) -> Outcome:
        """Carry out one command.

        Args:
            line: what the user typed, with the slash.

        Returns:
            What the loop is to do next.

        Raises:
            UsageError: an unknown command, or one that lacks its file.
            LlamaExportError: the command could not be carried out.
        """
        name, _, rest = line.partition(" ")
        command = self._commands.get(name.strip())
        if command is None:
            shown = name.strip()
            near = difflib.get_close_matches(shown, self._commands, n=1)
            message = f"there is no command {shown!r:.80}; nothing was sent"
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(message, f"{hint}/help lists the commands, //... sends a slash")
        return command(rest.strip())

    def _help(self, _: str) -> Outcome:
        say_help(self._console)
        return Done()

    def _system(self, text: str) -> Outcome:
        conversation = self.conversation
        if not text:
            say(self._console, conversation.system or "there is no system message")
            return Done()
        conversation.system = "" if text == "off" else text
        history = f"; {conversation.length} tokens are read again with the next message"
        set_or_not = "set" if conversation.system else "taken away"
        say(self._console, f"system message {set_or_not}{history if conversation.turns else ''}")
        return Done()

    def _reset(self, _: str) -> Outcome:
        self.conversation.reset()
        say(self._console, "the conversation begins anew")
        return Done()

    def _retry(self, _: str) -> Outcome:
        if self.conversation.sampling.temperature == 0:
            say(self._console, "note: at temperature 0 the answer stays the same")
        return Retry()

    def _undo(self, _: str) -> Outcome:
        text = self.conversation.undo()
        say(self._console, f"taken back: {text}")
        return Done()

    def _save(self, path: str) -> Outcome:
        place = _required(path, "/save FILE")
        if not self.conversation.turns:
            message = "there is nothing to save yet: no message was answered"
            raise PromptError(message, "say something first")
        self.conversation.save(place)
        say(self._console, f"saved {self.conversation.length} tokens in {path}")
        return Done()

    def _load(self, rest: str) -> Outcome:
        text_only = rest.startswith("--text ")
        path = _required(rest.removeprefix("--text").strip() if text_only else rest, "/load FILE")
        session: TextSession = self.conversation.session
        before = self.conversation
        self.conversation = Conversation.load(session, path, text_only=text_only)
        self.conversation.stop = before.stop
        self.conversation.parse_special = before.parse_special
        self.say_loaded(path)
        return Done()

    def say_loaded(self, path: str) -> None:
        """Print what was loaded and how it ends, so that the user can go on from there."""
        conversation = self.conversation
        turns = len(conversation.turns)
        say(self._console, f"loaded {turns} messages, {conversation.length} tokens from {path}")
        for turn in conversation.turns[-2:]:
            say(self._console, f"{turn.role}: {turn.text}", "dim")

    def _stats(self, _: str) -> Outcome:
        conversation = self.conversation
        session = conversation.session
        say(
            self._console,
            f"{len(conversation.turns)} messages, {conversation.length} tokens, "
            f"{conversation.cached} of them in the cache; a context of {session.max_context}; "
            f"answers of at most {conversation.max_tokens} tokens; "
            f"{sampling_words(conversation.sampling)}",
        )
        return Done()


def _required(value: str, usage: str) -> str:
    if not value:
        message = f"a file is missing: {usage}"
        raise UsageError(message, "give its name")
    return value
