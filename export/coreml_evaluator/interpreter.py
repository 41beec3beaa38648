"""The public interface: open a saved Core ML package, call its functions, keep their states.

It knows packages, modes and threads; it knows neither the ops nor language models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from coreml_evaluator.description import (
    Feature,
    Signature,
    read_signatures,
    require_agreement,
    require_array,
    require_inputs,
)
from coreml_evaluator.engine import Plan
from coreml_evaluator.ops import KNOWN
from coreml_evaluator.package import Package
from coreml_evaluator.part import Part
from coreml_evaluator.program import Function, read_functions
from coreml_evaluator.types import TensorType
from coreml_evaluator.values import MODES, Array, Value, from_array, round_to, to_array
from coreml_evaluator.workers import open_workers
from llama_export.errors import EvaluationError


class EvaluatorState:
    """The states of a package, such as a conversation's caches; zeros at first.

    `Evaluator.make_state` makes one. The methods have the names of those of coremltools' `MLState`.
    """

    @torch.inference_mode(mode=False)  # each tensor is written to by any later call
    def __init__(
        self, features: Mapping[str, Feature], types: Mapping[str, TensorType], mode: str
    ) -> None:
        self._features = dict(features)
        self._types = dict(types)
        self._mode = mode
        self._content = {
            name: torch.zeros([size or 0 for size in type_.shape or ()])
            for name, type_ in types.items()
        }

    def read_state(self, name: str) -> Array:
        """Return a copy of a state; a float16 one is float32 in mode "fp32".

        Raises:
            EvaluationError: there is no such state.
        """
        feature = self._feature(name)
        return to_array(self._content[feature.name], self._types[name].dtype, self._mode)

    @torch.inference_mode(mode=False)
    def write_state(self, name: str, value: Array) -> None:
        """Replace a state's content by a copy of an array of its shape.

        Args:
            name: name of the state.
            value: array of the state's shape and dtype. For a float16 state float32 is accepted
                too, and rounded unless the mode is "fp32".

        Raises:
            EvaluationError: there is no such state, or the array does not fit it.
        """
        feature = self._feature(name)
        dtype = self._types[name].dtype
        require_array(feature, value, f"the state {name}", "fp32")
        data = from_array(value, dtype)
        self._content[name] = round_to(data, dtype) if self._mode == "fp16" else data

    def _feature(self, name: str) -> Feature:
        if name not in self._features:
            message = (
                f"expected one of the states {', '.join(self._features) or '(none)'}, found {name}"
            )
            raise EvaluationError(message)
        return self._features[name]


class Evaluator:
    """An opened package, whose functions run on any operating system, from its files alone.

    `Evaluator.open` makes one.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        signatures: Mapping[str, Signature],
        default_function: str,
        mode: str,
        threads: int | None,
    ) -> None:
        self._plans = dict(plans)
        self._signatures = dict(signatures)
        self._threads = threads
        self.functions: tuple[str, ...] = tuple(plans)
        self.default_function = default_function
        self.mode = mode

    @classmethod
    def open(
        cls, package: str | Path, *, mode: str = "fp16", threads: int | None = None
    ) -> Evaluator:
        """Open a saved package and check all of its functions.

        Args:
            package: `.mlpackage` folder that holds an ML Program.
            mode: "fp16" rounds every result to the dtype that the program declares, as an ideal
                backend would; "fp32" rounds neither float16 results nor states, which shows
                whether the structure is right.
            threads: number of threads that multiply with weights; None for torch's own number.

        Raises:
            BundleError: the package is damaged, incomplete, or of an unknown version.
            EvaluationError: the program has unknown ops, contradicts itself, or uses what it read
                from a state after a later write.
        """
        if mode not in MODES:
            message = f"expected one of the modes {', '.join(MODES)}, found {mode!r}"
            raise EvaluationError(message)
        if threads is not None and threads < 1:
            message = f"expected at least one thread, found {threads}"
            raise EvaluationError(message)
        opened = Package.open(Path(package))
        rounds = mode == "fp16"
        functions = read_functions(opened, KNOWN, rounds=rounds)
        signatures = read_signatures(opened.model)
        if set(signatures) != set(functions):
            message = (
                f"{opened.model_file}: expected the described functions {sorted(signatures)} in "
                f"the program, found {sorted(functions)}"
            )
            raise EvaluationError(message)
        for name, function in functions.items():
            require_agreement(signatures[name], function)
        _require_one_kind_of_states(functions)
        default = opened.model.description.defaultFunctionName or next(iter(signatures))
        if default not in functions:
            message = f"{opened.model_file}: there is no default function {default}"
            raise EvaluationError(message)
        plans = {name: Plan.of(functions[name], rounds=rounds) for name in signatures}
        return cls(plans, signatures, default, mode, threads)

    def signature(self, function: str | None = None) -> Signature:
        """Return a function's inputs, outputs and states.

        Args:
            function: name of the function; None for the default one.

        Raises:
            EvaluationError: there is no such function.
        """
        return self._signatures[self._named(function)]

    def program(self, function: str | None = None) -> Function:
        """Return a function's ops, in the order in which they run.

        Args:
            function: name of the function; None for the default one.

        Raises:
            EvaluationError: there is no such function.
        """
        return self._plans[self._named(function)].function

    def part(self, results: Sequence[str], function: str | None = None) -> Part:
        """Return the ops of a function that some of its results need, ready to run by themselves.

        Args:
            results: names of results inside the function; `program` lists them.
            function: name of the function; None for the default one.

        Raises:
            EvaluationError: there is no such function, or no such result.
        """
        plan = self._plans[self._named(function)]
        return Part.of(plan, results, self.mode, self._threads)

    def make_state(self) -> EvaluatorState:
        """Return new states, all zeros; every function of the package accepts them."""
        features = {
            feature.name: feature
            for signature in self._signatures.values()
            for feature in signature.states
        }
        types = {
            name: type_
            for plan in self._plans.values()
            for name, type_ in plan.function.states.items()
        }
        return EvaluatorState(features, types, self.mode)

    @torch.inference_mode(mode=False)  # a caller's own would not hold in the workers
    def predict(
        self,
        inputs: Mapping[str, Array],
        state: EvaluatorState | None = None,
        *,
        function: str | None = None,
        also: Collection[str] = (),
    ) -> dict[str, Array]:
        """Call a function once.

        Args:
            inputs: arrays by name, of the signature's dtypes and shapes. In mode "fp32" a float16
                input accepts float32 too.
            state: result of `make_state`, which the call changes. After an error its content is
                undefined.
            function: name of the function; None for the default one.
            also: names of results inside the function to return as well; `program` lists them.

        Returns:
            The outputs by name, as copies; float16 ones are float32 in mode "fp32".

        Raises:
            EvaluationError: an input or the state does not fit, or an op's result is a NaN or not
                as the program declares.
        """
        name = self._named(function)
        plan, signature = self._plans[name], self._signatures[name]
        require_inputs(signature, inputs, name, self.mode)
        content = _content(state, signature, name)
        values = {
            key: Value(self._held(array, plan.function.inputs[key]), _dtype(plan, key))
            for key, array in inputs.items()
        }
        inside: dict[str, Array] = {}

        def watch(result: str, value: Value) -> None:
            if result in also:
                inside[result] = to_array(value.data, value.dtype, self.mode)

        with torch.no_grad(), open_workers(self._threads) as workers:
            found = plan.run(values, content, workers, watch if also else None)
        for missing in sorted(set(also) - set(inside)):
            message = f"{name}: expected a result named {missing}, found none of that name"
            raise EvaluationError(message)
        outputs = inside
        for feature in signature.outputs:
            value = found[feature.name]
            outputs[feature.name] = to_array(value.data, value.dtype, self.mode)
            require_array(
                feature,
                outputs[feature.name],
                f"{name}: the output {feature.name} is not what is described",
                self.mode,
            )
        return outputs

    def _held(self, array: Array, type_: object) -> torch.Tensor:
        dtype = type_.dtype if isinstance(type_, TensorType) else "fp32"
        return from_array(array, dtype)

    def _named(self, function: str | None) -> str:
        name = self.default_function if function is None else function
        if name not in self._plans:
            message = f"expected one of the functions {', '.join(self.functions)}, found {name}"
            raise EvaluationError(message)
        return name


