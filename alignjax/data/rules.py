"""The names under which records are stopped at, dropped, left out, repaired.

docs/data.md has a row for each name, and tests hold the two together.
"""

from alignjax import types

# A record that is not what its file is. It stops the run with its line; under
# `on_bad_record='skip'` it is dropped by this name.
BAD = (
    'not JSON',
    'not UTF-8',
    'half a character',
    'long line',
    'unknown shape',
    'another shape',
    'missing field',
    'wrong type',
    'unknown role',
    'no assistant turn',
    'last turn not the assistant\'s',
    'no user turn',
    'bad label',
    'bad score',
    'no transcript',
    'repeated message',
    'no parent',
)
# A well-formed record that teaches nothing. It is dropped by this name.
DROPPED = (
    'empty prompt',
    'empty response',
    'equal responses',
    'prompts differ',
    'all tied',
    'one response',
)
# What the dataset's own marks leave out. It says nothing against the file, so
# it does not count against `max_dropped`.
LEFT_OUT = (
    'score tie',
    'wrong step',
    'deleted',
    'failed review',
    'below a dropped message',
    'unused message',
)
# What was put right and kept.
REPAIRED = (
    'label as text',
    'equal responses merged',
)


class BadRecord(types.InputError):
  """A record that is not what its file is: one line that stops the run."""

  def __init__(self, rule: str, message: str):
    super().__init__(message)
    self.rule = rule  # One of BAD.


class Unusable(Exception):
  """A well-formed record that teaches nothing, with what to tell of it."""

  def __init__(self, reason: str, detail: str):
    super().__init__(reason)
    self.reason = reason  # One of DROPPED or LEFT_OUT.
    self.detail = detail  # Field, value and rule, as a clause.


class WrongShape(types.InputError):
  """The file is of a shape that its reader cannot use."""
