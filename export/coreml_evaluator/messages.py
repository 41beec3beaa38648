"""Core ML's protobuf messages, as far as a saved ML Program needs them.

The messages have a pool of their own, so that they do not collide with those of coremltools in the
same process. Fields that are not listed here are skipped when a file is read. This module knows
field numbers; it does not know what the fields mean, or where a file lies.

The numbers are those of Apple's published format:
https://apple.github.io/coremltools/mlmodel/
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

from llama_export.errors import BackendUnavailableError, BundleError

# protobuf makes its classes at run time, so that their fields have no types.
Message: TypeAlias = Any

_PACKAGE = "coreml_evaluator"

# Scalars are named as in a .proto file; "*" before a type: repeated; "map:": string keys;
# "a|b:" before a type: the fields of one choice. Enums are read as int32: the wire is the same.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Model": {
        "specificationVersion": (1, "int32"),
        "description": (2, "ModelDescription"),
        "mlProgram": (502, "Program"),
        # Only to say what a file is instead of an ML Program.
        "pipeline": (202, "Nothing"),
        "neuralNetwork": (500, "Nothing"),
    },
    "Nothing": {},
    "ModelDescription": {
        "input": (1, "*FeatureDescription"),
        "output": (10, "*FeatureDescription"),
        "state": (13, "*FeatureDescription"),
        "functions": (20, "*FunctionDescription"),
        "defaultFunctionName": (21, "string"),
        "metadata": (100, "Metadata"),
    },
    "Metadata": {
        "shortDescription": (1, "string"),
        "versionString": (2, "string"),
        "author": (3, "string"),
        "license": (4, "string"),
        "userDefined": (100, "map:string"),
    },
    "FunctionDescription": {
        "name": (1, "string"),
        "input": (2, "*FeatureDescription"),
        "output": (3, "*FeatureDescription"),
        "state": (6, "*FeatureDescription"),
    },
    "FeatureDescription": {
        "name": (1, "string"),
        "shortDescription": (2, "string"),
        "type": (3, "FeatureType"),
    },
    "FeatureType": {
        "imageType": (4, "kind|Nothing"),
        "multiArrayType": (5, "kind|ArrayFeatureType"),
        "dictionaryType": (6, "kind|Nothing"),
        "sequenceType": (7, "kind|Nothing"),
        "stateType": (8, "kind|StateFeatureType"),
        "isOptional": (1000, "bool"),
    },
    "StateFeatureType": {"arrayType": (1, "ArrayFeatureType")},
    "ArrayFeatureType": {
        "shape": (1, "*int64"),
        "dataType": (2, "int32"),
        "enumeratedShapes": (21, "flexibility|EnumeratedShapes"),
        "shapeRange": (31, "flexibility|ShapeRange"),
    },
    "EnumeratedShapes": {"shapes": (1, "*Shape")},
    "Shape": {"shape": (1, "*int64")},
    "ShapeRange": {"sizeRanges": (1, "*SizeRange")},
    "SizeRange": {"lowerBound": (1, "uint64"), "upperBound": (2, "int64")},
    "Program": {
        "version": (1, "int64"),
        "functions": (2, "map:Function"),
    },
    "Function": {
        "inputs": (1, "*NamedValueType"),
        "opset": (2, "string"),
        "block_specializations": (3, "map:Block"),
    },
    "Block": {
        "inputs": (1, "*NamedValueType"),
        "outputs": (2, "*string"),
        "operations": (3, "*Operation"),
    },
    "Operation": {
        "type": (1, "string"),
        "inputs": (2, "map:Argument"),
        "outputs": (3, "*NamedValueType"),
        "blocks": (4, "*Block"),
        "attributes": (5, "map:Value"),
    },
    "Argument": {"arguments": (1, "*Binding")},
    "Binding": {"name": (1, "binding|string"), "value": (2, "binding|Value")},
    "NamedValueType": {"name": (1, "string"), "type": (2, "ValueType")},
    "ValueType": {
        "tensorType": (1, "type|TensorType"),
        "listType": (2, "type|ListType"),
        "tupleType": (3, "type|Nothing"),
        "dictionaryType": (4, "type|Nothing"),
        "stateType": (5, "type|StateType"),
    },
    "StateType": {"wrappedType": (1, "ValueType")},
    "ListType": {"type": (1, "ValueType"), "length": (2, "Dimension")},
    "TensorType": {
        "dataType": (1, "int32"),
        "rank": (2, "int64"),
        "dimensions": (3, "*Dimension"),
    },
    "Dimension": {
        "constant": (1, "dimension|ConstantDimension"),
        "unknown": (2, "dimension|UnknownDimension"),
    },
    "ConstantDimension": {"size": (1, "uint64")},
    "UnknownDimension": {"variadic": (1, "bool")},
    "Value": {
        "type": (2, "ValueType"),
        "immediateValue": (3, "value|ImmediateValue"),
        "blobFileValue": (5, "value|BlobFileValue"),
    },
    "BlobFileValue": {"fileName": (1, "string"), "offset": (2, "uint64")},
    "ImmediateValue": {
        "tensor": (1, "value|TensorValue"),
        "tuple": (2, "value|Nothing"),
        "list": (3, "value|ListValue"),
        "dictionary": (4, "value|Nothing"),
    },
    "ListValue": {"values": (1, "*Value")},
    "TensorValue": {
        "floats": (1, "value|Floats"),
        "ints": (2, "value|Ints"),
        "bools": (3, "value|Bools"),
        "strings": (4, "value|Strings"),
        "longInts": (5, "value|LongInts"),
        "doubles": (6, "value|Doubles"),
        "bytes": (7, "value|Bytes"),
    },
    "Floats": {"values": (1, "*float")},
    "Ints": {"values": (1, "*int32")},
    "Bools": {"values": (1, "*bool")},
    "Strings": {"values": (1, "*string")},
    "LongInts": {"values": (1, "*int64")},
    "Doubles": {"values": (1, "*double")},
    "Bytes": {"values": (1, "bytes")},
}

# Numbers of field types and labels in a descriptor.
_SCALARS = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
}
_MESSAGE = 11
_OPTIONAL, _REPEATED = 1, 3


def read_model(content: bytes, where: str) -> Message:
    """Parse a `model.mlmodel`.

    Args:
        content: bytes of the file.
        where: name of the file, for messages.

    Raises:
        BackendUnavailableError: protobuf is not installed.
        BundleError: the bytes are not a protobuf message of this kind.
    """
    try:
        from google.protobuf.message import DecodeError
    except ImportError:
        message = "protobuf is not installed, which reads Core ML packages"
        raise BackendUnavailableError(message, "pip install 'llama-export[coreml]'") from None
    model = _model_class()()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        message = (
            f"{where}: not a Core ML model: its {len(content)} bytes are not a protobuf message"
        )
        raise BundleError(
            message,
            "the file is damaged or cut short: make the package again",
        ) from error
    return model


@cache
def _model_class() -> Message:
    """Return the class of `Model`, which is made once."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="coreml_evaluator.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        _add_message(file.message_type.add(), name, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))


def _add_message(proto: Message, name: str, fields: dict[str, tuple[int, str]]) -> None:
    proto.name = name
    choices: list[str] = []
    for field_name, (number, kind) in fields.items():
        field = proto.field.add(name=field_name, number=number)
        field.label = _OPTIONAL
        choice, bar, rest = kind.partition("|")
        if bar:
            if choice not in choices:
                choices.append(choice)
                proto.oneof_decl.add(name=choice)
            field.oneof_index = choices.index(choice)
            kind = rest
        if kind.startswith("map:"):
            entry = f"{field_name.title().replace('_', '')}Entry"
            _add_entry(proto.nested_type.add(), entry, kind.removeprefix("map:"))
            field.label = _REPEATED
            _set_type(field, f"{name}.{entry}")
        elif kind.startswith("*"):
            field.label = _REPEATED
            _set_type(field, kind.removeprefix("*"))
        else:
            _set_type(field, kind)


def _add_entry(proto: Message, name: str, kind: str) -> None:
    """Add the entry message that a map field repeats."""
    _add_message(proto, name, {"key": (1, "string"), "value": (2, kind)})
    proto.options.map_entry = True


def _set_type(field: Message, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
