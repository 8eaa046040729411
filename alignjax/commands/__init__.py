"""The commands that follow `alignjax` on the command line.

A command is a frozen dataclass, whose fields are its flags and whose docstring
is its help, and a function of it.
"""

from alignjax.commands import aggregate
from alignjax.commands import annotate
from alignjax.commands import convert
from alignjax.commands import generate
from alignjax.commands import inspect
from alignjax.commands import plan
from alignjax.commands import score
from alignjax.commands import serve

COMMANDS = {
    'generate': (generate.Generate, generate.generate),
    'score': (score.Score, score.score),
    'convert': (convert.Convert, convert.convert),
    'inspect': (inspect.Inspect, inspect.inspect),
    'serve': (serve.Serve, serve.serve),
    'annotate': (annotate.Annotate, annotate.annotate),
    'aggregate': (aggregate.Aggregate, aggregate.aggregate),
    'plan': (plan.Plan, plan.plan),
    'export-items': (aggregate.ExportItems, aggregate.export_items),
}
