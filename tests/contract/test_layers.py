"""The layout rules: import contracts, size of files, names, signatures; each has a twin."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Packages whose name on the index is another.
PROVIDED_BY = {"google": "protobuf"}
ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted([*(ROOT / "export").rglob("*.py"), *(ROOT / "quantize").rglob("*.py")])
MOST_LINES = 350
MOST_PIPELINE_LINES = 60
# Names that say where code was put and not what it does.
BANNED_NAMES = {
    "base",
    "common",
    "core",
    "helper",
    "helpers",
    "lib",
    "misc",
    "shared",
    "util",
    "utils",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def public_functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = [
        n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return [n for n in functions if not n.name.startswith("_") or n.name == "__init__"]


def open_keywords(source: str) -> list[str]:
    """Name the public functions that take `**kwargs`."""
    return [node.name for node in public_functions(ast.parse(source)) if node.args.kwarg]


def assertions(source: str) -> list[int]:
    """Lines of `assert`, which `python -O` removes."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


def test_there_are_modules_to_check():
    assert {"export/llama_export/llama/model.py", "quantize/llama_quantize/recipe.py"} <= {
        relative(path) for path in MODULES
    }


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_keeps_the_rules(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    assert path.stem not in BANNED_NAMES
    assert path.parent.name not in BANNED_NAMES
    assert open_keywords(source) == []
    assert assertions(source) == []
    assert ast.get_docstring(ast.parse(source)), (
        "a module says what it does and what it does not know"
    )


def test_the_rules_see_what_they_forbid():
    assert open_keywords("class A:\n    def run(self, **options): ...\n") == ["run"]
    assert open_keywords("def _inner(**options): ...\n") == []
    assert assertions("x = 1\nassert x\n") == [2]


def test_the_pipeline_reads_like_the_picture():
    tree = ast.parse(
        (ROOT / "export/llama_export/exporting/pipeline.py").read_text(encoding="utf-8")
    )
    (function,) = (n for n in public_functions(tree) if n.name == "export_bundle")
    assert function.end_lineno - function.lineno < MOST_PIPELINE_LINES


def imported_packages(source: str) -> set[str]:
    """Name the top packages that a module imports anywhere, the standard library left out."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found - sys.stdlib_module_names


def test_every_imported_package_is_declared():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = project.split("\ndependencies = [", 1)[1].split("[project.scripts]", 1)[0]
    names = {name.replace("-", "_") for name in re.findall(r'"([A-Za-z0-9_-]+)[><=]', declared)}
    imported = set().union(*(imported_packages(path.read_text("utf-8")) for path in MODULES))
    imported = {PROVIDED_BY.get(name, name) for name in imported}
    assert imported - names == {"coreml_evaluator", "llama_export", "llama_quantize"}
    assert imported_packages("import os\ndef f():\n    from psutil import Process\n") == {"psutil"}


def layered_modules() -> set[str]:
    """Return what the layers name: module and package names below llama_export, one level."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = project.split("layers = [\n", 1)[1].split("]\n", 1)[0]
    return set(re.findall(r"llama_export\.(\w+)", layers))


def test_every_module_has_its_layer():
    package = ROOT / "export/llama_export"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in package.glob("*/__init__.py")}
    assert modules | packages == layered_modules(), "add it to the layers in pyproject.toml"


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    roots = os.pathsep.join(str(tree / root) for root in ("export", "quantize"))
    call = "sys.exit(lint_imports(no_cache=True))"
    code = f"import sys; from importlinter.cli import lint_imports; {call}"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied_tree(tmp_path) -> Path:
    for root in ("export", "quantize"):
        ignored = shutil.ignore_patterns("__pycache__", "demo")
        shutil.copytree(ROOT / root, tmp_path / root, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


needs_import_linter = pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None,
    reason="needs import-linter, of the test group",
)


@needs_import_linter
def test_the_import_contracts_hold():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@needs_import_linter
@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        (
            "export/llama_export/errors.py",
            "import llama_export.exporting.pipeline",
            "one direction",
        ),
        ("quantize/llama_quantize/recipe.py", "import llama_export.errors", "stands alone"),
        (
            "export/llama_export/llama/config.py",
            "def f():\n    import onnx",
            "onnx and onnxruntime",
        ),
        (
            "export/llama_export/verification/measure/metrics.py",
            "def f():\n    import llama_export.verification.judge.terms",
            "measures, then judges",
        ),
        ("export/llama_export/llama/config.py", "import transformers", "the tests' oracle"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(copied_tree, module, line, contract):
    with (copied_tree / module).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    done = lint_imports(copied_tree)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [each for each in done.stdout.splitlines() if " BROKEN" in each]
    assert any(contract in each for each in broken), done.stdout
