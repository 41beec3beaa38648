"""`llama-export sensitivity`: costs on the screen, a recipe in a file, refusals before the work."""

from __future__ import annotations

import json

import pytest
from artifacts.tiny import UNTIED, write_checkpoint

from llama_export.errors import OutputError, UsageError
from llama_export.exporting.plan import fitted_recipe
from llama_export.llama.names import expected_shapes
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights
from llama_quantize.recipe import recipe
from llama_quantize.recipe_file import read_recipe

pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")

SHAPES = expected_shapes(UNTIED)
LINEARS = [name for name in SHAPES if name.endswith("_proj.weight")]


def megabytes(group_size: int) -> float:
    """The size of the whole model as int4."""
    schemes = recipe("int4", group_size).resolve(SHAPES).schemes
    return sum(schemes[name].size_bytes(shape) for name, shape in SHAPES.items()) / 1e6


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", UNTIED)


@pytest.fixture
def measured(tiny, command):
    def call(*options):
        return command("sensitivity", "-m", tiny, "--calibration-tokens", 512, *options)

    return call


def test_a_recipe_within_a_budget_is_written_and_exported(tiny, tmp_path, measured, command):
    file = tmp_path / "found.json"
    code, out, err = measured("--budget-mb", megabytes(32), "-o", file, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["linears"]) == LINEARS
    assert list(found["linears"][LINEARS[0]]) == ["int4 g32", "int4 g64", "int4 g128", "int8 row"]
    uniform = {each["label"]: each for each in found["uniform"]}
    chosen = found["chosen"]
    assert uniform["int4 g32"]["size_bytes"] == round(megabytes(32) * 1e6)
    assert chosen["size_bytes"] <= uniform["int4 g32"]["size_bytes"]
    assert chosen["predicted_kl"] < 0.98 * uniform["int4 g32"]["predicted_kl"]
    written = read_recipe(file)
    assert written.name == f"searched, at most {megabytes(32):g} MB"
    assert str(chosen["size_bytes"]) in written.note
    resolved = fitted_recipe(written.recipe(), UNTIED).resolve(SHAPES)
    assert {name: resolved.schemes[name].label for name in LINEARS} == chosen["linears"]
    sizes = (resolved.schemes[name].size_bytes(shape) for name, shape in SHAPES.items())
    assert sum(sizes) == chosen["size_bytes"]
    # Nothing is left of what did not fit into memory.
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    code, _, err = measured("--max-kl", 1, "-o", file)
    assert code == OutputError.exit_code
    assert "pass --force to replace the file" in err


def test_the_costliest_linears_are_shown_with_what_was_chosen(measured):
    code, out, _ = measured("--max-kl", 5, "--quality", "fast")
    assert code == 0
    assert "What costs most of 14 linears" in out
    rows = [line for line in out.splitlines() if "_proj" in line]
    assert len(rows) == 10
    assert all(len(line) <= 80 for line in out.splitlines())
    costs = [float(row.split()[2]) for row in rows]
    assert costs == sorted(costs, reverse=True)
    assert "at most 5 nats" in out


@pytest.mark.slow
def test_a_better_quality_scales_what_is_foretold(measured):
    totals = {}
    for quality in ("fast", "best"):
        _, out, _ = measured("--quality", quality, "--json")
        found = json.loads(out)
        assert found["chosen"] is None
        totals[quality] = found["uniform"][0]["predicted_kl"]
    assert totals["best"] == pytest.approx(0.39 * totals["fast"])


def test_a_budget_that_is_too_small_names_the_least(measured, tmp_path):
    code, _, err = measured("--budget-mb", 0.1, "-o", tmp_path / "r.json")
    assert code == UsageError.exit_code
    assert "the least possible is 0." in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (["-o", "r.json"], UsageError, "nothing says which recipe is wanted"),
        (["--budget-mb", 1, "--max-kl", 1], UsageError, "expected one of the two"),
        (["--budget-mb", 1, "-o", "none/r.json"], OutputError, "none is no folder"),
        (["--budget-mb", 0], UsageError, "--budget-mb"),
        (["--calibration-tokens", 100], UsageError, "--calibration-tokens"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(command, tiny, options, error, words):
    code, out, err = command("sensitivity", "-m", tiny, *options)
    assert (code, out) == (error.exit_code, "")
    assert words in err
    assert "Measuring" not in err


def test_a_model_that_is_quantised_has_no_form_left_to_choose(tiny, tmp_path, command):
    from llama_export.checkpoints.hugging_face import HfCheckpoint

    folder = tmp_path / "weights"
    quantize_to(folder, HfCheckpoint.open(tiny), recipe("int4"))
    for name in ("config.json", "tokenizer.model"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    code, _, err = command("sensitivity", "-m", folder)
    assert code == UsageError.exit_code
    assert "quantised already, as int4" in err
    code, _, err = command("sensitivity")
    assert code == UsageError.exit_code
    assert "needs --model" in err


@pytest.mark.slow
@pytest.mark.onnx
def test_an_export_searches_its_own_recipe_and_keeps_it(tiny, tmp_path, command):
    pytest.importorskip("onnx")
    output = tmp_path / "out"
    arguments = ["-t", "onnx", "-m", tiny, "-o", output, "--max-context", 64]
    arguments += ["--quality", "good", "--calibration-tokens", 512, "--budget-mb", megabytes(32)]
    code, out, err = command(*arguments)
    assert code == 0, err
    assert "What costs most of 14 linears" in out
    written = read_recipe(output / "recipe.json")
    record = QuantizedWeights.open(output / "weights")
    assert record.recipe.name == written.name == f"searched, at most {megabytes(32):g} MB"
    assert record.summary.size_bytes <= megabytes(32) * 1e6
    assert len({record.scheme(name).label for name in LINEARS}) > 1
    assert {rule.method for rule in record.recipe.rules} >= {"gptq_descent"}
    code, _, err = command(*arguments)
    assert code == OutputError.exit_code
    assert "recipe.json already exists" in err
    code, out, err = command(*arguments, "--force", "--table", "int4", "--json")
    assert code == 0, err
    assert json.loads(out)["bundles"]
    assert read_recipe(output / "recipe.json").table == "int4"
    assert QuantizedWeights.open(output / "weights").scheme("lm_head.weight").bits == 4


@pytest.mark.onnx
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quantize", "int4"], "--recipe name one"),
        (["--group-size", 64], "--recipe name one"),
        (["--recipe", "r.json"], "--recipe name one"),
        (["--dry-run"], "nothing is known of a recipe before it is searched"),
        (["--max-kl", 1], "expected one of the two"),
    ],
)
def test_an_export_with_a_budget_refuses_before_the_search(command, tiny, tmp_path, options, words):
    pytest.importorskip("onnx")
    code, _, err = command(
        "-t", "onnx", "-m", tiny, "-o", tmp_path / "out", "--budget-mb", 1, *options
    )
    assert code == UsageError.exit_code
    assert words in err
    assert not (tmp_path / "out").exists()
