"""The served bundles as ollama's clients are told of them: `/api/tags`, `/api/show`, `/api/ps`.

It knows names and shapes; it does not know HTTP, and answers no prompt.
"""

from __future__ import annotations

from datetime import datetime, timezone

from llama_export.errors import PromptError
from llama_export.serving.catalogue import Catalogue, Served, total_bytes
from llama_export.serving.fields import Fields
from llama_export.tokenizer.chat.call_form import find_call_form
from llama_export.tokenizer.chat.chat_format import DEFAULT_TEMPLATE

_SHOW = frozenset({"model", "name", "verbose", "system", "template", "options"})
_SIZES = ((1e9, "B"), (1e6, "M"), (1e3, "K"))
# A bundle stays until the server ends.
_NEVER = "9999-12-31T23:59:59Z"
# Clients such as VS Code talk with no ollama that is older than 0.6.4, the first whose `/api/show`
# names capabilities. Ours would be read as an ollama of long ago.
OLLAMA_VERSION = "0.6.4"
"""The release of ollama whose interface is followed."""


def tags(catalogue: Catalogue) -> dict[str, object]:
    """Return the served bundles as ollama lists its models."""
    return {"models": [_listed(each) for each in catalogue.served]}


def running(catalogue: Catalogue) -> dict[str, object]:
    """Return the served bundles as ollama lists those that are loaded: all of them are."""
    return {"models": [_loaded(each) for each in catalogue.served]}


def asked_model(fields: Fields) -> str:
    """Return the name of the model that is to be shown, by ollama's newer word or its older one.

    Raises:
        ApiError: it is no text, or there are other parameters.
    """
    fields.only(_SHOW)
    return fields.text("model", fields.text("name", ""))


def show(served: Served) -> dict[str, object]:
    """Return what there is to know of a bundle; its template is Jinja."""
    template = served.session.chat_format.templates.get(DEFAULT_TEMPLATE)
    return {
        "license": "",
        "modelfile": f"FROM {served.id}\n",
        "parameters": _parameters(served),
        "template": "" if template is None else template.source,
        "details": _details(served),
        "model_info": _model_info(served),
        "capabilities": ["completion", *(["tools"] if _has_tools(served) else [])],
        "modified_at": _written(served),
    }


def _listed(served: Served) -> dict[str, object]:
    return {
        "name": served.id,
        "model": served.id,
        "modified_at": _written(served),
        "size": total_bytes([served.manifest]),
        "digest": served.session.identity.sha256,
        "details": _details(served),
    }


def _loaded(served: Served) -> dict[str, object]:
    listed = _listed(served)
    del listed["modified_at"]
    size = (served.manifest.memory or {}).get("resident_bytes", listed["size"])
    more = {"expires_at": _NEVER, "size_vram": 0, "context_length": served.session.max_context}
    return {**listed, "size": size, **more}


def _details(served: Served) -> dict[str, object]:
    return {
        "parent_model": "",
        "format": served.manifest.target,
        "family": "llama",
        "families": ["llama"],
        "parameter_size": _in_words(served.session.config.num_parameters),
        "quantization_level": str(served.manifest.quantization["recipe"]),
    }


def _model_info(served: Served) -> dict[str, object]:
    """Return the model's shape by GGUF's keys; the context is what this server has room for."""
    config, tokenizer = served.session.config, served.manifest.tokenizer
    return {
        "general.architecture": "llama",
        "general.basename": served.manifest.model.name,
        "general.parameter_count": config.num_parameters,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": served.session.max_context,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": config.rope_theta,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.bos_token_id": tokenizer["bos_token_id"],
        "tokenizer.ggml.eos_token_id": next(iter(tokenizer["stop_token_ids"]), None),
    }


def _parameters(served: Served) -> str:
    """Return how the model draws tokens, and what ends its answers, a line for each."""
    sampling, tokenizer = served.session.sampling, served.session.tokenizer
    lines: list[tuple[str, object]] = [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("min_p", sampling.min_p),
        ("repeat_penalty", sampling.repetition_penalty),
        ("num_ctx", served.session.max_context),
    ]
    names = map(tokenizer.token_name, served.manifest.tokenizer["stop_token_ids"])
    lines += [("stop", f'"{name}"') for name in names if name]
    return "\n".join(f"{key:<30} {value}" for key, value in lines)


def _has_tools(served: Served) -> bool:
    try:
        return find_call_form(served.session.chat_format) is not None
    except PromptError:  # it describes tools, and writes calls as nobody here reads them
        return False


def _written(served: Served) -> str:
    return datetime.fromtimestamp(served.created, timezone.utc).isoformat()


def _in_words(number: int) -> str:
    """Return a number of parameters as ollama writes it, such as 1.2B."""
    for size, unit in _SIZES:
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
