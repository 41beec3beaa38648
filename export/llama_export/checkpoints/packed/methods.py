"""Which method packed a checkpoint, by `quantization_config`, and which are refused by name.

It knows the names that config.json uses; what a method's tensors are is its own file's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from llama_export.checkpoints.packed.awq import Awq
from llama_export.checkpoints.packed.bitsandbytes import Bitsandbytes
from llama_export.checkpoints.packed.compressed_tensors import CompressedTensors
from llama_export.checkpoints.packed.fp8 import Fp8
from llama_export.checkpoints.packed.gptq import Gptq
from llama_export.checkpoints.packed.packing import Method
from llama_export.checkpoints.packed.settings import ORIGINAL, Settings
from llama_export.checkpoints.packed.torchao import Torchao
from llama_export.errors import ConfigError, UnsupportedModelError
from llama_export.llama.config import read_keys
from llama_export.llama.config_keys import shown

KEY = "quantization_config"
_METHOD = "quant_method"


def _auto_round(settings: Settings) -> Method:
    """Read AutoRound's settings, which borrows the layouts of others."""
    layout = settings.text("packing_format", "auto_round")
    layouts: dict[str, Callable[[Settings], Method]] = {
        "auto_round:auto_gptq": Gptq.read,
        "auto_round:auto_awq": Awq.read,
    }
    settings.refuse_other("packing_format", layout, layouts)
    return layouts[layout](settings)


_METHODS: Mapping[str, Callable[[Settings], Method]] = {
    "gptq": Gptq.read,
    "awq": Awq.read,
    "auto-round": _auto_round,
    "compressed-tensors": CompressedTensors.read,
    "bitsandbytes": lambda settings: Bitsandbytes.read(settings),
    "fp8": Fp8.read,
    "fbgemm_fp8": Fp8.read,
    "modelopt": Fp8.of_modelopt,
    "torchao": Torchao.read,
}
_MLX_KEYS = {"bits", "group_size", "mode"}
_LOADED_AS = ("load_in_4bit", "load_in_8bit")


def method_of(path: Path) -> Method:
    """Return what reads the weights that a config.json describes.

    Raises:
        ConfigError: it cannot be read, or its `quantization_config` is missing or wrong.
        UnsupportedModelError: they are of a method or of a kind that is not read; names it.
    """
    raw, where = read_keys(path).get(KEY), f"{path}: {KEY}"
    if not isinstance(raw, dict):
        message = f"{where} must be an object, found {shown(raw)}"
        raise ConfigError(message, "take config.json from the model's repository")
    return find_method(Settings(raw, where))


def has_settings(path: Path) -> bool:
    """Whether a config.json can be read and has a `quantization_config`."""
    try:
        return bool(read_keys(path).get(KEY))
    except ConfigError:
        return False


def find_method(settings: Settings) -> Method:
    """Return what reads the weights that a config describes.

    Raises:
        UnsupportedModelError: they are of a method or of a kind that is not read; names it.
        ConfigError: the keys are missing or wrong.
    """
    name = settings.text(_METHOD, "")
    if not name and any(settings.raw.get(key) for key in _LOADED_AS):
        name = "bitsandbytes"  # as early versions wrote it
    if not name and set(settings.raw) <= _MLX_KEYS:
        message = f"{settings.where} is what MLX writes, and weights of MLX are not read"
        raise UnsupportedModelError(message, ORIGINAL)
    if not name:
        message = f"{settings.where}: {_METHOD} is missing"
        raise ConfigError(message, "take config.json from the model's repository")
    if name not in _METHODS:
        message = f"{settings.where}: weights of {_METHOD} {shown(name)} are not read"
        hint = f"those of {', '.join(_METHODS)} are; {ORIGINAL}"
        raise UnsupportedModelError(message, hint)
    return _METHODS[name](settings)
