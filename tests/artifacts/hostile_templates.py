"""Chat templates that somebody made to do harm, or that are no templates."""

# ruff: noqa: E501 - one template a line

from __future__ import annotations

DOUBLING = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}"
ENDLESS = {
    "a loop in a loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a test in a loop": "{% for i in range(99999) %}{% for j in range(99999) if j > 99999 %}{% endfor %}{% endfor %}",
    "a recursive loop": "{% for i in range(999) recursive %}{{ loop(range(999)) }}{% endfor %}",
    "a long range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "lazy filters": "{{ range(99999) | map('string') | map('upper') | map('list') | map('length') | sum }}{% for i in range(999) %}{{ range(99999) | map('string') | list | length }}{% endfor %}",
    "a long list in a loop": "{% for i in range(99999) %}{% set y = [i"
    + ", i" * 9999
    + "] %}{% endfor %}",
    "a sum of lists": "{{ [[1]] | sum(start=[]) }}",
}
TOO_LONG = {
    "times": "{{ 'a' * 10 ** 9 }}",
    "times in a condition": "{% if 'a' * 999999999 %}{% endif %}",
    "a list, times": "{% set x = [0] * 999999999 %}",
    "doubling by ~": DOUBLING + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by +": DOUBLING + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by format": DOUBLING + "{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}",
    "doubling by %": DOUBLING + "{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
    "doubling by join": DOUBLING + "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
    "doubling by replace": DOUBLING + "{% set ns.x = ns.x.replace('a', 'aa' ~ ns.x) %}{% endfor %}",
    "doubling by a block": DOUBLING
    + "{% set t %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = t %}{% endfor %}",
    "a list in a list, shown": "{% set ns = namespace(x=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "a list in a list, as JSON": "{% set ns = namespace(x=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "a list in a list, compared": "{% set ns = namespace(x=[0], y=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "a list in a list, tested": "{% set ns = namespace(x=[0], y=[0]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x is eq ns.y }}",
    "a mapping in a mapping": "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x.items() | string }}",
    "center": "{{ 'a' | center(10 ** 9) }}",
    "center, the method": "{{ 'a'.center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "indent": "{{ ('a\n' * 99999) | indent(99999) }}",
    "indent by a text": "{{ ('a\n' * 9999) | indent('b' * 9999) }}",
    "indented JSON": "{{ [[[[1]]]] | tojson(indent=10 ** 9) }}",
    "indented JSON by a text": "{{ ([0] * 9999) | tojson(indent='a' * 99999) }}",
    "a wide field": "{{ '%1000000000d' % 1 }}",
    "a wide field, named": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "a width as an argument": "{{ '%*d' % (1000000000, 1) }}",
    "a wide field, the filter": "{{ '%1000000000d' | format(1) }}",
    "a wide field, braces": "{{ '{:1000000000}'.format(1) }}",
    "a width as a field": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a wide field by format_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "a long replacement": "{{ ('a' * 999999).replace('', 'b' * 999999) }}",
    "a long replacement, the filter": "{{ ('a' * 999999) | replace('a', 'b' * 999999) }}",
    "a long separator": "{{ ('a' * 999999).join('b' * 99999) }}",
    "a power": "{{ 10 ** 99999 }}",
    "a power of a power": "{% set ns = namespace(x=10) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "a round number": "{{ 1.5 | round(10 ** 9) }}",
    "batches": "{{ [1] | batch(10 ** 9, 0) | list }}",
    "slices": "{{ [1] | slice(10 ** 9) | list }}",
    "plain text in a loop": "{% for i in range(99999) %}"
    + "abcdefghijklmno" * 999
    + "{% endfor %}",
    "plain text in a macro": "{% macro f() %}"
    + "abcdefghijklmno" * 999
    + "{% endmacro %}{% for i in range(99999) %}{% set x = f() %}{% endfor %}",
    "much text that is kept": "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = ns.x + ['a' * 999999] %}{% endfor %}",
}
FORBIDDEN = {
    "a class": "{{ ''.__class__ }}",
    "a class by a filter": "{{ '' | attr('__class__') }}",
    "a class by an index": "{{ ''['__class__'] }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "globals of a macro": "{% macro f() %}{% endmacro %}{{ f.__init__.__globals__ }}",
    "the clock's own": "{{ strftime_now.__self__ }}",
    "the environment": "{{ self._TemplateReference__context.environment }}",
    "frames": "{{ (messages | map('upper')).gi_frame }}",
    "a field's attribute": "{{ '{0.__class__}'.format('') }}",
    "changing a message": "{% for m in messages %}{{ m.update({'role': 'system'}) }}{% endfor %}",
    "changing the list": "{{ messages.append(1) }}",
    "a private name": "{% set ns = namespace(a=1) %}{% set ns._x = 1 %}",
    "a private name at once": "{{ namespace(__class__=1) }}",
    "a namespace in itself": "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns }}",
    "an odd method": "{{ 'a'.encode('utf-8') }}",
    "a long format of the time": "{{ strftime_now('%Y' * 9999) }}",
    "a class's method": "{{ {}.fromkeys('ab') }}",
}
NO_TEMPLATE = {
    "no end": "{% for m in messages %}",
    "no filter": "{{ 'a' | random }}",
    "another template": "{% include 'a' %}",
    "another's macros": "{% import 'a' as a %}",
    "a parent": "{% extends 'a' %}",
    "too long": "a" * (2**18 + 1),
    "nested without end": "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "nested in blocks": "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "a chain without end": "{{ 1" + " + 1" * 60_000 + " }}",
}
