"""adapter_config.json: how a LoRA adapter is to be laid over a model, and what is refused of it.

It reads keys and knows no tensor. What it does not know it refuses where it is set, because an
option of a new version may change what the adapter means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_export.checkpoints.checkpoint import WantedFiles
from llama_export.checkpoints.hugging_face_files import is_small_file, weight_layout
from llama_export.errors import CheckpointError, UnsupportedModelError
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

_MOST_BYTES = 4 * 2**20
_MOST_RANK = 2**16
# A pattern is a stranger's expression: without repeated groups it cannot take for ever.
_PATTERN = re.compile(r"[\w.\\^$|()\[\]*+-]{1,200}", re.ASCII)
_REPEATED_GROUP = re.compile(r"\)\s*[*+?{]")
_MOST_REPEATS = 3
_FAITHFUL_INITS = ("gaussian", "eva", "orthogonal")
_KNOWN = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "inference_mode", "revision"),
    *("base_model_name_or_path", "runtime_config", "r", "lora_alpha", "lora_dropout", "bias"),
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform"),
    *("layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "eva_config"),
    *("init_lora_weights", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
    *("corda_config", "lora_ga_config", "loftq_config"),  # of initialisations, judged by name
}
_MERGE = "merge it in peft (merge_and_unload), and name the folder of the merged model"
_UNSUPPORTED = {
    "fan_in_fan_out": "it is for transposed weights, which a Llama does not have",
    "lora_bias": "it has biases of its own",
    "layer_replication": "it repeats layers of the model",
    "trainable_token_indices": "it changes single rows of the token table",
    "alora_invocation_tokens": "it works from certain tokens on only",
    "use_qalora": "it works on sums of inputs",
    "target_parameters": "it changes parameters that are no linear layer's",
}


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter says of itself.

    Args:
        folder: folder of the adapter.
        base: name of the model that it was trained on, a folder or hub id; empty: not said.
        revision: revision of that model; None: not said.
        ties: whether the table and the head were trained as one.
    """

    folder: Path
    base: str
    revision: str | None
    ties: bool
    _rank: int = field(repr=False)
    _alpha: float = field(repr=False)
    _ranks: Mapping[str, int] = field(repr=False)
    _alphas: Mapping[str, float] = field(repr=False)
    _by_root: bool = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> AdapterConfig:
        """Read the adapter_config.json of a folder.

        Raises:
            CheckpointError: it is missing or damaged.
            UnsupportedModelError: it is no LoRA, or one that cannot be merged as it stands.
        """
        path = folder / ADAPTER_CONFIG_FILE
        try:
            keys = read_object(path, most_bytes=_MOST_BYTES)
        except (OSError, JsonFault) as error:
            message = f"{path} cannot be read: {error}"
            raise CheckpointError(message, "take it from where the adapter came from") from None
        _require_supported(keys, path)
        reader = _Reader(keys, path)
        return cls(
            folder=folder,
            base=reader.text("base_model_name_or_path") or "",
            revision=reader.text("revision"),
            ties=bool(keys.get("ensure_weight_tying")),
            _rank=reader.rank(keys.get("r", 8), "r"),
            _alpha=reader.number(keys.get("lora_alpha", 8), "lora_alpha"),
            _ranks={k: reader.rank(v, k) for k, v in reader.patterns("rank_pattern").items()},
            _alphas={k: reader.number(v, k) for k, v in reader.patterns("alpha_pattern").items()},
            _by_root=bool(keys.get("use_rslora")),
        )

    def rank(self, module: str) -> int:
        """Return the rank that a module's update must have."""
        return self._ranks.get(_matching(self._ranks, module), self._rank)

    def scale(self, module: str) -> float:
        """Return what a module's update is multiplied by."""
        alpha = self._alphas.get(_matching(self._alphas, module), self._alpha)
        rank = self.rank(module)
        return alpha / (math.sqrt(rank) if self._by_root else rank)


