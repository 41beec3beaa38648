"""Make the config of a model in Meta's layout: what params.json says, and what it leaves out.

Rope factor and number of positions are not recorded there; they are inferred from the shape, and a
note says so. It knows no file of weights, only what was found in them.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_export.checkpoints.checkpoint import ReadOptions
from llama_export.checkpoints.meta_params import MetaParams
from llama_export.errors import UnsupportedModelError
from llama_export.llama.config import LlamaConfig, RopeScaling
from llama_export.tokenizer.special_tokens import END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN
from llama_export.tokenizer.tokenizer import Tokenizer

# Of the models that have a stretched rope: 3.2 1B and 3B are this wide at most, 3.1 8B is wider.
_WIDEST_SMALL = 3072
_SMALL_FACTOR, _LARGE_FACTOR = 32.0, 8.0
_SCALED_POSITIONS = 131072
_LLAMA_3_VOCABULARY = 128000
_LLAMA_1_EPS = 1e-6
_CODE_LLAMA_THETA = 1e6


@dataclass(frozen=True)
class Found:
    """What the weights say of the model's shape.

    Args:
        vocab_size: rows of the token table.
        tied: whether the output head is the token table.
    """

    vocab_size: int
    tied: bool


def make_config(
    params: MetaParams, found: Found | None, tokenizer: Tokenizer, options: ReadOptions
) -> tuple[LlamaConfig, tuple[str, ...]]:
    """Make a model's config, and notes of what was inferred for it.

    Args:
        params: what params.json says.
        found: what the weights say; None: they are not there yet, and what Meta's models have is
            assumed.
        tokenizer: tokenizer of the model, which knows where a text begins and ends.
        options: what the user says of the model.

    Raises:
        ConfigError: it is no shape that a Llama can have.
        UnsupportedModelError: the rotation of its feed-forward layers is not implemented.
    """
    if params.spinquant and params.hidden_dim & (params.hidden_dim - 1):
        message = (
            f"params.json: SpinQuant with a hidden_dim of {params.hidden_dim}: the rotation before "
            "the last product of a feed-forward layer is implemented for powers of two alone"
        )
        raise UnsupportedModelError(message, "start from the original weights, and quantise them")
    scaling, notes = _rope_scaling(params, options)
    positions, position_notes = _positions(params)
    merged = options.merge_adaptors
    config = LlamaConfig(
        vocab_size=found.vocab_size if found else params.vocab_size or tokenizer.vocab_size,
        hidden_size=params.dim,
        intermediate_size=params.hidden_dim,
        num_hidden_layers=params.n_layers,
        num_attention_heads=params.n_heads,
        num_key_value_heads=params.n_kv_heads,
        head_dim=params.head_dim,
        max_position_embeddings=positions,
        rms_norm_eps=params.norm_eps,
        rope_theta=params.rope_theta,
        rope_scaling=scaling,
        tie_word_embeddings=found.tied if found else _is_usually_tied(params),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=_ends(tokenizer),
        down_proj_rotation=params.spinquant,
        adaptor_rank=0 if merged else params.lora_rank,
        adaptor_scale=0.0 if merged else params.lora_scale,
    )
    return config, notes + position_notes


def _rope_scaling(
    params: MetaParams, options: ReadOptions
) -> tuple[RopeScaling | None, tuple[str, ...]]:
    if options.rope_factor is not None:
        return RopeScaling(factor=options.rope_factor), ()
    if not params.scaled_rope:
        return None, ()
    if params.rope_factor is not None:
        return RopeScaling(factor=params.rope_factor), ()
    small = params.dim <= _WIDEST_SMALL
    factor = _SMALL_FACTOR if small else _LARGE_FACTOR
    model = "Llama 3.2 1B and 3B" if small else "Llama 3.1"
    note = (
        f"params.json records no factor of the rotary scaling: {factor:.0f} was taken, as "
        f"{model} have it; --rope-factor sets another"
    )
    return RopeScaling(factor=factor), (note,)


def _positions(params: MetaParams) -> tuple[int, tuple[str, ...]]:
    """Return the most positions, which Meta records nowhere."""
    if params.max_seq_len is not None:
        return params.max_seq_len, ()
    if params.scaled_rope:
        positions, model = _SCALED_POSITIONS, "Llama 3.1 and 3.2"
    elif (params.vocab_size or 0) >= _LLAMA_3_VOCABULARY:
        positions, model = 8192, "Llama 3"
    elif params.rope_theta >= _CODE_LLAMA_THETA:
        positions, model = 16384, "Code Llama"
    elif params.norm_eps <= _LLAMA_1_EPS:
        positions, model = 2048, "Llama 1"
    else:
        positions, model = 4096, "Llama 2"
    note = f"params.json records no number of positions: {positions} was taken, as of {model}"
    return positions, (note,)


def _is_usually_tied(params: MetaParams) -> bool:
    """Whether Meta's model of such a shape has one table: Llama 3.2, unless it is quantised."""
    return params.scaled_rope and params.dim <= _WIDEST_SMALL and params.group_size is None


def _ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens that end what a model writes: of Llama 3 those of texts and of turns."""
    special = tokenizer.special_tokens
    names = (END_OF_TEXT, END_OF_MESSAGE, END_OF_TURN)
    found = tuple(special[name] for name in names if name in special)
    if found or tokenizer.eos_token_id is None:
        return found
    return (tokenizer.eos_token_id,)
