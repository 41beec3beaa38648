"""What every target has, and what no target may have: a method that nothing calls."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from fakes.target import FakeTarget

from llama_export.errors import BundleError, UsageError
from llama_export.targets import registry
from llama_export.targets.coreml.options import CoremlOptions
from llama_export.targets.executorch.options import ExecutorchOptions
from llama_export.targets.limits import Limit
from llama_export.targets.onnx.options import OnnxOptions
from llama_export.targets.options import TargetOptions, option_specs, with_chosen
from llama_export.targets.stored import StoredWeights

NOTHING = StoredWeights({}, {}, {})


def without_a_session(**_options):
    pytest.fail("nothing is opened")


@pytest.mark.parametrize("name", registry.TARGETS)
def test_a_target_goes_by_its_name_and_declares_what_it_is(name):
    target = registry.get(name)
    assert target.name == name
    assert target.toolkits
    assert target.default_max_context > 0
    assert issubclass(target.Options, TargetOptions)
    assert isinstance(target.limits.exact_kl, Limit)
    for costs in (target.costs.unchecked, target.costs.checked):
        sizes = [cost.num_parameters for cost in costs]
        assert sizes == sorted(set(sizes))
        assert len(sizes) == 3


def test_an_unknown_target_is_refused_with_those_there_are():
    with pytest.raises(BundleError, match=r"'mlx' is not known.*onnx, executorch, coreml"):
        registry.get("mlx")


def test_a_misspelt_method_is_refused_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"a target has no scratch_byte$"):

        class Misspelt(FakeTarget):
            name, title, toolkits, default_max_context = "misspelt", "Misspelt", (), 1
            Options, limits, costs = FakeTarget.Options, FakeTarget.limits, FakeTarget.costs
            phone_systems = FakeTarget.phone_systems

            def scratch_byte(self, shapes, schemes):
                return 1


def test_a_fact_that_is_not_given_is_refused_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"a target must have costs, limits, phone_systems$"):

        class Forgetful(FakeTarget):
            name, title, toolkits, default_max_context = "forgetful", "Forgetful", (), 1
            Options = FakeTarget.Options


def test_a_misspelt_duty_is_refused_too():
    with pytest.raises(TypeError, match=r"a target has no describes$"):

        class Misspelt(FakeTarget):
            name, title, toolkits, default_max_context = "misspelt", "Misspelt", (), 1
            Options, limits, costs = FakeTarget.Options, FakeTarget.limits, FakeTarget.costs
            phone_systems = FakeTarget.phone_systems

            def describes(self, artifact):
                return None


def test_the_defaults_say_that_there_is_nothing():
    target = FakeTarget(without_a_session, NOTHING)
    assert target.probe(None) is None
    assert target.open_reference(None) is None
    assert target.substitute_runtime() is None
    assert target.runs_here(TargetOptions())
    assert target.scratch_bytes({}, {}) == 0


def test_getting_a_target_imports_neither_torch_nor_a_toolkit():
    script = (
        "import sys\n"
        "from llama_export.targets import registry\n"
        "for name in registry.TARGETS: registry.get(name).Options()\n"
        "heavy = 'torch numpy onnx onnxruntime executorch coremltools'.split()\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", registry.TARGETS)
def test_each_option_says_what_a_command_line_needs(name):
    kind = registry.get(name).Options
    specs = option_specs(kind)
    assert [spec.name for spec in specs] == [field.name for field in fields(kind)]
    for spec in specs:
        assert spec.flag == "--" + spec.name.replace("_", "-")
        assert type(spec.default) is spec.kind
        assert spec.help.endswith(".")
        assert not spec.choices or spec.default == spec.choices[0]
        assert bool(spec.choices) == (spec.kind is not bool)


def test_the_defaults_are_those_of_the_targets_clients():
    assert OnnxOptions() == OnnxOptions(kv_cache="io", all_logits=False, accuracy_level=4)
    assert ExecutorchOptions().kv_cache == CoremlOptions().kv_cache == "state"


def test_what_was_chosen_for_several_targets_goes_to_those_that_have_it():
    chosen = {"kv_cache": "io", "delegate": "vulkan", "model": "demo"}
    assert with_chosen(OnnxOptions(), chosen) == OnnxOptions()
    assert with_chosen(ExecutorchOptions(), chosen) == ExecutorchOptions("io", delegate="vulkan")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (OnnxOptions(kv_cache="state"), "--kv-cache state: an ONNX graph takes and gives"),
        (OnnxOptions(accuracy_level=2), "--accuracy-level: expected 4 or 1, found 2"),
        (OnnxOptions(accuracy_level=4.0), r"--accuracy-level: expected 4 or 1, found 4\.0"),
        (OnnxOptions(accuracy_level=True), "--accuracy-level: expected 4 or 1, found True"),
        (OnnxOptions(all_logits="no"), "--all-logits: expected True or False, found 'no'"),
        (CoremlOptions(), "expected OnnxOptions, found CoremlOptions"),
    ],
)
def test_options_that_no_onnx_artifact_has_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        registry.get("onnx").check(options)
