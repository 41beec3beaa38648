"""A queue that is fair to clients: the first of each in turn, and of one client in its order.

So a client that sends a hundred requests at once does not keep the others waiting for all of
them. It knows names of clients; it does not know what waits.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items of several clients."""

    def __init__(self) -> None:
        # The client whose turn is next stands first.
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def push(self, client: str, item: Item) -> None:
        """Add an item behind the others of its client."""
        self._lines.setdefault(client, deque()).append(item)

    def pop(self) -> Item:
        """Take the first item of the client whose turn it is, which then stands last.

        Raises:
            IndexError: there is none.
        """
        if not self._lines:
            message = "the queue is empty"
            raise IndexError(message)
        client, line = self._lines.popitem(last=False)
        item = line.popleft()
        if line:
            self._lines[client] = line
        return item

    def remove(self, client: str, item: Item) -> bool:
        """Take an item out, wherever it stands; return whether it was there."""
        line = self._lines.get(client, deque())
        if item not in line:
            return False
        line.remove(item)
        if not line:
            del self._lines[client]
        return True
