"""Make a folder with Debian's Swift in it, and enter it where a Linux machine has no Swift.

Debian's compiler needs Debian's own libraries around it: `mmdebstrap` puts both into a folder of
some 1.5 GB, and a command sees that folder as `/`, and the repository as `/repo`, in a mount
namespace that ends with it. This module knows nothing of what is compiled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Runner = Callable[[Sequence[str]], int]

SUITE = "trixie"
# The last is for tests that step an ONNX bundle: its header.
PACKAGES = ("swiftlang", "libc6-dev", "libstdc++-14-dev", "libonnxruntime-dev")
# Half of what the packages have: pages, debuggers and what links without the system's libraries.
_SWIFT = "/usr/libexec/swift"
EXCLUDED = (
    "/usr/share/locale/*",
    "/usr/share/doc/*",
    "/usr/share/man/*",
    f"{_SWIFT}/lib/swift_static/*",
    f"{_SWIFT}/lib/swift/embedded/*",
    f"{_SWIFT}/lib/swift/FrameworkABIBaseline/*",
    f"{_SWIFT}/lib/liblldb.so.17.0.0",
    f"{_SWIFT}/lib/libsourcekitdInProc.so",
    *(
        f"{_SWIFT}/bin/{name}"
        for name in ("lldb-server", "lldb", "lldb-dap", "clangd", "sourcekit-lsp", "docc")
    ),
)
REPOSITORY = "/repo"
MARKER = "swift-root-recipe.txt"
VARIABLE = "LLAMA_EXPORT_SWIFT_ROOT"
# What the packages take, and what apt downloads besides.
BYTES_WANTED = 2 * 2**30
INSTALL_HINT = "On Debian and Ubuntu: apt install mmdebstrap debian-archive-keyring"
# The one variable that whoever runs the command sets for it: where bundle_server.py listens.
PASSED = "LLAMA_BUNDLE_SERVER"
# $1 is the root, $2 what stands at /repo in it; the rest is the command. Nothing is seen outside.
_ENTER = f"""
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mkdir -p "$1{REPOSITORY}"
mount --bind "$2" "$1{REPOSITORY}"
root=$1
shift 2
exec chroot "$root" env -i --chdir={REPOSITORY} {PASSED}="${PASSED}" "$@"
"""
_NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def default_folder(variables: Mapping[str, str] = os.environ) -> Path:
    """Return where the root lies: outside the checkout, so that a fresh one has it too."""
    if variables.get(VARIABLE):
        return Path(variables[VARIABLE]).absolute()
    cache = variables.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "llama-export" / "swift-root"


def command_to_make(folder: Path) -> list[str]:
    """Return the call that fills a folder."""
    return [
        "mmdebstrap",
        "--variant=apt",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        SUITE,
        str(folder),
    ]


def command_inside(
    root: Path, repository: Path, command: Sequence[str], variables: Mapping[str, str]
) -> list[str]:
    """Return the call that runs a command in a root; its exit status is the command's own.

    Args:
        root: folder that `make` filled.
        repository: folder that stands at `/repo`.
        command: program and arguments, with the paths that it sees.
        variables: environment of the command; of its caller's own, `PASSED` alone is passed on.
    """
    known = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **variables}
    passed = [f"{name}={value}" for name, value in known.items()]
    script = [*_NAMESPACE, "sh", "-ec", _ENTER, "sh", str(root), str(repository)]
    return [*script, *passed, *command]


def is_made(root: Path) -> bool:
    """Return whether a folder holds a whole root of the packages that are wanted now."""
    try:
        return (root / MARKER).read_text(encoding="utf-8") == _recipe()
    except OSError:
        return False


def find_lack(root: Path) -> str | None:
    """Return why a root cannot be made or entered on this machine, or None."""
    if shutil.which("unshare") is None:
        return "there is no program unshare, which Linux has"
    if os.geteuid() != 0:
        return "only root may enter a folder as its own system. Run it as root, or install Swift 6."
    namespace = subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
    if namespace.returncode:
        return "this machine, perhaps a container, allows no mount namespace (unshare --mount)"
    if is_made(root):
        return None
    if shutil.which("mmdebstrap") is None:
        return f"there is no program mmdebstrap. {INSTALL_HINT}"
    there = next(folder for folder in root.parents if folder.exists())
    free = shutil.disk_usage(there).free
    if free < BYTES_WANTED:
        found, wanted = (f"{number / 2**30:.1f} GB" for number in (free, BYTES_WANTED))
        return f"{there} has {found} left and Swift wants {wanted}: {VARIABLE} names another folder"
    return None


def make(root: Path, run: Runner) -> int:
    """Fill a root unless it is there, and return the exit status of what fills it.

    It is made aside and put in place whole, so that nobody finds a part of one.
    """
    if is_made(root):
        return 0
    root.parent.mkdir(parents=True, exist_ok=True)
    for left in root.parent.glob(f"{root.name}.[0-9]*"):
        if not _is_running(left.suffix[1:]):
            _remove(left)
    aside = root.with_name(f"{root.name}.{os.getpid()}")
    try:
        status = run(command_to_make(aside))
        if status:
            return status
        (aside / MARKER).write_text(_recipe(), encoding="utf-8")
        _remove(root)
        aside.rename(root)
    finally:
        _remove(aside)
    return 0


def _recipe() -> str:
    """Return what a root is made by, so that another list makes another root."""
    return "\n".join(command_to_make(Path("ROOT"))) + "\n"


def _is_running(process: str) -> bool:
    return process.isdecimal() and Path("/proc", process).exists()


def _remove(folder: Path) -> None:
    """Remove a root; what another program has mounted in it is left alone."""
    if folder.exists():
        # Without the marker first: who is killed here leaves no root that looks whole.
        (folder / MARKER).unlink(missing_ok=True)
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)
