"""Mutations of a chat template: tags moved about, pieces that loop, grow or reach for Python."""

from __future__ import annotations

import json
import re
from random import Random

from fuzzing.edits import Edit, apply_all
from fuzzing.mutate_bytes import ANY_LENGTH

_TAG = re.compile(r"\{[{%#].*?[}%#]\}", re.DOTALL)
_PIECES = (
    *("{{ x }}", "{{ ''.__class__ }}", "{{ messages.append(1) }}", "{{ 1 / 0 }}", "{{ 7 % 0 }}"),
    *(
        "{{ 'a' * 10 ** 9 }}",
        "{{ range(10 ** 9) | list }}",
        "{{ 10 ** 99999 }}",
        "{{ [1] * 9**9 }}",
    ),
    *(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% endfor %}",
    ),
    *("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% include 'x' %}", "{% extends 'x' %}"),
    *("{{ raise_exception('\x1b]0;pwned\x07') }}", "{{ raise_exception(messages) }}", "{{ self }}"),
    *("{{ strftime_now('%Y') }}", "{{ strftime_now(1) }}", "{{ strftime_now }}", "{{ namespace }}"),
    *("{{ messages | tojson }}", "{{ messages | map('attr', '__class__') | list }}", "{% raw %}"),
    *(
        "{% set messages = [] %}",
        "{% set bos_token = none %}",
        "{{ undefined.field }}",
        "{{ loop }}",
    ),
    *("{{ '%s' % none }}", "{{ '%(a)s' % {} }}", "{{ '{0.x}'.format('') }}", "{{ 'a'.split('') }}"),
    *("{{ messages[99] }}", "{{ messages[0].content | int('x', 99) }}", "{{ ''.join(1) }}", "{#"),
    *("{% generation %}x{% endgeneration %}", "{% generation %}", "{% break %}", "{{ cycler(1) }}"),
    *(
        "{{ '\\ud800' }}",
        "\u202e",
        "\x1b[2J",
        "\0",
        "<|eot_id|>",
        "{{ dict(a=1) }}",
        "{{ lipsum() }}",
    ),
    *("{{ 'a' | round }}", "{{ 1e999 | int }}", "{{ [] | first }}", "{{ {} | dictsort('x') }}"),
    *(
        "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
        "{{ 'a' | wordwrap(0) }}",
        "{{ [3, 'a'] | sort }}",
    ),
    *(
        "{{ [3, 'a'] | slice(0) | list }}",
        "{{ messages | groupby('role') }}",
        "{{ messages | sum }}",
        "{{ 'x' | batch(0) | list }}",
    ),
)


def change_template(content: bytes, rng: Random) -> list[Edit]:
    """Put a piece into a template, or drop, double or exchange its tags."""
    text = content.decode("utf-8", "replace")
    return [Edit(0, len(content), _changed(text, rng).encode("utf-8", "surrogatepass"))]


def change_template_in_json(content: bytes, rng: Random) -> list[Edit]:
    """Change the template in a tokenizer_config.json, one tag or byte of it."""
    document = json.loads(content)
    text = str(document["chat_template"])
    if rng.random() < 0.7:
        document["chat_template"] = _changed(text, rng)
    else:
        raw = text.encode()
        changed = apply_all(rng.choice(ANY_LENGTH)(raw, rng), raw)
        document["chat_template"] = changed.decode("utf-8", "replace")
    return [Edit(0, len(content), json.dumps(document).encode())]


def _changed(text: str, rng: Random) -> str:
    tags = [match.span() for match in _TAG.finditer(text)]
    if rng.random() < 0.5 or not tags:
        places = [0, len(text), *(end for _, end in tags)]
        at = rng.choice(places)
        return text[:at] + rng.choice(_PIECES) + text[at:]
    start, end = rng.choice(tags)
    first, last = rng.choice(tags)
    # The tag is dropped, doubled, replaced by another, or loses what closes it.
    new = rng.choice(("", text[start:end] * 2, text[first:last], text[start : end - 2]))
    return text[:start] + new + text[end:]
