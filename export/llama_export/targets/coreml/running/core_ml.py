"""Run a package with Core ML itself, through coremltools: on a Mac, and nowhere else.

It satisfies `runner.Runner`. It knows what coremltools takes, gives and gets wrong; it does not
know what a package computes. Nothing of this ran on a Mac yet: it is written after coremltools'
source, and tested against a double that refuses what that refuses.
"""

from __future__ import annotations

import platform
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coreml_evaluator.package import Package
from llama_export.errors import BackendUnavailableError, BundleError, UsageError
from llama_export.system.quiet import silenced
from llama_export.targets.coreml.lowering.toolkit import (
    HINT,
    coremltools_version,
    import_coremltools,
)
from llama_export.targets.coreml.options import DEFAULT_COMPUTE_UNITS
from llama_export.targets.coreml.running.runner import Array

if TYPE_CHECKING:
    from coremltools.models import MLModel
    from coremltools.models.model import MLState

# What Swift calls them -> coremltools' names. The Neural Engine has no int4 in groups: "all" is
# for those who want to see what it does with it.
COMPUTE_UNITS = {DEFAULT_COMPUTE_UNITS: "CPU_AND_GPU", "cpuOnly": "CPU_ONLY", "all": "ALL"}
# The first that keeps a cache inside a model.
OLDEST_MACOS = 15
# Of how many calls a function's inputs are held; see `CoremlRuntime`.
_HELD_CALLS = 2
_AGAIN = "export the bundle again"
_ELSEWHERE = "the evaluator runs the same package on every system"
# What coremltools puts before Core ML's own words.
_PREAMBLE = re.compile(r"^You will not be able to run predict\(\).*?exception message was: ", re.S)


def runs_core_ml() -> bool:
    """Return whether this machine can run a package with Core ML itself; nothing is imported."""
    return _missing() is None


def require_core_ml() -> None:
    """Fail before any work when this machine has no Core ML that fits.

    Raises:
        BackendUnavailableError: with the reason.
    """
    missing = _missing()
    if missing is not None:
        raise BackendUnavailableError(*missing)


def _missing() -> tuple[str, str] | None:
    """Return what stands against Core ML here, and what to do about it."""
    system = platform.system()
    if system != "Darwin":
        message = "Core ML runs on macOS only; the evaluator runs everywhere"
        if system == "Windows":
            return message, "coremltools has no wheel for Windows either: export on Linux or macOS"
        return message, "copy the bundle to a Mac, or verify it with the evaluator"
    found = platform.mac_ver()[0]
    if int(found.partition(".")[0] or 0) < OLDEST_MACOS:
        message = f"this is macOS {found}; Core ML keeps a model's state from {OLDEST_MACOS} on"
        return message, f"update macOS; {_ELSEWHERE}"
    if not coremltools_version():
        return "Core ML is run through coremltools, which is not installed here", HINT
    return None


class CoremlState:
    """The caches of one conversation, inside Core ML."""

    def __init__(self, inner: MLState, package: Path) -> None:
        self.inner = inner
        self._package = package

    def read_state(self, name: str) -> Array:
        """Return a copy of a cache; coremltools gives float16 as float32.

        Raises:
            BundleError: the package has none of that name.
        """
        with self._reached(name):
            return np.require(self.inner.read_state(name), requirements=["W"])

    def write_state(self, name: str, value: Array) -> None:
        """Replace a cache by a copy of an array of its shape.

        Raises:
            BundleError: the package has none of that name, or of another shape.
        """
        with self._reached(name):
            self.inner.write_state(name, _fed(value))

    def _reached(self, name: str) -> AbstractContextManager[None]:
        return _in_our_words(f"Core ML cannot reach the state {name!r} of {self._package}")


