"""What `runtime` uses of coremltools 9, on any system: strict where the real one is, and recorded.

Written after its source: `coremltools/models/model.py`, and `coremlpython/*.mm` for what only a Mac
has. The real signatures are held against the recorded calls in test_coreml_runtime.
"""

from __future__ import annotations

import enum
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from fakes.coreml import CACHES, FakePackage

from coreml_evaluator import messages

REFUSED = 'Error compiling model: "unknown operator".'


class ComputeUnit(enum.Enum):
    ALL = 1
    CPU_AND_GPU = 2
    CPU_ONLY = 3
    CPU_AND_NE = 4


def wrapped(value: np.ndarray) -> np.ndarray:
    """Take an array as `PybindCompatibleArray` does: by its memory, to write to as well."""
    if value.dtype not in (np.int32, np.float32, np.float64) or not value.flags.writeable:
        message = "value type not convertible"
        raise RuntimeError(message)
    return value


class MLState:
    """The real one's constructor takes a proxy too."""

    def __init__(self, proxy) -> None:
        self.proxy = proxy

    def read_state(self, name):
        if name not in CACHES:
            message = f"{name} is not a state"
            raise RuntimeError(message)
        return self.proxy.read_state(name).astype(np.float32)

    def write_state(self, name, value):
        self.proxy.write_state(name, wrapped(value).astype(np.float16))


def write_package(path: Path, form: str) -> Path:
    """Write what is read of a package before Core ML loads it: its default function's name."""
    model = messages._model_class()()
    model.specificationVersion = 9
    model.mlProgram.version = 1
    model.description.defaultFunctionName = "decode" if form == "fixed" else ""
    path.mkdir()
    (path / "Data").mkdir()
    (path / "Data/model.mlmodel").write_bytes(model.SerializeToString())
    entry = {"rootModelIdentifier": "1", "itemInfoEntries": {"1": {"path": "model.mlmodel"}}}
    (path / "Manifest.json").write_text(json.dumps(entry))
    return path


class Toolkit:
    """The module `coremltools`, for one package.

    Args:
        package: what Core ML would compute.
        refuse: Core ML cannot compile it.
    """

    def __init__(self, package: FakePackage, *, refuse: bool = False) -> None:
        self.package = package
        self.refuse = refuse
        self.fault = ""
        self.loads: list[tuple[tuple, dict]] = []
        self.predicts: list[tuple[tuple, dict]] = []
        self.given: list[dict[str, np.ndarray]] = []
        self.models = SimpleNamespace(MLModel=self._load)
        self.ComputeUnit = ComputeUnit

    def _load(self, *args, **kwargs):
        self.loads.append((args, kwargs))
        return MLModel(self, *args, **kwargs)


class MLModel:
    """One function of a package."""

    def __init__(self, toolkit, model, *, compute_units=ComputeUnit.ALL, function_name=None):
        assert type(model) is str
        assert isinstance(compute_units, ComputeUnit)
        several = toolkit.package.form == "fixed"
        if function_name is not None and not several and function_name != "main":
            message = 'function_name must be "main" for non multifunction model'
            raise ValueError(message)
        self.toolkit = toolkit
        self.function = (function_name or "decode") if several else None
        self.loaded = not toolkit.refuse
        if toolkit.refuse:
            words = "You will not be able to run predict() on this Core ML model."
            warnings.warn(
                f"{words} Underlying exception message was: {REFUSED}", RuntimeWarning, stacklevel=2
            )

    def get_compiled_model_path(self):
        if not self.loaded:
            message = "This model was not loaded or compiled with the Core ML Framework."
            raise Exception(message)  # the bare class, as the real one does
        return "compiled.mlmodelc"

    def make_state(self):
        if self.toolkit.package.form == "io":
            message = "no states"
            raise RuntimeError(message)
        return MLState(self.toolkit.package.make_state())

    def predict(self, *args, **kwargs):
        self.toolkit.predicts.append((args, kwargs))
        return self._predict(*args, **kwargs)

    def _predict(self, data, state=None):
        assert type(data) is dict
        assert state is None or isinstance(state, MLState)
        if self.toolkit.fault:
            raise RuntimeError(self.toolkit.fault)
        self.toolkit.given.append(dict(data))
        for name, value in data.items():
            if value.dtype == np.float16:
                data[name] = value.astype(np.float32)
        inputs = {
            name: wrapped(value).astype(np.int32 if value.dtype == np.int32 else np.float16)
            for name, value in data.items()
        }
        proxy = None if state is None else state.proxy
        results = self.toolkit.package.predict(inputs, proxy, function=self.function)
        return {name: value.astype(np.float32) for name, value in results.items()}
