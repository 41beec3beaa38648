"""An `.mlpackage` folder: its manifest, its model, its weight files.

Every path that is named inside the package must stay inside it. This module knows folders and the
outermost message; it does not know what a program computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from coreml_evaluator.blob import BlobFile
from coreml_evaluator.messages import Message, read_model
from llama_export.errors import BundleError
from llama_quantize.strict_json import parse_object

# iOS 15 brought ML Programs; 10 is what coremltools 9 writes for iOS 26.
_FIRST_VERSION, _LAST_VERSION = 6, 10
_MODEL_PATH = "@model_path/"
_DAMAGED = "the package is damaged: make it again"


@dataclass(frozen=True)
class Package:
    """An opened package.

    Args:
        root: the `.mlpackage` folder.
        model_file: path of the `model.mlmodel`.
        model: parsed `Model` message, which holds an ML Program.
    """

    root: Path
    model_file: Path
    model: Message
    _blobs: dict[str, BlobFile] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Package:
        """Read a package's manifest and model; weights are mapped on demand.

        Raises:
            BundleError: a file is missing, damaged or outside the package, or the model is not an
                ML Program of a known version.
        """
        root = Path(path)
        model_file = _inside(root, PurePosixPath("Data") / _model_path(root))
        model = read_model(_content(model_file), str(model_file))
        _require_program(model, model_file)
        return cls(root, model_file, model)

    def blobs(self, name: str) -> BlobFile:
        """Map a weight file by the name that the program gives it.

        Raises:
            BundleError: the file is missing, damaged, or outside the package.
        """
        if name not in self._blobs:
            if not name.startswith(_MODEL_PATH):
                message = (
                    f"{self.model_file}: expected a weight file under {_MODEL_PATH}, found {name!r}"
                )
                raise BundleError(
                    message,
                    _DAMAGED,
                )
            folder = self.model_file.parent.relative_to(self.root)
            relative = PurePosixPath(folder.as_posix()) / name.removeprefix(_MODEL_PATH)
            self._blobs[name] = BlobFile.open(_inside(self.root, relative))
        return self._blobs[name]


def _model_path(root: Path) -> str:
    """Return the root model's path below `Data`, as the manifest gives it."""
    file = root / "Manifest.json"
    try:
        manifest = parse_object(_content(file))
        path = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (ValueError, KeyError, TypeError) as error:
        message = (
            f"{file}: expected JSON with `rootModelIdentifier` and its entry in "
            f"`itemInfoEntries`, found {type(error).__name__}: {error}"
        )
        raise BundleError(
            message,
            _DAMAGED,
        ) from error
    if not isinstance(path, str):
        message = f"{file}: expected a path of the root model, found {path!r}"
        raise BundleError(message, _DAMAGED)
    return path


def _inside(root: Path, relative: PurePosixPath) -> Path:
    """Return a path in the package; refuse one that leads out of it, be it by a link."""
    path = root / relative
    parts = relative.parts
    leads_out = relative.is_absolute() or ".." in parts or any("\\" in part for part in parts)
    try:
        leads_out = leads_out or not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL, too long
        message = f"{root}: the path {str(relative)!r} cannot be used: {error}"
        raise BundleError(message, _DAMAGED) from error
    if leads_out:
        message = f"{root}: the path {relative} leads out of the package"
        raise BundleError(message, _DAMAGED)
    return path


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror or error}"
        raise BundleError(
            message,
            "a package is a folder with a Manifest.json and Data/com.apple.CoreML/model.mlmodel",
        ) from error


def _require_program(model: Message, path: Path) -> None:
    version = model.specificationVersion
    if version > _LAST_VERSION:
        message = f"{path}: expected a specification version up to {_LAST_VERSION}, found {version}"
        raise BundleError(
            message,
            "it was made for a newer Core ML than this version of llama-export knows",
        )
    if version < 1:
        message = f"{path}: not a Core ML model: it has no version"
        raise BundleError(message, _DAMAGED)
    if not model.HasField("mlProgram"):
        kinds = [name for name in ("neuralNetwork", "pipeline") if model.HasField(name)]
        found = kinds[0] if kinds else "another kind of model"
        message = f"{path}: expected an ML Program, found {found}"
        raise BundleError(
            message,
            "convert the model with convert_to='mlprogram'",
        )
    if version < _FIRST_VERSION:
        message = (
            f"{path}: expected a specification version from {_FIRST_VERSION} on, found {version}"
        )
        raise BundleError(
            message,
            _DAMAGED,
        )
