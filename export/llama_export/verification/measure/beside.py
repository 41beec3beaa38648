"""Compare what stands beside an artifact: each small file, the manifest, the artifact's own words.

Clients read files by name, whatever a manifest lists. It reads and compares; it judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from llama_export.bundle.manifest import MANIFEST_NAME
from llama_export.sources.manifest_fields import describe_quantization, describe_tokenizer
from llama_export.sources.model_files import json_bytes
from llama_export.sources.reading import how_it_was_read
from llama_export.sources.source import IDENTITY
from llama_export.targets.own_description import ClientSettings
from llama_export.tokenizer.tokenizer import Tokenizer, load_tokenizer
from llama_export.verification.artifact import Artifact
from llama_export.verification.measure.app_keys import chat_differences, memory_differences
from llama_export.verification.measure.dialogs import dialog_differences
from llama_export.verification.measure.differences import (
    Difference,
    differing_content,
    differing_values,
)
from llama_quantize.strict_json import JsonFault, parse_object

if TYPE_CHECKING:
    from llama_quantize.checkpoint.weights import QuantizedWeights

_CONFIG, _GENERATION, _CHAT = "config.json", "generation_config.json", "tokenizer_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_LICENCE = re.compile(r"(LICEN[SC]E|USE_POLICY)([._-].*)?|NOTICE", re.IGNORECASE)
# What clients look for by name: transformers, optimum, onnxruntime-genai, transformers.js, the
# swift packages and ExecuTorch's runners. In small letters, as some file systems find any.
_READ_BY_NAME = re.compile(
    r"(?:.*/)?(?:(?:config|generation_config|genai_config|tokenizer|tokenizer_config"
    r"|special_tokens_map|added_tokens|vocab|chat_template|preprocessor_config|processor_config"
    r"|quantize_config|quantization_config|adapter_config|params|tekken)\.json"
    r"|merges\.txt|vocab\.txt|chat_template\.jinja|additional_chat_templates/.*\.jinja"
    r"|custom_generate/.*\.py|tokenizer\.bin|(?:tokenizer|spiece|sentencepiece\.bpe)\.model"
    r"|(?:model|decoder|encoder|embed|adapter|pytorch)[^/]*"
    r"\.(?:onnx|onnx_data|onnx\.data|onnx_data_\d+|ort|pte|ptd|safetensors|bin)"
    r"|model[^/]*\.(?:mlpackage|mlmodelc)/.*)"
)


@dataclass(frozen=True)
class Beside:
    """What differs beside an artifact; None: there is nothing to compare with.

    Args:
        config: keys of config.json, which are the manifest's model and the target's own.
        clients: keys of the files of the target's stock clients.
        others: files that a client would read, and that no export writes.
        tokenizer: the manifest's words on the tokenizer.
        graph: the manifest's words on the artifact's signature.
        said: the artifact's own words on the model.
        model: the manifest's words on the model.
        quantization: the manifest's words on the weights.
        memory: the manifest's words on the memory that running it takes; None: an older export's.
        chat: the manifest's turns, which are those of the template beside it; None: as `memory`.
        files: differences from the source by a file's name, each file of the source among them.
        dialogs: dialogs that the bundle writes otherwise than the source.
        origin: where the source is known from; empty when it is not.
    """

    config: Sequence[Difference]
    clients: Sequence[Difference]
    others: Sequence[Difference]
    tokenizer: Sequence[Difference]
    graph: Sequence[Difference] | None
    said: Sequence[Difference] | None
    model: Sequence[Difference] | None
    quantization: Sequence[Difference] | None
    memory: Sequence[Difference] | None
    chat: Sequence[Difference] | None
    files: Mapping[str, Sequence[Difference]] | None
    dialogs: Sequence[Difference] | None
    origin: str


def compare_beside(artifact: Artifact, unlisted: Sequence[str]) -> Beside:
    """Compare everything beside an artifact with its source, or with each other.

    Args:
        artifact: artifact with its references; its files are what the manifest hashed.
        unlisted: names of the files in the folder that the manifest does not list.

    Raises:
        BundleError: the artifact, or the manifest's graph, is damaged.
        TokenizerError: the tokenizer cannot be read.
    """
    own, source, weights = artifact.own_description, artifact.files, artifact.weights
    recorded = artifact.recorded_spec.to_json()
    said = None
    if own is not None:
        said = [
            Difference(artifact.bundle.manifest.artifact, each.key, each.expected, each.found)
            for each in own.said
            if each.expected != each.found
        ]
    return Beside(
        config=_config_differences(artifact),
        clients=list(_client_differences(artifact)),
        others=[*_unexpected(artifact, unlisted), *_contradicting_vocabularies(artifact)],
        tokenizer=_tokenizer_differences(artifact),
        graph=None if own is None else _in_manifest("graph", own.signature.to_json(), recorded),
        said=said,
        model=None if source is None else _model_differences(artifact, source.contents),
        quantization=None if weights is None else _quantization_differences(artifact, weights),
        memory=memory_differences(artifact),
        chat=chat_differences(artifact),
        files=None if source is None else _file_differences(artifact, source.contents),
        dialogs=dialog_differences(artifact),
        origin="" if source is None else source.origin,
    )


def _in_manifest(key: str, expected: object, found: object) -> list[Difference]:
    return list(differing_values(MANIFEST_NAME, key, expected, found))


def _content(artifact: Artifact, name: str) -> bytes | None:
    """Read a listed file, whose hash was compared; None: it is not listed."""
    if name not in artifact.bundle.manifest.files:
        return None
    return artifact.bundle.path(name).read_bytes()


def _client_settings(artifact: Artifact) -> ClientSettings:
    """Return what the stock clients should read, by the generation_config.json that lies there."""
    raw = _content(artifact, _GENERATION)
    try:
        generation = {} if raw is None else parse_object(raw)
    except JsonFault:
        generation = {}  # what is wrong with the file has a check of its own
    context = artifact.on_disk.spec.max_context
    return artifact.target.client_settings(artifact.config, context, generation)


def _config_differences(artifact: Artifact) -> list[Difference]:
    settings = _client_settings(artifact)
    wanted = {**artifact.bundle.manifest.model.config, **settings.config_keys}
    found = _content(artifact, _CONFIG)
    return list(differing_content(_CONFIG, json_bytes(wanted), found))


def _client_differences(artifact: Artifact) -> Iterator[Difference]:
    settings = _client_settings(artifact)
    for name, keys in settings.files.items():
        yield from differing_content(name, json_bytes(keys), _content(artifact, name))


def _tokenizer_differences(artifact: Artifact) -> list[Difference]:
    manifest = artifact.bundle.manifest
    # A bundle with both files loads tokenizer.model.
    file = next((name for name in reversed(_TOKENIZERS) if name in manifest.files), "")
    wanted = describe_tokenizer(artifact.tokenizer, artifact.config) | {"file": file}
    return _in_manifest("tokenizer", wanted, dict(manifest.tokenizer))


def _model_differences(artifact: Artifact, source: Mapping[str, bytes]) -> list[Difference]:
    """Compare the manifest's config with the source's, and its origin with the weights'."""
    model, weights = artifact.bundle.manifest.model, artifact.weights
    found = list(
        differing_content(_CONFIG, source[_CONFIG], json_bytes(model.config), MANIFEST_NAME)
    )
    known = {} if weights is None else weights.metadata
    if "name" in known:
        identity = {key: known.get(key) for key in IDENTITY}
        named = {key: getattr(model, key) for key in IDENTITY}
        found += _in_manifest("model", identity, named)
        # How it was read: absent on both sides where there is nothing to say.
        found += _in_manifest("model", how_it_was_read(known), model.how_it_was_read())
    return found