class CoremlRuntime:
    """A package in Core ML; satisfies `runner.Runner`. A function is loaded by its first call.

    Core ML lets go of a call's inputs about a second later, on a thread of its own, where
    coremltools 9 frees the last reference to them without Python's lock (its pull request 2827).
    So references to the inputs of a function's last calls are kept here.

    Args:
        package: path of model.mlpackage.
        default_function: name of the default among several functions; None when there is one.
        compute_units: one of the keys of `COMPUTE_UNITS`.
        verbose: let the runtime's messages through.
    """

    def __init__(
        self,
        package: Path,
        default_function: str | None,
        *,
        compute_units: str = DEFAULT_COMPUTE_UNITS,
        verbose: bool = False,
    ) -> None:
        self._package = package
        self._default = default_function
        self._units = COMPUTE_UNITS[compute_units]
        self._verbose = verbose
        self._models: dict[str | None, MLModel] = {}
        self._held: dict[str | None, deque[list[Array]]] = {}

    @classmethod
    def open(
        cls,
        package: Path,
        *,
        compute_units: str = DEFAULT_COMPUTE_UNITS,
        verbose: bool = False,
    ) -> CoremlRuntime:
        """Read the functions of a package; nothing is compiled yet.

        Args:
            package: path of model.mlpackage.
            compute_units: one of the keys of `COMPUTE_UNITS`.
            verbose: let the runtime's messages through.

        Raises:
            BackendUnavailableError: this machine has no Core ML that fits.
            BundleError: there is no package, or a damaged one.
            UsageError: there are no such compute units.
        """
        if compute_units not in COMPUTE_UNITS:
            known = " or ".join(COMPUTE_UNITS)
            message = f"compute units: expected {known}, found {compute_units!r}"
            raise UsageError(message)
        require_core_ml()
        default = Package.open(package).model.description.defaultFunctionName or None
        return cls(package, default, compute_units=compute_units, verbose=verbose)

    @property
    def mode(self) -> str:
        """How caches are kept: in float16."""
        return "fp16"

    def make_state(self) -> CoremlState:
        """Return new caches, all zeros, for every function of the package.

        Raises:
            BundleError: Core ML cannot load the package, or it keeps no caches.
        """
        model = self._model(self._default)
        what = f"Core ML makes no state for {self._package}"
        with _in_our_words(what), silenced(verbose=self._verbose):
            return CoremlState(model.make_state(), self._package)

    def predict(
        self,
        inputs: Mapping[str, Array],
        state: CoremlState | None = None,
        *,
        function: str | None = None,
    ) -> dict[str, Array]:
        """Call a function once.

        Args:
            inputs: int32 and float16 arrays by name; none of them is changed.
            state: the conversation's caches, which the call changes.
            function: name of the function; None for the default one.

        Returns:
            The outputs by name; coremltools gives float16 as float32.

        Raises:
            BundleError: Core ML cannot load or run the package.
        """
        name = function or self._default
        first = name not in self._held
        model = self._model(name)
        given = {key: _fed(value) for key, value in inputs.items()}
        self._held.setdefault(name, deque(maxlen=_HELD_CALLS)).append(list(given.values()))
        what = f"Core ML cannot run {self._called(name)} on {self._units}"
        hint = f"try other compute units; {_ELSEWHERE}"
        with _in_our_words(what, hint), silenced(verbose=self._verbose or not first):
            if state is None:
                results = model.predict(given)
            else:
                results = model.predict(given, state=state.inner)
        return {key: np.asarray(value) for key, value in results.items()}

    def _model(self, name: str | None) -> MLModel:
        if name not in self._models:
            self._models[name] = self._load(name)
        return self._models[name]

    def _load(self, name: str | None) -> MLModel:
        """Compile and load one function.

        coremltools turns Core ML's refusal into a warning, and gives a model that cannot predict;
        such a one has no compiled path.
        """
        toolkit = import_coremltools(verbose=self._verbose)
        said: list[warnings.WarningMessage] = []

        def words(error: Exception) -> str:
            refusals = [str(one.message) for one in said if one.category is RuntimeWarning]
            return _PREAMBLE.sub("", refusals[-1]) if refusals else str(error)

        what = f"Core ML cannot load {self._called(name)} for {self._units}"
        hint = f"{_AGAIN}; {_ELSEWHERE}"
        with (
            _in_our_words(what, hint, words),
            silenced(verbose=self._verbose),
            warnings.catch_warnings(record=True) as caught,
        ):
            said = caught
            warnings.simplefilter("always")
            model = toolkit.models.MLModel(
                str(self._package),
                compute_units=toolkit.ComputeUnit[self._units],
                function_name=name,
            )
            model.get_compiled_model_path()
        return model

    def _called(self, name: str | None) -> str:
        return str(self._package) if name is None else f"the function {name} of {self._package}"


@contextmanager
def _in_our_words(
    what: str, hint: str = _AGAIN, words: Callable[[Exception], str] = str
) -> Iterator[None]:
    """Turn whatever coremltools raises into our error.

    It raises `Exception` itself where there is no model or no state, so that no narrower class
    would catch it; what comes out of Core ML is another class from macOS to macOS.

    Raises:
        BundleError: `what`, and the words of the cause.
    """
    try:
        yield
    except Exception as error:  # coremltools raises that very class; it is re-raised as ours
        message = f"{what}: {words(error)}"
        raise BundleError(message, hint) from error


def _fed(value: Array) -> Array:
    """Return an array that coremltools can wrap: writeable, contiguous, not float16.

    It turns float16 inputs to float32 itself, but not what is written into a state.
    """
    dtype = np.float32 if value.dtype == np.float16 else value.dtype
    return np.require(value, dtype=dtype, requirements=["C", "W"])
