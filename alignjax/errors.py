"""How a program ends before its end: in one line, with a status."""


class InputError(ValueError):
  """What the user gave cannot be used: names the value, the rule, the repair.

  The command line prints its one line and exits with status 2. What would end
  the line, or a terminal would obey, is shown as its escape.
  """

  def __init__(self, message: str = ''):
    super().__init__(printable(message))


def printable(text: str) -> str:
  """The text on one line: what is no printable character as its escape."""
  return ''.join(
      c if c.isprintable() else c.encode('unicode_escape').decode()
      for c in text.replace('\r\n', ' ').replace('\n', ' '))


class Stopped(Exception):
  """A run was asked to stop, and has: the command line says so and exits.

  Attributes:
    status: the exit status; 128 plus the number of a signal.
  """

  def __init__(self, message: str, status: int = 0):
    super().__init__(message)
    self.status = status
