"""Write a full-size checkpoint of random weights, to measure size, time and memory for real.

    python tools/make_checkpoint.py --like 3.2-1B --output random-1B

The folder has Hugging Face's layout: bfloat16 shards, index, config. The same seed gives the same
bytes. Weights are written in blocks, so memory does not grow with the model. It writes nonsense
when it is run; add the real vocabulary with `--tokenizer tokenizer.model`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod, sqrt
from pathlib import Path
from typing import BinaryIO

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from llama_export.checkpoints.hugging_face_files import INDEX_FILE, SINGLE_FILE
from llama_export.errors import ConfigError, LlamaExportError, OutputError
from llama_export.llama.config import LlamaConfig
from llama_export.llama.names import expected_shapes
from llama_export.llama.presets import PRESETS

BLOCK_ELEMENTS = 1 << 24
ITEM_BYTES = torch.bfloat16.itemsize
RESIDUAL = re.compile(r".*\.(o_proj|down_proj)\.weight")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def write_checkpoint(
    config: LlamaConfig,
    output: Path,
    *,
    seed: int = 0,
    shard_size_bytes: int = 10**9,
    std: float = 0.02,
    tokenizer: Path | None = None,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Write a random bfloat16 checkpoint.

    Norms are ones. What is added to the residual stream (`o_proj`, `down_proj`) is drawn narrower
    by the square root of the number of additions, as GPT-2 does, so that its size does not grow
    with depth.

    Args:
        config: shape of the model.
        output: folder that does not exist yet; it appears when it is complete.
        seed: seed of all weights; a tensor's values depend on it and on the tensor's name alone.
        shard_size_bytes: size of the largest shard, unless a single tensor is larger.
        std: standard deviation of the weights.
        tokenizer: file that is copied in as tokenizer.model.
        progress: function that is called with the number of bytes written so far.

    Raises:
        OutputError: the output exists or cannot be written.
        ConfigError: the tokenizer does not exist, or a number makes no sense.
    """
    if output.exists() or output.is_symlink():
        message = f"{output} exists"
        raise OutputError(message, "name another --output, or remove it first")
    if tokenizer is not None and not tokenizer.is_file():
        message = f"the tokenizer {tokenizer} does not exist"
        raise ConfigError(message, "name a tokenizer.model, or leave --tokenizer out")
    if shard_size_bytes < 1 or not 0 < std < float("inf"):
        message = f"shard size and std must be positive, found {shard_size_bytes} and {std}"
        raise ConfigError(message)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as work:
            folder = Path(work) / output.name
            folder.mkdir()
            _write_json(folder / "config.json", config.to_hf())
            if tokenizer is not None:
                shutil.copyfile(tokenizer, folder / "tokenizer.model")
            _write_weights(config, folder, seed, shard_size_bytes, std, progress)
            folder.rename(output)
    except OSError as error:
        message = f"{output} cannot be written: {error.strerror or error}"
        raise OutputError(message, "free some space, or name another --output") from None


def _write_weights(
    config: LlamaConfig,
    folder: Path,
    seed: int,
    shard_size_bytes: int,
    std: float,
    progress: Callable[[int], None],
) -> None:
    shapes = expected_shapes(config)
    shards = plan_shards(shapes, shard_size_bytes)
    names = [SINGLE_FILE]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
        index = {
            tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard
        }
        total = ITEM_BYTES * sum(prod(shape) for shape in shapes.values())
        _write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": index})
    done = 0
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            _write_header(file, shard)
            for tensor, shape in shard.items():
                narrow = sqrt(2 * config.num_hidden_layers) if RESIDUAL.fullmatch(tensor) else 1.0
                for block in _random_blocks(tensor, prod(shape), seed, std / narrow):
                    file.write(block.view(torch.uint8).numpy().tobytes())
                    done += block.nbytes
                    progress(done)


def plan_shards(
    shapes: Mapping[str, tuple[int, ...]], shard_size_bytes: int
) -> list[dict[str, tuple[int, ...]]]:
    """Assign the tensors to shards in order; a new shard begins before one would be too large."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size_bytes = 0
    for name, shape in shapes.items():
        tensor_bytes = ITEM_BYTES * prod(shape)
        if shards[-1] and size_bytes + tensor_bytes > shard_size_bytes:
            shards.append({})
            size_bytes = 0
        shards[-1][name] = shape
        size_bytes += tensor_bytes
    return shards


def _write_header(file: BinaryIO, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Write a safetensors header: 8 bytes of length, then JSON padded with spaces."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + ITEM_BYTES * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    file.write(len(raw).to_bytes(8, "little") + raw)


def _random_blocks(name: str, elements: int, seed: int, std: float) -> Iterator[torch.Tensor]:
    """Yield a tensor's elements in order, bfloat16; each block overwrites the one before."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    buffer = torch.empty(min(elements, BLOCK_ELEMENTS), dtype=torch.bfloat16)
    for start in range(0, elements, BLOCK_ELEMENTS):
        block = buffer[: elements - start]
        if name.endswith("norm.weight"):
            yield block.fill_(1.0)
        else:
            yield block.normal_(0.0, std, generator=generator)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def parse_size(text: str) -> int:
    """Parse a size such as `500MB` or `1GB`, in decimal units, into bytes.

    Raises:
        ConfigError: the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B)?", text.strip().upper())
    if match is None:
        message = f"--shard-size must be a size such as 500MB or 1GB, found {text!r}"
        raise ConfigError(message)
    return int(float(match[1]) * UNITS[match[2] or ""])


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--like", required=True, help=f"The shape: {', '.join(PRESETS)}.")
@click.option("--output", type=PATH, required=True, help="A folder that does not exist yet.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same seed gives the same bytes."
)
@click.option("--shard-size", default="1GB", show_default=True, help="The largest shard.")
@click.option("--layers", type=click.IntRange(min=1), help="Write fewer layers.")
@click.option(
    "--std", type=float, default=0.02, show_default=True, help="Standard deviation of the weights."
)
@click.option("--tokenizer", type=PATH, help="Copy in this tokenizer.model.")
def main(
    like: str,
    output: Path,
    seed: int,
    shard_size: str,
    layers: int | None,
    std: float,
    tokenizer: Path | None,
) -> None:
    """Write a full-size checkpoint of random weights."""
    console = Console(stderr=True)
    try:
        if like not in PRESETS:
            message = f"there is no shape called {like!r}: use {', '.join(PRESETS)}"
            raise ConfigError(message)
        config = PRESETS[like]
        if layers is not None:
            config = replace(config, num_hidden_layers=layers)
        columns = (TextColumn("random {task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(like, total=ITEM_BYTES * config.num_parameters)
            write_checkpoint(
                config,
                output,
                seed=seed,
                shard_size_bytes=parse_size(shard_size),
                std=std,
                tokenizer=tokenizer,
                progress=lambda done: bar.update(task, completed=done),
            )
    except LlamaExportError as error:
        console.print(f"error: {error.message}", markup=False, highlight=False)
        if error.hint:
            console.print(f"  {error.hint}", markup=False, highlight=False)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
