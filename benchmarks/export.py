"""Measure the export of full-size random checkpoints: time, memory, size, loading.

    python benchmarks/export.py --like 3.2-1B --like 3.2-3B --tokenizer tokenizer.model

Writes the checkpoint once (2.5 GB for 1B, 6.4 GB for 3B) and removes it afterwards, runs the real
command line in processes of its own, and prints JSON. The output folder needs twice that space.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from measure import Measurement, measure

ROOT = Path(__file__).resolve().parent.parent
LOAD = """
import sys, time
sys.path.insert(0, {benchmarks!r})
from pathlib import Path
from measure import memory_of
from llama_export.bundle.bundle import Bundle
from llama_export.targets import registry
from llama_export.targets.stored import StoredArtifact
import os
bundle = Bundle.open(Path({bundle!r}))
begun = time.perf_counter()
session = registry.get(bundle.manifest.target).open_session(StoredArtifact.of(bundle))
loaded_s = time.perf_counter() - begun
anonymous, resident = memory_of(os.getpid())
prompt = list(range(1000, 1128))
begun = time.perf_counter(); session.prefill(prompt); prefill_s = time.perf_counter() - begun
begun = time.perf_counter()
for token in range(32): session.prefill([token])
decode_s = time.perf_counter() - begun
import json
print(json.dumps({{"load_s": loaded_s, "anonymous_bytes": anonymous, "resident_bytes": resident,
    "prefill_tokens_per_s": 128 / prefill_s, "decode_tokens_per_s": 32 / decode_s}}))
"""


def run_python(code: str) -> dict[str, float]:
    """Run code in a process of its own and return the JSON that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure_export(checkpoint: Path, output: Path, options: list[str]) -> Measurement:
    """Run the command line once, into a fresh folder."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "llama_export", "--target", "onnx", "--model"]
    command += [str(checkpoint), "--output", str(output), *options]
    return measure(command, output.with_suffix(".log"))


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--tokenizer", type=PATH, required=True, help="A Llama 3 tokenizer.model.")
@click.option("--like", multiple=True, required=True, help="Shapes to measure.")
@click.option("--work", type=PATH, help="Folder for the big files.")
@click.option("--group-size", type=int, default=32, show_default=True, help="Of the int4 weights.")
def main(
    tokenizer: Path,
    like: tuple[str, ...],
    work: Path | None,
    group_size: int,
) -> None:
    """Measure and print."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    os.environ["PYTHONPATH"] = paths
    results: dict[str, object] = {"cores": os.cpu_count(), "machine": platform.machine()}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for shape in like:
            checkpoint, output = Path(folder) / "checkpoint", Path(folder) / "out"
            make = [sys.executable, str(ROOT / "tools" / "make_checkpoint.py"), "--like", shape]
            make += ["--output", str(checkpoint), "--tokenizer", str(tokenizer)]
            made = measure(make, Path(folder) / "make.log")
            options = ["--group-size", str(group_size), "--quality", "fast"]
            bare = measure_export(checkpoint, output, [*options, "--no-verify"])
            verified = measure_export(checkpoint, output, options)
            bundle = output / "onnx"
            sizes = {path.name: path.stat().st_size for path in sorted(bundle.iterdir())}
            code = LOAD.format(benchmarks=str(ROOT / "benchmarks"), bundle=str(bundle))
            results[shape] = {
                "make_checkpoint": asdict(made),
                "export": asdict(bare),
                "export_and_verify": asdict(verified),
                "files": sizes,
                "bundle_bytes": sum(sizes.values()),
                "loaded": run_python(code),
            }
            shutil.rmtree(checkpoint)
            shutil.rmtree(output)
    click.echo(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
