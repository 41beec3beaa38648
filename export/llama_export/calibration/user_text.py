"""Windows of the user's own text: spread over all of it, or all of it where it is short.

The places are drawn by the seed, one in each of as many equal parts as there are windows. The
module knows no form of a file.

Shapes: S tokens of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np

from llama_export.calibration.refused import RUN, RefusedRuns
from llama_export.calibration.text_files import Piece, list_files, read_pieces
from llama_export.errors import PromptError
from llama_export.tokenizer.chat.chat_format import ChatFormat

# A text with fewer bytes than this for each token that is wanted is read whole: there is little
# more, or less, than is wanted.
_WHOLE_BYTES = 16
_QUOTED = 60


@dataclass(frozen=True)
class UserWindow:
    """A window of the user's text.

    Args:
        ids: its tokens, fewer than a window has where the text ends.
        starts: where in the window a piece begins, and which one.
    """

    ids: tuple[int, ...]
    starts: tuple[tuple[int, Piece], ...]

    def place(self, at: int) -> str:
        """Return where a token of the window is, to be read in a message."""
        return [piece for start, piece in self.starts if start <= at][-1].place


@dataclass(frozen=True)
class UserText:
    """The user's text.

    Args:
        form: how dialogs are written, with the model's tokenizer.
        files: its files and their sizes in bytes.
    """

    form: ChatFormat
    files: Mapping[Path, int]

    @classmethod
    def of(cls, paths: Sequence[Path], form: ChatFormat) -> UserText:
        """List the files that are meant.

        Raises:
            PromptError: one is not there or cannot be read, is empty, or a folder holds none.
        """
        return cls(form, list_files(paths))

    def windows(self, count: int, window: int, seed: int) -> list[UserWindow]:
        """Take windows out of the text, fewer where it has no more.

        Args:
            count: number of windows that are wanted.
            window: S, the number of tokens of each; the last one of a short text has fewer.
            seed: seed of the places.

        Raises:
            PromptError: a file cannot be read or is not UTF-8, a line is no dialog and no text, or
                a window holds what `verify` measures on.
        """
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))
        size = sum(self.files.values())
        if size <= count * window * _WHOLE_BYTES:
            whole = list(self._cut(self._from(0, 0), window))
            most = len(whole) if len(whole) <= count else sum(len(w.ids) == window for w in whole)
            places = _spread(most, min(count, most), random)
            found = [whole[at] for at in places]
        else:
            places = _spread(size, count, random)
            found = [each for at in places for each in self._at(at, window)]
        self._require_allowed(found)
        if not found:
            message = f"{', '.join(map(str, self.files))} holds no text"
            raise PromptError(message, "give some pages of the text that the model is for")
        return found

    def _at(self, at: int, window: int) -> Iterator[UserWindow]:
        """Yield the window that begins behind a byte of all files together, if there is text."""
        pieces: Iterator[Piece] = iter(())
        for number, size in enumerate(self.files.values()):
            if at < size:
                pieces = self._from(number, at)
                break
            at -= size
        # What follows the last file is the first one.
        yield from islice(self._cut(chain(pieces, self._from(0, 0)), window), 1)

    def _from(self, index: int, at: int) -> Iterator[Piece]:
        """Read the pieces from a byte of a file on, and those of the files behind it."""
        for path in islice(self.files, index, None):
            yield from read_pieces(path, at, self.form)
            at = 0

    def _cut(self, pieces: Iterable[Piece], window: int) -> Iterator[UserWindow]:
        """Cut a sequence of texts into windows; each begins as a text does."""
        prefix = self.form.tokenizer.prefix_ids
        ids: list[int] = []
        starts: list[tuple[int, Piece]] = []
        for piece in pieces:
            left = tuple(piece.ids)
            # A dialog's template wrote the first token itself.
            if piece.begins and left[: len(prefix)] != prefix:
                left = prefix + left
            while left:
                if not ids and left[: len(prefix)] != prefix:
                    ids += prefix
                starts.append((len(ids), piece))
                room = window - len(ids)
                ids += left[:room]
                left = left[room:]
                if len(ids) == window:
                    yield UserWindow(tuple(ids), tuple(starts))
                    ids, starts = [], []
        if starts:
            yield UserWindow(tuple(ids), tuple(starts))

    def _require_allowed(self, windows: Sequence[UserWindow]) -> None:
        """Refuse a text that `verify` measures on.

        Raises:
            PromptError: names the file, the place and the words.
        """
        refused = RefusedRuns.of_verification(self.form.tokenizer)
        for each in windows:
            at = refused.find(each.ids)
            if at is not None:
                words = self.form.tokenizer.decode(each.ids[at : at + RUN])
                message = (
                    f"{each.place(at)}: `verify` measures on this text, and a model that is "
                    f"calibrated on it would seem better than it is: {words[:_QUOTED]!r}"
                )
                raise PromptError(message, "take this text out of what you calibrate on")


def _spread(size: int, count: int, random: np.random.Generator) -> list[int]:
    """Draw a place in each of `count` equal parts of what has a size, in ascending order."""
    edges = [size * at // count for at in range(count + 1)] if count else []
    return [int(random.integers(a, b)) for a, b in pairwise(edges)]
