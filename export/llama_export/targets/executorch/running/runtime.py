"""Import ExecuTorch, its operators for language models, and load a program, without its noise.

Libraries of ExecuTorch write to the process's own stderr while they load; that is kept from the
user's screen. It knows the toolkit; it does not know what a program computes.
"""

from __future__ import annotations

import importlib.util
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from llama_export.errors import BackendUnavailableError, BundleError, UsageError
from llama_export.system.installed import installed_version
from llama_export.system.quiet import silenced

if TYPE_CHECKING:
    from executorch.extension.pybindings.portable_lib import ExecuTorchMethod

VERSIONS = "1.4"
# A loaded program keeps the process's threads: with new ones under it, it aborts or never ends.
_loaded: weakref.WeakSet[ExecuTorchMethod] = weakref.WeakSet()
_HINT = f"pip install 'executorch=={VERSIONS}.*', of the extra 'executorch'"


def require_version(*, coreml: bool = False) -> None:
    """Fail before any work when what is installed cannot do it; nothing is imported.

    Raises:
        BackendUnavailableError: another version of executorch, or no coremltools where needed.
    """
    found = installed_version("executorch")
    if found and not found.startswith(f"{VERSIONS}."):
        message = f"executorch {found} is installed; this version works with {VERSIONS}"
        raise BackendUnavailableError(message, _HINT)
    if coreml and not installed_version("coremltools"):
        message = "the delegate coreml needs coremltools, not installed here"
        raise BackendUnavailableError(message, "pip install coremltools, of the extra 'coreml'")


def load_toolkit(*, verbose: bool = False) -> None:
    """Import ExecuTorch and register its operators for language models.

    Raises:
        BackendUnavailableError: it is not installed, is another version, or cannot be imported.
    """
    if importlib.util.find_spec("executorch") is None:
        message = "the executorch target needs executorch, not installed here"
        raise BackendUnavailableError(message, _HINT)
    found = installed_version("executorch")
    if not found:
        message = "the executorch target needs executorch; what is here by that name is a folder"
        raise BackendUnavailableError(message, _HINT)
    require_version()
    try:
        with silenced(verbose=verbose), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import executorch.kernels.quantized  # noqa: F401
            from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        torch_found = installed_version("torch")
        message = f"executorch {found} cannot be imported beside torch {torch_found}: {error}"
        hint = "its wheel is built for torch 2.13: pip install torch==2.13.0, then " + _HINT
        raise BackendUnavailableError(message, hint) from error


def load_method(
    path: Path, *, threads: int | None, content: bytes | None = None, verbose: bool = False
) -> ExecuTorchMethod:
    """Load a program's forward method; the file is mapped, and stays so.

    Args:
        path: path of the `.pte`.
        content: another program to load in its place, which must live as long as the method.
        threads: number of runtime threads; None leaves it to ExecuTorch.
        verbose: let the runtime's messages through.

    Raises:
        BackendUnavailableError: ExecuTorch is not installed, or is another version.
        BundleError: the runtime cannot load the program.
        UsageError: fewer than one thread, or another number than that of a loaded program.
    """
    if threads is not None and threads < 1:
        message = f"--threads: expected at least 1, found {threads}"
        raise UsageError(message)
    load_toolkit(verbose=verbose)
    from executorch.extension.pybindings import portable_lib

    with silenced(verbose=verbose):
        found = portable_lib._threadpool_get_thread_count()
        if threads is not None and threads != found:
            if _loaded:
                message = f"--threads: {threads} asked for, but a loaded program runs with {found}"
                raise UsageError(message, "the threads belong to the process: close it first")
            portable_lib._unsafe_reset_threadpool(threads)
        try:
            # Every offset is checked; without it the runtime follows them wherever they lead.
            checked = portable_lib.Verification.InternalConsistency
            program = (
                portable_lib._load_program(str(path), program_verification=checked)
                if content is None
                else portable_lib._load_program_from_buffer(content, program_verification=checked)
            )
            method = program.load_method("forward")
            _loaded.add(method)
            return method
        except Exception as error:  # whatever the binding makes of it; it is re-raised as ours
            message = f"ExecuTorch cannot load {path}: {error}"
            raise BundleError(message, "export the bundle again, with executorch 1.4") from error
