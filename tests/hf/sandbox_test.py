"""What a template may take: every way to take more ends in one error."""

import concurrent.futures
import gc
import time

import jinja2.sandbox
import pytest

from alignjax.hf import chat
from alignjax.hf import limits
from alignjax.hf import sandbox
from alignjax.types import InputError

MESSAGES = [{'role': 'user', 'content': 'hi'}]
# Put twice into itself sixty times, the least thing is 2^60 of them.
TWICE = ('{%% set ns = namespace(x=%s) %%}{%% for i in range(60) %%}%s'
         '{%% endfor %%}')
NEST = ('{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}'
        '{% endfor %}')

ENDLESS = {
    'loops in loops': NEST,
    'loops over what is there': (
        '{% set r = range(99999)|list %}{% for i in r %}{% for j in r %}'
        '{% endfor %}{% endfor %}'),
    'tests of all items': (
        "{% set r = range(20000)|list %}{{ r|reject('in', r)|list }}"),
    'loops that take nothing': (
        '{% for i in range(99999) %}{% for j in range(99999) if false %}'
        '{% endfor %}{% endfor %}'),
    'a macro that calls itself twice': (
        '{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}'
        '{% endmacro %}{{ f(45) }}'),
    'a loop that enters itself twice': (
        '{% for x in [1, 2] recursive %}{% if loop.depth < 40 %}'
        '{{ loop([1, 2]) }}{% endif %}{% endfor %}'),
    'namespaces in namespaces': TWICE % (
        1, '{% set ns.x = namespace(a=ns.x, b=ns.x) %}') + '{{ ns.x }}' + NEST,
    'a generator that is asked how long it is': (
        "{% for x in range(100000)|map('string') %}{{ loop.length }}"
        '{% for y in range(100000) %}{% endfor %}{% endfor %}'),
    'calls': ('{% set f = namespace %}{% for i in range(99999) %}'
              '{% for i in range(99999) %}{% set x = f(a=1) %}{% endfor %}'
              '{% endfor %}'),
}

TOO_DEEP = {
    'a macro': '{% macro f(n) %}{{ f(n+1) }}{% endmacro %}{{ f(0) }}',
    'a loop': '{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}',
    'a block': '{% block a %}{{ self.a() }}{% endblock %}',
    'lists': TWICE % ('[]', '{% set ns.x = [[ns.x]] %}') + '{{ ns.x }}',
    'a tuple that is hashed': TWICE % (
        '()', '{% set ns.x = ((ns.x,),) %}') + '{{ {ns.x: 1} }}',
}

