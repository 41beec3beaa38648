"""Exports in forked processes that are struck, by a signal or a full disk, at a chosen event.

The lowering is real, or played back from an earlier export so that hundreds fit into a test. The
rest is the command itself: plan, quantiser, files, manifest, renames, messages, exit code.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from artifacts.tiny import write_checkpoint

from llama_export.bundle.manifest import MANIFEST_NAME
from llama_export.cli import app
from llama_export.cli.signals import InterruptedBySignal, raise_on_signals
from llama_export.targets import registry
from llama_export.targets.target import Lowered

WATCHED = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.scandir",
    "os.listdir",
    "os.truncate",
    "fcntl.flock",
}
# A child that takes as long has stopped: an export here takes two seconds, a real one ten.
_ENDLESS_S = 120
OLD, NEW = "32", "64"  # by the group size of the weights


@dataclass(frozen=True)
class Strike:
    """A signal that comes at an event, counted from the end, or after a time."""

    number: int
    event_from_end: int | None = None
    after_s: float = 0.0


# The disk is full at an event, and has room again.
FULL = Strike(0)


@dataclass(frozen=True)
class Outcome:
    """How a struck export ended, and what stands in its output."""

    code: int
    said: str
    states: Mapping[str, str]
    hidden: tuple[str, ...]


class _Watched:
    """Counts the events of the main thread, and strikes at one of them."""

    def __init__(self, at: int, strike: Strike | None) -> None:
        self.at, self.strike, self.seen = at, strike, 0

    def hook(self, event: str, _args: object) -> None:
        if event in WATCHED and threading.current_thread() is threading.main_thread():
            self.seen += 1
            if self.seen == self.at and self.strike is not None:
                os.kill(os.getpid(), self.strike.number)


class _FullDisk:
    """Counts what is written, renamed or removed in a folder, and refuses one of these."""

    def __init__(self, at: int, output: Path) -> None:
        self.at, self.output, self.seen = at, str(output), 0

    def hook(self, event: str, args: tuple[object, ...]) -> None:
        if event not in WATCHED - {"os.scandir", "os.listdir", "fcntl.flock"}:
            return
        flags = args[2] if event == "open" else os.O_WRONLY
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and str(args[0]).startswith(self.output):
            self.seen += 1
            if self.seen == self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))


class Exports:
    """The same two exports, old and new, again and again.

    Args:
        folder: empty folder to work in.
        targets: names of the targets.
    """

    def __init__(self, folder: Path, targets: tuple[str, ...]) -> None:
        self.folder, self.targets = folder, targets
        self.checkpoint = write_checkpoint(folder / "tiny")
        self.places = (*targets, "weights")
        self._lowered: dict[tuple[str, str], Lowered] = {}
        self._record()
        self.known = {word: self._hashes(folder / word) for word in (OLD, NEW)}
        self._events: dict[tuple[bool, bool], int] = {}

    def arguments(self, output: Path, group: str) -> list[str]:
        named = ["--target", ",".join(self.targets), "--model", str(self.checkpoint)]
        sizes = ["--group-size", group, "--max-context", "128", "--no-verify"]
        sizes += ["--quality", "fast"]
        return [*named, "--output", str(output), *sizes]

    def fresh_output(self, *, over_old: bool) -> Path:
        output = self.folder / "out"
        shutil.rmtree(output, ignore_errors=True)
        if over_old:
            shutil.copytree(self.folder / OLD, output)
        return output

    def struck(self, strike: Strike, *, over_old: bool, real: bool = False) -> Outcome:
        """Export the new one, over the old one or over nothing, and strike."""
        output = self.fresh_output(over_old=over_old)
        arguments = [*self.arguments(output, NEW), *(["--force"] if over_old else [])]
        at = None
        if strike.event_from_end is not None:
            at = max(1, self._count(over_old=over_old, real=real) - strike.event_from_end)
        code, said = self.run(arguments, NEW, strike=strike, at=at, real=real)
        return Outcome(code, said, self.states(output), hidden_in(output))

    def with_full_disk(self, at: int) -> Outcome:
        """Export the new one over the old one on a disk that is full at an event."""
        output = self.fresh_output(over_old=True)
        arguments = [*self.arguments(output, NEW), "--force"]
        code, said = self.run(arguments, NEW, strike=FULL, at=at)
        return Outcome(code, said, self.states(output), hidden_in(output))

    def with_small_files(self, limit_bytes: int) -> Outcome:
        """Export the new one over the old one where no file may be larger."""
        output = self.fresh_output(over_old=True)
        arguments = [*self.arguments(output, NEW), "--force"]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
        try:
            code, said = self.run(arguments, NEW)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return Outcome(code, said, self.states(output), hidden_in(output))

    def run(
        self,
        arguments: list[str],
        group: str,
        *,
        strike: Strike | None = None,
        at: int | None = None,
        real: bool = False,
    ) -> tuple[int, str]:
        """Run the command in a child; return its exit code, and what it said."""
        log = self.folder / "log"
        child = os.fork()
        if child == 0:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            # pytest's own streams know nothing of these.
            sys.stdout = sys.stderr = os.fdopen(handle, "w", buffering=1)
            code = 99
            # The parent's threads are not here: whoever waited for them would wait for ever.
            torch.set_num_threads(1)
            signal.alarm(_ENDLESS_S)
            try:
                code = self._command(arguments, group, strike, at, real=real)
            except BaseException:  # noqa: BLE001 - a child of pytest ends here, whatever it met
                traceback.print_exc()
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")

    def states(self, output: Path) -> dict[str, str]:
        """Return for each place whether it is old, new, absent, or none of these."""
        found, hashes = {}, self._hashes(output)
        for place in self.places:
            here = hashes.get(place)
            words = [word for word in (OLD, NEW) if here == self.known[word][place]]
            found[place] = words[0] if words else "absent" if here is None else "broken"
        return found

    def _count(self, *, over_old: bool, real: bool) -> int:
        """Count the events of a whole export."""
        key = over_old, real
        if key not in self._events:
            output = self.fresh_output(over_old=over_old)
            arguments = [*self.arguments(output, NEW), *(["--force"] if over_old else [])]
            code, said = self.run(arguments, NEW, at=0, real=real)
            if code != 0:
                raise AssertionError(said)
            self._events[key] = int(said.rsplit("events: ", 1)[1])
        return self._events[key]

    def _command(
        self, arguments: list[str], group: str, strike: Strike | None, at: int | None, *, real: bool
    ) -> int:
        if not real:
            self._play_back(group)
        watched: _Watched | _FullDisk | None = None
        if strike is FULL:
            watched = _FullDisk(at or 0, self.folder / "out")
        elif at is not None:
            watched = _Watched(at, strike)
        if watched is not None:
            sys.addaudithook(watched.hook)
        elif strike is not None:
            threading.Timer(strike.after_s, os.kill, (os.getpid(), strike.number)).start()
        sys.argv = ["llama-export", *arguments]
        try:
            raise_on_signals()
            app.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 98
        except InterruptedBySignal as late:  # before main's first line, or after its last
            code = late.exit_code
        sys.stdout.flush()
        if watched is not None:
            os.write(1, f"events: {watched.seen}".encode())
        return code

    def _record(self) -> None:
        """Make both exports with the real lowerings, and note what these return."""
        for group in (OLD, NEW):
            for name in self.targets:
                kind, real = type(registry.get(name)), type(registry.get(name)).lower

                def noted(self_, *given, _real=real, _key=(name, group)):
                    self._lowered[_key] = _real(self_, *given)
                    return self._lowered[_key]

                kind.lower = noted
                try:
                    self._export_here(name, group)
                finally:
                    kind.lower = real

    def _export_here(self, name: str, group: str) -> None:
        from artifacts.small_bundle import Silent

        from llama_export.exporting.pipeline import ExportRequest, export_bundle

        output = self.folder / group / name
        request = ExportRequest(
            str(self.checkpoint),
            (name,),
            output,
            group_size=int(group),
            max_context=128,
            verify=False,
        )
        export_bundle(request, Silent())
        # All of them as one command would have written them.
        (output / name).rename(self.folder / "moved")
        if not (self.folder / group / "weights").exists():
            (output / "weights").rename(self.folder / group / "weights")
        shutil.rmtree(output)
        (self.folder / "moved").rename(output)

    def _play_back(self, group: str) -> None:
        from llama_export.exporting import pipeline

        pipeline.trace = lambda *_: None
        for name in self.targets:
            made, lowered = self.folder / group / name, self._lowered[name, group]

            def copied(_self, _traced, _weights, folder, *_rest, _made=made, _lowered=lowered):
                for path in sorted(p for p in _made.rglob("*") if p.is_file()):
                    if path.name != MANIFEST_NAME or path.parent != _made:
                        goal = folder / path.relative_to(_made)
                        goal.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, goal)
                return _lowered

            type(registry.get(name)).lower = copied

    def _hashes(self, output: Path) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for place in self.places:
            if (output / place).exists():
                files = sorted(p for p in (output / place).rglob("*") if p.is_file())
                found[place] = {
                    path.relative_to(output / place).as_posix(): hashlib.sha256(
                        path.read_bytes()
                    ).hexdigest()
                    for path in files
                }
        return found


def hidden_in(output: Path) -> tuple[str, ...]:
    if not output.exists():
        return ()
    return tuple(sorted(path.name for path in output.iterdir() if path.name.startswith(".")))


def random_strikes(seed: int, count: int, longest_s: float) -> list[tuple[Strike, bool]]:
    """Choose signals, moments, and whether an old output is there."""
    chance = random.Random(seed)
    chosen = []
    for _ in range(count):
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        kind = chance.random()
        if kind < 0.5:  # the renames and the clean-up are at the end
            strike = Strike(number, event_from_end=chance.randrange(90))
        elif kind < 0.7:
            strike = Strike(number, event_from_end=chance.randrange(90, 400))
        else:
            strike = Strike(number, after_s=chance.uniform(0, longest_s))
        chosen.append((strike, chance.random() < 0.65))
    return chosen
