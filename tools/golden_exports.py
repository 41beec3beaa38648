"""Export the demo in every form and hash what was written: the bytes that a change must not change.

    python3 tools/golden_exports.py tests/contract/golden_exports.json

Run it in the environment that has every toolkit. `tests/contract/test_golden_exports.py` compares;
record again only where a change of bytes is meant, and say why in its commit. The manifest, the
record of the weights, the card and its record are left out: they name versions, and their formats
have tests of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What decides the bytes besides our own code.
TOOLKITS = ("coremltools", "executorch", "onnx", "protobuf", "torch", "torchao")
LEFT_OUT = ("manifest.json", "quantization.json", "README.md", "repository.json")
CASES: Mapping[str, str] = {
    "onnx int4": "--target onnx",
    "onnx int8": "--target onnx --quantize int8",
    "onnx bf16": "--target onnx --quantize bf16",
    "onnx fp16": "--target onnx --quantize fp16",
    "onnx in groups of 64, all logits, exact": "--target onnx --group-size 64 --all-logits "
    "--accuracy-level 1",
    "coreml int4": "--target coreml",
    "coreml int8": "--target coreml --quantize int8",
    "coreml fp16": "--target coreml --quantize fp16",
    "coreml, cache as inputs": "--target coreml --kv-cache io",
    "coreml, two functions": "--target coreml --functions prefill+decode",
    "coreml for iOS 17": "--target coreml --deployment-target iOS17 --quantize fp16 --kv-cache io",
    "executorch int4": "--target executorch",
    "executorch, cache as inputs": "--target executorch --kv-cache io",
    "executorch, float16 cache": "--target executorch --kv-dtype float16",
    "executorch, table twice, all logits": "--target executorch --no-share-table --all-logits",
    "executorch for Vulkan": "--target executorch --delegate vulkan",
    "all, int4 table": "--target all --table int4",
}


def installed() -> dict[str, str]:
    """Return the versions of the toolkits, and the processor: equal ones give equal bytes."""
    found = {"machine": platform.machine()}
    for name in TOOLKITS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def export_and_hash(options: str) -> dict[str, str]:
    """Export the demo with the command line, unchecked; return each file's sha256 by its path.

    Raises:
        RuntimeError: the export failed; the message is what it said.
    """
    paths = os.pathsep.join(str(ROOT / root) for root in ("export", "quantize"))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "demo"
        command = [sys.executable, "-m", "llama_export", *options.split()]
        if not any(floats in options for floats in ("bf16", "fp16")):
            command += ["--quality", "fast"]  # the one that has the same bytes on every machine
        done = subprocess.run(
            [*command, "--model", "demo", "--output", str(output), "--no-verify"],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        files = sorted(path for path in output.rglob("*") if path.is_file())
        return {
            path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.name not in LEFT_OUT
        }


def main() -> int:
    """Run every case and write the file."""
    parser = argparse.ArgumentParser(description="Hash what the exports of the demo write.")
    parser.add_argument("output", type=Path, help="the JSON file")
    output: Path = parser.parse_args().output
    exports = {}
    for name, options in CASES.items():
        print(name, file=sys.stderr, flush=True)
        exports[name] = {"options": options, "files": export_and_hash(options)}
    text = json.dumps({"made_with": installed(), "exports": exports}, indent=1)
    output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
