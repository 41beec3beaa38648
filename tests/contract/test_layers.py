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
MOST_PARAMETERS = 7
MOST_ARROWS = 112
MOST_SMALL_MODULES, SMALL_LINES = 15, 60
FOREIGN = re.compile(r"(Give|Gives|Say|Says|Tell|Tells)\b")
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


def long_signatures(source: str) -> list[str]:
    """Name the public functions that take more than seven parameters, `self` not counted."""
    found = []
    for node in public_functions(ast.parse(source)):
        taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if len([each for each in taken if each.arg not in ("self", "cls")]) > MOST_PARAMETERS:
            found.append(node.name)
    return found


def foreign_docstrings(source: str) -> list[str]:
    """Name what has a docstring that begins as no imperative of ours begins."""
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, named)]
    return [node.name for node in nodes if FOREIGN.match(ast.get_docstring(node) or "")]


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
    assert foreign_docstrings(source) == []
    # click passes a verb its options by name; there the list is the command line's own.
    assert long_signatures(source) == [] or "cli" in path.parts
    assert ast.get_docstring(ast.parse(source)), (
        "a module says what it does and what it does not know"
    )


def test_the_rules_see_what_they_forbid():
    assert open_keywords("class A:\n    def run(self, **options): ...\n") == ["run"]
    assert open_keywords("def _inner(**options): ...\n") == []
    assert assertions("x = 1\nassert x\n") == [2]
    assert long_signatures("def f(a, b, c, d, e, *, f, g, h): ...\n") == ["f"]
    assert long_signatures("class A:\n    def f(self, a, b, c, d, e, f, g): ...\n") == []
    assert foreign_docstrings('def f():\n    """Give a name."""\n') == ["f"]
    assert foreign_docstrings('def f():\n    """Given a name, return it."""\n') == []


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of_ours() -> dict[str, set[str]]:
    """Return which of our modules each of them imports, inside functions as well."""
    names = {module_name(path): path for path in MODULES}
    found: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= (whole & names.keys()) or ({node.module} & names.keys())
    return found


def room_of(name: str) -> str:
    """Return the top folder that a module is in; a module at a package's root is its own."""
    package, _, rest = name.partition(".")
    return f"{package}.{rest.partition('.')[0]}" if package == "llama_export" else package


def arrows(imports: dict[str, set[str]]) -> set[tuple[str, str]]:
    pairs = {(room_of(a), room_of(b)) for a, targets in imports.items() for b in targets}
    return {(a, b) for a, b in pairs if a != b}


def height(room: str, below: dict[str, set[str]], path: tuple[str, ...] = ()) -> int:
    """Return how many levels of rooms stand on each other down from a room."""
    assert room not in path, f"a circle: {' > '.join([*path, room])}"
    return 1 + max((height(each, below, (*path, room)) for each in below[room]), default=0)


def test_the_rooms_are_few_levels_with_few_arrows_and_no_circle():
    """The package's own root is a door: it leads everywhere, and nothing leads to it."""
    imports = imports_of_ours()
    found = {pair for pair in arrows(imports) if "llama_export." not in pair}
    assert len(found) <= MOST_ARROWS
    below = {room: {b for a, b in found if a == room} for pair in found for room in pair}
    assert 5 <= max(height(room, below) for room in below) <= 10
    assert not any("llama_export" in targets for targets in imports.values())
    with pytest.raises(AssertionError, match="a circle: a > b > a"):
        height("a", {"a": {"b"}, "b": {"a"}})


def test_few_small_modules_have_one_reader():
    imports = imports_of_ours()
    readers = {name: [a for a in imports if name in imports[a]] for name in imports}
    small = [
        name
        for name in (module_name(path) for path in MODULES if path.name != "__init__.py")
        if len(readers[name]) == 1 and lines_of(name) < SMALL_LINES
    ]
    assert len(small) <= MOST_SMALL_MODULES, small


def lines_of(name: str) -> int:
    (path,) = (path for path in MODULES if module_name(path) == name)
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize(
    ("module", "name"),
    [("plan", "plan_export"), ("pipeline", "run_export"), ("pipeline", "_export_target")],
)
def test_the_pipeline_reads_like_the_picture(module, name):
    path = ROOT / "export" / "llama_export" / "exporting" / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (function,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    # Its docstring comes first, and does not count.
    assert function.end_lineno - function.body[0].end_lineno < MOST_PIPELINE_LINES


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
        (
            "export/llama_export/targets/onnx/layout.py",
            "def f():\n    import llama_export.targets.coreml.names",
            "targets never see each other",
        ),
        (
            "export/llama_export/targets/onnx/reading/describe.py",
            "def f():\n    import llama_export.targets.onnx.lowering.data",
            "an ONNX artifact is read without",
        ),
        (
            "export/llama_export/targets/executorch/reading/describe.py",
            "def f():\n    import llama_export.targets.executorch.xnnpack.plan",
            "a .pte is read without",
        ),
        (
            "export/llama_export/targets/coreml/reading/describe.py",
            "def f():\n    import llama_export.targets.coreml.lowering.toolkit",
            "a Core ML package is read without",
        ),
        (
            "quantize/llama_quantize/methods/nearest.py",
            "def f():\n    import llama_quantize.checkpoint.store",
            "methods, which know no file",
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
