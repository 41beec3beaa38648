"""A tab of headless Chromium, driven as a person drives it and watched as DevTools watches it.

It speaks the DevTools protocol over two pipes, so it needs no port and no other package.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from artifacts.chromium import OPTIONS

_TIMEOUT_S = 120
# Where Chromium looks for its pipes, and a place that they cannot have come from.
_READ_FD, _WRITE_FD, _HIGH_FD = 3, 4, 64
_KEYS = {"Enter": 13, "Escape": 27, "ArrowUp": 38, "Tab": 9}
CTRL, SHIFT = 2, 8


class Tab:
    """One tab.

    Args:
        requests: address of each request that the page made.
        complaints: what the browser and the page's scripts complained of.
    """

    def __init__(self, sent: int, received: int) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._sent = sent
        self._ids = itertools.count(1)
        self._messages: Queue[dict] = Queue()
        self._session: dict[str, str] = {}
        Thread(target=self._receive, args=(received,), daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        """Call a method of the protocol, and return its result."""
        call_id = next(self._ids)
        message = {"id": call_id, "method": method, "params": params, **self._session}
        os.write(self._sent, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                found = self._messages.get(timeout=until - time.monotonic())
            except (Empty, ValueError):
                message = f"Chromium does not answer {method}"
                raise TimeoutError(message) from None
            self._note(found)
            if found.get("id") == call_id:
                assert "error" not in found, (method, found["error"])
                return found["result"]

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith('{url}')")

    def run(self, expression: str) -> object:
        """Return what an expression of JavaScript is, once it is settled."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < until, f"it does not come true: {condition}"
            time.sleep(0.02)

    def type(self, text: str) -> None:
        """Put a text where the focus is, as a keyboard does."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key, such as "Enter" or "o"."""
        code = _KEYS.get(key) or ord(key.upper())
        named = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        named["code"] = key if key in _KEYS else f"Key{key.upper()}"
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def click(self, selector: str) -> None:
        """Press the mouse's button over the middle of an element."""
        x, y = self.run(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """Give the page a size in CSS pixels, and a finger in place of a mouse."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setTouchEmulationEnabled", enabled=is_phone)

    def prefer(self, **features: str) -> None:
        """Let the reader prefer something, such as `prefers_color_scheme="dark"`."""
        given = [{"name": name.replace("_", "-"), "value": v} for name, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=given)

    def _receive(self, received: int) -> None:
        rest = b""
        with suppress(OSError):
            while data := os.read(received, 2**16):
                *whole, rest = (rest + data).split(b"\0")
                for each in whole:
                    self._messages.put(json.loads(each))
        os.close(received)

    def _note(self, message: dict) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(params["args"]))


@contextmanager
def open_tab(program: Path) -> Iterator[Tab]:
    """Run Chromium with one tab within the block.

    Args:
        program: Chromium.
    """
    to_read, sent = _pipe()
    received, to_write = _pipe()
    # Its processes may write to the profile for a moment after they were told to end.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [str(program), *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        places = [
            (os.POSIX_SPAWN_DUP2, to_read, _READ_FD),
            (os.POSIX_SPAWN_DUP2, to_write, _WRITE_FD),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        process = os.posix_spawn(program, words, os.environ, file_actions=places, setpgroup=0)
        os.close(to_read)
        os.close(to_write)
        try:
            yield Tab(sent, received)
        finally:
            os.close(sent)  # it ends when nobody writes to it any more
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGTERM)
            os.waitpid(process, 0)


def _pipe() -> list[int]:
    """Return the ends of a pipe, numbered so high that they are not in the way."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for end in ends]
    for end in ends:
        os.close(end)
    return moved
