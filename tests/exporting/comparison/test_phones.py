"""Which targets take a recipe, and which phones could hold it: by shape alone, without weights."""

from __future__ import annotations

from llama_export.exporting.comparison.recipes import estimates_of, judged_phones
from llama_export.exporting.comparison.wording import shown_phones
from llama_export.exporting.phones import known_phones
from llama_export.exporting.plan import fitted_recipe
from llama_export.llama.presets import PRESETS
from llama_export.sources.catalogue import ModelShape
from llama_quantize.recipe import recipe


def judged(model: str, *asked):
    shape = ModelShape(model, PRESETS[model], 0, 0)
    found = estimates_of(shape, fitted_recipe(recipe(*asked), shape.config))
    return found, judged_phones(found)


def test_a_phone_is_judged_by_the_target_that_it_would_run():
    found, phones = judged("3.2-1B", "int4")
    assert set(found) == {"onnx", "executorch", "coreml"}
    assert {each.name for each in phones} == {each.name for each in known_phones().phones}
    by_name = {each.name: each for each in phones}
    assert by_name["iPhone 15 Pro"].target == "coreml"
    assert by_name["Galaxy S24 (Snapdragon)"].target != "coreml"
    assert by_name["iPhone 15 Pro"].fits == "yes"
    assert 10 < by_name["iPhone 15 Pro"].tokens_per_s < 100


def test_a_larger_form_fits_fewer_phones_and_reads_slower():
    _, small = judged("3.2-3B", "int4")
    found, large = judged("3.2-3B", "bf16")
    assert set(found) == {"onnx"}  # no other target has bfloat16
    fitting = [[each.name for each in phones if each.fits == "yes"] for phones in (small, large)]
    assert len(fitting[0]) > len(fitting[1])
    assert " no" in shown_phones(large)
    speeds = [
        {each.name: each.tokens_per_s for each in phones}["Galaxy S25"] for phones in (small, large)
    ]
    assert speeds[1] is None or speeds[1] < speeds[0]


def test_where_no_phone_is_judged_a_dash_says_so():
    _, phones = judged("smollm2-135m", "int4", 64)
    assert {each.fits for each in phones} == {"yes"}
    assert shown_phones(()) == "-"
