"""The targets by name.

The one place that knows all targets. Getting one imports neither torch nor a toolkit.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection, Mapping, Sequence

from llama_export.bundle.bundle import Bundle
from llama_export.errors import BackendUnavailableError, BundleError, UsageError
from llama_export.system.installed import installed_version
from llama_export.targets.coreml.target import CoremlTarget
from llama_export.targets.executorch.target import ExecutorchTarget
from llama_export.targets.onnx.target import OnnxTarget
from llama_export.targets.options import option_specs
from llama_export.targets.target import Target
from llama_quantize.printable import shown_name

_ALL: tuple[Target, ...] = (OnnxTarget(), ExecutorchTarget(), CoremlTarget())
_BY_NAME: Mapping[str, Target] = {target.name: target for target in _ALL}
TARGETS: tuple[str, ...] = tuple(_BY_NAME)
_ALL_OF_THEM = "all"
# Words for what a target writes, what runs it, and where: a guess, for each could mean another one.
_MEANT: Mapping[str, str] = {
    "ort": "onnx",
    "onnxruntime": "onnx",
    "pte": "executorch",
    "xnnpack": "executorch",
    "android": "executorch",
    "mlpackage": "coreml",
    "mlmodel": "coreml",
    "ios": "coreml",
    "iphone": "coreml",
    "macos": "coreml",
    "apple": "coreml",
}


def get(name: str) -> Target:
    """Return a target.

    Raises:
        BundleError: no target of that name is known.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    message = f"the target {name!r} is not known to this version; it knows {', '.join(TARGETS)}"
    raise BundleError(message, "update llama-export")


def parse_targets(values: Sequence[str]) -> tuple[str, ...]:
    """Read `--target`: repeated, comma-separated, or "all", in letters of either case.

    Raises:
        UsageError: no target, or one that does not exist.
    """
    typed = [name.strip() for value in values for name in value.split(",") if name.strip()]
    names = [name.lower() for name in typed]
    unknown = [name for name in typed if name.lower() not in (*TARGETS, _ALL_OF_THEM)]
    if unknown or not names:
        found = ", ".join(shown_name(repr(name)) for name in unknown) or "nothing"
        message = f"--target: expected {', '.join(TARGETS)} or all, found {found}"
        raise UsageError(message, _guess(unknown[0]) if unknown else "--target onnx")
    if _ALL_OF_THEM in names:
        return TARGETS
    return tuple(dict.fromkeys(names))


def _guess(word: str) -> str:
    """Return a question that names the target that a word may mean; empty: there is no guess."""
    import difflib

    plain = re.sub(r"[^a-z0-9]", "", word.lower())
    close = difflib.get_close_matches(plain, [*TARGETS, _ALL_OF_THEM, *_MEANT], n=1)
    return f"did you mean {_MEANT.get(close[0], close[0])}?" if close else ""


def require_wanted(typed: Collection[str], targets: Sequence[str]) -> None:
    """Refuse options that none of the targets has, rather than ignore them.

    Args:
        typed: names of the options that the user typed; those that no target has are passed over.
        targets: names of the export's targets.

    Raises:
        UsageError: names the option and the targets that have it.
    """
    owners: dict[str, list[str]] = {}
    for target in TARGETS:
        for spec in option_specs(get(target).Options):
            owners.setdefault(spec.name, []).append(target)
    for name in owners:
        if name in typed and not set(owners[name]) & set(targets):
            option = "--" + name.replace("_", "-")
            can = " and ".join(owners[name])
            message = f"{option}: {' and '.join(targets)} cannot use it; {can} can"
            raise UsageError(message, f"leave {option} out, or choose --target {owners[name][0]}")


def require_toolkit(name: str) -> None:
    """Fail before any work when a target's toolkit is not installed.

    Raises:
        BackendUnavailableError: with the extra's name.
    """
    target = get(name)
    missing = [toolkit for toolkit in target.toolkits if not _is_installed(toolkit)]
    if missing:
        message = f"the {name} target needs {' and '.join(missing)}, not installed here"
        raise BackendUnavailableError(message, target.missing_hint())


def require_runs_here(bundle: Bundle) -> None:
    """Refuse an artifact that was lowered for what this machine does not have.

    Raises:
        BackendUnavailableError: with what it was lowered for.
    """
    if not bundle.manifest.runs_here:
        lowered_for = bundle.manifest.spec.delegate.get("name", "another machine")
        message = f"{bundle.artifact} is lowered for {lowered_for}, and cannot run here"
        raise BackendUnavailableError(
            message, "inspect says what is in it; export without --delegate to run it here"
        )


def require_measurable(bundle: Bundle) -> None:
    """Refuse to measure the speed of what is not the artifact's runtime.

    Raises:
        BackendUnavailableError: this machine does not have that runtime.
    """
    require_runs_here(bundle)
    found = get(bundle.manifest.target).substitute_runtime()
    if found is not None:
        message = f"{bundle.artifact}: {found.name} runs it here, and its speed means nothing"
        raise BackendUnavailableError(message, found.hint)


def _is_installed(name: str) -> bool:
    """Return whether a package is there, and not a folder of its name such as a bundle's."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is not None:
        return found is not None
    return bool(installed_version(name))
