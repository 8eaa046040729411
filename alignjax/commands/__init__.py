"""The commands that follow `alignjax` on the command line.

A command is a frozen dataclass, whose fields are its flags and whose docstring
is its help, and a function of it. A module is imported when its command is
asked for.
"""

import importlib

# Command to (module, config, function).
COMMANDS = {
    'generate': ('generate', 'Generate', 'generate'),
    'score': ('score', 'Score', 'score'),
    'convert': ('convert', 'Convert', 'convert'),
    'inspect': ('inspect', 'Inspect', 'inspect'),
    'serve': ('serve', 'Serve', 'serve'),
    'annotate': ('annotate', 'Annotate', 'annotate'),
    'aggregate': ('aggregate', 'Aggregate', 'aggregate'),
    'plan': ('plan', 'Plan', 'plan'),
    'export-items': ('aggregate', 'ExportItems', 'export_items'),
}


def load(name: str) -> tuple:
  """(config, function) of a command."""
  module, config, function = COMMANDS[name]
  module = importlib.import_module(f'{__name__}.{module}')
  return getattr(module, config), getattr(module, function)
