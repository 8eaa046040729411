"""What the user gave and cannot be used, in one line."""


class InputError(ValueError):
  """What the user gave cannot be used: names the value, the rule, the repair.

  The command line prints its one line and exits with status 2.
  """
