"""How a program ends before its end: in one line, with a status."""


class InputError(ValueError):
  """What the user gave cannot be used: names the value, the rule, the repair.

  The command line prints its one line and exits with status 2.
  """


class Stopped(Exception):
  """A run was asked to stop, and has: the command line says so and exits.

  Attributes:
    status: the exit status; 128 plus the number of a signal.
  """

  def __init__(self, message: str, status: int = 0):
    super().__init__(message)
    self.status = status
