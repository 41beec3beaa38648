"""Compile and test the parts of the iOS app on this machine, with Swift 6 and without a Mac.

    python3 tools/apps/check_ios.py [core] [bundles] [adapters] [app] [format] [--test NAME]

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
from apple_sources import SYSTEMS, copy_sources
from check_android import python_of_package

if TYPE_CHECKING:
    Runner = Callable[[Sequence[str]], int]

ROOT = Path(__file__).resolve().parents[2]
IOS = Path("apps/ios")
BUILD = Path("build/ios")
SCRATCH = BUILD / "swift"
FIXTURES = Path("build/apps/fixtures")
# Where these are set, LlamaKit's package has tests of real vocabularies and of real bundles.
FIXTURES_VARIABLE, RUNTIME_VARIABLE = "LLAMA_FIXTURES", "LLAMA_ONNXRUNTIME"
RUNTIME = BUILD / "onnxruntime"
# As `swift test` filters: a suite, and every one of a target.
REAL_TESTS = "RealTokenizersTests|BundleChecksTests"
PARTS = {
    "core": "LlamaKit's tests",
    "bundles": "its tests on real vocabularies and bundles, which are made first",
    "adapters": "the adapters of Core ML and ExecuTorch against declarations of our own",
    "app": "the app's screens and the examples, against declarations of our own",
    "format": "swift format on every source",
}
# Modules that Linux has not, with our declarations of them; each may import those before it.
DOUBLES = IOS / "AppleDoubles"
DOUBLED = (
    "AppleFoundation",
    "Accessibility",
    "AppKit",
    "Combine",
    "CoreML",
    "CoreTransferable",
    "Darwin",
    "ExecuTorch",
    "Generation",
    "Security",
    "Tokenizers",
    "UIKit",
    "UniformTypeIdentifiers",
    "Models",
)
# It differs from system to system.
SCREENS_DOUBLE = "SwiftUI"
ADAPTERS = (
    IOS / "LlamaKit/Sources/LlamaKitCoreML",
    IOS / "LlamaKitExecuTorch/Sources/LlamaKitExecuTorch",
)
APP = IOS / "App"
EXAMPLES = IOS / "Examples"
PACKAGE = ("--package-path", IOS / "LlamaKit", "--scratch-path", SCRATCH)
STRICT = ("-swift-version", "6", "-warnings-as-errors")
MODULES = BUILD / "doubles"
# What the package makes of an adapter on Linux is empty, so ours comes first.
SEEN = ("-I", MODULES, "-I", SCRATCH / "debug" / "Modules")
# As Apple's modules are compiled: a later system may add a case to an enum.
DECLARED = ("-swift-version", "5", "-enable-library-evolution", "-suppress-warnings")
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


def fixtures_commands() -> list[list[str]]:
    """Return the calls that make what the tests on real vocabularies and bundles read."""
    python, tools = str(python_of_package()), ROOT / "tools" / "apps"
    return [
        [python, str(tools / "engine_fixtures.py"), str(ROOT / FIXTURES)],
        [python, str(tools / "tokenizer_fixtures.py"), str(ROOT / FIXTURES / "tokenizers")],
        [python, str(tools / "onnxruntime_library.py"), str(ROOT / RUNTIME)],
    ]


def test_commands(toolchain: Toolchain, parts: Sequence[str], test: str | None) -> list[list[str]]:
    """Return the calls that run LlamaKit's tests.

    Those on real vocabularies and bundles run after the others: they take the processor for long,
    and some of the others measure time.

    Args:
        toolchain: where Swift runs.
        parts: keys of `PARTS`.
        test: tests to run, as `swift test --filter` takes them, such as `JsonTests`; None for all.
    """
    named = {FIXTURES_VARIABLE: FIXTURES, RUNTIME_VARIABLE: RUNTIME} if "bundles" in parts else {}
    call = ("swift", "test", *PACKAGE)
    commands = fixtures_commands() if "bundles" in parts else []
    if "core" in parts:
        chosen = ("--filter", test) if test else ("--skip", REAL_TESTS)
        commands.append(toolchain.command(*call, *chosen, variables=named))
    if "bundles" in parts:
        # What nothing on Linux loads into Swift runs in Python, beside the tests.
        server = [str(python_of_package()), str(ROOT / "tools/apps/bundle_server.py")]
        tests = toolchain.command(*call, "--filter", test or REAL_TESTS, variables=named)
        commands.append([*server, str(ROOT / FIXTURES), *tests])
    return commands


def seen_commands(toolchain: Toolchain) -> list[list[str]]:
    """Return the calls that make what a type check sees: the package, and our declarations."""
    commands = [toolchain.command("swift", "build", *PACKAGE), make_folder(MODULES)]
    for name in DOUBLED:
        sources = sources_of(DOUBLES / name)
        commands.append(module_command(toolchain, MODULES / name, DECLARED, sources))
    return commands


def make_folder(folder: Path) -> list[str]:
    """Return the call that makes a folder below the repository."""
    return ["mkdir", "-p", str(ROOT / folder)]


def module_command(
    toolchain: Toolchain, module: Path, flags: Sequence[str], sources: Sequence[Path]
) -> list[str]:
    """Return the call that compiles sources to a module that others may import.

    Args:
        toolchain: where Swift runs.
        module: path of the module, whose last part is its name, without an ending.
        flags: of the compiler.
        sources: paths below the repository.
    """
    call = ("swiftc", "-parse-as-library", "-emit-module", "-module-name", module.name)
    made = module.with_name(f"{module.name}.swiftmodule")
    return toolchain.command(*call, *flags, *SEEN, "-o", made, *sources)


def adapter_commands(toolchain: Toolchain) -> list[list[str]]:
    """Return the calls that type-check the adapters."""
    return [
        toolchain.command(
            "swiftc", "-typecheck", "-module-name", each.name, *STRICT, *SEEN, *sources_of(each)
        )
        for each in ADAPTERS
    ]


def app_commands(toolchain: Toolchain) -> list[list[str]]:
    """Return the calls that type-check the examples, and the screens as each system sees them."""
    coreml, executorch = ADAPTERS
    extra = MODULES / "executorch"
    commands = [make_folder(extra)]
    for adapter, folder in ((coreml, MODULES), (executorch, extra)):
        module = folder / adapter.name
        commands.append(module_command(toolchain, module, STRICT, sources_of(adapter)))
    check = ("swiftc", "-typecheck", "-parse-as-library", "-module-name")
    for example in sources_of(EXAMPLES):
        commands.append(
            toolchain.command(*check, f"{example.stem}Example", *STRICT, *SEEN, example)
        )
    # As Llama.xcodeproj has it; then with ExecuTorch, in the mode that the app is to reach.
    project = ("-swift-version", "5", "-strict-concurrency=complete", "-warnings-as-errors")
    for system in SYSTEMS:
        screens = BUILD / "app" / system
        double = copies_of(DOUBLES / SCREENS_DOUBLE, screens / SCREENS_DOUBLE, system)
        sources = copies_of(APP, screens / APP.name, system)
        commands.append(module_command(toolchain, screens / SCREENS_DOUBLE, DECLARED, double))
        for flags in (project, (*STRICT, "-I", extra)):
            seen = ("-I", screens, *SEEN)
            commands.append(toolchain.command(*check, "Llama", *flags, *seen, *sources))
    return commands


def copies_of(folder: Path, target: Path, system: str) -> list[Path]:
    """Copy sources for a system as `copy_sources` does, all paths being below the repository."""
    copies = copy_sources(ROOT / folder, ROOT / target, system)
    return [copy.relative_to(ROOT) for copy in copies]


def sources_of(folder: Path) -> list[Path]:
    """Return the Swift sources below a folder of the repository, in order."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.swift"))


def swift_commands(toolchain: Toolchain, parts: Sequence[str], test: str | None) -> list[list[str]]:
    """Return the calls that check some parts of `PARTS`; for `test` see `test_commands`."""
    commands: list[list[str]] = []
    if {"core", "bundles"} & set(parts):
        commands += test_commands(toolchain, parts, test)
    if {"adapters", "app"} & set(parts):
        commands += seen_commands(toolchain)
    if "adapters" in parts:
        commands += adapter_commands(toolchain)
    if "app" in parts:
        commands += app_commands(toolchain)
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
    commands = swift_commands(toolchain, parts, chosen.test)
    # The first that fails ends it: without its files the next would fail for another reason.
    status = next((status for command in commands if (status := run(command))), 0)
    verdict = "failed" if status else "passed"
    print(f"ios: {verdict} {', '.join(parts)} in {time.monotonic() - begun:.0f} s")
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run_shown))