TOO_MUCH = {
    'text times': "{{ 'a' * 10**10 }}",
    'times text': "{{ 10**10 * 'a' }}",
    'text times, unread': "{% set x = 'a' * 10000000000 %}",
    'a list times': '{{ ([0] * 10000000000)|length }}',
    'text plus': TWICE % ("'aa'", '{% set ns.x = ns.x + ns.x %}'),
    'text beside': TWICE % ("'aa'", '{% set ns.x = ns.x ~ ns.x %}'),
    'fields': "{{ ('%(a)s' * 9999) % {'a': 'x' * 99999} }}",
    'wide fields': "{{ ('%(a).9999f' * 9999) % {'a': 1.5} }}",
    'braces': "{{ ('{0}' * 9999).format('x' * 99999) }}",
    'an indent': "{{ ('\n' * 999999)|indent(9999) }}",
    'an indent of text': "{{ ('\n' * 9999)|indent('x' * 9999) }}",
    'a join': "{{ range(99999)|join('x' * 99999) }}",
    'a join of text': "{{ ('x' * 99999).join('y' * 99999) }}",
    'a join of what is made': (
        "{{ ('x' * 999).join(range(9999)|map('string')) }}"),
    'replacements': "{{ ('a' * 9999)|replace('a', 'b' * 9999) }}",
    'named replacements': "{{ ('a' * 9999)|replace(old='a', new='b' * 9999) }}",
    'replacements of nothing': "{{ ('a' * 9999).replace('', 'b' * 9999) }}",
    'lists twice': TWICE % (
        "['a']", '{% set ns.x = [ns.x, ns.x] %}') + '{{ ns.x }}',
    'objects twice': TWICE % (
        "{'a': 1}", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}"
    ) + '{{ ns.x|tojson }}',
    'objects called twice': TWICE % (
        "{'a': 1}", '{% set ns.x = dict(a=ns.x, b=ns.x) %}') + '{{ ns.x ~ 1 }}',
    'tuples hashed': TWICE % (
        "('a', 'b')", '{% set ns.x = (ns.x, ns.x) %}') + '{{ {ns.x: 1} }}',
    'lists compared': TWICE % ('[1]', '{% set ns.x = [ns.x, ns.x] %}') + (
        '{% set ns.y = [2] %}{% for i in range(60) %}'
        '{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}'),
    'objects compared': TWICE % (
        '1', "{% set ns.x = {'a': ns.x, 'b': ns.x} %}") + (
            '{% set ns.y = 1 %}{% for i in range(60) %}'
            "{% set ns.y = {'a': ns.y, 'b': ns.y} %}{% endfor %}"
            '{{ ns.x == ns.y }}'),
    'views twice': TWICE % (
        "{'a': 1}", "{% set ns.x = {'a': ns.x.items(), 'b': ns.x.items()} %}"
    ) + '{{ ns.x }}',
    'arguments twice': (
        '{% macro f() %}{% set ns.x = varargs %}{% endmacro %}' + TWICE % (
            "('a', 'b')", '{% set _ = f(ns.x, ns.x) %}') + '{{ ns.x }}'),
    'a cycle twice': TWICE % (
        "('a', 'b')", '{% set ns.x = cycler(ns.x, ns.x).items %}'),
    'batches twice': TWICE % (
        "'a'", '{% set ns.x = [ns.x, ns.x]|batch(1)|list %}'),
    'lists kept': (
        '{% set ns = namespace(x=[]) %}{% for i in range(99999) %}'
        '{% set ns.x = ns.x + [range(99999)|list] %}{% endfor %}'),
    'slices kept': (
        "{% set big = 'x' * 99999 %}{% set ns = namespace(x=[]) %}"
        '{% for i in range(99999) %}{% set ns.x = ns.x + [big[1:]] %}'
        '{% endfor %}'),
    'slices dropped': (
        "{% set big = 'x' * 99999 %}{% for i in range(999) %}"
        '{% set x = big[1:] %}{% endfor %}'),
    'text written': (
        "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}"),
    'its own text written': (
        '{% for i in range(99999) %}' + 'x' * 9999 + '{% endfor %}'),
    'text collected': (
        "{% set big = 'x' * 99999 %}{% set x %}{% for i in range(99999) %}"
        '{{ big }}{% endfor %}{% endset %}'),
    'its own text collected': (
        '{% set x %}{% for i in range(99999) %}' + 'x' * 9999 +
        '{% endfor %}{% endset %}'),
    'numbers collected': (
        '{% set n = 7 ** 2000 %}{% set x %}{% for i in range(99999) %}{{ n }}'
        '{% endfor %}{% endset %}'),
    'a batch written out': (
        "{% for g in [1]|batch(9999, 'x' * 99999) %}{{ g ~ '' }}{% endfor %}"),
    'an indent of JSON': '{{ [[[1]]]|tojson(indent=10000000000) }}',
    'an indent of JSON by text': "{{ ([1] * 99)|tojson(indent='x' * 99999) }}",
}

