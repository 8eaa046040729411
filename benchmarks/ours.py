"""The tasks in alignjax, as its scripts run them, on rows that are given."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np

from alignjax import adapters
from alignjax import advantages
from alignjax import data
from alignjax import objectives
from alignjax import rollout
from alignjax import runs
from alignjax import scoring
from alignjax import sharding
from alignjax import train
from alignjax.models import ScalarModel
from alignjax.types import Trajectory
from benchmarks import turns


def make_task(settings: dict) -> turns.Task:
  """The task's steps."""
  sharding.use_cpu(sharding.cpu_devices(settings['model'], settings['mesh']))
  mesh = sharding.make_mesh(settings['mesh'])
  if settings['task'] == 'generate':
    return turns.Task(_generate(settings, mesh))
  if settings['task'] == 'ppo':
    return _ppo(settings, mesh)
  if settings['task'] == 'grpo':
    return _grpo(settings, mesh)
  make = {'sft': _sft, 'dpo': _dpo, 'kto': _kto, 'reward': _reward}
  return _training(settings, mesh, *make[settings['task']](settings, mesh))


def _training(settings, mesh, trainee, objective, annotate, batches):
  """Steps of an objective, each from the batch to its loss on the host.

  A run of many steps compiles each shape once: so do these, before the turns.
  """
  batches = list(itertools.islice(batches, settings['steps']))
  optimizer = train.make_optimizer(
      settings['learning_rate'], 1_000, warmup=0.0, decay='constant')
  state, shardings = train.init_state(
      trainee.params, trainee.axes, optimizer, mesh=mesh, seed=0)
  step = train.make_train_step(
      objective, optimizer, shardings=shardings, mesh=mesh)
  rows = sharding.batch_sharding(mesh)
  held, left, programs = [state], iter(batches), {}

  def ready(batch):
    batch = sharding.put(batch, rows)
    if annotate is not None:
      batch = annotate(held[0].params, batch)
    shapes = tuple(x.shape for x in jax.tree.leaves(batch))
    if shapes not in programs:
      programs[shapes] = step.lower(held[0], batch).compile()
    return batch, programs[shapes]

  def one() -> float:
    batch, program = ready(next(left))
    held[0], metrics = program(held[0], batch)
    return float(metrics['loss'].compute())

  def prepare() -> None:
    for batch in batches:
      ready(batch)

  return turns.Task(one, prepare)


def _read(settings):
  with open(settings['rows'], encoding='utf-8') as file:
    return [json.loads(line) for line in file]


def _response(prompt, response):
  return data.TokenizedResponse(
      np.asarray(prompt + response, np.int32), len(prompt))


def _stream(make, rows, settings, mesh):
  """Batches in the rows' order, laid out as scripts with --layout do."""
  return make(
      rows, batch_size=settings['batch_size'],
      max_length=settings['max_length'], shuffle=False,
      layout=data.make_layout(
          settings['layout'], num_cells=sharding.num_batch_shards(mesh)))


def _policy(settings):
  model, params, _ = runs.load_policy(settings['model'])
  return adapters.full(model, params, settings['model'])


def _sft(settings, mesh):
  policy = _policy(settings)
  rows = [_response(r['prompt'], r['chosen']) for r in _read(settings)]
  return policy, objectives.sft(policy.model), None, _stream(
      data.demonstration_batches, rows, settings, mesh)


def _pairs(settings, mesh):
  rows = [data.TokenizedPair(_response(r['prompt'], r['chosen']),
                             _response(r['prompt'], r['rejected']))
          for r in _read(settings)]
  return _stream(data.preference_batches, rows, settings, mesh)


def _dpo(settings, mesh):
  policy = _policy(settings)
  model, frozen, shardings = policy.reference(mesh)
  annotate = rollout.make_reference(
      model, frozen, mesh=mesh, param_shardings=shardings)
  return (policy, objectives.dpo(policy.model, beta=settings['beta']),
          annotate, _pairs(settings, mesh))


def _kto(settings, mesh):
  policy = _policy(settings)
  model, frozen, shardings = policy.reference(mesh)
  annotate = rollout.make_kto_reference(
      model, frozen, mesh=mesh, param_shardings=shardings)
  rows = [data.TokenizedLabel(
      _response(r['prompt'], r['rejected' if i % 2 else 'chosen']), not i % 2)
          for i, r in enumerate(_read(settings))]
  return (policy, objectives.kto(policy.model, beta=settings['beta']),
          annotate, _stream(data.unpaired_batches, rows, settings, mesh))


def _reward(settings, mesh):
  model, params = runs.load_reward_model(settings['reward_model'])
  assert isinstance(model, ScalarModel)
  trainee = adapters.full(model, jax.device_get(params),
                          settings['reward_model'])
  return trainee, objectives.reward(model), None, _pairs(settings, mesh)


def _prompts(settings):
  """Batches of the rows' prompts, in their order, each as often as sampled."""
  width = settings['max_length'] - settings['max_new_tokens']
  return data.prompt_batches(
      [data.TokenizedPrompt(np.asarray(r['prompt'][-width:], np.int32), i)
       for i, r in enumerate(_read(settings))], max_length=width,
      batch_size=settings['batch_size'], num_samples=settings['num_samples'],
      shuffle=False)


