"""Follow a `.pte`'s instructions from the ids to the logits: each must be a Llama's.

Every instruction is looked up, by its operator and by what its arguments are, among those that a
Llama has; what it gives gets a name then. The delegates are followed from the inside
(`delegate_wiring`). It shares no code with the lowering, and runs nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from llama_export.bundle.graph_spec import GraphSpec
from llama_export.llama.config import LlamaConfig
from llama_export.targets.executorch.reading.delegate_wiring import (
    COS,
    EPSILON,
    HIDDEN,
    KEY,
    LOGITS,
    MIXED,
    QUERY,
    SCALE,
    SIN,
    VALUE,
    follow_delegate,
    norm_words,
)
from llama_export.targets.executorch.reading.instructions import Call, read_scalar
from llama_export.targets.executorch.reading.pte import Pte, PteTensor
from llama_export.targets.executorch.reading.weights import (
    ATTENTION,
    INT4_LOOKUP,
    LOOKUP,
    SLICE,
    norm_names,
)
from llama_export.targets.wiring import Attribute, Wiring

_UPDATE = "llama::update_cache.out"
_TO_DTYPE = "dim_order_ops::_to_dim_order_copy.out"
_CHOOSE = "aten::index_select.out"
_IDS, _POSITION, _LENGTH, _START, _END = "ids", "position", "length", "start", "end"
_FIRST = "first position"
_CONSTANT, _LAST_ROW = "a constant", "last row"
_NEIGHBOURS = "each column's neighbour"
_TO_THE_END = 2**63 - 1
_UINT8, _INT8, _INT64, _FLOAT16, _FLOAT32, _FLOAT32_BYTES = 0, 1, 4, 5, 6, 4
_CACHE_TYPES = {"float16": 5, "bfloat16": 15}
# Of attention's arguments: query, caches and start stand before these.
_ATTENTION_SETTINGS: tuple[tuple[str, bool | float | str | None], ...] = (
    ("mask", "none"),
    ("dropout", 0.0),
    ("is_causal", True),
    ("scale", None),
)

_Key = tuple[str, tuple[object, ...]]


def read_wiring(pte: Pte, config: LlamaConfig, spec: GraphSpec) -> Wiring:
    """Follow a program.

    Args:
        pte: the program.
        config: shape of the model that it should compute.
        spec: signature of the program.

    Raises:
        ValueError: it is damaged.
    """
    walk = _Walk(pte, config, spec)
    walk.run()
    return Wiring(tuple(walk.strangers), walk.followed, tuple(walk.attributes))


@dataclass
class _Walk:
    """One pass over the instructions; the names of values grow on the way."""

    pte: Pte
    config: LlamaConfig
    spec: GraphSpec
    strangers: list[str] = field(default_factory=list)
    attributes: list[Attribute] = field(default_factory=list)
    followed: int = 0

    def run(self) -> None:
        """Follow every instruction, and the result."""
        pte, layers = self.pte, self.config.num_hidden_layers
        self._names = dict(zip(pte.inputs, (_IDS, _POSITION, *_caches(layers)), strict=False))
        self._names |= {n: tensor.name for n, tensor in pte.tensors.items() if tensor.name}
        self._expected = list(self._instructions())
        self._delegates = 0
        for number, call in enumerate(pte.instructions):
            if call is None:
                self._stranger(number, "it is no call")
            elif call.delegate >= 0:
                self._delegate(number, call)
            else:
                self._operator(number, call)
        for (operator, arguments), _ in self._expected:
            words = ", ".join(map(str, arguments))
            self.strangers.append(f"the program has no {operator} of {words}")
        result = [self._names.get(value, "another value") for value in pte.outputs]
        if result != [self._last_name()]:
            self.strangers.append(f"the program gives {', '.join(result) or 'nothing'}")
        self.strangers += self._other_types()

    def _other_types(self) -> Iterator[str]:
        """Name the tensors of other types than a Llama's there, which kernels do not forgive."""
        kind = _CACHE_TYPES.get(str(self.spec.delegate.get("kv_dtype")), _FLOAT32)
        wanted: dict[int, set[int]] = {}
        for value, each in self._lookup_types():
            wanted.setdefault(value, set()).add(each)
        for value, tensor in self.pte.tensors.items():
            expected = {_FLOAT32, kind}
            if self._names.get(value) in (_IDS, _POSITION, _FIRST):
                expected = {_INT64}
            found = {tensor.scalar_type}
            if not (wanted[value] == found if value in wanted else found <= expected):
                name = self._names.get(value, "no name")
                yield f"value {value} ({name}) is of type {tensor.scalar_type}"

    def _lookup_types(self) -> Iterator[tuple[int, int]]:
        """Yield what a lookup takes, with the type that it must be of."""
        for call in self.pte.calls:
            if call.operator == LOOKUP:
                yield call.arguments[0], _INT8
            elif call.operator == INT4_LOOKUP:
                yield from zip(call.arguments, (_UINT8, _FLOAT16), strict=False)
            elif call.operator == _CHOOSE:
                yield call.arguments[2], _INT64

    def _last_name(self) -> str:
        return LOGITS if self.spec.all_logits else f"{LOGITS}, {_LAST_ROW}"

    def _stranger(self, number: int, what: str) -> None:
        self.strangers.append(f"instruction {number}: {what}")

    def _instructions(self) -> Iterator[tuple[_Key, str]]:
        """Yield what a Llama calls, each with a name for what that gives."""
        yield ("aten::sym_size.int", (_IDS, 1)), _LENGTH
        yield ("aten::select_copy.int_out", (_POSITION, 0, 0)), _FIRST
        yield ("aten::_local_scalar_dense", (_FIRST,)), _START
        yield ("executorch_prim::add.Scalar", (_START, _LENGTH)), _END
        yield from self._lookup()
        for table in (COS, SIN):
            yield (SLICE, (_CONSTANT, 0, _START, _END, 1)), table
        for layer in range(self.config.num_hidden_layers):
            yield from self._attention(layer)
        if not self.spec.all_logits:
            yield ("aten::select_copy.int_out", (LOGITS, 1, 0)), self._last_name()

    def _lookup(self) -> Iterator[tuple[_Key, str]]:
        """Yield the token lookup; that of int4 codes gives each two neighbours swapped."""
        tables, hidden = (_CONSTANT, _CONSTANT, "none"), f"{HIDDEN} 0"
        if all(call.operator != INT4_LOOKUP for call in self.pte.calls):
            yield (LOOKUP, (*tables, -128, 127, _IDS, _FLOAT32)), hidden
            return
        swapped = f"{hidden}, neighbours swapped"
        yield (INT4_LOOKUP, (*tables, -8, 7, _IDS, _FLOAT32)), swapped
        yield (_CHOOSE, (swapped, 2, _NEIGHBOURS)), hidden

    def _attention(self, layer: int) -> Iterator[tuple[_Key, str]]:
        kind = _CACHE_TYPES.get(str(self.spec.delegate.get("kv_dtype")))
        names = {part: f"{part} {layer}" for part in (QUERY, KEY, VALUE, MIXED)}
        if kind is not None:
            for part, wanted in ((QUERY, kind), (KEY, kind), (VALUE, kind), (MIXED, _FLOAT32)):
                cast = f"{names[part]} as {wanted}"
                yield (_TO_DTYPE, (names[part], wanted)), cast
                names[part] = cast
        keys, values = (f"{part}_cache_{layer}" for part in (KEY, VALUE))
        yield (_UPDATE, (names[KEY], keys, _START)), f"written to {keys}"
        yield (_UPDATE, (names[VALUE], values, _START)), f"written to {values}"
        query, start = names[QUERY], _START
        if layer == self.config.num_hidden_layers - 1 and not self.spec.all_logits:
            rows = (1, -1, _TO_THE_END, 1)
            yield (SLICE, (query, *rows)), f"{query}, {_LAST_ROW}"
            yield (SLICE, (f"{HIDDEN} {layer}", *rows)), f"{HIDDEN} {layer}, {_LAST_ROW}"
            query, start = f"{query}, {_LAST_ROW}", f"{_END} less 1"
            yield ("executorch_prim::sub.Scalar", (_END, 1)), start
        yield (ATTENTION, (query, keys, values, start)), f"{MIXED} {layer}"

    def _operator(self, number: int, call: Call) -> None:
        arguments = list(call.arguments)
        result = arguments.pop()
        while arguments and arguments[-1] == result:
            arguments.pop()
        shown: list[object] = [self._shown(value) for value in arguments]
        if call.operator == ATTENTION:
            self._settings(str(shown[1]), shown[4:])
            shown = shown[:4]
        elif call.operator == _TO_DTYPE:
            tensor = self.pte.tensors.get(result)
            shown = [*shown[:1], tensor.scalar_type if tensor else "none"]
        key = (call.operator, tuple(shown))
        for index, (expected, name) in enumerate(self._expected):
            if _typed(expected) == _typed(key):
                del self._expected[index]
                self._names[result] = name
                self.followed += 1
                return
        self._stranger(number, f"{call.operator} of {', '.join(map(str, shown))}")

    def _settings(self, keys: str, found: list[object]) -> None:
        place = f"model.layers.{keys.rpartition('_')[2]}.self_attn (attention)"
        default = self.config.head_dim**-0.5
        for (name, expected), value in zip(_ATTENTION_SETTINGS, found, strict=True):
            wanted = default if expected is None else expected
            held = default if expected is None and value == "none" else value
            number = float(held) if isinstance(held, (bool, int, float)) else str(held)
            right = float(wanted) if isinstance(wanted, bool) else wanted
            self.attributes.append(Attribute(place, name, number, right))
            # Another number computes something else; one of another type ends the process.
            if type(held) is not type(wanted):
                self.strangers.append(f"{place}: its {name} is {held!r}")

    def _delegate(self, number: int, call: Call) -> None:
        index, layers = self._delegates, self.config.num_hidden_layers
        self._delegates += 1
        if index > layers:
            self._stranger(number, "one delegate too many")
            return
        norms = norm_names(index, layers)
        given, outputs = self._given(call, index, norms)
        strangers, results, count = follow_delegate(
            self.pte, call, given, self.config, first=index == 0, last=index == layers
        )
        for each in strangers:
            self._stranger(number, f"delegate {index}: {each}")
        self.followed += count + 1
        for value, name in zip(outputs, results, strict=False):
            self._names[value] = name if name == LOGITS else f"{name} {index}"

    def _given(self, call: Call, index: int, norms: list[str]) -> tuple[dict[int, str], list[int]]:
        """Return what each argument of a delegate is, by its place, and what it gives."""
        given, outputs, words = {}, [], iter(norm_words(len(norms)))
        # In the order of their use: a norm is first before the first attention alone.
        singles = iter((SCALE, EPSILON) if index else (EPSILON, SCALE))
        if not self.config.adaptor_rank:
            singles = iter((EPSILON,))
        for place, value in enumerate(call.arguments):
            tensor = self.pte.tensors.get(value)
            if tensor is not None and tensor.constant:
                single = tensor.sizes == (1,)
                given[place] = next(singles if single else words, "another constant")
                if single:
                    self._number(given[place], self.pte.constant(tensor), norms)
            elif value in self._names:
                given[place] = self._stream(self._names[value], index)
            else:
                outputs.append(value)
        return given, outputs

    def _stream(self, name: str, index: int) -> str:
        """Return a value's part in a delegate; a value of another layer keeps its own name."""
        layers, before = self.config.num_hidden_layers, max(index - 1, 0)
        hidden, mixed = f"{HIDDEN} {before}", f"{MIXED} {before}"
        if index == layers and not self.spec.all_logits:
            hidden = f"{hidden}, {_LAST_ROW}"
        if str(self.spec.delegate.get("kv_dtype")) in _CACHE_TYPES:
            mixed = f"{mixed} as {_FLOAT32}"
        return {hidden: HIDDEN, mixed: MIXED}.get(name, name)

    def _number(self, what: str, content: bytes, norms: list[str]) -> None:
        if len(content) != _FLOAT32_BYTES:
            message = f"an {what} of {len(content)} bytes"
            raise ValueError(message)
        (found,) = struct.unpack("<f", content)
        if what == SCALE:
            place = f"{norms[0].rpartition('.')[0]} (side branches)"
            self.attributes.append(Attribute(place, SCALE, found, self.config.adaptor_scale))
        for norm in norms if what == EPSILON else ():
            place = norm.removesuffix(".weight")
            self.attributes.append(Attribute(place, EPSILON, found, self.config.rms_norm_eps))

    def _shown(self, value: int) -> object:
        """Return what an argument is: the name of a value, or a number."""
        tensor = self.pte.tensors.get(value)
        if tensor is not None and tensor.constant:
            return self._constant(tensor)
        if value in self._names:
            return self._names[value]
        values = self.pte.values
        return read_scalar(values[value]) if 0 <= value < len(values) else "nothing"

    def _constant(self, tensor: PteTensor) -> str:
        """Return what a constant is, as far as its numbers decide what is computed."""
        if tensor.scalar_type != _INT64:
            return _CONSTANT
        width = self.config.hidden_size
        neighbours = struct.pack(f"<{width}q", *(column ^ 1 for column in range(width)))
        return _NEIGHBOURS if self.pte.constant(tensor) == neighbours else "other columns"


def _caches(layers: int) -> Iterator[str]:
    for layer in range(layers):
        yield from (f"{part}_cache_{layer}" for part in (KEY, VALUE))


def _typed(key: _Key) -> tuple[str, tuple[tuple[type, object], ...]]:
    """Return a key in which 1, True and 1.0 differ, as they do for a kernel."""
    operator, arguments = key
    return operator, tuple((type(each), each) for each in arguments)
