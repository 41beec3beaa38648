"""Time the Core ML evaluator on a package in the shape of Llama 3.2 1B, with random weights.

    python benchmarks/evaluator.py --threads 2

The package has int4 weights in groups of 32, an int8 table that serves both embedding and head, and
a KV cache as states. `--package` measures an existing one, whose function `main` takes `inputIds`
and `causalMask` and keeps `keyCache` and `valueCache`.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np

from coreml_evaluator import Evaluator, EvaluatorState

Var: TypeAlias = Any  # coremltools has no types
GROUP = 32
HIDDEN = np.float16(-3e4)
EPSILON = np.float32(1e-5)


@dataclass(frozen=True)
class Shape:
    """The sizes that decide the cost; by default those of Llama 3.2 1B."""

    layers: int = 16
    hidden: int = 2048
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 64
    intermediate: int = 8192
    vocab: int = 128256
    context: int = 2048


class _Graph:
    """Writer of the program: a Llama with random weights."""

    def __init__(self, shape: Shape) -> None:
        from coremltools.converters.mil.mil import Builder
        from coremltools.converters.mil.mil.types.type_mapping import (
            nptype_from_builtin,
            string_to_builtin,
        )

        self.mb: Var = Builder
        self.shape = shape
        self._int4 = nptype_from_builtin(string_to_builtin("int4"))
        self._random = np.random.default_rng(0)

    def linear(self, x: Var, rows: int, columns: int) -> Var:
        codes = self._random.integers(-8, 8, (rows, columns), dtype=np.int8).view(self._int4)
        scale = self._random.uniform(0.5, 1.5, (rows, columns // GROUP)) * 0.2 / np.sqrt(columns)
        weight = self.mb.constexpr_blockwise_shift_scale(data=codes, scale=scale.astype(np.float16))
        return self.mb.linear(x=x, weight=weight)

    def table(self) -> Var:
        shape = (self.shape.vocab, self.shape.hidden)
        codes = self._random.integers(-127, 128, shape, dtype=np.int8)
        scale = np.full((self.shape.vocab, 1), 3e-4, np.float16)
        return self.mb.constexpr_blockwise_shift_scale(data=codes, scale=scale)

    def norm(self, x: Var) -> Var:
        mb = self.mb
        wide = mb.cast(x=x, dtype="fp32")
        mean = mb.reduce_mean(x=mb.square(x=wide), axes=[-1], keep_dims=True)
        return mb.cast(x=mb.mul(x=wide, y=mb.rsqrt(x=mean, epsilon=EPSILON)), dtype="fp16")

    def heads(self, x: Var, count: int) -> Var:
        split = self.mb.reshape(x=x, shape=[1, -1, count, self.shape.head_dim])
        return self.mb.transpose(x=split, perm=[0, 2, 1, 3])

    def rotate(self, x: Var, cos: Var, sin: Var) -> Var:
        mb = self.mb
        low, high = mb.split(x=x, num_splits=2, axis=-1)
        turned = mb.concat(values=[mb.mul(x=high, y=np.float16(-1)), low], axis=-1)
        return mb.add(x=mb.mul(x=x, y=cos), y=mb.mul(x=turned, y=sin))

    def cached(self, state: Var, cache: Var, new: Var, layer: int, start: Var, end: Var) -> Var:
        """Write a layer's rows; return the cache, and the layer's rows so far."""
        mb, shape = self.mb, self.shape
        ends = [[layer + 1], [1], [shape.kv_heads], end, [shape.head_dim]]
        updated = mb.slice_update(
            x=cache,
            update=mb.expand_dims(x=new, axes=[0]),
            begin=mb.concat(values=[[layer], [0], [0], start, [0]], axis=0),
            end=mb.concat(values=ends, axis=0),
        )
        cache = mb.coreml_update_state(state=state, value=updated)
        rows = mb.slice_by_index(
            x=cache,
            begin=[layer, 0, 0, 0, 0],
            end=mb.concat(values=ends, axis=0),
            squeeze_mask=[True, False, False, False, False],
        )
        return cache, rows

    def main(self, inputIds: Var, causalMask: Var, keyCache: Var, valueCache: Var) -> Var:
        mb, shape = self.mb, self.shape
        new = mb.slice_by_index(x=mb.shape(x=inputIds), begin=[1], end=[2])
        end = mb.slice_by_index(x=mb.shape(x=causalMask), begin=[3], end=[4])
        start = mb.sub(x=end, y=new)
        first, last = (mb.squeeze(x=value, axes=[0]) for value in (start, end))
        positions = mb.range_1d(start=first, end=last, step=1)
        slots = mb.range_1d(start=0, end=last, step=1)
        seen = mb.less_equal(
            x=mb.expand_dims(x=slots, axes=[0]), y=mb.expand_dims(x=positions, axes=[1])
        )
        hidden = mb.mul(x=mb.sub(x=np.float16(1), y=mb.cast(x=seen, dtype="fp16")), y=HIDDEN)
        mask = mb.minimum(x=mb.expand_dims(x=hidden, axes=[0, 1]), y=causalMask)
        groups = shape.heads // shape.kv_heads
        mask = mb.tile(x=mask, reps=[1, 1, groups, 1])
        angles = np.outer(np.arange(shape.context), 5e5 ** -(np.arange(0, 1, 2 / shape.head_dim)))
        tables = [np.tile(f(angles), 2).astype(np.float16) for f in (np.cos, np.sin)]
        cos, sin = (mb.gather(x=table, indices=positions, axis=0) for table in tables)
        table = self.table()
        x = mb.gather(x=table, indices=inputIds, axis=0)
        keys, values = mb.read_state(input=keyCache), mb.read_state(input=valueCache)
        for layer in range(shape.layers):
            normed = self.norm(x)
            kv_width = shape.kv_heads * shape.head_dim
            query = self.heads(self.linear(normed, shape.hidden, shape.hidden), shape.heads)
            key = self.heads(self.linear(normed, kv_width, shape.hidden), shape.kv_heads)
            value = self.heads(self.linear(normed, kv_width, shape.hidden), shape.kv_heads)
            key = self.rotate(key, cos, sin)
            keys, seen_keys = self.cached(keyCache, keys, key, layer, start, end)
            values, seen_values = self.cached(valueCache, values, value, layer, start, end)
            folded = mb.reshape(
                x=self.rotate(query, cos, sin), shape=[1, shape.kv_heads, -1, shape.head_dim]
            )
            found = mb.scaled_dot_product_attention(
                query=folded, key=seen_keys, value=seen_values, attn_mask=mask
            )
            found = mb.reshape(x=found, shape=[1, shape.heads, -1, shape.head_dim])
            found = mb.transpose(x=found, perm=[0, 2, 1, 3])
            found = mb.reshape(x=found, shape=[1, -1, shape.hidden])
            x = mb.add(x=x, y=self.linear(found, shape.hidden, shape.hidden))
            normed = self.norm(x)
            gate = mb.silu(x=self.linear(normed, shape.intermediate, shape.hidden))
            up = self.linear(normed, shape.intermediate, shape.hidden)
            down = self.linear(mb.mul(x=gate, y=up), shape.hidden, shape.intermediate)
            x = mb.add(x=x, y=down)
        return mb.linear(x=self.norm(x), weight=table, name="logits")


def write_package(path: Path, shape: Shape) -> None:
    """Build the program with coremltools and save it."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types

    q, m, e = get_new_symbol(), get_new_symbol(), get_new_symbol()
    cache = (shape.layers, 1, shape.kv_heads, shape.context, shape.head_dim)
    specs = {
        "inputIds": mb.placeholder((1, q), types.int32),
        "causalMask": mb.placeholder((1, 1, m, e), types.fp16),
        "keyCache": mb.state_tensor_placeholder(cache, types.fp16),
        "valueCache": mb.state_tensor_placeholder(cache, types.fp16),
    }
    with Function(specs, ct.target.iOS18) as function:
        function.set_outputs([_Graph(shape).main(**function.inputs)])
    sizes = [ct.RangeDim(1, shape.context, 1) for _ in range(3)]
    function.set_input_types(
        (
            ct.TensorType("inputIds", (1, sizes[0]), np.int32),
            ct.TensorType("causalMask", (1, 1, sizes[1], sizes[2]), np.float16),
        )
    )
    program = Program()
    program.add_function("main", function)
    ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    ).save(str(path))


