"""Set up the stock clients that the tests run a bundle with, in `.clients`.

    python3 tools/clients.py [optimum] [transformers.js] [chromium]

onnxruntime and onnxruntime-genai are in `.venv` already. optimum gets an environment of its own,
because it needs transformers 4; torch and onnxruntime in it are `.venv`'s. transformers.js is
installed by npm, which runs no package's scripts, and with it OpenAI's client, which asks the
server. Chromium is only looked for. What is there already in the right version is left alone. This
script knows nothing of bundles.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import environment
from environment import Environment, SetupError

if TYPE_CHECKING:
    from environment import Runner

# transformers 4.58 and later are too new for optimum-onnx 0.1.0.
OPTIMUM = ("optimum-onnx==0.1.0", "optimum==2.1.0", "transformers==4.57.6")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_VARIABLE = "CHROMIUM"
NODE_HINT = "Install Node.js 20 or newer, which brings npm."
CHROMIUM_HINT = (
    "Run apt install chromium, or name the program of a Chromium or Chrome in the variable "
    f"{CHROMIUM_VARIABLE}."
)


class MissingClientError(SetupError):
    """A client cannot be set up because a program that it needs is not on this machine."""


@dataclass(frozen=True)
class Clients:
    """The places of the clients.

    Args:
        root: folder of the repository.
    """

    root: Path

    @property
    def optimum(self) -> Environment:
        """The environment of optimum."""
        return Environment(self.root, self.root / ".clients" / "optimum")

    @property
    def js(self) -> Path:
        """The folder that holds transformers.js' `node_modules`."""
        return self.root / ".clients" / "js"

    @property
    def js_project(self) -> tuple[Path, Path]:
        """The files that pin transformers.js and everything that it needs."""
        folder = self.root / "tests" / "clients"
        return folder / "package.json", folder / "package-lock.json"

    def has_optimum(self) -> bool:
        """Return whether optimum is installed in the right version, for `.venv` as it is now."""
        try:
            current = optimum_digest(Environment(self.root, self.root / ".venv"))
        except SetupError:  # no `.venv`, from which its environment borrows
            return False
        return is_stamped(self.optimum.folder, current) and self.optimum.can_run("import numpy")

    def has_transformers_js(self) -> bool:
        """Return whether transformers.js is installed in the right version."""
        return is_stamped(self.js, js_digest(self))


def find_chromium(variables: Mapping[str, str] = os.environ) -> Path:
    """Return the program of a Chromium or Chrome.

    Raises:
        MissingClientError: there is none, or CHROMIUM names no program.
    """
    named = variables.get(CHROMIUM_VARIABLE)
    names = (named,) if named else CHROMIUM_NAMES
    for name in names:
        if found := shutil.which(name, path=variables.get("PATH")):
            return Path(found)
    where = f"{CHROMIUM_VARIABLE} names {named}" if named else "looked for " + ", ".join(names)
    message = f"the client chromium is missing: {where}, and found no program. {CHROMIUM_HINT}"
    raise MissingClientError(message)


def find_node(name: str) -> str:
    """Return the path of `node` or `npm`.

    Raises:
        MissingClientError: it is not there.
    """
    if found := shutil.which(name):
        return found
    message = f"the client transformers.js is missing: there is no program {name}. {NODE_HINT}"
    raise MissingClientError(message)


def site_packages(ours: Environment) -> Path:
    """Return the folder of an environment's packages.

    Raises:
        SetupError: there is no such environment.
    """
    found = sorted(ours.folder.glob("lib/python3*/site-packages")) or [
        ours.folder / "Lib" / "site-packages"
    ]
    if not found[0].is_dir():
        message = f"{ours.folder} holds no packages: run python3 tools/environment.py test first."
        raise SetupError(message)
    return found[0]


def optimum_digest(ours: Environment) -> str:
    """Hash what the environment of optimum depends on."""
    packages = f"{OPTIMUM} {site_packages(ours)} {sys.version_info[:2]}"
    return hashlib.sha256(packages.encode()).hexdigest()


