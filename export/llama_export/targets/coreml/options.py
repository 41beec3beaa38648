"""The options of a Core ML package, and what Core ML has no form for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.bundle.graph_spec import IO, STATE
from llama_export.errors import UsageError
from llama_export.llama.names import is_adaptor, is_bias
from llama_export.targets.options import TargetOptions, option, require_known_choices

if TYPE_CHECKING:
    from llama_quantize.scheme import Scheme

MAIN = "main"
PREFILL = "prefill"
DECODE = "decode"
# What Swift calls it; the Neural Engine has no int4 in groups.
DEFAULT_COMPUTE_UNITS = "cpuAndGPU"
FIXED = f"{PREFILL}+{DECODE}"
IOS17, IOS18 = "iOS17", "iOS18"
# Below that `prefill` would be `decode`.
_FEWEST_FIXED = 2
_BELOW_IOS_17 = "int4 in groups needs iOS18; iOS17 takes --quantize fp16 with --kv-cache io"


@dataclass(frozen=True)
class CoremlOptions(TargetOptions):
    """What a user may choose about a Core ML package."""

    kv_cache: str = option(
        STATE,
        choices=(STATE, IO),
        help="Keep the KV cache inside (state), or take and give it (io).",
    )
    all_logits: bool = option(False, help="Give every position's logits, not the last's.")
    functions: str = option(
        MAIN, choices=(MAIN, FIXED), help="One function of any length, or two of fixed shapes."
    )
    deployment_target: str = option(
        IOS18, choices=(IOS18, IOS17), help="iOS17 (macOS 14) takes fp16 weights and --kv-cache io."
    )

    @property
    def fixed(self) -> bool:
        """Whether the shapes are fixed: two functions instead of one."""
        return self.functions == FIXED


def require_consistent(options: CoremlOptions) -> None:
    """Refuse values that there are not, and combinations that cannot be.

    Raises:
        UsageError: with the values that work.
    """
    require_known_choices(options, {"deployment_target": _BELOW_IOS_17})
    if options.deployment_target == IOS17 and options.kv_cache == STATE:
        message = "--deployment-target iOS17: a KV cache inside the package needs iOS 18"
        raise UsageError(message, "add --kv-cache io and --quantize fp16, which iOS 17 has")
    if options.fixed and options.kv_cache == IO:
        message = f"--functions {FIXED} shares its KV cache as a state, and --kv-cache is io"
        raise UsageError(message, "leave --kv-cache out")
    if options.fixed and options.all_logits:
        message = f"--all-logits: with --functions {FIXED} the last token's logits come out"
        raise UsageError(message, "leave --functions out: its one function gives every row")


def require_fitting_schemes(options: CoremlOptions, schemes: Mapping[str, Scheme]) -> None:
    """Refuse weights that Core ML, or a deployment target, has no constants for.

    Raises:
        UsageError: with what works.
    """
    from llama_quantize.scheme import Float, GroupedInt

    # Norms, biases and side branches are float32 in a package.
    bfloat16 = [
        name
        for name, scheme in schemes.items()
        if scheme == Float("bfloat16")
        and not (name.endswith("norm.weight") or is_bias(name) or is_adaptor(name))
    ]
    if bfloat16:
        message = f"the coreml target: Core ML has no bfloat16 weights, as {bfloat16[0]} would be"
        hint = "use --quantize fp16, or int4; in a recipe's file the scheme fp16"
        raise UsageError(message, hint)
    if options.deployment_target == IOS17 and any(
        isinstance(scheme, GroupedInt) for scheme in schemes.values()
    ):
        message = "--deployment-target iOS17: integer weights in groups need iOS 18 (macOS 15)"
        raise UsageError(message, "use --quantize fp16 --kv-cache io there, or target iOS18")


def require_fitting_context(options: CoremlOptions, max_context: int) -> None:
    """Refuse a context that is shorter than a call of fixed shapes.

    Raises:
        UsageError: with what works.
    """
    if options.fixed and max_context < _FEWEST_FIXED:
        message = (
            f"--functions {FIXED}: expected a context of at least {_FEWEST_FIXED} tokens, "
            f"found {max_context}"
        )
        raise UsageError(message, "leave --functions out")
