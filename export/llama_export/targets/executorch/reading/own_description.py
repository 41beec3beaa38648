"""Read what a `.pte` takes and gives, and what it tells the runners, from its own bytes.

The runners ask a program's methods, such as `get_eos_ids`, for what they must know. It knows the
layout of the file; it runs nothing and knows no delegate from inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.graph_spec import IO, STATE, GraphSpec, TensorSpec
from llama_export.targets.damage import damage_named
from llama_export.targets.executorch.reading.flatbuffer import Table
from llama_export.targets.executorch.reading.pte import Pte, PteTensor
from llama_export.targets.executorch.reading.weights import read_weights
from llama_export.targets.own_description import OwnDescription, Said, kept_names
from llama_export.targets.stored import StoredArtifact

_DTYPES = {3: "int32", 4: "int64", 5: "float16", 6: "float32", 15: "bfloat16"}
# Fields of a method, and of one of its values; the kinds of values that are numbers.
_NAME, _VALUES, _OUTPUTS = 0, 2, 4
_KIND, _CONTENT = 0, 1
_INTEGER, _BOOLEAN = 2, 3
_LISTS = ("get_eos_ids", "get_head_tokens")
_BACKENDS = {"XnnpackBackend": "xnnpack"}
_VARIES = "varies"
_OWN_INPUTS = 2


def read_description(bundle: Bundle) -> OwnDescription:
    """Read the program's own signature, and what its methods say of the model.

    Raises:
        BundleError: the file is damaged or laid out in another way.
    """
    recorded = GraphSpec.from_json(bundle.manifest.graph)
    pte = Pte.open(bundle.artifact)
    products = len(read_weights(pte).products)
    with damage_named(pte.path):
        signature = _signature(pte, recorded, products)
        return OwnDescription(signature, tuple(_said(pte, bundle, signature)))


def _signature(pte: Pte, recorded: GraphSpec, products: int) -> GraphSpec:
    inside = [tensor for tensor in pte.tensors.values() if "_cache_" in tensor.name]
    inputs = [pte.tensors[number] for number in pte.inputs]
    caches = inside or inputs[_OWN_INPUTS:]
    capacity = min(tensor.sizes[1] for tensor in caches)
    outputs = [pte.tensors[number] for number in pte.outputs]
    dtypes = sorted({_DTYPES[tensor.scalar_type] for tensor in caches})
    return GraphSpec(
        inputs=_named(inputs, recorded.inputs, capacity, rows=True),
        outputs=_named(outputs, recorded.outputs, capacity, rows=len(outputs[0].sizes) > 2),
        kv_cache=STATE if inside else IO,
        max_context=capacity,
        all_logits=len(outputs[0].sizes) > 2,
        delegate={**_delegate(pte, products), "kv_dtype": " and ".join(dtypes)},
    )


def _delegate(pte: Pte, products: int) -> dict[str, object]:
    """Count the calls, as the manifest has them; a product outside the delegate has no reader."""
    backends = sorted({pte.delegates[call.delegate][0] for call in pte.calls if call.delegate >= 0})
    outside = Counter(call.operator for call in pte.calls if call.delegate < 0)
    return {
        "name": " and ".join(_BACKENDS.get(backend, backend) for backend in backends),
        "delegate_calls": sum(call.delegate >= 0 for call in pte.calls),
        "outside": dict(sorted(outside.items())),
        "products_inside": products,
        "products": products,
    }


def _named(
    tensors: Sequence[PteTensor], recorded: Sequence[TensorSpec], capacity: int, *, rows: bool
) -> tuple[TensorSpec, ...]:
    """Describe inputs or outputs; the file has the largest size of what varies, and no name.

    Args:
        tensors: the tensors, first that of tokens or logits.
        recorded: the manifest's.
        capacity: slots of the caches, and the most tokens of a call.
        rows: whether the first one has a row for each token.
    """
    found = []
    for index, tensor in enumerate(tensors):
        shape: tuple[int | str, ...] = tensor.sizes
        if rows and index == 0 and shape[1] == capacity:
            shape = (shape[0], _VARIES, *shape[2:])
        own = TensorSpec("", _DTYPES[tensor.scalar_type], shape)
        found.append(kept_names(own, recorded, index))
    return tuple(found)


def _said(pte: Pte, bundle: Bundle, signature: GraphSpec) -> Iterator[Said]:
    """Compare what the runners are told with the manifest, method by method."""
    tokenizer, config = bundle.manifest.tokenizer, bundle.manifest.model.config
    kept = StoredArtifact.of(bundle).head_tokens
    bos = tokenizer["bos_token_id"]
    expected: Mapping[str, object] = {
        **({} if bos is None else {"get_bos_id": bos}),
        "get_eos_ids": list(tokenizer["stop_token_ids"]),
        "get_max_seq_len": signature.max_context,
        "get_max_context_len": signature.max_context,
        "get_vocab_size": config.get("vocab_size"),
        "get_n_layers": config.get("num_hidden_layers"),
        "get_n_bos": 0 if bos is None else 1,
        "get_n_eos": 1,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
        **({"get_head_tokens": list(kept)} if kept else {}),
    }
    found = dict(_answers(pte))
    for name in {**expected, **found}:
        yield Said(name, expected.get(name), found.get(name))


def _answers(pte: Pte) -> Iterator[tuple[str, object]]:
    """Yield what each method but forward answers, which are constants."""
    for method in pte.methods:
        name = method.text(_NAME)
        if name == "forward":
            continue
        values = list(method.tables(_VALUES))
        answers = [_constant(values[number]) for number in method.numbers(_OUTPUTS, "i")]
        # The methods that give one number give no list of one.
        yield name, answers if name in _LISTS else answers[0] if len(answers) == 1 else answers


def _constant(value: Table) -> object:
    """Return a number or a truth value; of anything else, that it is neither."""
    content, kind = value.table(_CONTENT), value.number(_KIND, "B")
    if content is not None and kind == _INTEGER:
        return content.number(0, "q")
    if content is not None and kind == _BOOLEAN:
        return bool(content.number(0, "B"))
    return f"a value of kind {kind}"
