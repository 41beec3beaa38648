"""Reports made by hand: one that passed, one that failed, one with next to nothing checked."""

from __future__ import annotations

import dataclasses
import math

from llama_export.verification.estimate import Estimate
from llama_export.verification.findings import Divergence, PlotData, TensorFigure
from llama_export.verification.identity import Identity
from llama_export.verification.rows import VerifyReport, informed, judged, unchecked, warned

ROWS = (
    judged("structure", "files", "files that differ from the manifest", 0, 0),
    judged("lowering", "kl_exact", "mean KL in float32, nats", 7.3e-13, 1e-5, "750 positions"),
    informed("lowering", "top1_exact", "same most likely token in float32", 1.0),
    judged("session", "rewind", "a token given again", 0.0, 1e-3),
    informed(
        "activation", "kl_activation", "mean KL of the rounding, nats", Estimate(1.8e-4, 2.1e-5)
    ),
    informed("activation", "top1_activation", "same most likely token", 0.9849),
    judged("activation", "kl_shipped", "mean KL as shipped, nats", 1.9e-4, 2e-3, "int8"),
    judged(
        "quantisation",
        "kl_quantisation",
        "mean KL of 4-bit weights, nats",
        Estimate(0.0107, 0.0009, 1000),
        0.5,
    ),
    informed(
        "quantisation", "top1_quantisation", "same most likely token", Estimate(0.928, 0.008, 1000)
    ),
    informed("quantisation", "perplexity_checkpoint", "perplexity", Estimate(12.31, 0.82, 1000)),
    informed("quantisation", "perplexity_quantised", "perplexity", Estimate(12.53, 0.84, 1000)),
    informed("quantisation", "perplexity_ratio", "their ratio", Estimate(1.0179, 0.0031, 1000)),
)
PLOT_DATA = PlotData(
    kl_by_position={
        "quantisation": tuple(0.01 + 0.001 * (i % 7) for i in range(500)),
        "activation": tuple(1e-4 + 1e-5 * (i % 5) for i in range(500)),
        "lowering_shipped": tuple(2e-4 + 1e-5 * (i % 3) for i in range(500)),
        "lowering_exact": (0.0,) * 400,
    },
    tensors=(
        TensorFigure("model.embed_tokens.weight", 8, 41.55, 1_056_768),
        TensorFigure("model.layers.1.mlp.down_proj.weight", 4, 21.5, 36_864),
        TensorFigure("model.layers.0.self_attn.q_proj.weight", 4, 20.25, 36_864),
        TensorFigure("model.norm.weight", 16, None, 512),
    ),
    logit_scatter=tuple((math.sin(i), math.sin(i) + 0.01 * math.cos(i)) for i in range(2000)),
    sizes_bytes={"int4 linears": 2_700_000, "scales": 540_000, "norms and the rest": 4_000},
    memory_bytes={"after loading": 360_000_000, "peak while verifying": 1_210_000_000},
)
IDENTITY = Identity(
    recipe="int4",
    group_size=32,
    bits_per_weight=5.25,
    methods=("gptq_descent",),
    calibration={},
    source="meta-llama/Llama-3.2-1B",
    commit="4e20de362430cd3b72f300e6b0f18e50e7166e08",
    versions={"llama-export": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
    exported_with={"llama-export": "0.1.0", "python": "3.12.1", "torch": "2.13.0"},
    system="Linux, x86_64",
    processor="A processor, 2 logical cores",
    date="2026-11-29T02:00:00Z",
    command="llama-export verify demo/onnx --checkpoint demo",
)
PASSED = VerifyReport(
    target="onnx",
    model="demo",
    settings={"quick": False, "text": "built-in", "text_sha256": "5a" * 32, "positions": 1000},
    rows=ROWS,
    measurements={
        "lowering_exact": {"positions": 750, "kl_mean": 7.3e-13, "fault": ""},
        "quantisation": {
            "positions": 1000,
            "kl_mean": 0.0107,
            "kl_p90": 0.0241,
            "kl_p99": 0.131,
            "kl_max": 1.25,
            "fault": "",
        },
    },
    plot_data=PLOT_DATA,
    identity=IDENTITY,
)
LITTLE_GAINED = dataclasses.replace(
    PASSED,
    rows=(
        *ROWS,
        informed("quantisation", "kl_rounding", "mean KL of plain rounding, nats", 0.0143),
        informed("quantisation", "top1_rounding", "same token after plain rounding", 0.9136),
        warned("quantisation", "gain_over_rounding", "KL over rounding's", 0.748, 0.9, "little"),
        informed("quantisation", "calibration", "tokens for gptq_descent", 32768, "sha256 5a5a"),
    ),
    measurements=PASSED.measurements | {"rounding": {"positions": 1000, "kl_mean": 0.0143}},
)
DIVERGENCE = Divergence(
    layer=3,
    operator="model.layers.3.self_attn.q_proj",
    value="/layers.3/qkv/output",
    error=0.1234,
    limit=1e-4,
    detail="output row 17 differs most, at position 5: its scale is 1.01 times what it should be",
    others=("model.layers.5.mlp.down_proj",),
)
FAILED = dataclasses.replace(
    PASSED,
    rows=(
        ROWS[0],
        judged("lowering", "kl_exact", "mean KL in float32, nats", math.inf, 1e-5, "a NaN"),
        *ROWS[2:],
    ),
    divergence=DIVERGENCE,
)
ALONE = VerifyReport(
    target="onnx",
    model="demo",
    settings={"quick": True, "text": "built-in", "positions": 32},
    rows=(
        ROWS[0],
        unchecked(
            "structure",
            "codes_weights",
            "tensors that differ",
            "no quantised weights; that the artifact holds them is not proved",
        ),
        unchecked(
            "quantisation",
            "kl_quantisation",
            "mean KL, nats",
            "no reference checkpoint; what the quantisation cost is not proved",
        ),
    ),
    measurements={},
)