def evaluate(
    package: str | Path,
    inputs: Mapping[str, Array],
    *,
    state: EvaluatorState | None = None,
    function: str | None = None,
    mode: str = "fp16",
) -> dict[str, Array]:
    """Open a package and call a function once; `Evaluator` serves more calls.

    Args:
        package: `.mlpackage` folder that holds an ML Program.
        inputs: arrays by name, of the signature's dtypes and shapes.
        state: states from an `Evaluator` of the same package, which the call changes.
        function: name of the function; None for the default one.
        mode: "fp16" or "fp32", as in `Evaluator.open`.

    Raises:
        BundleError: the package is damaged, incomplete, or of an unknown version.
        EvaluationError: see `Evaluator.open` and `Evaluator.predict`.
    """
    return Evaluator.open(package, mode=mode).predict(inputs, state, function=function)


def _dtype(plan: Plan, name: str) -> str:
    type_ = plan.function.inputs[name]
    return type_.dtype if isinstance(type_, TensorType) else type_.wrapped.dtype


def _content(
    state: EvaluatorState | None, signature: Signature, function: str
) -> dict[str, torch.Tensor]:
    """Return the dictionary of a state's tensors, which a run changes."""
    needed = {feature.name for feature in signature.states}
    if state is None:
        if needed:
            message = f"{function}: expected a state with {', '.join(sorted(needed))}, found none"
            raise EvaluationError(
                message,
                "make one with make_state(), and give it to every call of the conversation",
            )
        return {}
    if not needed:
        message = f"{function}: expected no state: the function has none"
        raise EvaluationError(message)
    content = state._content
    if not needed <= set(content):
        message = (
            f"{function}: expected a state with {', '.join(sorted(needed))}, found "
            f"{', '.join(sorted(content)) or 'nothing'}"
        )
        raise EvaluationError(message)
    return content


def _require_one_kind_of_states(functions: Mapping[str, Function]) -> None:
    """Refuse functions that declare one state differently: states are shared by name."""
    seen: dict[str, TensorType] = {}
    for function in functions.values():
        for name, type_ in function.states.items():
            if seen.setdefault(name, type_) != type_:
                message = (
                    f"{function.name}: the state {name} is {type_}, in another function "
                    f"{seen[name]}"
                )
                raise EvaluationError(message)