REFUSED = {
    'a power': ('{{ 10 ** (10 ** 10) }}', 'more than 8,192 bits'),
    'products': (TWICE % (3, '{% set ns.x = ns.x * ns.x %}'), '8,192 bits'),
    'digits': ("{{ ('f' * 99999)|int(base=16) }}", '8,192 bits'),
    'a wide field': ("{{ '%10000000000d' % 1 }}", 'five digits or more'),
    'a field of a name': (
        "{{ '%((a))99999d' % {'(a)': 1} }}", 'five digits or more'),
    'a width that is given': ("{{ '%*d' % (99999, 1) }}", "with '*'"),
    'a filtered field': ("{{ '%99999d'|format(1) }}", 'five digits or more'),
    'a wide brace': ("{{ '{:99999}'.format(1) }}", 'more than 10,000 wide'),
    'a brace in a brace': (
        "{{ '{:{w}}'.format(1, w=10**9) }}", 'more than 10,000 wide'),
    'a mapped brace': (
        "{{ '{a:99999}'.format_map({'a': 1}) }}", 'more than 10,000 wide'),
    'a center': ("{{ 'a'|center(9999999999) }}", 'a width of more than'),
    'a mapped center': ("{{ ['a']|map('center', 99999)|list }}", 'a width of'),
    'a method': ("{{ 'a'.center(99999) }}", 'a width of more than 10,000'),
    'a justified text': ("{{ 'a'.ljust(99999) }}", 'a width of more than'),
    'an item': ("{{ 'a'['rjust'](99999) }}", 'a width of more than'),
    'an attribute': ("{{ ('a'|attr('zfill'))(99999) }}", 'a width of more'),
    'a batch': ("{{ [1]|batch(99999, 'x')|list }}", 'a width of more than'),
    'a slice': ('{{ [1]|slice(99999)|list }}', 'a width of more than'),
    'places behind the point': (
        "{{ 1.5|round(99999, 'ceil') }}", 'a width of more than'),
    'a sum of lists': ('{{ [[1]]|sum(start=[]) }}', 'the sum of lists'),
    'a search': ("{{ ('a' * 199999).rfind('b' + 'a' * 9999) }}", 'rfind on'),
    'tabs': (r"{{ '\t'.expandtabs(99999) }}", 'unsafe'),
    'a table': ("{{ 'a'.translate({97: 'b' * 999}) }}", 'unsafe'),
    'bytes': ("{{ (1).to_bytes(99999, 'big') }}", 'unsafe'),
    'more bytes': ("{{ ('a'|attr('encode'))() }}", 'unsafe'),
    'words': ('{{ lipsum(n=99999) }}', "'lipsum' is undefined"),
}


def limit_line(source):
  """The one line of the InputError that a render ends in."""
  with pytest.raises(InputError) as raised:
    chat.render(source, MESSAGES)
  line = str(raised.value)
  assert '\n' not in line and len(line) < 500
  assert line.startswith('the chat template failed on roles (user): ')
  return line


@pytest.mark.parametrize('source', ENDLESS.values(), ids=ENDLESS)
def test_what_would_never_end_is_ended_on_any_thread(source, monkeypatch):
  monkeypatch.setattr(limits, '_SECONDS', 0.05)
  start = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    line = pool.submit(limit_line, source).result()
  assert 'LimitError: it ran for more than 0.05 seconds' in line
  assert time.monotonic() - start < 2


@pytest.mark.parametrize('source', TOO_DEEP.values(), ids=TOO_DEEP)
def test_what_is_within_itself_is_ended(source):
  assert 'LimitError: it ' in limit_line(source)
  assert 'deep; change the messages or the template' in limit_line(source)


@pytest.mark.parametrize('source', TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_would_fill_the_memory_is_refused(source):
  assert 'it makes more text and lists than the 2,001,600' in limit_line(source)


@pytest.mark.parametrize('source,line', REFUSED.values(), ids=REFUSED)
def test_an_operation_that_may_make_too_much_is_refused(source, line):
  assert line in limit_line(source)


@pytest.mark.parametrize('source', [
    "{{ '%s is %d' % ('a', 1) }}|{{ '{:>3}'.format(1) }}",
    "{{ ('a' ~ 1 ~ none) * 3 }}|{{ 7 % 4 }}|{{ 2 ** 8 }}",
    "{{ [1, 2] + [3] }}|{{ (1, 2)[1:] }}|{{ {'a': [1]}.items()|list }}",
    "{{ 'x'|center(5) }}|{{ 'a\nb'|indent(2) }}|{{ [3, 1]|sort|join(', ') }}",
    "{{ [{'a': 1}, {'a': 2}]|map(attribute='a')|sum }}|{{ 'a b'|title }}",
    "{{ 'a-b'.split('-')[-1].upper() }}|{{ 'aXa'.replace('a', 'bb') }}",
    "{% macro f(x, y=2) %}{{ x }}{{ y }}{{ varargs }}{% endmacro %}{{ f(1) }}",
    "{% for k, v in {'a': 1}|dictsort %}{{ loop.index }}{{ k }}{% endfor %}",
    ("{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}"
     "{{ loop(x) }}{% else %}{{ x }}{% endif %}{% endfor %}"),
    "{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}b{% endfilter %}",
    ("{% set ns = namespace(n=0) %}{% for x in 'abc' if x != 'b' %}"
     "{% set ns.n = ns.n + loop.length %}{% endfor %}{{ ns.n }}"),
    ("{% macro f() %}<{{ caller(1) }}>{% endmacro %}"
     "{% call(x) f() %}{{ x }}{% endcall %}"),
    "{{ 'abcabc'.rfind('c') }}|{{ 'ab' in 'cab' }}|{{ messages[0].role }}",
    "{{ x is defined }}|{{ x|default('d') }}|{{ 1 if x else 2.5|round }}",
    "{{ range(3)|select('odd')|list }}|{{ ['a', 'A']|unique|list }}",
    "{{ [1, 2, 3]|batch(2)|list }}|{{ 'abc'[::-1] }}|{{ cycler(1, 2).next() }}",
])
def test_what_is_counted_is_what_jinja_makes(source):
  plain = jinja2.sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True, lstrip_blocks=True)
  assert chat.render(source, MESSAGES).text == (
      plain.from_string(source).render(messages=MESSAGES))