def is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter and no model, as its names say."""
    if not (path / ADAPTER_CONFIG_FILE).is_file():
        return False
    return weight_layout([each.name for each in path.iterdir() if each.is_file()]) is None


def is_whole_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter and no model, with all of the adapter's files."""
    return is_adapter(path) and any((path / name).is_file() for name in ADAPTER_WEIGHTS)


def wanted_of_adapter(files: Collection[str]) -> WantedFiles | None:
    """Choose what is needed of a repository that holds an adapter; None: it holds none."""
    weights = [name for name in ADAPTER_WEIGHTS if name in files]
    if ADAPTER_CONFIG_FILE not in files or not weights:
        return None
    small = sorted({ADAPTER_CONFIG_FILE, *(name for name in files if is_small_file(name))})
    return WantedFiles(tuple(small), tuple(weights[:1]), ADAPTER_CONFIG_FILE)


def _matching(patterns: Mapping[str, object], module: str) -> str:
    """Return the first pattern that fits a module, as peft finds it."""
    fits = (key for key in patterns if re.match(rf"(.*\.)?({key})$", module))
    return next(fits, "")


def _require_supported(keys: Mapping[str, object], path: Path) -> None:
    kind = keys.get("peft_type")
    if kind != "LORA":
        message = f"{path}: the adapter is of the kind {shown_name(str(kind))}, not a LoRA"
        raise UnsupportedModelError(message, _MERGE)
    task = keys.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        message = f"{path}: the adapter is for the task {shown_name(str(task))}, not for CAUSAL_LM"
        raise UnsupportedModelError(message, "only models that write text can be exported")
    start = keys.get("init_lora_weights", True)
    if not isinstance(start, bool) and start not in _FAITHFUL_INITS and start is not None:
        message = (
            f"{path}: init_lora_weights is {shown_name(repr(start))}, which changes the base's own "
            "weights before the training"
        )
        hint = f"convert it (path_initial_model_for_weight_conversion in peft), or {_MERGE}"
        raise UnsupportedModelError(message, hint)
    for key, value in keys.items():
        if key in _KNOWN or value in (None, False, 0, "", [], {}):
            continue
        why = _UNSUPPORTED.get(key, "that changes the adapter in a way that is not known here")
        message = f"{path}: {shown_name(key)} is {shown_name(repr(value))}: {why}"
        raise UnsupportedModelError(message, _MERGE)


@dataclass(frozen=True)
class _Reader:
    keys: Mapping[str, object]
    path: Path

    def text(self, key: str) -> str | None:
        value = self.keys.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, "text", value)

    def rank(self, value: object, key: str) -> int:
        if type(value) is int and 1 <= value <= _MOST_RANK:
            return value
        raise self._wrong(key, "a rank of at least 1", value)

    def number(self, value: object, key: str) -> float:
        if type(value) in (int, float) and isinstance(value, int | float):
            return float(value)
        raise self._wrong(key, "a number", value)

    def patterns(self, key: str) -> Mapping[str, object]:
        value = self.keys.get(key) or {}
        if not isinstance(value, dict):
            raise self._wrong(key, "an object of patterns", value)
        for pattern in value:
            if not _PATTERN.fullmatch(pattern) or _REPEATED_GROUP.search(pattern):
                raise self._wrong(key, "plain patterns of modules' names", pattern)
            try:
                re.compile(pattern)
            except re.error:
                raise self._wrong(key, "patterns of modules' names", pattern) from None
            if pattern.count("*") + pattern.count("+") > _MOST_REPEATS:
                raise self._wrong(key, f"at most {_MOST_REPEATS} repeats a pattern", pattern)
        return value

    def _wrong(self, key: str, expected: str, found: object) -> CheckpointError:
        message = (
            f"{self.path}: {shown_name(key)} must be {expected}, found {shown_name(repr(found))}"
        )
        return CheckpointError(message, "take the file from where the adapter came from")
