"""Chat templates are rendered as transformers renders them, and none of them can do harm."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from artifacts.chat_templates import DIALOGS, TEMPLATES, WEATHER
from artifacts.hostile_templates import ENDLESS, FORBIDDEN, NO_TEMPLATE, TOO_LONG
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from llama_export.errors import ChatTemplateError, PromptError
from llama_export.tokenizer.chat.template import ChatTemplate, plain_data

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
NOON = datetime(2024, 7, 26, 12, 0)


def render(source, messages=(), **variables):
    given = {"messages": list(messages), "tools": None, "documents": None}
    given |= {"add_generation_prompt": False, **NAMES, **variables}
    return ChatTemplate(source).render(given, now=NOON)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_real_template_gives_what_transformers_gives(name):
    """A dialog that it refuses is refused by both."""
    written = 0
    for messages in DIALOGS.values():
        for tools in (None, [WEATHER]):
            for prompt in (True, False):
                given = {"tools": tools, "add_generation_prompt": prompt, **NAMES}
                try:
                    (expected,), _ = render_jinja_template(
                        [messages], chat_template=TEMPLATES[name], **given
                    )
                except (TemplateError, TypeError, ValueError):
                    with pytest.raises(PromptError, match=r"the chat template [rc]"):
                        render(TEMPLATES[name], messages, **given)
                else:
                    assert render(TEMPLATES[name], messages, **given) == expected
                    written += 1
    assert written >= 4


@pytest.mark.parametrize(
    "source",
    [
        "{% set ns = namespace(a=1, self=2) %}{% for i in range(5) %}{% set ns.a = ns.a * 2 + i %}"
        "{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}"
        "{% endfor %}{{ ns.a }} {{ ns.self }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 7 % 4 }} {{ 2 ** 5 }}",
        "{{ messages | map(attribute='role') | join(', ') }} {{ messages | length }} "
        "{{ messages[0].content | tojson }} {{ messages | tojson(indent=2) }} "
        "{{ messages | tojson(separators=(',', ':'), sort_keys=true) }} "
        "{{ 'ä' | tojson(ensure_ascii=true) }}",
        "{% macro f(x, y=2) %}<{{ x }}{{ y }}{{ caller() if caller }}>{% endmacro %}{{ f(1) }}"
        "{% call f(3, y=4) %}c{% endcall %}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ x is defined }}{{ x }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ 'a' ~ 1 ~ none }}"
        "{% if messages | selectattr('role', 'eq', 'nobody') %}a generator is true{% endif %}",
        "{% for key, value in {'b': 1, 'a': [2]} | dictsort %}{{ loop.index }}{{ key }}={{ value }}"
        "{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}"
        "{% for i in [1, 2, 3] if i is odd %}{{ i }}{{ loop.length }}{% endfor %}",
        "{{ 'a-b_c'.split('-')[-1].replace('_', '.') }}{{ 'x'.join(['a', 'b']) }}{{ 'abc'[::-1] }}"
        "{{ '%s of %03d' % ('a', 5) }}{{ '{:>4}|{}'.format(1, 'b') }}{{ 'ab'.center(6) }}"
        "{{ '%s!' | format('a') }}{{ ' t ' | trim | upper }}{{ [3, 1] | sort | first }}",
        "{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}{{ 'b' not in ['a'] }}{{ [1, 2] == [1, 2] }}"
        "{{ none is none }}{{ [1, 2] + [3] }}{{ 'a' * 3 }}{{ -1 }}{{ dict(a=1) }}",
        "{% set text %}{% for m in messages %}{{ m.content }}{% endfor %}{% endset %}"
        "{{ text | trim }}"
        "{% filter upper %}abc{% endfilter %}{{ text is string }}{{ (1, 2) is iterable }}",
        "  {% if true %}\n  kept\n  {% endif %}\n end",
        "{% set x = cycler('a', 'b') %}{{ x.next() }}{{ x.next() }}{% set j = joiner('-') %}"
        "{{ j() }}1{{ j() }}2{% for i in 'ab' %}{{ loop.cycle('x', 'y') }}{% endfor %}",
        "{{ 5 | string | length }}{{ ['b', 'a'] | unique | list }}"
        "{{ [1, 2, 3, 4] | batch(2) | list }}"
        "{{ [1, 2] | sum }}{{ 3.14159 | round(2) }}{{ '<b>' | escape }}{{ 'a\nb' | indent(2) }}"
        "{{ {'a': {'b': 1}}.items() | list }}{{ {'a': 1}.get('x', 0) }}"
        "{{ {'a': 1} | items | list }}",
    ],
)
def test_the_language_is_jinjas(source):
    messages = DIALOGS["system and turns"]
    (expected,), _ = render_jinja_template([messages], chat_template=source, **NAMES)
    assert render(source, messages) == expected


def test_a_template_is_told_the_time():
    source = "{{ strftime_now('%d %b %Y') }}"
    assert render(source) == "26 Jul 2024"
    (today,), _ = render_jinja_template([[]], chat_template=source)
    assert ChatTemplate(source).render({}) == today


def test_its_own_refusal_is_passed_on_and_cleaned():
    with pytest.raises(PromptError, match="refuses this dialog: no ") as caught:
        render("{{ raise_exception('no \x1b[31moracles') }}")
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint.startswith("give the messages in the order")


@pytest.mark.parametrize(
    "source", [*ENDLESS.values(), *TOO_LONG.values()], ids=[*ENDLESS, *TOO_LONG]
)
def test_a_template_that_asks_for_too_much_is_stopped(source):
    began = time.thread_time()
    with pytest.raises(ChatTemplateError, match="the chat template was stopped: ") as caught:
        render(source, [{"role": "user", "content": "Hi"}])
    assert time.thread_time() - began < 8
    assert len(str(caught.value)) < 300
    assert "repository" in caught.value.hint


@pytest.mark.parametrize("source", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_template_reaches_for_nothing_of_pythons(source):
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(ChatTemplateError, match="it tries what is not allowed"):
        render(source, messages)
    assert messages == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("source", NO_TEMPLATE.values(), ids=NO_TEMPLATE)
def test_what_is_no_template_is_refused_before_it_is_used(source):
    with pytest.raises(ChatTemplateError, match="the chat template"):
        ChatTemplate(source).require_sound()


def test_a_long_dialog_is_far_from_the_limits():
    """Every template writes 2000 messages, half a million characters in all."""
    turns = [("user", "a" * 250), ("assistant", "b" * 250)] * 1000 + [("user", "c")]
    messages = [{"role": role, "content": text} for role, text in turns]
    for source in TEMPLATES.values():
        assert len(render(source, messages, tools=[WEATHER])) > 500_000


def test_only_values_of_json_reach_a_template():
    class Text(str):
        __slots__ = ()

    found = plain_data({"a": (Text("b"), {1: None})}, "a message")
    assert found == {"a": ["b", {"1": None}]}
    assert type(found["a"][0]) is str
    circle = []
    circle.append(circle)
    for value in (object(), b"bytes", {"a": {1}}, circle):
        with pytest.raises(PromptError, match="a message: expected values of JSON, found"):
            plain_data(value, "a message")
