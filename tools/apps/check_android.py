"""Compile and test the Android app's parts on this machine, with Maven and without a phone.

    python3 tools/apps/check_android.py [core] [engines] [app] [--offline] [--test NAME]

Without names, every part is checked. Maven takes the sources of apps/android, with the poms that
stand beside this script, and writes to build/android; bundles that it runs lie in
build/apps/fixtures. The first run fetches some 500 MB into
Maven's own store; with --offline nothing is asked of the network. Without Java or Maven it says
what it skips; with --require that is a failure. What Gradle does for users is not run here.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import environment  # noqa: E402 - tools/ is not where this script lies

if TYPE_CHECKING:
    Runner = Callable[[Sequence[str]], int]

POM = ROOT / "tools" / "apps" / "android" / "pom.xml"
# Each part, and its Maven modules; a module's own dependencies among ours come with it.
PARTS: dict[str, tuple[str, ...]] = {
    "core": ("core",),
    "engines": ("executorch-double", "engine-onnx", "engine-executorch"),
    "app": ("app",),
}
BUILD = ROOT / "build" / "android"
FIXTURES = ROOT / "build" / "apps" / "fixtures"
# The tag of the core's tests on real bundles and vocabularies, which `engines` makes.
BUNDLES = "bundles"
OLDEST_JAVA = 17
INSTALL_HINT = "On Debian and Ubuntu: apt install openjdk-17-jdk-headless maven"
AAPT2_HINT = "On Debian and Ubuntu: apt install aapt"


def java_version(text: str) -> int | None:
    """Return the number of the Java release that `java -version` prints, or None."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else None


def find_lack() -> str | None:
    """Return why nothing can be checked on this machine, or None."""
    for name in ("java", "javac", "mvn"):
        if shutil.which(name) is None:
            return f"there is no program {name}. {INSTALL_HINT}"
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    version = java_version(done.stderr + done.stdout)
    if version is None or version < OLDEST_JAVA:
        found = "another program" if version is None else f"Java {version}"
        return f"expected Java {OLDEST_JAVA} or newer, found {found}. {INSTALL_HINT}"
    return None


def find_lack_of_app() -> str | None:
    """Return why the app's resources cannot be linked on this machine, or None."""
    return None if shutil.which("aapt2") else f"there is no program aapt2. {AAPT2_HINT}"


def python_of_package() -> Path:
    """Return an interpreter that has llama_export: this one, or else that of `.venv`."""
    if importlib.util.find_spec("llama_export"):
        return Path(sys.executable)
    return environment.default_environment().program("python")


def fixtures_commands() -> list[list[str]]:
    """Return the calls that make the bundles which the engines run, and what the core reads."""
    python, tools = str(python_of_package()), ROOT / "tools" / "apps"
    return [
        [python, str(tools / "engine_fixtures.py"), str(FIXTURES)],
        [python, str(tools / "tokenizer_fixtures.py"), str(FIXTURES / "tokenizers")],
    ]


def resources_command(*, offline: bool) -> list[str]:
    """Return the call that links the app's resources and fetches the framework it runs in."""
    script = ROOT / "tools" / "apps" / "app_resources.py"
    return [sys.executable, str(script), *(["--offline"] if offline else [])]


def maven_command(parts: Sequence[str], *, offline: bool, test: str | None) -> list[str]:
    """Return the call of Maven that compiles and tests some parts.

    Args:
        parts: keys of `PARTS`.
        offline: whether Maven may take only what it has fetched before.
        test: tests to run, as surefire names them, such as `JsonTest`; None for all.
    """
    modules = [module for part in parts for module in PARTS[part]]
    command = [
        "mvn",
        "-B",
        "--no-transfer-progress",
        "-f",
        str(POM),
        "-pl",
        ",".join(modules),
        "-am",
    ]
    command += [f"-Dllama.fixtures={FIXTURES}", f"-Dllama.python={python_of_package()}"]
    if "engines" not in parts:
        command.append(f"-DexcludedGroups={BUNDLES}")
    if offline:
        command.append("-o")
    if test:
        command += [f"-Dtest={test}", "-Dsurefire.failIfNoSpecifiedTests=false"]
    return [*command, "test"]


def drop_classes(build: Path) -> None:
    """Delete what Maven compiled before: a test whose source is gone would be run still."""
    for folder in [*build.glob("*/classes"), *build.glob("*/test-classes")]:
        shutil.rmtree(folder)


def run_shown(command: Sequence[str]) -> int:
    """Run a command on this terminal and return its exit status."""
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(arguments: Sequence[str], run: Runner, lack: Callable[[], str | None]) -> int:
    """Check the parts named on the command line; return 1 if one of them fails."""
    parser = argparse.ArgumentParser(prog="check_android.py", description=__doc__.split("\n")[0])
    names = ", ".join(PARTS)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {names}; all without")
    parser.add_argument("--offline", action="store_true", help="take only what was fetched before")
    parser.add_argument("--require", action="store_true", help="fail without Java or Maven")
    parser.add_argument("--test", metavar="NAME", help="run these tests only, such as JsonTest")
    chosen = parser.parse_args(arguments)
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}: expected one of {', '.join(PARTS)}")
    parts = chosen.parts or list(PARTS)
    missing = lack()
    if missing:
        print(f"android: {'failed' if chosen.require else 'skipped'} {', '.join(parts)}: {missing}")
        return int(chosen.require)
    no_aapt2 = find_lack_of_app() if "app" in parts else None
    if no_aapt2:
        print(f"android: {'failed' if chosen.require else 'skipped'} app: {no_aapt2}")
        if chosen.require:
            return 1
        parts = [part for part in parts if part != "app"]
        if not parts:
            return 0
    begun = time.monotonic()
    drop_classes(BUILD)
    commands = fixtures_commands() if "engines" in parts else []
    if "app" in parts:
        commands.append(resources_command(offline=chosen.offline))
    commands.append(maven_command(parts, offline=chosen.offline, test=chosen.test))
    # The first that fails ends it: without its files a test would fail for another reason.
    status = next((status for command in commands if (status := run(command))), 0)
    verdict = "failed" if status else "passed"
    print(f"android: {verdict} {', '.join(parts)} in {time.monotonic() - begun:.0f} s")
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], run_shown, find_lack))