def _quantization_differences(artifact: Artifact, weights: QuantizedWeights) -> list[Difference]:
    """Compare what stands about the weights; their hashes have a row of their own."""
    wanted, found = (
        {key: value for key, value in words.items() if key != "tensors"}
        for words in (describe_quantization(weights), artifact.bundle.manifest.quantization)
    )
    return _in_manifest("quantization", wanted, found)


def _file_differences(
    artifact: Artifact, source: Mapping[str, bytes]
) -> dict[str, list[Difference]]:
    """Compare each file but config.json, which has its target's keys too."""
    licences = {name for name in artifact.bundle.manifest.files if _LICENCE.fullmatch(name)}
    found = {}
    for name in sorted({*source, *licences} - {_CONFIG}):
        content = _content(artifact, name)
        if name in source:
            found[name] = list(differing_content(name, source[name], content))
        else:
            found[name] = [Difference(name, "", "no such file", "a file")]
    return found


def _unexpected(artifact: Artifact, unlisted: Sequence[str]) -> Iterator[Difference]:
    manifest, own = artifact.bundle.manifest, artifact.bundle.manifest.artifact
    settings = _client_settings(artifact)
    expected = {_CONFIG, _GENERATION, _CHAT, own, f"{own}_data", *settings.files}
    expected |= set(_TOKENIZERS if artifact.files is None else artifact.files.contents)
    for name in sorted({*manifest.files, *unlisted}):
        inside = PurePosixPath(own) in PurePosixPath(name).parents and name in manifest.files
        if not inside and name not in expected and _READ_BY_NAME.fullmatch(name.casefold()):
            listed = "listed" if name in manifest.files else "not listed"
            yield Difference(name, "", "no such file", f"a file, {listed} in {MANIFEST_NAME}")
        elif name in expected and name not in manifest.files:
            yield Difference(name, "", f"an entry in {MANIFEST_NAME}", "a file that is not listed")


def _contradicting_vocabularies(artifact: Artifact) -> Iterator[Difference]:
    """Compare the tokenizer's two files with each other where there is no source for either."""
    listed = artifact.bundle.manifest.files
    if artifact.files is not None or not all(name in listed for name in _TOKENIZERS):
        return
    first, second = (load_tokenizer(artifact.bundle.path(name)) for name in _TOKENIZERS)
    for token_id in range(max(first.vocab_size, second.vocab_size)):
        wanted, found = _token_text(first, token_id), _token_text(second, token_id)
        if wanted != found:
            yield Difference(_TOKENIZERS[1], f"token {token_id}", wanted, found)
            return


def _token_text(tokenizer: Tokenizer, token_id: int) -> str | None:
    """Return what an id stands for; None: the tokenizer has no such id."""
    if token_id >= tokenizer.vocab_size:
        return None
    return tokenizer.token_name(token_id) or tokenizer.decode([token_id])