def js_digest(clients: Clients) -> str:
    """Hash what the installation of transformers.js depends on."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in clients.js_project)).hexdigest()


def is_stamped(folder: Path, digest: str) -> bool:
    """Return whether a folder was set up completely, for this digest."""
    stamp = folder / "installed.sha256"
    return stamp.is_file() and stamp.read_text() == digest


def prepare_optimum(clients: Clients, run: Runner) -> None:
    """Make the environment of optimum, which borrows from `.venv` what it does not bring itself.

    Raises:
        SetupError: a step failed.
    """
    ours = Environment(clients.root, clients.root / ".venv")
    digest, theirs = optimum_digest(ours), clients.optimum
    if theirs.folder.exists():
        shutil.rmtree(theirs.folder)
    theirs.folder.mkdir(parents=True)
    command = [str(ours.program("python")), "-m", "venv", str(theirs.folder)]
    environment.fail_unless_zero(run(command, theirs.log, "making .clients/optimum"), theirs)
    # Searched after the environment's own folder, so its transformers wins over .venv's.
    borrowed = site_packages(theirs) / "packages-of-venv.pth"
    borrowed.write_text(f"{site_packages(ours)}\n", encoding="utf-8")
    python = str(theirs.program("python"))
    install = [python, "-m", "pip", "install", "--progress-bar", "off", *OPTIMUM]
    environment.fail_unless_zero(run(install, theirs.log, "installing optimum-onnx"), theirs)
    (theirs.folder / "installed.sha256").write_text(digest)


def prepare_transformers_js(clients: Clients, run: Runner) -> None:
    """Install transformers.js as the lock file says, without running any package's scripts.

    Raises:
        SetupError: node or npm is missing, or npm failed.
    """
    find_node("node")
    npm = find_node("npm")
    if clients.js.exists():
        shutil.rmtree(clients.js)
    clients.js.mkdir(parents=True)
    for file in clients.js_project:
        shutil.copy(file, clients.js)
    log = clients.js / "setup.log"
    command = [npm, "ci", "--prefix", str(clients.js), "--ignore-scripts", "--no-audit"]
    status = run([*command, "--no-fund"], log, "installing transformers.js")
    if status != 0:
        message = f"npm could not install transformers.js; {log} says why. Run the command again."
        raise SetupError(message)
    (clients.js / "installed.sha256").write_text(js_digest(clients))


def set_up(
    client: str,
    is_there: Callable[[], bool],
    prepare: Callable[[Clients, Runner], None],
    clients: Clients,
    run: Runner,
) -> None:
    """Prepare one client if it is not there, and print what is done."""
    if is_there():
        print(f"{client}: there already")
        return
    print(f"{client}: setting up", flush=True)
    begun = time.monotonic()
    prepare(clients, run)
    print(f"{client}: done in {time.monotonic() - begun:.0f} s")


def main(arguments: Sequence[str], clients: Clients, run: Runner) -> int:
    """Set up the named clients, or all of them."""
    known = ("optimum", "transformers.js", "chromium")
    names = arguments or known
    if any(name not in known for name in names):
        print(f"usage: python3 tools/clients.py {{{','.join(known)}}} ...", file=sys.stderr)
        return 2
    if "optimum" in names:
        set_up("optimum", clients.has_optimum, prepare_optimum, clients, run)
    if "transformers.js" in names:
        set_up(
            "transformers.js", clients.has_transformers_js, prepare_transformers_js, clients, run
        )
    if "chromium" in names:
        print(f"chromium: {find_chromium()}")
    return 0


def command_line() -> int:
    """Prepare `.venv`, from which the clients borrow, and then the clients."""
    ours = environment.default_environment()
    environment.prepare(ours, ["test"])
    return main(sys.argv[1:], Clients(environment.ROOT), environment.run_logged)


if __name__ == "__main__":
    sys.exit(environment.guarded(command_line))
