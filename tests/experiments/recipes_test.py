"""The recipes: what a folder gets is what was published, and they run whole."""

import pathlib
import re

import pytest

from alignjax.types import InputError
from experiments import instructgpt
from experiments import llama2_chat
from experiments import openchat
from experiments import zephyr

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
RECIPES = {'instructgpt': instructgpt, 'zephyr': zephyr,
           'openchat': openchat, 'llama2_chat': llama2_chat}
SMALL = dict(batch_size=16, max_length=48)


def settled(recipe, stage, **settings):
  """The settings that a stage of a recipe gets."""
  script = RECIPES[recipe]
  return vars(script.RECIPE.settle(
      script.Config(workdir='w', **settings), stage))


def published():
  """[(recipe, stage, setting, value)] of the documentation's table."""
  rows = re.findall(
      r'^\| (\w+) \| ([\w-]+) \| (\w+) \| ([^|]+) \| [^|]+ \|$',
      (DOCS / 'recipes.md').read_text(), re.M)
  return [row for row in rows if row[0] in RECIPES]


def test_the_table_of_what_was_published_is_read():
  assert len(published()) > 35
  assert {row[0] for row in published()} == RECIPES.keys()


@pytest.mark.parametrize('recipe, stage, setting, value', published())
def test_a_folder_gets_what_was_published(
    recipe, stage, setting, value, tmp_path):
  got = settled(recipe, stage, model=str(tmp_path), data='rows.jsonl')[setting]
  if isinstance(got, tuple):
    assert ' '.join(got) == value
  elif isinstance(got, str):
    assert got == value
  else:
    assert got == float(value)


@pytest.mark.parametrize('recipe', RECIPES)
def test_the_testbed_gets_the_scripts_own_defaults(recipe):
  script = RECIPES[recipe]
  cfg = script.Config(workdir='w')
  for name, stage in script.stages(cfg).items():
    own = vars(stage.script.resolve(stage.script.Config(
        workdir=str(pathlib.Path('w') / name), resume=True, **stage.testbed)))
    assert settled(recipe, name) == own | {'split': cfg.split}


def test_steps_that_are_given_replace_the_published_epochs(tmp_path):
  given = dict(model=str(tmp_path), data='rows.jsonl')
  assert settled('zephyr', 'sft', **given)['num_steps'] is None
  few = settled('zephyr', 'sft', sft_steps=3, **given)
  assert few['num_steps'] == 3 and few['epochs'] is None


def test_steps_and_epochs_together_are_refused():
  cfg = zephyr.dpo.Config(workdir='w', num_steps=3, epochs=2.0)
  with pytest.raises(InputError, match='num_steps=3 and epochs=2 both say'):
    zephyr.dpo.resolve(cfg)


def test_epochs_become_steps_of_whole_batches():
  cfg = zephyr.dpo.resolve(zephyr.dpo.Config(workdir='w', epochs=1.5))
  assert cfg.num_steps is None
  assert cfg.count_steps(100).num_steps == 5  # 150 rows by 32, the rest too.


def test_pretraining_text_brings_its_weight_and_its_amount(tmp_path):
  given = dict(model=str(tmp_path), data='rows.jsonl')
  assert settled('instructgpt', 'ppo', **given)['ptx_coef'] == 0.0
  mixed = settled('instructgpt', 'ppo', ptx_data='text.jsonl', **given)
  assert mixed['ptx_coef'] == 27.8 and mixed['ptx_batch_size'] == 8 * 512
  fewer = settled('instructgpt', 'ppo', ptx_data='text.jsonl', batch_size=64,
                  ptx_coef=1.0, **given)
  assert fewer['ptx_coef'] == 1.0 and fewer['ptx_batch_size'] == 8 * 64


def test_a_file_of_its_own_is_of_its_own_split(tmp_path):
  given = dict(model=str(tmp_path), data='feedback')
  apart = settled('zephyr', 'sft', sft_data='chats', **given)
  assert (apart['data'], apart['split']) == ('chats', 'train_sft')
  shared = settled('zephyr', 'sft', **given)
  assert (shared['data'], shared['split']) == ('feedback', 'train_prefs')
  assert settled('zephyr', 'dpo', **given)['split'] == 'train_prefs'


def test_rankings_teach_a_folders_reward_model_and_pairs_the_testbeds(tmp_path):
  script = lambda **settings: instructgpt.stages(instructgpt.Config(
      workdir='w', **settings))['reward'].script
  assert script() is instructgpt.reward
  assert script(ranked=True) is instructgpt.ranking
  folder = dict(model=str(tmp_path), data='rows.jsonl')
  assert script(**folder) is instructgpt.ranking
  assert script(ranked=False, **folder) is instructgpt.reward


# --- Whole.


@pytest.mark.slow
def test_zephyr_runs_whole(base, tmp_path, left):
  summary = zephyr.main(zephyr.Config(
      workdir=str(tmp_path / 'z'), model=base, sft_steps=2, dpo_steps=2,
      preference_prompts=32, sft_batch_size=16, sft_max_length=48, **SMALL))
  assert left(tmp_path / 'z').is_whole
  assert list(summary['models']) == ['base', 'sft', 'dpo']
  assert summary['models']['dpo']['win_rate_vs_sft'] >= 0.0
  assert left(tmp_path / 'z').rows('dpo')[0]['step'] == 1


@pytest.mark.slow
def test_openchat_runs_whole_and_says_what_classes_are_worth(
    base, tmp_path, left):
  summary = openchat.main(openchat.Config(
      workdir=str(tmp_path / 'o'), model=base, num_steps=2, **SMALL))
  assert left(tmp_path / 'o').is_whole
  assert list(summary['models']) == ['base', 'sft', 'c_rlft']
  assert summary['c_rlft']['classes'].keys() == {'experts', 'some'}


@pytest.mark.slow
def test_zephyr_on_a_folder_trains_by_epochs(foreign, tmp_path, left):
  workdir = tmp_path / 'z'
  summary = zephyr.main(zephyr.Config(
      workdir=str(workdir), model=foreign.model, data=foreign.pairs,
      sft_data=foreign.demonstrations, sft_batch_size=16, batch_size=16,
      sft_max_length=48, max_length=48))
  assert left(workdir).is_whole
  assert list(summary['models']) == ['base', 'sft', 'dpo']
  rows = lambda stage: [r['step'] for r in left(workdir).rows(stage)]
  assert rows('sft') == [1, 2, 3]  # One epoch of 40 rows by 16.
  assert len(rows('dpo')) == 6  # Three of 30, 10 of 40 being held out.


@pytest.mark.slow
def test_openchat_on_a_folder_wants_the_classes_of_its_rows(
    foreign, tmp_path):
  with pytest.raises(InputError, match="field 'source' is"):
    openchat.main(openchat.Config(
        workdir=str(tmp_path / 'o'), model=foreign.model, baseline=False,
        data=foreign.demonstrations, num_steps=1, **SMALL))
