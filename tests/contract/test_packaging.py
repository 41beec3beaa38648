"""The wheel and the source distribution hold what the tree holds, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from artifacts.distributions import PLUGIN, build, names_in, run_alone, split_metadata, unpack

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "coreml_evaluator": ROOT / "export",
    "llama_export": ROOT / "export",
    "llama_quantize": ROOT / "quantize",
}
# What the source distribution takes of the tree; .gitignore and PKG-INFO are hatchling's.
SDIST_FOLDERS = {
    "apps",
    "docs",
    "examples",
    "export",
    "integrations",
    "quantize",
    "tests",
    "tools",
}
SDIST_FILES = {
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "RELEASING.md",
    "SECURITY.md",
    "pyproject.toml",
}
MADE_BY_HATCHLING = {".gitignore", "PKG-INFO"}
LEFTOVERS = ("__pycache__", ".pyc", ".DS_Store", ".egg-info", ".orig", ".rej", "~")
MOST_WHEEL_BYTES = 11_000_000  # of which the demo's weights are 9.2 million

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="needs hatchling, of the test group"
)


def is_leftover(path: Path) -> bool:
    # `build` is what Maven makes of examples/java, where somebody ran it.
    return any(part == "build" or part.endswith(LEFTOVERS) for part in path.parts)


def files_below(folder: Path, base: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    relative = (path.relative_to(base) for path in found)
    return {path.as_posix() for path in relative if not is_leftover(path)}


@pytest.fixture(scope="module")
def unpacked_sdist(tmp_path_factory) -> Path:
    sdist = build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(unpacked_sdist, tmp_path_factory) -> Path:
    """The wheel, built from the source distribution as an installer would."""
    return build("wheel", unpacked_sdist, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_files(wheel) -> set[str]:
    return names_in(wheel)


@pytest.fixture(scope="module")
def unpacked_wheel(wheel, tmp_path_factory) -> Path:
    return unpack(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def plugin_wheel(unpacked_sdist, tmp_path_factory) -> Path:
    """The plug-in's wheel; the source distribution of llama-export carries its sources."""
    return build("wheel", unpacked_sdist / PLUGIN, tmp_path_factory.mktemp("plugin"))


def test_the_wheel_holds_the_packages_of_the_tree_and_nothing_else(wheel_files):
    expected = set().union(*(files_below(root / name, root) for name, root in SOURCES.items()))
    packages, _ = split_metadata(wheel_files)
    assert packages == expected


@pytest.mark.parametrize(
    "needed",
    [
        "coreml_evaluator/py.typed",
        "llama_export/py.typed",
        "llama_quantize/py.typed",
        "llama_export/demo/config.json",
        "llama_export/demo/model.safetensors",
        "llama_export/demo/tokenizer.model",
        "llama_export/demo/README.md",
        "llama_export/bundle/schemas/manifest.schema.json",
        "llama_export/exporting/phones.json",
        "llama_export/serving/page/page.html",
        "llama_export/serving/page/page.mjs",
        "llama_export/verification/report/report.schema.json",
        "llama_export/verification/report/page.css",
        "llama_export/verification/report/page.html.jinja",
    ],
)
def test_the_wheel_holds_the_data(wheel_files, needed):
    assert needed in wheel_files


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size <= MOST_WHEEL_BYTES


def test_the_wheel_holds_the_licence_and_the_command(wheel, wheel_files):
    (licence,) = (name for name in wheel_files if name.endswith(".dist-info/licenses/LICENSE"))
    (points,) = (name for name in wheel_files if name.endswith(".dist-info/entry_points.txt"))
    (metadata,) = (name for name in wheel_files if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        assert "llama-export = llama_export.cli.main:" in archive.read(points).decode()
        head = archive.read(metadata).decode().splitlines()
    assert "License-Expression: Apache-2.0" in head
    assert "Requires-Dist: torch==2.13.0" in head


def test_the_source_distribution_has_no_stray_file(unpacked_sdist):
    expected = set(SDIST_FILES)
    for folder in SDIST_FOLDERS:
        expected |= files_below(ROOT / folder, ROOT)
    assert files_below(unpacked_sdist, unpacked_sdist) - MADE_BY_HATCHLING == expected


def test_the_version_is_the_packages_own(wheel):
    init = (ROOT / "export/llama_export/version.py").read_text(encoding="utf-8")
    (line,) = (line for line in init.splitlines() if line.startswith("__version__"))
    version = line.split('"')[1]
    assert wheel.name == f"llama_export-{version}-py3-none-any.whl"


def test_the_quantiser_imports_from_the_wheel_without_the_exporter(unpacked_wheel):
    lines = (
        "import sys",
        f"sys.path.insert(0, {str(unpacked_wheel)!r})",
        "import llama_quantize.recipe, llama_quantize.checkpoint.weights",
        "print(llama_quantize.__file__, 'llama_export' in sys.modules, sep='\\n')",
    )
    command = [sys.executable, "-I", "-c", "; ".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    origin, pulled_in = done.stdout.splitlines()
    assert Path(origin).is_relative_to(unpacked_wheel)
    assert pulled_in == "False"


# --- optimum ---


def test_optimum_is_not_there_where_only_our_wheel_is(wheel_files, unpacked_wheel):
    assert not [name for name in wheel_files if name.split("/")[0] == "optimum"]
    done = run_alone(unpacked_wheel, "import llama_export", "import optimum")
    assert done.returncode == 1
    assert "No module named 'optimum'" in done.stderr


def test_the_plugins_wheel_is_what_makes_it_importable(plugin_wheel, tmp_path):
    """The test above can fail: this is what a wheel with the plug-in in it would do."""
    folder = unpack(plugin_wheel, tmp_path)
    assert run_alone(folder, "import optimum").returncode == 0


def test_the_plugins_wheel_adds_one_file_to_optimums_folder(plugin_wheel):
    """An `__init__.py` on the way would hide optimum itself."""
    packages, metadata = split_metadata(names_in(plugin_wheel))
    assert packages == {"optimum/commands/register/register_llama_export.py"}
    assert {name.split("/", 1)[1] for name in metadata} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "licenses/LICENSE",
    }


def test_the_plugin_belongs_to_this_version_and_to_optimum(wheel, plugin_wheel):
    _, version, _ = wheel.name.split("-", 2)
    assert plugin_wheel.name == f"llama_export_optimum-{version}-py3-none-any.whl"
    folder = f"llama_export_optimum-{version}.dist-info"
    with zipfile.ZipFile(plugin_wheel) as archive:
        head = archive.read(f"{folder}/METADATA").decode().splitlines()
        assert archive.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert f"Requires-Dist: llama-export=={version}" in head
    assert [line for line in head if line.startswith("Requires-Dist: optimum")]
