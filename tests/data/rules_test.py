"""docs/data.md has a row for each rule, and none for what is no rule."""

import pathlib
import re

from alignjax.data import rules

ROOT = pathlib.Path(__file__).parents[2]
_KINDS = {'bad': rules.BAD, 'dropped': rules.DROPPED,
          'left out': rules.LEFT_OUT, 'repaired': rules.REPAIRED}


def documented():
  """(name, what becomes of it) of the table of rules."""
  text = (ROOT / 'docs/data.md').read_text('utf-8')
  table = text.partition('\n| name | what | and then |\n')[2]
  table = table.partition('\n\n')[0]
  return re.findall(r'^\| `(.+?)` \| .+ \| (.+?) \|$', table, re.MULTILINE)


def test_the_docs_tell_every_rule_and_what_becomes_of_it():
  due = [(name, kind) for kind, names in _KINDS.items() for name in names]
  assert sorted(documented()) == sorted(due)


def test_every_name_is_given_by_a_line_of_code():
  """Quoted where it is raised, not only where it is listed."""
  code = ''.join(
      path.read_text('utf-8')
      for path in (ROOT / 'alignjax/data').glob('*.py')
      if path.name != 'rules.py')
  code += "'empty prompt' 'empty response'"  # One f-string in trees.py.
  for names in _KINDS.values():
    for name in names:
      assert f"'{name}'" in code or f'"{name}"' in code, name
