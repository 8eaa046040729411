"""What the published recipes share: stages in one workdir, and their settings.

A recipe is its stages, each the script of its name in a folder of its own, and
the settings that its paper published, which hold for folders. What somebody
gives on the command line goes before what was published, and that before the
script's own defaults; the testbed has its scripts' defaults, since a world of
400 words and a 7B model do not want the same rate. docs/recipes.md lists what
was published, where, and what is not.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib
from typing import Any, NamedTuple

from alignjax import outcomes
from alignjax import runs

# What the stages share by name, but those that make the testbed's data.
_SIZES = {'batch_size', 'max_length'}


class Stage(NamedTuple):
  """One script of a recipe.

  Attributes:
    script: its module.
    fields: settings of the script, and the recipe's names of them, where they
      differ; one that is left empty is the recipe's setting of the same name.
    published: settings of the script on folders.
    testbed: the same on the testbed, where they are not the script's own.
    makes_data: whether it is for the testbed alone, whose sizes are its own.
  """

  script: Any
  fields: Mapping[str, str]
  published: Mapping[str, Any] = {}
  testbed: Mapping[str, Any] = {}
  makes_data: bool = False


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A recipe's stages and how they follow each other.

  Attributes:
    name: of the experiment.
    stages: `(cfg)` gives those that it has, by name and in their order.
    train: `(cfg, run, settle)` trains what is not done; `settle(stage,
      **settings)` gives a stage's config. Returns the arguments of
      `outcomes.write`.
  """

  name: str
  stages: Callable[[Any], Mapping[str, Stage]]
  train: Callable[[Any, runs.Run, Callable], dict]

  def settle(self, cfg, name: str, **settings):
    """The stage's config, with no setting left open."""
    stage = self.stages(cfg)[name]
    fields = {f.name for f in dataclasses.fields(stage.script.Config)}
    fields -= {'compare'} | (_SIZES if stage.makes_data else set())
    ours = dataclasses.asdict(cfg)
    named = ours | {
        name: ours[mine] or ours.get(name)
        for name, mine in stage.fields.items()}
    given = {'workdir': str(pathlib.Path(cfg.workdir) / name),
             'resume': True} | settings
    given = {k: v for k, v in named.items()
             if k in fields and v is not None} | given
    usual = dict(stage.testbed if runs.is_testbed(cfg.model)
                 else stage.published)
    if 'num_steps' in given:
      usual.pop('epochs', None)
    return stage.script.resolve(stage.script.Config(**usual | given))

  def main(self, cfg) -> dict:
    """Runs what is not done yet of every stage; returns the summary."""
    runs.check(cfg)
    names = list(self.stages(cfg))
    for name in names:  # All, before the first takes its time.
      runs.check(self.settle(cfg, name))
    with runs.start(cfg, self.name) as run:
      if run.is_done:
        run.console.note(f'{run.workdir} is done; see summary.json')
        return run.summary()
      outcome = self.train(cfg, run, functools.partial(self.settle, cfg))
      stages = {'stages': {n: run.stage_summary(n) for n in names}}
      return outcomes.write(run, cfg, **stages | outcome)


def made_here(cfg, stages: Mapping[str, Stage]) -> dict[str, Stage]:
  """The stages without those whose model or data are given."""
  left = {'base': cfg.model == 'testbed', 'preferences': cfg.data == 'testbed'}
  return {name: stage for name, stage in stages.items()
          if left.get(name, True)}
