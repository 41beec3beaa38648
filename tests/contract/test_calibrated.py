"""What a name of a quality promises, and which one an export takes by itself."""

from __future__ import annotations

import subprocess
import sys

from llama_quantize import Needs, find_method, recipe
from llama_quantize.methods import method
from llama_quantize.recipe import METHODS_WITHOUT_INPUTS, QUALITIES

NEEDS = {"fast": Needs.NOTHING, "good": Needs.TARGETS, "best": Needs.CURVATURE}


def test_every_quality_is_a_method_that_asks_for_more_than_the_one_before():
    assert {name: find_method(chosen).needs for name, chosen in QUALITIES.items()} == NEEDS
    assert list(NEEDS.values()) == sorted(NEEDS.values())
    for name, chosen in QUALITIES.items():
        made = recipe("int4", quality=name)
        assert {rule.method for rule in made.rules if "_proj" in rule.pattern} == {chosen}
        assert made.is_calibrated == bool(NEEDS[name])


def test_the_methods_without_inputs_are_those_that_need_nothing():
    built_in = {each.name: each.needs for each in method._BUILT_IN}
    without = {name for name, needs in built_in.items() if needs is Needs.NOTHING}
    assert set(METHODS_WITHOUT_INPUTS) == without
    assert set(QUALITIES.values()) <= set(built_in)


ASKED = {
    "": "good",
    "recipe='int4'": "good",
    "recipe='int8'": "fast",
    "recipe='int8', quality='best'": "best",
    "quality='fast'": "fast",
}


def test_int4_is_calibrated_unless_told_otherwise():
    """Asked of a fresh interpreter: the tests themselves export without it."""
    program = (
        "from llama_export.exporting.request import ExportRequest\n"
        f"for asked in {list(ASKED)}:\n"
        "    request = eval(f\"ExportRequest('demo', ('onnx',), {asked})\")\n"
        "    rules = request.chosen_recipe().rules\n"
        "    print(*{rule.method for rule in rules if '_proj' in rule.pattern})\n"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == [QUALITIES[expected] for expected in ASKED.values()]
