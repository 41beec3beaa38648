"""The wheel and the source distribution hold what the tree holds, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "coreml_evaluator": ROOT / "export",
    "llama_export": ROOT / "export",
    "llama_quantize": ROOT / "quantize",
    "optimum": ROOT / "integrations",
}
# Tops of the tree that the source distribution takes; .gitignore and PKG-INFO are hatchling's.
SDIST_TOPS = {"export", "quantize", "integrations", "tests", "tools", "docs"}
SDIST_FILES = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml"}
MADE_BY_HATCHLING = {".gitignore", "PKG-INFO"}
LEFTOVERS = ("__pycache__", ".pyc", ".DS_Store", ".egg-info", ".orig", ".rej", "~")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="needs hatchling, of the test group"
)


def is_leftover(path: Path) -> bool:
    return any(part.endswith(LEFTOVERS) for part in path.parts)


def files_below(folder: Path, base: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    relative = (path.relative_to(base) for path in found)
    return {path.as_posix() for path in relative if not is_leftover(path)}


def build(target: str, tree: Path, output: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(output)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory) -> Path:
    """The wheel, built from the source distribution as an installer would."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_files(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_packages_of_the_tree_and_nothing_else(wheel_files):
    expected = set().union(*(files_below(root / name, root) for name, root in SOURCES.items()))
    metadata = {name for name in wheel_files if name.split("/")[0].endswith(".dist-info")}
    assert wheel_files - metadata == expected


def test_the_wheel_only_adds_a_file_to_optimums_namespace(wheel_files):
    """An `__init__.py` on the way would hide optimum itself."""
    added = {name for name in wheel_files if name.startswith("optimum/")}
    assert added == {"optimum/commands/register/register_llama_export.py"}


@pytest.mark.parametrize(
    "needed",
    [
        "llama_export/py.typed",
        "llama_quantize/py.typed",
        "llama_export/demo/config.json",
        "llama_export/demo/model.safetensors",
        "llama_export/demo/tokenizer.model",
        "llama_export/demo/README.md",
    ],
)
def test_the_wheel_holds_the_data(wheel_files, needed):
    assert needed in wheel_files


def test_the_wheel_holds_the_licence_and_the_command(wheel, wheel_files):
    (licence,) = (name for name in wheel_files if name.endswith(".dist-info/licenses/LICENSE"))
    (points,) = (name for name in wheel_files if name.endswith(".dist-info/entry_points.txt"))
    (metadata,) = (name for name in wheel_files if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        assert "llama-export = llama_export.cli.app:" in archive.read(points).decode()
        head = archive.read(metadata).decode().splitlines()
    assert "License-Expression: Apache-2.0" in head
    assert "Requires-Dist: torch==2.13.0" in head


def test_the_source_distribution_has_no_stray_file(unpacked):
    expected = set(SDIST_FILES)
    for top in SDIST_TOPS:
        expected |= files_below(ROOT / top, ROOT)
    assert files_below(unpacked, unpacked) - MADE_BY_HATCHLING == expected


def test_the_version_is_the_packages_own(wheel):
    init = (ROOT / "export/llama_export/version.py").read_text(encoding="utf-8")
    (line,) = (line for line in init.splitlines() if line.startswith("__version__"))
    version = line.split('"')[1]
    assert wheel.name == f"llama_export-{version}-py3-none-any.whl"


def test_the_quantiser_imports_from_the_wheel_without_the_exporter(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    lines = (
        "import sys",
        f"sys.path.insert(0, {str(tmp_path)!r})",
        "import llama_quantize.recipe, llama_quantize.checkpoint.weights",
        "print(llama_quantize.__file__, 'llama_export' in sys.modules, sep='\\n')",
    )
    command = [sys.executable, "-I", "-c", "; ".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    origin, pulled_in = done.stdout.splitlines()
    assert Path(origin).is_relative_to(tmp_path)
    assert pulled_in == "False"
