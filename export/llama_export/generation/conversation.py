"""A conversation: turns, what of them is in the KV cache, and what to do when they do not fit.

The whole dialog is rendered by the model's template and given to the session every time, which
reads only what its cache lacks; so undoing, answering again and another system message need nothing
of their own. It knows no terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llama_export.errors import PromptError
from llama_export.generation.defaults import ANSWER_TOKENS
from llama_export.generation.overflow import Overflow, find_overflow
from llama_export.generation.sampling import Sampling
from llama_export.generation.session_file import (
    SavedSession,
    Turn,
    read_session_file,
    write_session_file,
)
from llama_export.generation.text_session import TextSession
from llama_export.generation.text_stream import Completion, TextStream
from llama_export.generation.validation import as_text, as_user_text, require_whole
from llama_export.tokenizer.chat.chat_format import Dialog
from llama_export.tokenizer.chat.messages import Message

# What a user says: the text alone, a message, or `{"role": "user", "content": ...}`.
UserMessage = str | Message | Mapping[str, object]


class Conversation:
    """Turns of a user and a model on one session.

    Args:
        session: session whose cache and tokenizer are used; its forks can hold other
            conversations.
        system: system message, which says how the model is to behave; "" for none.
        sampling: how answers are drawn; None: as the model wants it. With a seed, the first answer
            uses it, the second the next higher one, and so on.
        max_tokens: largest number of tokens of an answer.
        stop: texts before the first of which an answer ends.
        parse_special: whether names of special tokens in what is said become these tokens.

    Raises:
        PromptError: the system message is not a text, or the model's template has no place for one.
        UsageError: `max_tokens` is not a whole number of at least 1.
    """

    def __init__(
        self,
        session: TextSession,
        *,
        system: str = "",
        sampling: Sampling | None = None,
        max_tokens: int = ANSWER_TOKENS,
        stop: Sequence[str] = (),
        parse_special: bool = False,
    ) -> None:
        require_whole("max_tokens", max_tokens)
        self.session = session
        self.sampling = sampling or session.sampling
        self.max_tokens = max_tokens
        self.stop = stop
        self.parse_special = parse_special
        self._system: Turn | None = None
        self._turns: list[Turn] = []
        self._answers = 0
        self.system = system

    def __repr__(self) -> str:
        said = f"{len(self.messages)} messages, {self.length} tokens"
        return f"<Conversation with {self.session.identity.name}: {said}>"

    @property
    def system(self) -> str:
        """The system message; setting it keeps the turns, which are then read again."""
        return self._system.text if self._system else ""

    @system.setter
    def system(self, text: str) -> None:
        given = as_text("the system message", text)
        self.session.end_stream()
        system = Turn("system", given) if given.strip() else None
        if system is not None:
            # A template that has no place for it says so now.
            self._encode([Turn("user", "Hello")], system)
        self._system = system

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The user's and the model's turns, oldest first."""
        return tuple(self._turns)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything that was said, the system message first."""
        turns = [self._system, *self._turns] if self._system else self._turns
        return tuple(Message(turn.role, turn.text) for turn in turns)

    @property
    def length(self) -> int:
        """Number of tokens of the conversation."""
        return len(self._encode(self._turns, self._system, answered=True)) if self._turns else 0

    @property
    def cached(self) -> int:
        """Number of its tokens that are in the cache, and need no reading.

        It is less than `length` even right after an answer, whose last token and end are read with
        the next message.
        """
        if not self._turns:
            return 0
        following = self._encode(self._turns, self._system)
        return min(self.session.cache.shared_length(following), self.length)

    def send(self, text: UserMessage) -> Completion:
        """Send a message and return the whole answer.

        Args:
            text: the user's text, or a user's message.

        Raises:
            PromptError: the text is blank or does not fit into the context, or the message is not
                a user's.
            UsageError: the session is closed.
        """
        return self.stream(text).finish()

    def stream(self, text: UserMessage) -> TextStream:
        """Send a message and return the answer piece by piece.

        Both become turns when the stream ends, even when it is closed early; when not one token
        was written, neither does.

        Args:
            text: the user's text, or a user's message.

        Raises:
            PromptError: the text is blank or does not fit into the context, or the message is not
                a user's.
            UsageError: the session is closed.
        """
        self.session.end_stream()
        return self._answer(self._turns, _question(text))

    def retry(self) -> TextStream:
        """Answer the last message again, with other random numbers.

        The old answer is replaced when the stream ends.

        Raises:
            PromptError: there is no answer yet.
        """
        question = self._last_question()
        return self._answer(self._turns[:-2], question)

    def undo(self) -> str:
        """Take the last message and its answer back, and return the message.

        Raises:
            PromptError: there is no answer yet.
        """
        question = self._last_question()
        del self._turns[-2:]
        return question.text

    def reset(self) -> None:
        """Forget every turn; the system message stays."""
        self.session.end_stream()
        self._turns.clear()

    def overflow(self, text: UserMessage) -> Overflow | None:
        """Explain why a message does not fit, and what would make it fit; None when it fits.

        Args:
            text: the user's text, or a user's message.

        Raises:
            PromptError: the text is blank, or the message is not a user's.
        """
        self.session.end_stream()
        return self._overflow(self._turns, _question(text))

    def drop_oldest(self, count: int) -> None:
        """Forget the oldest turns; the system message stays.

        Args:
            count: number of turns, even, so that the conversation still begins with the user.
        """
        self.session.end_stream()
        del self._turns[:count]

    def save(self, path: str | Path) -> None:
        """Write the conversation with its KV cache into a file.

        Raises:
            OutputError: the file cannot be written.
            UsageError: the session is closed.
        """
        self.session.end_stream()
        turns = [self._system, *self._turns] if self._system else self._turns
        token_ids = self._encode(self._turns, self._system) if self._turns else []
        shared = self.session.cache.shared_length(token_ids)
        saved = SavedSession(
            bundle=self.session.identity,
            token_ids=tuple(token_ids[:shared]),
            layers=self.session.cache.layers(shared),
            turns=tuple(turns),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
        )
        write_session_file(Path(path), saved)

    @classmethod
    def load(
        cls, session: TextSession, path: str | Path, *, text_only: bool = False
    ) -> Conversation:
        """Continue a saved conversation.

        Args:
            session: session on the same bundle, whose cache is replaced.
            path: file that `save` wrote.
            text_only: whether to take over only what was said, and read it anew, so that any
                bundle may have written the file.

        Raises:
            PromptError: the file is missing, damaged, another bundle's or of a newer version; it
                holds no conversation, or one that does not fit into this context.
            UsageError: the session is closed.
        """
        saved = read_session_file(Path(path), None if text_only else session.identity)
        turns = list(saved.turns)
        system = turns.pop(0).text if turns and turns[0].role == "system" else ""
        roles = [turn.role for turn in turns]
        if saved.max_tokens < 1 or roles != ["user", "assistant"] * (len(roles) // 2):
            message = f"{path} holds a text, and no conversation"
            raise PromptError(message, "`llama_export.load(bundle, saved=...)` takes a text over")
        conversation = cls(
            session, system=system, sampling=saved.sampling, max_tokens=saved.max_tokens
        )
        if not text_only:
            session.adopt(saved)
        conversation._turns = turns
        conversation._answers = len(turns) // 2  # a seed goes on where it was
        return conversation

    def _last_question(self) -> Turn:
        """Return the last message, whose answer follows it."""
        self.session.end_stream()
        if not self._turns:
            message = "there is no answer yet"
            raise PromptError(message, "say something first")
        return self._turns[-2]

    def _encode(
        self, turns: Sequence[Turn], system: Turn | None, *, answered: bool = False
    ) -> list[int]:
        """Return the tokens of turns, to the beginning of the next answer unless `answered`."""
        said = [system, *turns] if system else turns
        messages = [Message(turn.role, turn.text) for turn in said]
        dialog = Dialog(messages, add_generation_prompt=not answered)
        return self.session.chat_format.encode(dialog, parse_special=self.parse_special)

    def _answer(self, earlier: Sequence[Turn], question: Turn) -> TextStream:
        if overflow := self._overflow(earlier, question):
            raise PromptError(str(overflow), overflow.hint)
        before = [*earlier, question]
        sampling = self.sampling
        if sampling.seed is not None:
            sampling = replace(sampling, seed=sampling.seed + self._answers)
        self._answers += 1

        def remember(completion: Completion) -> None:
            if not completion.token_ids and completion.stats.stop_reason == "interrupted":
                return
            self._turns = [*before, Turn("assistant", completion.text)]

        return self.session.stream(
            self._encode(before, self._system),
            max_tokens=self.max_tokens,
            sampling=sampling,
            stop=self.stop,
            on_end=remember,
        )

    def _overflow(self, earlier: Sequence[Turn], question: Turn) -> Overflow | None:
        require_whole("max_tokens", self.max_tokens)

        def length(dropped: int, *, has_system: bool = True) -> int:
            system = self._system if has_system else None
            return len(self._encode([*earlier[dropped:], question], system))

        return find_overflow(
            length,
            turns=len(earlier),
            max_tokens=self.max_tokens,
            max_context=self.session.max_context,
            larger_context=self.session.larger_context,
        )


def _question(text: UserMessage) -> Turn:
    """Return what a user says as a turn."""
    given = as_user_text(text)
    if not given.strip():
        message = "the message is empty"
        raise PromptError(message, "give a text of at least one character")
    return Turn("user", given)
