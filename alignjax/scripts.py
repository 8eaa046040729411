"""What a training script is: a fit, its defaults, and how its run ends.

    main(cfg)    opens the workdir, fits, compares the models, reports
    stage(cfg)   opens the workdir and fits: a part of a larger run
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from alignjax import outcomes
from alignjax import runs


@dataclasses.dataclass(frozen=True)
class Script:
  """One method, as its experiment runs it.

  Attributes:
    name: of the experiment, in its workdir and its metrics.
    fit: `(cfg, run)` trains, saves the model and writes the run's summary.
    outcome: `(cfg, folder)` gives the arguments of `outcomes.write` after the
      run and its config: the folders of the models to compare, and whatever
      else there is.
    testbed: settings that are used where the config leaves them open, for the
      testbed's models.
    folder: the same for a Hugging Face folder.
    check: raises InputError where settings have no meaning together; called
      before anything is written.
    prepare: fills settings in that depend on others, ahead of the defaults.
  """

  name: str
  fit: Callable[[Any, runs.Run], None]
  outcome: Callable[[Any, str], dict]
  testbed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  folder: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  check: Callable[[Any], None] = lambda cfg: None
  prepare: Callable[[Any], Any] = lambda cfg: cfg

  def resolve(self, cfg):
    """The config with no setting left open, and none without meaning."""
    cfg = runs.with_defaults(
        self.prepare(cfg), testbed=self.testbed, folder=self.folder)
    self.check(cfg)
    return cfg

  def stage(self, cfg) -> str:
    """Trains, unless that was done before; returns the model's folder."""
    cfg = self.resolve(cfg)
    with runs.start(cfg, self.name) as run:
      return self._fit(cfg, run)

  def main(self, cfg) -> str:
    """Trains and reports; returns the model's folder."""
    cfg = self.resolve(cfg)
    with runs.start(cfg, self.name) as run:
      folder = self._fit(cfg, run)
      outcomes.write(run, cfg, **self.outcome(cfg, folder))
    return folder

  def _fit(self, cfg, run: runs.Run) -> str:
    if not run.is_done:
      self.fit(cfg, run)
    return str(run.model_dir)
