"""--help tells every flag and its default; both where there are two."""

import importlib
import inspect
import re

import pytest

from alignjax import cli
from alignjax import runs
from experiments import preferences
from experiments import pretrain

PAIRS = ('ipo', 'hinge', 'robust_dpo', 'exo', 'f_dpo', 'simpo', 'orpo', 'cpo')
ONLINE = ('grpo', 'dr_grpo', 'dapo', 'gspo', 'rloo', 'reinforce',
          'reinforce_pp', 'online_dpo')
TWICE = ('sft', 'c_rlft', 'reward', 'ranking', 'dpo', 'ppo', 'kto', 'revisions',
         'ai_feedback', 'thumbs', *PAIRS, *ONLINE)
RECIPES = ('instructgpt', 'zephyr', 'openchat')
SCRIPTS = (*TWICE, *RECIPES, 'compare', 'constitutional', 'evaluate', 'margins',
           'overoptimization', 'panel', 'preferences', 'pretrain', 'sweep')


def help_of(name, capsys, monkeypatch):
  """What --help prints, in one line; its boxes and breaks taken out."""
  script = importlib.import_module(f'experiments.{name}')
  monkeypatch.setattr('sys.argv', [name, '--help'])
  with pytest.raises(SystemExit) as stop:
    cli.run(lambda cfg: None, script.Config)
  out, err = capsys.readouterr()
  assert stop.value.code == 0 and err == ''
  return script, ' '.join(re.sub('[│╭╮╰╯─]', ' ', out).split())


@pytest.mark.parametrize('name', SCRIPTS)
def test_help_has_the_commands_and_every_flag(name, capsys, monkeypatch):
  script, text = help_of(name, capsys, monkeypatch)
  assert f'python -m experiments.{name} --workdir' in text
  for flag in inspect.signature(script.Config).parameters:
    assert f'--{flag.replace("_", "-")}' in text


@pytest.mark.parametrize('name', TWICE)
def test_help_says_both_defaults_of_what_is_left_open(
    name, capsys, monkeypatch, tmp_path):
  """As in "Nats per response. 2, 6. (default: None)": testbed, folder."""
  script, text = help_of(name, capsys, monkeypatch)
  ours, theirs = (
      vars(script.resolve(script.Config(workdir='w', model=model)))
      for model in ('testbed', str(tmp_path)))
  left_open = [flag for flag, value in vars(script.Config(workdir='w')).items()
               if value is None and ours[flag] is not None]
  assert len(left_open) >= 2
  for flag in left_open:
    assert defaults_said(flag, text) == [ours[flag], theirs[flag]], flag


def defaults_said(flag, text):
  """The numbers that end the comment of a flag."""
  text = text.partition('show this help message')[2]  # Behind the docstring.
  after = text.partition(f'--{flag.replace("_", "-")} ')[2]
  comment = after[:after.index('(default: None)')]
  return [float(n) for n in re.findall(r'(?<=\s)[\d.e-]+(?=, |\. $)', comment)]


@pytest.mark.parametrize('recipe, flag, stage, setting', [
    ('instructgpt', 'ppo_iterations', 'ppo', 'num_steps'),
    ('instructgpt', 'dpo_steps', 'dpo', 'num_steps'),
    ('instructgpt', 'max_length', 'sft', 'max_length'),
    ('instructgpt', 'max_new_tokens', 'ppo', 'max_new_tokens'),
    ('instructgpt', 'num_minibatches', 'ppo', 'num_minibatches'),
    ('instructgpt', 'kl_coef', 'ppo', 'kl_coef'),
    ('instructgpt', 'kl_target', 'ppo', 'kl_target'),
    ('instructgpt', 'beta', 'dpo', 'beta'),
    ('zephyr', 'sft_batch_size', 'sft', 'batch_size'),
    ('zephyr', 'sft_max_length', 'sft', 'max_length'),
    ('zephyr', 'batch_size', 'dpo', 'batch_size'),
    ('zephyr', 'max_length', 'dpo', 'max_length'),
    ('zephyr', 'beta', 'dpo', 'beta'),
    ('openchat', 'batch_size', 'c_rlft', 'batch_size'),
    ('openchat', 'max_length', 'c_rlft', 'max_length')])
def test_help_of_a_recipe_says_the_defaults_of_its_stages(
    recipe, flag, stage, setting, capsys, monkeypatch, tmp_path):
  script, text = help_of(recipe, capsys, monkeypatch)
  both = [getattr(script.RECIPE.settle(cfg, stage), setting) for cfg in (
      script.Config(workdir='w'),
      script.Config(workdir='w', model=str(tmp_path), data='rows.jsonl'))]
  assert defaults_said(flag, text) == both


@pytest.mark.parametrize('recipe', RECIPES)
def test_help_of_a_recipe_says_how_the_testbeds_data_are_made(
    recipe, capsys, monkeypatch):
  script, text = help_of(recipe, capsys, monkeypatch)
  assert defaults_said('pretrain_steps', text) == [
      pretrain.Config(workdir='w').num_steps]
  if hasattr(script.Config, 'preference_prompts'):
    assert defaults_said('preference_prompts', text) == [
        preferences.Config(workdir='w').num_prompts]


@pytest.mark.parametrize('name, flag, default', [
    ('ppo', '--gamma', '1.0'), ('ppo', '--clip', '0.2'),
    ('pretrain', '--num-steps', '900'), ('sft', '--mesh', 'data:-1'),
    ('dpo', '--label-smoothing', '0.0'), ('dpo', '--tail', '1.0'),
    ('exo', '--label-smoothing', '0.001'), ('f_dpo', '--divergence', 'js'),
    ('simpo', '--simpo-gamma', '1.0'), ('dapo', '--clip-high', '0.28'),
    ('grpo', '--num-samples', '4'), ('reinforce', '--num-samples', '1'),
    ('reinforce', '--num-epochs', '1'), ('orpo', '--odds-coef', '0.1')])
def test_help_says_the_default(name, flag, default, capsys, monkeypatch):
  _, text = help_of(name, capsys, monkeypatch)
  after = text.partition(f'{flag} ')[2]
  assert f'(default: {default})' in after.partition('--')[0]


def test_shared_flags_are_those_of_every_run():
  for name in SCRIPTS:
    script = importlib.import_module(f'experiments.{name}')
    assert issubclass(script.Config, runs.RunConfig)
