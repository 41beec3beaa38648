"""Peers' environments and artifacts: onnxruntime-genai's builder and llama.cpp, as users get them.

Each peer gets a virtual environment of its own from the package index. llama.cpp's converter is in
the source archive of llama-cpp-python, so that is taken too. Everything is kept in one work folder
and made once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import Measurement, measure

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
GENAI = ("onnxruntime==1.31.1", "onnxruntime-genai==0.18.0", "onnx_ir==1.1.0", "transformers>=5")
# What llama.cpp's script needs besides; it runs in the same environment as the builder.
CONVERTER = ("gguf", "sentencepiece", "safetensors")
LLAMA_CPP = "llama-cpp-python==0.3.36"
# Q4_0 with an 8-bit table, which is the nearest that llama.cpp has to our recipe.
QUANTIZE = """
import ctypes, sys
import llama_cpp
chosen = llama_cpp.llama_model_quantize_default_params()
chosen.nthread = 2
chosen.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
chosen.token_embedding_type = llama_cpp.GGML_TYPE_Q8_0
chosen.output_tensor_type = llama_cpp.GGML_TYPE_Q8_0
source, result = (name.encode() for name in sys.argv[1:])
sys.exit(llama_cpp.llama_model_quantize(source, result, ctypes.byref(chosen)))
"""


@dataclass(frozen=True)
class Artifact:
    """An exporter's result, with its measurement.

    Args:
        path: folder of a bundle, or a GGUF file.
        size_bytes: size of everything there.
    """

    path: Path
    size_bytes: int
    took: Measurement


class Workshop:
    """The work folder: environments, the checkpoint, and the artifacts made from it."""

    def __init__(
        self, folder: Path, tokenizer: Path, like: str, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._like = like
        self._say = say
        folder.mkdir(parents=True, exist_ok=True)

    def environment(self, name: str, packages: Sequence[Sequence[str]]) -> Path:
        """Return the Python of an environment that holds the packages; it is made once."""
        place = self._folder / "environments" / name
        python = place / "bin" / "python"
        if not (place / "ready").exists():
            self._say(f"environment {name}")
            venv.create(place, with_pip=True, clear=True)
            for group in packages:
                subprocess.run([python, "-m", "pip", "install", "--quiet", *group], check=True)
            (place / "ready").touch()
        return python

    def genai_python(self) -> Path:
        """Return the Python that has onnxruntime-genai and what its builder needs."""
        return self.environment("genai", [[TORCH], [*GENAI, *CONVERTER]])

    def llama_python(self) -> Path:
        """Return the Python that has llama-cpp-python, compiled for this machine."""
        return self.environment("llama", [[LLAMA_CPP, "numpy"]])

    def checkpoint(self) -> Path:
        """Write a full-size random checkpoint, once."""
        place = self._folder / "checkpoint"
        if not (place / "config.json").exists():
            self._say(f"random checkpoint like {self._like}")
            make = [sys.executable, str(ROOT / "tools" / "make_checkpoint.py")]
            make += ["--like", self._like, "--output", str(place)]
            self._run([*make, "--tokenizer", str(self._tokenizer)], "checkpoint")
        return place

    def ours(self, group_size: int, target: str = "onnx", options: Sequence[str] = ()) -> Artifact:
        """Export with the real command line."""
        name = f"ours-g{group_size}" if target == "onnx" else f"ours-{target}-g{group_size}"
        output = self._folder / name
        shutil.rmtree(output, ignore_errors=True)
        self._say(f"our export to {target}, groups of {group_size}")
        command = [sys.executable, "-m", "llama_export", "--target", target, "--no-verify"]
        command += ["--model", str(self.checkpoint()), "--output", str(output)]
        command += ["--group-size", str(group_size), "--quality", "fast"]
        command += ["--no-keep-weights", *options]
        took = self._run(command, name)
        return Artifact(output / target, _size_bytes(output / target), took)

    def genai(self, side_files: Path, *, last_logits: bool) -> Artifact:
        """Export with onnxruntime-genai's builder: its own int4, for the CPU.

        Args:
            side_files: folder that holds the tokenizer.
            last_logits: true to compute the head for the last position alone, as ours does; by
                default the builder computes it for every position of a prefill.
        """
        name = "genai-last" if last_logits else "genai"
        output = self._folder / name
        shutil.rmtree(output, ignore_errors=True)
        python, source = self.genai_python(), self._hugging_face(side_files)
        self._say("onnxruntime-genai's builder")
        command = [str(python), "-m", "onnxruntime_genai.models.builder", "-m", ""]
        command += ["-i", str(source), "-o", str(output), "-p", "int4", "-e", "cpu"]
        command += ["-c", str(self._folder / "cache"), "--extra_options", "shared_embeddings=true"]
        command += ["int4_block_size=32", "int4_accuracy_level=4"]
        command += ["prune_lm_head=true"] if last_logits else []
        took = self._run(command, name)
        return Artifact(output, _size_bytes(output), took)

    def llama_cpp(self, side_files: Path) -> Artifact:
        """Convert to GGUF with llama.cpp's script and quantise to Q4_0 with a Q8_0 table."""
        whole, output = self._folder / "bf16.gguf", self._folder / "q4_0.gguf"
        converter, python = self.genai_python(), self.llama_python()
        source = self._hugging_face(side_files)
        self._say("llama.cpp's converter and quantiser")
        script = self._llama_source() / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
        convert = [str(converter), str(script), str(source), "--outfile", str(whole)]
        first = self._run([*convert, "--outtype", "bf16"], "convert")
        second = self._run([str(python), "-c", QUANTIZE, str(whole), str(output)], "quantize")
        whole.unlink()
        took = Measurement(
            first.elapsed_s + second.elapsed_s,
            max(first.peak_anonymous_bytes, second.peak_anonymous_bytes),
            max(first.peak_resident_bytes, second.peak_resident_bytes),
        )
        return Artifact(output, output.stat().st_size, took)

    def _hugging_face(self, side_files: Path) -> Path:
        """Copy the checkpoint to the hub's layout, without Meta's file, which misleads peers."""
        place = self._folder / "hugging-face"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        checkpoint = self.checkpoint()
        names = [path for path in checkpoint.iterdir() if path.name != "tokenizer.model"]
        extra = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
        for path in [*names, *(side_files / name for name in extra)]:
            link = place / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
        return place

    def _llama_source(self) -> Path:
        place = self._folder / "llama-source"
        if not place.exists():
            self._say("llama.cpp's source archive")
            fetched = self._folder / "fetched"
            download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            python = str(self.llama_python())
            subprocess.run([python, *download, LLAMA_CPP, "-d", str(fetched)], check=True)
            archive = next(fetched.glob("llama_cpp_python-*.tar.gz"))
            with tarfile.open(archive) as tar:
                tar.extractall(place, filter="data")
        return next(place.iterdir())

    def _run(self, command: Sequence[str], log: str) -> Measurement:
        paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
        # Only our own programs may see our packages: a peer has its own environment.
        ours = command[0] == sys.executable
        os.environ.pop("PYTHONPATH", None)
        if ours:
            os.environ["PYTHONPATH"] = paths
        return measure(command, self._folder / f"{log}.log")


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
