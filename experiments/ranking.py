"""The reward model on rankings: K responses to a prompt in one row.

  python -m experiments.ranking --workdir runs/ranking
  python -m experiments.ranking --workdir runs/ranking --model DIR --data FILE

`--data` holds `{prompt, responses, ranks}` rows, rank 0 the best and equal
ranks a tie; pairs count as rankings of two. A prompt's K(K - 1)/2 pairs share
one mean: Ouyang et al. (2022), https://arxiv.org/abs/2203.02155. With
`--plackett-luce` the ranking is fitted as a whole.

Expect, with the models of experiments.compare's seed 0: 0.76 of held-out pairs
without gold ties, 0.77 from the pairs themselves (experiments.reward).
"""

import dataclasses

from alignjax import cli
from alignjax import data
from alignjax import hf
from alignjax import objectives
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax.types import InputError
from experiments import preferences
from experiments import reward
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(reward.Config):
  """Settings of the reward model. Two defaults: testbed, folder."""

  batch_size: int | None = None      # Prompts, of K responses each. 16, 8.
  plackett_luce: bool = False        # Fit the ranking, not its pairs.


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on rankings, measures on held-out pairs and saves the model."""
  policy = sft.policy_folder(cfg)
  tokenizer = hf.load_tokenizer(policy)
  path, test_path = preferences.preference_files(cfg, policy)
  if test_path:
    path = str(preferences.rankings_file(path))
  rows = sources.ranking_rows(run, cfg, tokenizer, path)
  test_path = cfg.test_data or test_path
  if test_path:
    held_out = sources.preference_rows(run, cfg, tokenizer, test_path)
  else:
    count = min(cfg.num_held_out, max(1, len(rows) // 4))
    rows, kept = data.hold_out(rows, count, cfg.seed)
    held_out = [pair for row in kept for pair in ranked_pairs(row)]
  reward.fit_and_measure(
      cfg, run, policy, held_out,
      lambda model: objectives.reward_ranking(
          model, plackett_luce=cfg.plackett_luce),
      data.ranking_batches, rows, {'rankings': len(rows)})


def ranked_pairs(row: data.TokenizedRanking) -> list[data.TokenizedPair]:
  """All pairs of one ranking, the better response first."""
  ranked = list(zip(row.rows, row.ranks, strict=True))
  return [data.TokenizedPair(better, worse) for better, high in ranked
          for worse, low in ranked if high < low]


def check(cfg: Config) -> None:
  """Refuses what only the loss of pairs has."""
  reward.check(cfg)
  if cfg.margins != 'none' or cfg.centering:
    raise InputError(
        f'margins={cfg.margins}, centering={cfg.centering}: rankings have '
        'neither; leave them out, or use experiments.reward')


SCRIPT = scripts.Script(
    'ranking', fit, testbed=reward.SCRIPT.testbed | dict(batch_size=16),
    folder=reward.SCRIPT.folder | dict(batch_size=8),
    outcome=reward.SCRIPT.outcome, check=check, prepare=reward.with_rate)
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
