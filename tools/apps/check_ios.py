"""Compile and test the parts of the iOS app on this machine, with Swift 6 and without a Mac.

    python3 tools/apps/check_ios.py [core] [bundles] [format] [--test NAME]

Without names, every part is checked. Where no Swift 6 is on the PATH, Debian's is put into a folder
of 1.5 GB outside the checkout, once, and entered; that wants root on Linux. Without it the script
says what it skips; with --require that is a failure. What Xcode does for users is not run here.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import swift_root
from check_android import python_of_package

if TYPE_CHECKING:
    Runner = Callable[[Sequence[str]], int]

ROOT = Path(__file__).resolve().parents[2]
IOS = Path("apps/ios")
SCRATCH = Path("build/ios/swift")
FIXTURES = Path("build/ios/fixtures")
# The tests on real vocabularies read the folder that this variable names, and are left out without.
FIXTURES_VARIABLE = "LLAMA_FIXTURES"
PARTS = {
    "core": "LlamaKit's tests",
    "bundles": "its tests on real vocabularies, which are made first",
    "format": "swift format on every source",
}
OLDEST_SWIFT = 6


@dataclass(frozen=True)
class Toolchain:
    """Where Swift runs.

    Args:
        root: folder that `swift_root` made; None: this machine's own.
    """

    root: Path | None

    def command(self, *call: str | Path, variables: Mapping[str, Path] | None = None) -> list[str]:
        """Return a call of a program of Swift's.

        Args:
            call: program and arguments; a path is one below the repository.
            variables: paths below the repository that the environment names.
        """
        repository = ROOT if self.root is None else Path(swift_root.REPOSITORY)
        words = [str(repository / word) if isinstance(word, Path) else word for word in call]
        named = {name: str(repository / path) for name, path in (variables or {}).items()}
        if self.root is None:
            return ["env", *(f"{name}={value}" for name, value in named.items()), *words]
        return swift_root.command_inside(self.root, ROOT, words, named)


def swift_version(text: str) -> int | None:
    """Return the number of the Swift release that `swift --version` prints, or None."""
    found = re.search(r"Swift version (\d+)", text)
    return int(found[1]) if found else None


def has_swift() -> bool:
    """Return whether a Swift that is new enough is on the PATH."""
    if shutil.which("swift") is None:
        return False
    done = subprocess.run(["swift", "--version"], capture_output=True, text=True, check=False)
    return (swift_version(done.stdout + done.stderr) or 0) >= OLDEST_SWIFT


def fixtures_command() -> list[str]:
    """Return the call that makes what the tests on real vocabularies read."""
    script = ROOT / "tools" / "apps" / "tokenizer_fixtures.py"
    return [str(python_of_package()), str(script), str(ROOT / FIXTURES / "tokenizers")]


def swift_commands(toolchain: Toolchain, parts: Sequence[str], test: str | None) -> list[list[str]]:
    """Return the calls that check some parts.

    Args:
        toolchain: where Swift runs.
        parts: keys of `PARTS`.
        test: tests to run, as `swift test --filter` takes them, such as `JsonTests`; None for all.
    """
    commands: list[list[str]] = []
    if {"core", "bundles"} & set(parts):
        places = ("--package-path", IOS / "LlamaKit", "--scratch-path", SCRATCH)
        filters = ("--filter", test) if test else ()
        named = {FIXTURES_VARIABLE: FIXTURES} if "bundles" in parts else {}
        commands.append(toolchain.command("swift", "test", *places, *filters, variables=named))
    if "format" in parts:
        flags = ("--strict", "--recursive", "--parallel")
        commands.append(toolchain.command("swift", "format", "lint", *flags, IOS))
    return commands


def run_shown(command: Sequence[str]) -> int:
    """Run a command on this terminal and return its exit status."""
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def find_toolchain(root: Path, run: Runner) -> Toolchain | str:
    """Return where Swift runs, made at need, or why it runs nowhere."""
    if has_swift():
        return Toolchain(None)
    lack = swift_root.find_lack(root)
    if lack:
        return f"there is no Swift {OLDEST_SWIFT} on the PATH, and {lack}"
    if swift_root.make(root, run):
        return f"Debian's Swift could not be put into {root}; what failed is said above"
    return Toolchain(root)


def main(
    arguments: Sequence[str],
    run: Runner,
    find: Callable[[Path, Runner], Toolchain | str] = find_toolchain,
) -> int:
    """Check the parts named on the command line; return 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="check_ios.py", description=__doc__.split("\n")[0])
    names = ", ".join(PARTS)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {names}; all without")
    parser.add_argument("--require", action="store_true", help="fail without Swift")
    parser.add_argument("--test", metavar="NAME", help="run these tests only, such as JsonTests")
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        type=lambda text: Path(text).absolute(),
        default=swift_root.default_folder(),
        help=f"where Debian's Swift lies or is put; else ${swift_root.VARIABLE}, or ~/.cache",
    )
    chosen = parser.parse_args(arguments)
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}: expected one of {names}")
    parts = chosen.parts or list(PARTS)
    begun = time.monotonic()
    toolchain = find(chosen.root, run)
    if isinstance(toolchain, str):
        print(f"ios: {'failed' if chosen.require else 'skipped'} {', '.join(parts)}: {toolchain}")
        return int(chosen.require)
    commands = [fixtures_command()] if "bundles" in parts else []
    commands += swift_commands(toolchain, parts, chosen.test)
    # The first that fails ends it: without its files a test would fail for another reason.
    status = next((status for command in commands if (status := run(command))), 0)
    verdict = "failed" if status else "passed"
    print(f"ios: {verdict} {', '.join(parts)} in {time.monotonic() - begun:.0f} s")
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run_shown))