def test_the_bound_grows_with_the_messages():
  long = [{'role': 'user', 'content': 'x' * 3_000_000}]
  source = '{% for m in messages %}<{{ m.content | trim }}>{% endfor %}'
  assert len(chat.render(source, long).text) == 3_000_002
  many = [{'role': 'user', 'content': 'x'}] * 20_000
  assert len(chat.render(source, many).text) == 60_000


@pytest.mark.parametrize('source', [
    '{{ ' + '(' * 5_000 + '1' + ')' * 5_000 + ' }}',
    '{{ ' + 'not ' * 20_000 + '1 }}',
    '{% if 1 %}' * 3_000 + '{% endif %}' * 3_000,
    '{% for i in [1] %}' * 50 + '{% endfor %}' * 50,
    '{{ ' + '1+' * 40_000 + '1 }}',
    '{{ ' + '9' * 50_000 + ' }}',
    'x' * 100_001,
], ids=['parens', 'nots', 'ifs', 'fors', 'pluses', 'digits', 'long'])
def test_a_template_that_cannot_be_compiled_is_said_to_be_none(source):
  with pytest.raises(InputError) as raised:
    chat.check_template(source, 'f.json')
  assert str(raised.value).startswith('f.json: chat_template is not a Jinja')
  assert '\n' not in str(raised.value) and len(str(raised.value)) < 500


def test_constants_are_not_worked_out_before_they_are_asked_for():
  chat.check_template("{{ 'x'|center(9999999999) }}{{ 'x' * 10**10 }}", 'f')


def test_a_span_lies_where_the_assistants_text_is():
  source = ('{% for m in messages %}<{{ m.role }}>'
            '{% if m.role == "assistant" %}'
            '{% generation %}{{ m.content }}.{% endgeneration %}'
            '{% else %}{{ m.content }}{% endif %}{% endfor %}!')
  found = chat.render(source, [
      {'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'yo'},
      {'role': 'assistant', 'content': ''}])
  assert found.text == '<user>hi<assistant>yo.<assistant>.!'
  assert [found.text[a:b] for a, b in found.spans] == ['yo.', '.']


def test_a_template_says_whether_it_marks_the_assistants_text():
  marks = lambda source: chat.compile_template(source).marks_generation
  assert marks('{%- generation -%}x{%- endgeneration -%}')
  assert not marks("{# {% generation %} #}{{ '{% generation %}' }}")


def test_a_render_leaves_nothing_behind_for_the_next():
  template = sandbox.compile_template(
      '{% generation %}{{ x }}{% endgeneration %}', tojson=str)
  for x in ('abc', 'd'):
    assert template.render(x=x) == (x, ((0, len(x)),))


def test_a_garbage_collection_is_not_the_template_s(monkeypatch):
  """It goes over all that a process holds; what a template takes counts."""

  def burn(phase='start', info=None):
    del info
    end = time.thread_time() + (0.1 if phase == 'start' else 0.0)
    while time.thread_time() < end:
      pass

  monkeypatch.setattr(limits, '_SECONDS', 0.05)
  gc.callbacks.append(burn)
  try:
    use = limits.Use({})
    gc.collect()
    use.tick()
    burn()
    with pytest.raises(limits.LimitError, match='ran for more than'):
      use.tick()
  finally:
    gc.callbacks.remove(burn)