def call(evaluator: Evaluator, state: EvaluatorState, ids: list[int], position: int) -> float:
    """Append tokens and return the time in seconds."""
    inputs = {
        "inputIds": np.array([ids], np.int32),
        "causalMask": np.zeros((1, 1, 1, position + len(ids)), np.float16),
    }
    began = time.perf_counter()
    evaluator.predict(inputs, state)
    return time.perf_counter() - began


def measure(package: Path, mode: str, threads: int | None, prompt: int, steps: int) -> None:
    """Print one mode's times."""
    began = time.perf_counter()
    evaluator = Evaluator.open(package, mode=mode, threads=threads)
    opened_s = time.perf_counter() - began
    state = evaluator.make_state()
    first_s = call(evaluator, state, list(range(1, prompt + 1)), 0)
    again = evaluator.make_state()
    prefill_s = call(evaluator, again, list(range(1, prompt + 1)), 0)
    decode_s = statistics.median(
        call(evaluator, state, [7], prompt + step) for step in range(steps)
    )
    resident_gb = resident_bytes() / 1e9  # before the file is mapped a second time
    print(  # noqa: T201
        f"{mode:>5} {opened_s:8.2f} {first_s:14.2f} {prefill_s:10.2f} "
        f"{decode_s:10.2f} {decode_s / read_s(package):10.1f} {resident_gb:8.2f}"
    )


def read_s(package: Path) -> float:
    """Return the time that it takes to add up the bytes of the weights, in seconds."""
    weights = np.memmap(next(package.rglob("weight.bin")), np.uint8, "r")
    began = time.perf_counter()
    weights.sum()
    return time.perf_counter() - began


def resident_bytes() -> int:
    """Return the most bytes that this process has held in memory, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PATH = click.Path(path_type=Path)


@click.command()
@click.option("--package", type=PATH, help="Measure this one.")
@click.option(
    "--layers", type=int, default=16, show_default=True, help="Of the package that is made."
)
@click.option("--threads", type=int, help="Of the evaluator.")
@click.option("--prompt", type=int, default=20, show_default=True, help="Tokens of the prefill.")
@click.option("--steps", type=int, default=8, show_default=True, help="Decode steps.")
@click.option("--mode", default="fp16", show_default=True, help="fp16 or fp32.")
@click.option("--keep", type=PATH, help="Only make the package, here.")
def main(
    package: Path | None,
    layers: int,
    threads: int | None,
    prompt: int,
    steps: int,
    mode: str,
    keep: Path | None,
) -> None:
    """Measure the given package, or one that is made for the purpose."""
    if keep is not None:
        write_package(keep, Shape(layers=layers))
        return
    print(" mode   open s first prefill s  prefill s  decode s  reads of it  peak GB")  # noqa: T201
    if package is not None:
        measure(package, mode, threads, prompt, steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "model.mlpackage"
        write_package(made, Shape(layers=layers))
        measure(made, mode, threads, prompt, steps)


if __name__ == "__main__":
    main()
