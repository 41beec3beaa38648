"""What tensors' names say about who wrote them: wrappers around a Llama, and other layouts.

The rows are data. It knows names alone; whether a model is complete is not its business.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from llama_quantize.printable import shown_name


@dataclass(frozen=True)
class Wrapping:
    """What stands before a name, or in it, where something was saved with the model inside.

    Args:
        part: pattern of what is too much.
        maker: who writes such names, as a phrase.
        hint: what to do.
    """

    part: re.Pattern[str]
    maker: str
    hint: str


def _part(*spellings: str) -> re.Pattern[str]:
    return re.compile(r"(?<![^.])(?:" + "|".join(map(re.escape, spellings)) + ")")


MERGE = (
    "merge the adapter first: save what merge_and_unload() of peft returns; or name the base "
    "with --model, and with --adapter the folder that save_pretrained of peft wrote"
)
"""What to do where a model was saved with its adapter inside."""
_RENAME = "take that part out of every name, and save the tensors again"
WRAPPINGS = (
    Wrapping(
        _part("base_model.model."),
        "PEFT writes them: the model was saved with its adapter still around it",
        MERGE,
    ),
    Wrapping(
        _part("_orig_mod."),
        "torch.compile writes them",
        f"save the model that was compiled, model._orig_mod; or {_RENAME}",
    ),
    Wrapping(
        _part("module."),
        "DataParallel and DeepSpeed write them",
        f"save the model that was wrapped, model.module; or {_RENAME}",
    ),
    Wrapping(
        _part("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module."),
        "a trainer's wrapper writes them",
        f"save the full state dict of the model that was wrapped; or {_RENAME}",
    ),
    Wrapping(
        _part("pretrained_model."),
        "TRL's models with a value head write them",
        f"save the model inside, model.pretrained_model; or {_RENAME}",
    ),
    Wrapping(
        _part("model.language_model.", "language_model.", "text_model.", "llm."),
        "the Llama is a part of a larger model, such as one that sees images",
        f"save its language model alone, with a config.json of its own; or {_RENAME}",
    ),
)


@dataclass(frozen=True)
class Wrapped:
    """A wrapping that was found: an example of its names, and what the name should be."""

    wrapping: Wrapping
    example: str
    plain: str


def find_wrapping(missing: Collection[str], names: Collection[str]) -> Wrapped | None:
    """Find what was put around the names of missing tensors; None: nothing that is known.

    Args:
        missing: names that a model lacks.
        names: names that its files hold.
    """
    wanted = set(missing)
    for wrapping in WRAPPINGS:
        for name in sorted(names):
            plain = wrapping.part.sub("", name)
            for each in (plain, f"model.{plain}", _unwrapped(plain)):
                if plain != name and each in wanted:
                    return Wrapped(wrapping, name, each)
    return _any_wrapping(wanted, names)


def _any_wrapping(missing: Collection[str], names: Collection[str]) -> Wrapped | None:
    """Find a prefix that nobody is known for, under which all that is missing stands."""
    first = min(missing)
    for name in sorted(names):
        for inner in {first, first.removeprefix("model.")}:
            prefix = name.removesuffix(inner)
            if prefix in (name, "") or not prefix.endswith("."):
                continue
            under = {each.removeprefix(prefix) for each in names if each.startswith(prefix)}
            if all(each in under or each.removeprefix("model.") in under for each in missing):
                maker = f"all that is missing stands under {shown_name(prefix)}"
                return Wrapped(Wrapping(_part(prefix), maker, _RENAME), name, first)
    return None


def _unwrapped(name: str) -> str:
    """Take everything off a name that may have been put around it, one inside the other."""
    for wrapping in WRAPPINGS:
        name = wrapping.part.sub("", name)
    return name


_LORA = r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|modules_to_save)(\.|$)"
_QUANTISED = (
    r"\.(qweight|qzeros|g_idx|weight_(packed|scale|scale_inv|zero_point|shape)|SCB|"
    r"weight\.(absmax|quant_map|nested_absmax|quant_state.*)|_weight_(qdata|scale))$"
)
ADAPTER = re.compile(_LORA)
"""Parts of a LoRA adapter, which change what a model computes."""

_LAYOUTS = (
    (ADAPTER, "parts of a LoRA adapter that is not merged"),
    (re.compile(r"layers\.\d+\.attention\.w[qkvo]\.weight$"), "the names of Meta's own layout"),
    (re.compile(r"layers\.\d+\.attn\.\w+_proj\.weight$"), "the names of torchtune"),
    (re.compile(r"^transformer\.h\.\d+\."), "the names of a GPT-2"),
    (re.compile(r"^blk\.\d+\."), "the names of a GGUF"),
    (
        re.compile(r"\.(self_attn\.(qkv_proj|W_pack)|mlp\.gate_up_proj)\."),
        "several matrices in one tensor, as other architectures keep them",
    ),
    (
        re.compile(r"\.(block_sparse_moe|mlp\.experts|mlp\.gate|feed_forward\.router)\."),
        "experts: this is a mixture of them",
    ),
    (re.compile(r"\.self_attn\.[qk]_norm\."), "norms of queries and keys, which a Llama lacks"),
    (re.compile(r"\.(pre|post)_feedforward_layernorm\."), "norms that a Llama lacks"),
    (re.compile(r"\.biases$"), "weights that MLX quantised"),
    (
        re.compile(_QUANTISED),
        "quantised weights, of which config.json says nothing that is understood",
    ),
)


def layouts_of(names: Iterable[str]) -> list[str]:
    """Name what some tensors belong to, each with an example: `experts: ..., such as X`."""
    left, found = sorted(names), []
    for pattern, what in _LAYOUTS:
        if example := next((name for name in left if pattern.search(name)), None):
            found.append(f"{shown_name(example)} and the like are {what}")
    return found
