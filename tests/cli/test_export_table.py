"""The table of an export: what is equal stands once, and it fits a terminal of 80 columns."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.sample_bundle import DRAFT
from artifacts.sample_reports import ALONE, FAILED, PASSED

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.manifest import FileEntry
from llama_export.cli.console import CleanConsole
from llama_export.cli.export_table import show_export
from llama_export.exporting.result import ExportedBundle, ExportResult

TARGETS = ("onnx", "executorch", "coreml")
OUTPUT = Path("/tmp/models/SmolLM2-135M-Instruct.Q4_1")
# Another target's lowering.
WORSE = replace(
    PASSED,
    rows=tuple(
        replace(row, value=3.1e-2) if row.key in ("kl_exact", "kl_shipped") else row
        for row in PASSED.rows
    ),
)
MADE = {"method": "gptq_descent", "tokens": 32768, "ids_sha256": "ab" * 32}


def exported(target: str, size: int, report=PASSED, **quantization) -> ExportedBundle:
    manifest = replace(
        DRAFT,
        target=target,
        files={"model": FileEntry("0" * 64, size)},
        quantization={**DRAFT.quantization, **quantization},
    )
    return ExportedBundle(Bundle(OUTPUT / target, manifest), report)


def shown(*bundles: ExportedBundle, width: int = 80) -> str:
    file = io.StringIO()
    console = CleanConsole(file=file)
    console.width = width
    show_export(console, ExportResult(OUTPUT, bundles, 120.5))
    return file.getvalue()


def three(*reports, **quantization) -> list[ExportedBundle]:
    return [
        exported(target, 10_000_000 + 100_000 * index, report, **quantization)
        for index, (target, report) in enumerate(zip(TARGETS, reports, strict=True))
    ]


def test_what_three_bundles_have_alike_stands_once():
    text = shown(*three(PASSED, WORSE, PASSED, calibration=MADE))
    assert text.count("int4, groups of 32") == text.count("4.97") == 1
    assert text.count("good, calibrated on 32768 tokens") == 1
    assert "gptq_descent" not in text
    (row,) = (line for line in text.splitlines() if "coreml" in line)
    assert "10.2 MB" in row
    assert "KL 7.3e-13" in row
    assert "passed" in row


@pytest.mark.parametrize("reports", [(PASSED,) * 3, (PASSED, WORSE, FAILED), (None,) * 3])
def test_three_bundles_are_a_table_within_80_columns(reports):
    text = shown(*three(*reports, calibration=MADE))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert (
        sum(
            any(f"\N{BOX DRAWINGS LIGHT VERTICAL} {name} " in line for name in TARGETS)
            for line in lines
        )
        == 3
    )


def test_at_40_columns_it_is_a_list_of_targets():
    text = shown(*three(PASSED, ALONE, PASSED), width=40)
    _, *lines = text.splitlines()  # the output's path is never cut
    assert max(map(len, lines)) <= 40
    assert any(line.endswith("KL 0.0107 ± 0.0009") for line in lines)
    assert "\N{BOX DRAWINGS LIGHT VERTICAL}" not in text
    at = text.index("\nexecutorch\n")
    assert "size" in text[at:]
    assert "not proved: no weights and checkpoint" in " ".join(text.split())


def test_one_bundle_has_a_table_of_its_own():
    text = shown(exported("onnx", 10_000_000), width=120)
    assert str(OUTPUT / "onnx") in text
    assert text.count("lowering error, same arithmetic") == 1


def test_bundles_elsewhere_are_named_by_their_place():
    moved = three(PASSED, PASSED, PASSED)
    moved[1] = replace(moved[1], bundle=replace(moved[1].bundle, folder=Path("/else/where")))
    assert "/else/where" in shown(*moved, width=200)


def test_signal_to_noise_ranks_no_export():
    """A calibration gives some of it away, and answers better."""
    assert "SQNR" not in shown(exported("onnx", 10_000_000, calibration=MADE))
