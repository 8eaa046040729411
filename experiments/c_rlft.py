"""C-RLFT: SFT on responses of several classes, each named and weighed.

  python -m experiments.c_rlft --workdir runs/c_rlft
  python -m experiments.c_rlft --workdir runs/c_rlft --model DIR --data FILE \\
    --classes GPT4=1 GPT3.5=0.1

`--data` holds `{prompt, response, source}` rows, and `source` is a class of
`--classes`. Its name begins the prompt, so that the model learns which class
writes how; the model that is saved is asked for the first class, by its chat
template. No preferences and no reward model. Wang et al. (2023),
https://arxiv.org/abs/2309.11235.

Expect, on the testbed with the base model of experiments.compare's seed 0: gold
0.53, where SFT on the same demonstrations has 0.28.
"""

import dataclasses

from alignjax import cli
from alignjax import data
from alignjax import hf
from alignjax import objectives
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax import train
from alignjax.types import InputError
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(sft.Config):
  """Settings of C-RLFT. Where two defaults are given: testbed, folder."""

  # name=weight of each class, the one to ask for first. On the testbed:
  # experts=1 some=0.1; of a file there is no default.
  classes: tuple[str, ...] = ()


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on weighed classes and saves a model that writes as the first."""
  trainee, tokenizer = runs.load_trainee(cfg, sft.base_folder(cfg), run.mesh)
  weights = class_weights(cfg)
  rows, counts = [], {}
  for name, row in sources.classified_rows(
      run, cfg, tokenizer, weights, turns=cfg.turns):
    rows.append(row._replace(weight=weights[name]))
    counts[name] = counts.get(name, 0) + 1
  cfg = cfg.count_steps(len(rows))
  params = train.train(
      run.stage(cfg, num_microbatches=cfg.num_microbatches),
      objectives.sft(trainee.model, chunk_size=cfg.chunk_size),
      trainee.params, trainee.axes,
      cfg.make_optimizer(cfg.learning_rate, cfg.num_steps),
      sources.batches(run, cfg, trainee.model.config,
                      data.demonstration_batches, rows), base=trainee.base)
  asked = next(iter(weights))
  run.save_trained(trainee, params, hf.condition(tokenizer, f'{asked} '))
  run.finish({'demonstrations': len(rows), 'classes': counts})


def class_weights(cfg: Config) -> dict[str, float]:
  """The classes and their weights, in the order that they were given."""
  given = cfg.classes
  if not given and cfg.data == 'testbed':
    given = ('experts=1', 'some=0.1')
  weights = {}
  for text in given:
    name, _, weight = text.partition('=')
    try:
      weights[name] = float(weight)
    except ValueError:
      weights[name] = -1.0
    if not name or not 0 <= weights[name] < float('inf'):
      raise InputError(f'classes={text!r} is not name=weight with a weight of '
                       '0 or more; give for example expert=1')
  if cfg.plain:
    raise InputError('plain=True leaves the chat template out, and there the '
                     'class is named; leave --plain out')
  if weights and not any(weights.values()):
    raise InputError(f'classes={" ".join(given)!r} weigh nothing; give one of '
                     'them a weight above 0')
  if len(weights) < 2:
    raise InputError(
        f'classes={" ".join(given)!r} names {len(weights)} of the classes of '
        '--data; name two or more, as in --classes expert=1 other=0.1')
  return weights


SCRIPT = scripts.Script(
    'c_rlft', fit, testbed=sft.SCRIPT.testbed, folder=sft.SCRIPT.folder,
    outcome=lambda cfg, folder: {
        'folders': {'base': sft.base_folder(cfg), 'c_rlft': folder},
        'reference': 'base'},
    check=lambda cfg: class_weights(cfg) and None)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