def _ppo(settings, mesh):
  """Iterations of PPO, of all four models; the value function's loss."""
  policy, width = _policy(settings), (
      settings['max_length'] - settings['max_new_tokens'])
  scalar, params = runs.load_reward_model(settings['reward_model'])
  value = adapters.full(scalar, jax.device_get(params),
                        settings['reward_model'])
  whole = sharding.replicated(mesh)
  reward_fn = rollout.make_reward_fn(
      scalar, sharding.put(params, whole), mesh=mesh, param_shardings=whole)
  optimizers = [train.make_optimizer(
      turns.PPO['learning_rate'], 1_000, warmup=0.0, decay='constant')
                for _ in range(2)]
  layout = 'padded' if settings['num_samples'] == 1 else 'branched'
  if settings['any_length']:
    layout = 'packed'
  config = train.PPOConfig(
      kl_coef=turns.PPO['kl_coef'], kl_horizon=float('inf'),
      gamma=turns.PPO['gamma'], lam=turns.PPO['lam'], clip=turns.PPO['clip'],
      value_clip=turns.PPO['clip'], num_epochs=settings['num_epochs'],
      num_minibatches=1, missing_eos_penalty=0.0,
      temperature=turns.PPO['temperature'],
      max_new_tokens=settings['max_new_tokens'],
      num_samples=settings['num_samples'], layout=layout)
  state, shardings = train.init_ppo_state(
      policy, value, *optimizers, config, mesh=mesh, seed=0)
  iterate = train.make_ppo_iteration(
      policy, value, reward_fn, *optimizers, config, shardings=shardings,
      mesh=mesh, prompt_length=width, eos_id=-1)
  batches = list(itertools.islice(_prompts(settings), settings['steps']))
  plan = data.make_prompt_layout(
      layout, num_samples=settings['num_samples'], like=batches,
      max_new_tokens=settings['max_new_tokens'],
      num_cells=sharding.num_batch_shards(mesh))
  batches = [plan(batch) for batch in batches]
  held, left = [state], iter(batches)

  def iterated(batch) -> float:
    held[0], metrics = iterate(held[0], sharding.put(
        batch, sharding.batch_sharding(mesh)))
    return float(metrics['value_loss'].compute())

  def prepare() -> None:
    """Compiles for the shapes that come later; nothing is learnt of it."""
    shape_of = lambda batch: tuple(x.shape for x in jax.tree.leaves(batch))
    others = {shape_of(batch): batch for batch in batches}
    others.pop(shape_of(batches[0]))
    for batch in others.values():
      iterated(batch)

  return turns.Task(lambda: iterated(next(left)), prepare)


def _grpo(settings, mesh):
  """Iterations of GRPO; what is compared is the loss of given responses."""
  policy, own = _policy(settings), turns.GRPO
  model = policy.model
  new, count = settings['max_new_tokens'], settings['num_samples']
  width = settings['max_length'] - new
  optimizer = train.make_optimizer(
      own['learning_rate'], 1_000, warmup=0.0, decay='constant')
  state, state_shardings = train.init_state(
      policy.params, policy.axes, optimizer, mesh=mesh, seed=0)
  objective = objectives.policy_gradient(
      model, objectives.clip_surrogate(clip=own['clip']), prompt_length=width,
      aggregate=objectives.sequence_mean, kl_coef=settings['beta'])
  iterate = train.make_online_iteration(
      policy, lambda x: np.asarray(
          turns.score(np.asarray(x.tokens)[:, width:]), np.float32), objective,
      train.grouped(advantages.group_advantages, count), optimizer,
      train.OnlineConfig(
          num_samples=count, max_new_tokens=new, missing_eos_penalty=0.0,
          layout=settings['layout']),
      shardings=state_shardings, mesh=mesh, prompt_length=width, eos_id=-1)
  rows = sharding.batch_sharding(mesh)
  batches, held = _prompts(settings), [state]

  def one() -> float:
    held[0], metrics = iterate(held[0], sharding.put(next(batches), rows))
    return float(metrics['loss'].compute())

  @jax.jit
  def loss_of(params, tokens, elsewhere, signs):
    real = jnp.ones(tokens.shape, bool)
    old = scoring.token_logprobs(model, params, elsewhere, real, start=width)
    return objective(params, Trajectory(
        tokens=tokens, attention_mask=real, weight=jnp.ones(len(tokens)),
        response_mask=real & (jnp.arange(width + new) >= width),
        sampler_logprobs=old, logprobs=old, ref_logprobs=old,
        advantages=jnp.broadcast_to(signs[:, None], old.shape)), None)[0]

  given = turns.given(_read(settings), width, new)

  def check() -> float:
    prompts, others, responses, signs = map(np.asarray, next(given))
    tokens, elsewhere = (np.concatenate([x, responses], axis=1)
                         for x in (prompts, others))
    return float(loss_of(held[0].params, tokens, elsewhere, signs).compute())

  return turns.Task(one, check=check)


def _generate(settings, mesh):
  """Greedy responses of one length; their mean token id for a loss."""
  model, params, _ = runs.load_policy(settings['model'])
  whole = sharding.replicated(mesh)
  generate = rollout.make_generate(
      model, max_new_tokens=settings['max_new_tokens'], eos_id=-1,
      temperature=0.0, mesh=mesh, param_shardings=whole)
  width = settings['max_length'] - settings['max_new_tokens']
  batches = _prompts(settings)
  params = sharding.put(params, whole)
  key = sharding.put(jax.random.key(0), whole)

  def one() -> float:
    prompts = sharding.put(next(batches), sharding.batch_sharding(mesh))
    trajectory = generate(params, prompts, key)
    return float(np.asarray(trajectory.tokens)[:, width:].mean())

  return one


if __name__ == '__main__':
  turns.serve(make_task)
