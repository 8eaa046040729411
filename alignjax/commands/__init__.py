"""The commands `alignjax generate`, `score`, `convert` and `inspect`.

A command is a frozen dataclass, whose fields are its flags and whose docstring
is its help, and a function of it.
"""

from alignjax.commands import convert
from alignjax.commands import generate
from alignjax.commands import inspect
from alignjax.commands import score

COMMANDS = {
    'generate': (generate.Generate, generate.generate),
    'score': (score.Score, score.score),
    'convert': (convert.Convert, convert.convert),
    'inspect': (inspect.Inspect, inspect.inspect),
}
