"""An edit of a file: bytes taken away at a place, and others put there.

Every mutation ends as a few of these, so that a case can be written down, made smaller and run
again. An edit may be of a part inside a file that has its own lengths or checksums around it; see
`containers`. It knows no format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Edit:
    """One replacement.

    Args:
        at: offset where bytes are taken away; beyond the end it means the end.
        remove: number of bytes that are taken away.
        insert: bytes that are put there.
        part: name of the part inside a container; empty for the file itself.
        find: text that must stand at the offset's place: the edit is made where it first stands,
            plus `at`; empty: the offset counts from the start.
        times: how many times the bytes are put there.
    """

    at: int
    remove: int
    insert: bytes
    part: str = ""
    find: bytes = b""
    times: int = 1

    def apply(self, content: bytes) -> bytes:
        """Return the content with the edit made; where `find` is not there, the content itself."""
        start = content.find(self.find) if self.find else 0
        if start < 0:
            return content
        at = min(start + self.at, len(content))
        return content[:at] + self.insert * self.times + content[at + self.remove :]

    def to_json(self) -> dict[str, Any]:
        """Return a form for a file; bytes are written as Latin-1."""
        written: dict[str, Any] = {"at": self.at, "remove": self.remove}
        texts = {"insert": self.insert.decode("latin-1"), "part": self.part}
        texts["find"] = self.find.decode("latin-1")
        if self.times != 1:
            written["times"] = self.times
        return written | {key: text for key, text in texts.items() if text}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Edit:
        """Read what `to_json` returned."""
        insert, find = (written.get(key, "").encode("latin-1") for key in ("insert", "find"))
        times = written.get("times", 1)
        return cls(written["at"], written["remove"], insert, written.get("part", ""), find, times)


def apply_all(edits: Sequence[Edit], content: bytes) -> bytes:
    """Make edits that are all meant for the original content, the last place first."""
    for edit in sorted(edits, key=lambda each: -each.at):
        content = edit.apply(content)
    return content


def shrunk(edit: Edit) -> list[Edit]:
    """Return smaller forms of an edit, the smallest first, for a search of the least one."""
    if edit.times > 1:
        return [replace(edit, times=edit.times // 8), replace(edit, times=edit.times // 2)]
    half = len(edit.insert) // 2
    left, right = edit.insert[:half], edit.insert[half:]
    if half and edit.remove == len(edit.insert):
        later = replace(edit, at=edit.at + half, remove=len(right), insert=right)
        return [replace(edit, remove=half, insert=left), later]
    found = [replace(edit, insert=each) for each in (left, right) if half]
    if edit.remove > 1 and not edit.insert:
        found.append(replace(edit, remove=edit.remove // 2))
    return found
