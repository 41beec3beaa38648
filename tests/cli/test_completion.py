"""Completion: the scripts that shells load, and what they are offered, in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llama_export.cli.completion import SHELLS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "torch numpy rich onnx onnxruntime coremltools executorch transformers"
# Completes the line that its arguments are, as Tab at its end would.
ASK_BASH = """
eval "$(llama-export --show-completion bash)"
complete -p llama-export > /dev/null || exit 1
compopt() { echo "compopt $2"; }
COMP_WORDS=(llama-export "$@"); COMP_CWORD=$#; COMPREPLY=()
_llama_export_completion llama-export
printf '%s\\n' "${COMPREPLY[@]}"
"""
ASK_FISH = """
llama-export --show-completion fish | source
complete --do-complete "llama-export --target o"
"""
PROGRAM = """#!{python}
import sys
from llama_export.cli.main import main
try:
    main()
finally:
    heavy = set({heavy!r}.split()) & set(sys.modules)
    if heavy and "COMP_WORDS" in __import__("os").environ:
        print("plain,HEAVY", *heavy)
"""


@pytest.fixture
def shell(tmp_path):
    """Return a function that runs a script in a shell where the program is installed."""
    program = tmp_path / "bin" / "llama-export"
    program.parent.mkdir()
    program.write_text(PROGRAM.format(python=sys.executable, heavy=HEAVY))
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("export", "quantize")),
        "HOME": str(tmp_path),
    }

    def call(name: str, *words: str) -> list[str]:
        done = subprocess.run(
            [name, *words], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return call


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_no_recipe_apart(shell):
    """readline asks with words that are cut where this variable says."""
    script = 'eval "$(llama-export --show-completion bash)"; printf "%q\\n" "$COMP_WORDBREAKS"'
    assert ":" not in "".join(shell("bash", "-c", f"COMP_WORDBREAKS=':='; {script}"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ge", ["generate"]),
        ("--target on", ["onnx"]),
        ("--target ", ["onnx", "executorch", "coreml", "all"]),
        ("--target onnx,", ["onnx,executorch", "onnx,coreml"]),
        ("-t onnx --model 3.2-1", ["3.2-1B", "3.2-1B-Instruct"]),
        ("-t onnx --model 3.2-1b-i", ["3.2-1B-Instruct"]),
        ("-t onnx --model ./", ["compopt", "default"]),
        ("-t onnx --quantize in", ["int4", "int8"]),
        ("export --target coreml --dry", ["--dry-run"]),
        ("chat x --overflow d", ["drop-oldest"]),
        ("sensitivity --model dem", ["demo"]),
        ("-t onnx --quantize int4:g", []),
        ("zzz", []),
    ],
)
def test_bash_is_offered_what_fits(shell, line, offered):
    begun = line.split(" ")
    assert shell("bash", "-c", ASK_BASH, "bash", *begun) == offered


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_is_offered_what_fits(shell):
    assert shell("fish", "-c", ASK_FISH) == ["onnx"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_takes_the_script(shell):
    script = 'autoload -U compinit; compinit -D; eval "$(llama-export --show-completion zsh)"'
    found = shell("zsh", "-fc", f"{script}; echo $_comps[llama-export]")
    assert found == ["_llama_export_completion"]


@pytest.mark.parametrize("shell_name", SHELLS)
def test_each_script_asks_this_program(command, shell_name):
    code, out, err = command("--show-completion", shell_name)
    assert (code, err) == (0, "")
    assert f"_LLAMA_EXPORT_COMPLETE={shell_name}_complete" in out
    assert "llama-export" in out


def test_another_shell_is_refused(command):
    code, out, err = command("--show-completion", "tcsh")
    assert (code, out) == (2, "")
    assert "'bash', 'zsh', 'fish'" in err
