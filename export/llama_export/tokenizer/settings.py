"""What the small files beside a tokenizer say of it: which tokens begin and end a text, and others.

The keys are those of tokenizer_config.json, in all the spellings that transformers wrote over the
years. Names are checked here; whether a vocabulary has them is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.errors import TokenizerError
from llama_export.tokenizer.vocabulary import check_special_tokens
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

CONFIG_FILE = "tokenizer_config.json"
"""Name of the file whose keys a tokenizer's settings have."""
_MAP_FILE, _ADDED_FILE, _MODEL_FILE = "special_tokens_map.json", "added_tokens.json", "config.json"
_MOST_BYTES = 16 * 2**20
_MOST_DIGITS = 10
_BOS, _EOS = "bos_token", "eos_token"
_NAMED = (_BOS, _EOS, "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_IDS = ("bos_token_id", "eos_token_id")
_LISTED = ("additional_special_tokens", "extra_special_tokens")
_ADDED, _ADDS = "added_tokens_decoder", "add_bos_token"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_HINT = "correct it, download it again, or remove it"


@dataclass(frozen=True)
class AddedToken:
    """A token that was added to a vocabulary.

    Args:
        name: its text.
        token_id: its id.
        flags: which text becomes the token: `single_word`, `lstrip`, `rstrip`, `normalized`; and
            `special`, whether it is a control token.
    """

    name: str
    token_id: int
    flags: Mapping[str, bool]

    @property
    def is_special(self) -> bool:
        """Whether it is a control token, which typed text never becomes."""
        return self.flags["special"]


@dataclass(frozen=True)
class TokenSettings:
    """What is known of a tokenizer's tokens.

    Args:
        named: name of the token for each use, such as `bos_token`; None: there is to be none.
        listed: names of further control tokens.
        added: tokens that were added, by their ids.
        fallback_ids: id of the token for a use, where `named` does not have it.
        add_bos_token: whether the first token comes before every text; None: not said.
        legacy: whether text after a control token begins like a text of its own.
    """

    named: Mapping[str, str | None]
    listed: tuple[str, ...]
    added: tuple[AddedToken, ...]
    fallback_ids: Mapping[str, int]
    add_bos_token: bool | None
    legacy: bool

    @classmethod
    def of(cls, keys: Mapping[str, object], where: str) -> TokenSettings:
        """Read the keys of a tokenizer_config.json.

        Args:
            keys: its keys; `bos_token_id` and `eos_token_id` count where the names are absent.
            where: name of the file, for messages.

        Raises:
            TokenizerError: a token is spelled in no way that is known, or a key has another type.
        """
        named = {key: _name(keys[key], key, where) for key in _NAMED if key in keys}
        listed = [name for key in _LISTED for name in _names(keys.get(key), key, where)]
        ids = {use: keys.get(f"{use}_id") for use in (_BOS, _EOS)}
        _require(keys.get(_ADDS), (bool,), "true or false", f"{where}, {_ADDS}")
        adds = keys.get(_ADDS)
        return cls(
            named=named,
            listed=tuple(dict.fromkeys(listed)),
            added=_added(keys.get(_ADDED), where),
            fallback_ids={use: each for use, each in ids.items() if type(each) is int},
            add_bos_token=adds if isinstance(adds, bool) else None,
            legacy=keys.get("legacy") is not False,
        )

    def control_names(self) -> tuple[str, ...]:
        """Return the names that stand for control tokens, each once."""
        names = [*(name for name in self.named.values() if name is not None), *self.listed]
        return tuple(dict.fromkeys(names))

    def resolve(self, use: str, ids: Mapping[str, int]) -> int | None:
        """Return the id of the token for a use; None: there is none.

        Args:
            use: `bos_token` or `eos_token`.
            ids: ids of the vocabulary by token.
        """
        if use in self.named:
            name = self.named[use]
            return None if name is None else ids.get(name)
        found = self.fallback_ids.get(use)
        return found if found in set(ids.values()) else None

    def keys(self) -> dict[str, object]:
        """Return the keys again, in the plainest spelling."""
        found: dict[str, object] = {key: name for key, name in self.named.items() if name}
        if self.listed:
            found["additional_special_tokens"] = list(self.listed)
        if self.added:
            found[_ADDED] = {
                str(token.token_id): {"content": token.name, **token.flags} for token in self.added
            }
        return found


def read_settings(folder: Path) -> dict[str, object]:
    """Read what the files of a folder say of its tokenizer, as keys of a tokenizer_config.json.

    special_tokens_map.json and added_tokens.json count for what that file does not say, and the ids
    of config.json where none names a token.

    Raises:
        TokenizerError: one of them is damaged.
    """
    try:
        config = _read(folder / _MODEL_FILE)
    except TokenizerError:
        config = {}  # whoever needs more of it than a fallback names its fault
    keys = {key: value for key, value in config.items() if key in _IDS}
    last = keys.get("eos_token_id")
    if isinstance(last, list):
        keys["eos_token_id"] = last[0] if last else None
    keys |= {k: v for k, v in _read(folder / _MAP_FILE).items() if k in (*_NAMED, *_LISTED)}
    own = _read(folder / CONFIG_FILE)
    added = _read(folder / _ADDED_FILE)
    if added and _ADDED not in own:
        keys[_ADDED] = {str(token_id): {"content": name} for name, token_id in added.items()}
    return keys | own


def _read(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        return read_object(path, most_bytes=_MOST_BYTES)
    except (OSError, JsonFault) as error:
        message = f"{path} cannot be read: {error}"
        raise TokenizerError(message, _HINT) from None


def _name(value: object, key: str, where: str) -> str | None:
    """Read a token: its name, an object with its name, or null."""
    if isinstance(value, dict):
        value = value.get("content")
    if value is None or value == "":
        return None
    ((name, _),) = check_special_tokens([(value, 0)], f"{where}, {key}")
    return name


def _names(value: object, key: str, where: str) -> list[str]:
    """Read a list of tokens, or an object of them by use."""
    _require(value, (list, dict), "a list or an object", f"{where}, {key}")
    values = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(values, list):
        return []
    return [name for each in values if (name := _name(each, key, where)) is not None]


def _added(value: object, where: str) -> tuple[AddedToken, ...]:
    """Read the tokens that were added, by id."""
    _require(value, (dict,), "an object", f"{where}, {_ADDED}")
    if not isinstance(value, dict):
        return ()
    fields = [each if isinstance(each, dict) else {"content": each} for each in value.values()]
    given = [(each.get("content"), _number(key)) for each, key in zip(fields, value, strict=True)]
    tokens = check_special_tokens(given, f"{where}, {_ADDED}")
    for each in fields:
        for flag in _FLAGS:
            _require(each.get(flag), (bool,), "true or false", f"{where}, {_ADDED}, {flag}")
    flags = [{flag: each.get(flag) is True for flag in _FLAGS} for each in fields]
    added = [AddedToken(*token, each) for token, each in zip(tokens, flags, strict=True)]
    return tuple(sorted(added, key=lambda token: token.token_id))


def _require(value: object, types: tuple[type, ...], expected: str, where: str) -> None:
    """Refuse a value of another type; null is none."""
    if value is not None and type(value) not in types:
        message = f"{where}: expected {expected}, found {shown_name(repr(value))}"
        raise TokenizerError(message, _HINT)


def _number(key: str) -> int | str:
    """Return an id that is a key; what is none stays what it is."""
    digits = key.isascii() and key.isdecimal() and len(key) < _MOST_DIGITS
    return int(key) if digits else key
