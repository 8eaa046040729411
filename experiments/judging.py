"""Who judges pairs of responses, as experiments.evaluate is told.

    gold             the testbed's judge
    reward:FOLDER    a reward model: the difference of its rewards
    model:FOLDER     a language model with the rubric: log odds of its verdict
    http://...       the same of an OpenAI-compatible server
"""

import os

from alignjax import evaluation
from alignjax import feedback
from alignjax import hf
from alignjax import rollout
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from alignjax.commands import annotate
from alignjax.endpoint import Endpoint
from alignjax.types import InputError


def make_judge(cfg, run: runs.Run, asked: list) -> feedback.Judge:
  """The judge that `cfg.judge` names.

  Args:
    cfg: with judge, judge_model, rubric and max_length.
    run: keeps an endpoint's answers.
    asked: the prompts, as `outcomes.ask_models` gives them.

  Raises:
    InputError: there is no such judge, or gold is asked where it is not known.
  """
  kind, _, folder = cfg.judge.partition(':')
  if cfg.judge in ('', 'gold'):
    if not isinstance(asked[0], testbed.Prompt):
      raise InputError('judge=gold knows the testbed only; give '
                       '--judge reward:FOLDER, model:FOLDER or a URL')
    return _gold(asked)
  if kind == 'reward' and folder:
    return feedback.score_judge(reward_scores(folder, cfg, run))
  rubric = feedback.read_rubric(cfg.rubric or annotate.RUBRIC).text()
  if kind == 'model' and folder:
    model, params, tokenizer = runs.load_policy(folder)
    return feedback.label_judge(
        evaluation.make_label_logprobs(
            model, sharding.put(params, sharding.replicated(run.mesh)),
            tokenizer, ('A', 'B'), max_length=4 * cfg.max_length,
            mesh=run.mesh, batch_size=16),
        feedback.rubric_question(rubric))
  if kind in ('http', 'https'):
    endpoint = Endpoint(
        cfg.judge, name='judge', timeout=120.0, per_minute=cfg.judge_per_minute,
        api_key=os.environ.get('OPENAI_API_KEY', ''),
        advice='answers so far are kept; go on with --resume')
    return feedback.EndpointJudge(
        endpoint, cfg.judge_model or _only_model(endpoint), rubric,
        cache=run.workdir / 'verdicts.jsonl')
  raise InputError(f'judge={cfg.judge} is none of gold, reward:FOLDER, '
                   'model:FOLDER and http://...; give one of these')


def _only_model(endpoint: Endpoint) -> str:
  """The model of a server that has one."""
  names = [model.get('id') for model in endpoint.ask('/v1/models').get(
      'data', [])]
  if len(names) != 1:
    raise InputError(f'judge_model is missing: judge={endpoint.url} has '
                     f'{len(names)} models ({", ".join(map(str, names[:5]))}); '
                     'name one with --judge-model')
  return names[0]


def prompt_of(asked):
  """A prompt as a judge reads it: text, or messages."""
  return getattr(asked, 'text', None) or asked.prompt


def _gold(asked: list[testbed.Prompt]) -> feedback.Judge:
  known = {prompt.text: prompt for prompt in asked}
  return feedback.score_judge(lambda prompts, texts: [
      testbed.judge(sources.WORLD, known[prompt], text).gold
      for prompt, text in zip(prompts, texts, strict=True)])


def reward_scores(folder: str, cfg, run: runs.Run):
  """`(prompts, responses) -> [N]` rewards."""
  model, params = runs.load_reward_model(folder)
  tokenizer = hf.load_tokenizer(folder)
  whole = sharding.replicated(run.mesh)
  reward_fn = rollout.make_reward_fn(
      model, sharding.put(params, whole), mesh=run.mesh, param_shardings=whole,
      mean=runs.read_reward_mean(folder))
  return evaluation.make_score(
      reward_fn, tokenizer, max_length=cfg.max_length, mesh=run.mesh)
