"""What a calibration will take, before any work: time, memory and disk, from the shape alone.

It adds up the arithmetic of each part (text that the model writes, hidden states on their way
through the layers, sums over them, the search for codes, curvature) and divides by the speeds that
were measured. It is right within a half or so. It knows no machine and imports no torch.

Shapes: K columns of a weight, N rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llama_export.calibration.options import WINDOW_TOKENS, curvature_tokens
from llama_export.llama.config import LlamaConfig
from llama_quantize.recipe import METHODS_WITHOUT_INPUTS, QUALITIES

# All that was measured: seconds of one core for 10^9 floating-point operations, for a layer of one
# token of all texts, and for a column of a weight.
_WRITING_S = 1 / 220
_STEP_S = 3e-3
_STREAMING_S = 1 / 75
_SUMMING_S = 1 / 96
_SOLVING_S = 1 / 130
_GRADIENT_S = 1 / 75
_COLUMN_S = 40e-6
_COUPLED_COLUMN_S = 31e-6

# What is fixed by the methods and by the streams: see `methods/` and `calibration/`.
_SWEEPS = 4
_COUPLED_ROWS = 64
_COUPLED_PANEL = 4096
_MOST_CURVATURE_ROWS = 4096
_CHUNK_TOKENS, _HEAD_TOKENS = 2048, 256
_WRITING_CACHE_BYTES = 1_100_000_000
_PROGRAM_BYTES = 400_000_000
_MOST_CORES = 8
_F32, _F64, _BF16 = 4, 8, 2


@dataclass(frozen=True)
class CalibrationCost:
    """What one calibration takes.

    Args:
        tokens: number of tokens that are read.
        elapsed_s: time; about.
        memory_bytes: peak memory, mapped files not counted; about.
        scratch_bytes: what the disk holds while it runs, and until its result is in place.
        kept_bytes: size of its tokens, which stay with the weights.
    """

    tokens: int
    elapsed_s: float
    memory_bytes: int
    scratch_bytes: int
    kept_bytes: int

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "tokens": self.tokens,
            "elapsed_s": round(self.elapsed_s, 1),
            "memory_bytes": self.memory_bytes,
            "scratch_bytes": self.scratch_bytes,
        }


def calibration_cost(
    config: LlamaConfig, methods: Mapping[str, str], tokens: int, cores: int
) -> CalibrationCost | None:
    """Estimate a calibration; None: no method asks for one.

    Args:
        config: shape of the model.
        methods: name of the method of each tensor that gets codes.
        tokens: number of tokens that were asked for.
        cores: number of the machine's cores.
    """
    found = frozenset(methods.values()) - frozenset(METHODS_WITHOUT_INPUTS)
    if not found:
        return None
    coupled = QUALITIES["best"] in found
    window = min(WINDOW_TOKENS, config.longest_context)
    shape = _Shape(config, max(1, tokens // window) * window, window)
    most = curvature_tokens(config.num_parameters)
    curved = min(shape.tokens, max(1, most // window) * window) if coupled else 0
    shared = shape.writing_s() + shape.streaming_s() + shape.solving_s(coupled=coupled)
    work_s = shared + shape.curvature_s(curved)
    calls_s = shape.calls_s(coupled=coupled)
    held = (shape.writing_bytes(), shape.layer_bytes(), shape.curvature_bytes() if curved else 0)
    curvature = shape.curvature_files_bytes() if curved else 0
    left = curvature + max(shape.streams_bytes() + shape.codes_bytes(), shape.states_bytes(curved))
    return CalibrationCost(
        tokens=shape.tokens,
        elapsed_s=work_s / min(cores, _MOST_CORES) + calls_s,
        memory_bytes=_PROGRAM_BYTES + max(held),
        scratch_bytes=max(left, config.num_parameters * _BF16),
        kept_bytes=shape.tokens * 4,
    )


@dataclass(frozen=True)
class _Shape:
    """A model, with the tokens that go through it and the tokens of a window."""

    config: LlamaConfig
    tokens: int
    window: int

    @property
    def attended(self) -> int:
        return self.config.num_attention_heads * self.config.head_dim

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """N and K of the seven products of a layer."""
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        shared = self.config.num_key_value_heads * self.config.head_dim
        return (
            (self.attended, hidden),
            (shared, hidden),
            (shared, hidden),
            (hidden, self.attended),
            (inner, hidden),
            (inner, hidden),
            (hidden, inner),
        )

    @property
    def layer_work(self) -> float:
        """Operations of a token in a layer, the attention over half of a window included."""
        weights = sum(rows * columns for rows, columns in self.linears)
        return 2.0 * weights + 2.0 * self.attended * self.window

    def writing_s(self) -> float:
        """Seconds that the model needs to write its text."""
        steps = self.config.num_hidden_layers * self.window * self._rounds()
        return _WRITING_S * 2e-9 * self.config.num_parameters * self.tokens + _STEP_S * steps

    def streaming_s(self) -> float:
        """Seconds of two streams, and of the sums over them."""
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        # What lacks behind a product that is added takes that product once more.
        lacking = 2.0 * hidden * (self.attended + inner)
        # Of a square that is its own mirror image half is computed.
        squares = (2 * hidden**2 + self.attended**2 + inner**2) / 2
        crosses = 2 * hidden**2 + hidden * (self.attended + inner)
        each = _STREAMING_S * (2 * self.layer_work + lacking)
        each += _SUMMING_S * 2.0 * (squares + crosses)
        return 1e-9 * each * self.tokens * self.config.num_hidden_layers

    def solving_s(self, *, coupled: bool) -> float:
        """Seconds of the search for codes and scales, without what each call takes."""
        work = 0.0
        for rows, columns in self.linears:
            # Two factors; the target, the feedback, and the sweeps.
            work += 2 / 3 * columns**3 + 3.0 * rows * columns**2
            if coupled and rows <= _MOST_CURVATURE_ROWS:
                sweep = 2.0 * rows * columns**2 + 2.0 * columns * rows**2
                work += _SWEEPS * (sweep + _COUPLED_PANEL * rows * columns)
            else:
                work += _SWEEPS * 4.0 * rows * columns**2
        return _SOLVING_S * 1e-9 * work * self.config.num_hidden_layers

    def curvature_s(self, tokens: int) -> float:
        """Seconds of the way forward and back for so many tokens."""
        sums = sum(2.0 * rows**2 for rows in self._curved_rows())
        layers = self.config.num_hidden_layers * (3 * self.layer_work + sums)
        head = 4.0 * self.config.num_logits * self.config.hidden_size
        return _GRADIENT_S * 1e-9 * (layers + head) * tokens

    def calls_s(self, *, coupled: bool) -> float:
        """Seconds of small calls, which more cores do not shorten."""
        layers, calls = self.config.num_hidden_layers, 0.0
        for rows, columns in self.linears:
            calls += _COLUMN_S * columns
            if coupled and rows <= _MOST_CURVATURE_ROWS:
                calls += _SWEEPS * _COUPLED_COLUMN_S * columns * -(-rows // _COUPLED_ROWS)
            else:
                calls += _SWEEPS * _COLUMN_S * columns
        return layers * calls

    def writing_bytes(self) -> int:
        """Memory of the texts that are written at once: their keys and values, and logits."""
        logits = self._at_once() * self.config.num_logits * (_F32 + _F64)
        return self._at_once() * self._cache_bytes() + logits

    def layer_bytes(self) -> int:
        """Memory of a layer in both streams, of the sums of its widest input, and of a search."""
        layer = sum(rows * columns for rows, columns in self.linears) * _F32
        rows, columns = max(self.linears, key=lambda each: (each[1], each[0]))
        # Sums and what is returned of them; then damped sums, their factor, and a factor's target.
        summed = (columns**2 + rows * columns) * (_F64 + _F32)
        solved = 3 * columns**2 * _F32 + 6 * rows * columns * _F32
        chunk = 4 * _CHUNK_TOKENS * self.config.intermediate_size * _F32
        return 2 * layer + max(summed, solved) + chunk

    def curvature_bytes(self) -> int:
        """Memory of a layer on the way back, and of the sums at its outputs."""
        layer = sum(rows * columns for rows, columns in self.linears) * _F32
        sums = sum(rows**2 for rows in self._curved_rows()) * _F64
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        chunk = _CHUNK_TOKENS * (10 * hidden + 6 * inner) * _F32
        head = 3 * _HEAD_TOKENS * self.config.num_logits * _F32
        return max(layer + sums + chunk, head)

    def streams_bytes(self) -> int:
        """Disk of the hidden states of two streams."""
        wide = 3 * self.config.hidden_size + self.attended + self.config.intermediate_size
        return 2 * wide * self.tokens * _F32

    def codes_bytes(self) -> int:
        """Disk of the codes of all layers, at a byte each at most, with their scales."""
        weights = sum(rows * columns for rows, columns in self.linears)
        return round(1.1 * weights * self.config.num_hidden_layers)

    def states_bytes(self, tokens: int) -> int:
        """Disk of the hidden states that curvature is measured with, gone when it is."""
        return _F32 * (self.config.num_hidden_layers + 2) * tokens * self.config.hidden_size

    def curvature_files_bytes(self) -> int:
        """Disk of the curvature of all layers."""
        each = sum(rows**2 for rows in self._curved_rows())
        return _F32 * self.config.num_hidden_layers * each

    def _curved_rows(self) -> Iterable[int]:
        return (rows for rows, _ in self.linears if rows <= _MOST_CURVATURE_ROWS)

    def _cache_bytes(self) -> int:
        shared = self.config.num_key_value_heads * self.config.head_dim
        return 2 * _BF16 * self.config.num_hidden_layers * shared * self.window

    def _at_once(self) -> int:
        """Return how many texts are written side by side."""
        held = self.config.num_parameters * _BF16 // 3
        most = max(1, max(_WRITING_CACHE_BYTES, held) // self._cache_bytes())
        return min(self.tokens // self.window, most)

    def _rounds(self) -> int:
        return -(-(self.tokens // self.window) // self._at_once())
