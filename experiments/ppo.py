"""PPO with a KL budget, from an SFT model and a reward model.

  python -m experiments.ppo --workdir runs/ppo
  python -m experiments.ppo --workdir runs/hack --kl-coef 0
  python -m experiments.ppo --workdir runs/ppo --model DIR --reward-model DIR
    --data FILE.jsonl

One form holds four models: policy, reference, reward model, value function.
With `--lora-rank 8` they are adapters and heads over ONE frozen base, which is
the reference; everything else is the same.

`--kl-coef 0` takes the penalty away: the proxy reward climbs, and on the
testbed, where gold is known, one sees it fall.

Expect, on the testbed with two CPU cores and seed 0: 52 seconds after the SFT
and the reward model, gold 0.61 at 2.0 nats; with `--kl-coef 0`, 0.16 at 28.
"""

import dataclasses
import math
from typing import Literal

from alignjax import adapters
from alignjax import cli
from alignjax import data
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax import telemetry
from alignjax import train
from alignjax.types import InputError
from alignjax.types import PromptTextBatch
from experiments import judges
from experiments import rollouts
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.AdapterConfig, runs.OptimizerConfig):
  """Settings of PPO. Where two defaults are given: testbed, folder."""

  # Its folder, or the adapter/ of one over the policy's base; '' trains one
  # here first.
  reward_model: str = ''
  reward_steps: int | None = None    # Steps of that. 250, 100.
  # A second one, of safety: its score is the reward where a prompt is one of
  # --safety-prompts (a file; testbed: dangers and what looks like one), or
  # where it gives less than the threshold as the chance of being safe.
  safety_reward_model: str = ''
  safety_prompts: str = ''
  safety_threshold: float = 0.15
  num_steps: runs.Iterations = None  # Iterations. 50, 100.
  batch_size: int | None = None      # Responses in an iteration. 128, 32.
  num_samples: int = 1               # Responses to each prompt, K.
  # What the models read of them: a row for each response; each prompt once
  # with its K responses behind it, which saves (K - 1) / K of the prompts'
  # tokens; or several such prompts in a row, which saves padding too. The
  # samples are the same. Minibatches hold whole groups where branched, and
  # packed the same responses in each epoch. If left out, packed for a folder's
  # model, if it can read such rows and the batch splits so, and else padded.
  layout: Literal['padded', 'packed', 'branched'] | None = None
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 128.
  # Of the policy; of its adapters (1e-3 or 1e-5). 3e-4, 1e-6.
  learning_rate: float | None = None
  # Of the value function; of its adapters (3e-3 or 1e-4). 1e-3, 1e-5.
  value_learning_rate: float | None = None
  kl_coef: float | None = None       # KL penalty's start, 1/nats. 0.3, 0.05.
  kl_target: float | None = None     # Nats per response. 2, 6.
  kl_horizon: float | None = None    # Responses it reacts in. 500, 10000.
  # The penalty answers at once to (KL / target) to this power; without, it is
  # the controller of Ziegler et al. (2019). 1, 0.
  kl_gain: float | None = None
  # A token's KL: its log-ratio, or the divergence over the vocabulary.
  kl_estimator: Literal['k1', 'exact'] = 'k1'
  reward_clip: float | None = None   # Rewards beyond this, either way, are it.
  whiten_scores: bool = False        # Scores to mean 0 and unit deviation.
  whiten_rewards: bool = False       # Token rewards to unit deviation.
  gamma: float = 1.0                 # Discount per token.
  lam: float = 0.95                  # GAE's lambda.
  clip: float = 0.2                  # Of the probability ratio.
  clip_high: float | None = None     # How far it may rise, if not --clip.
  dual_clip: float | None = None  # Ratio past which a bad token costs no more.
  decay: Literal['cosine', 'linear', 'constant'] = 'constant'  # Of the rates.
  entropy_coef: float = 0.0          # Weight of the entropy bonus.
  # Weight of the loss on pretraining text, PPO-ptx; 0 leaves it out.
  ptx_coef: float = 0.0
  ptx_data: str = ''                 # Its file, {text} rows; testbed: corpus.
  # Texts in an iteration; if left, as many as responses are learnt from.
  ptx_batch_size: int | None = None
  value_clip: float = 0.2            # Of the values.
  value_warmup: int = 0              # Iterations before the policy moves.
  # Nats per token past which an iteration's other minibatches do not move the
  # policy.
  early_stop_kl: float | None = None
  num_epochs: int = 2                # Passes over each rollout.
  num_minibatches: int = 2           # Optimizer steps in each pass.
  num_microbatches: int = 1          # Parts of a minibatch, to save memory.
  missing_eos_penalty: float = 1.0   # Off the reward of a cut response.
  temperature: float = 1.0           # Of sampling.
  # Responses that are sampled at one time, 0: all of a batch. Where one ends,
  # the next prompt moves in; the cache is this many rows. Samples stay as are.
  num_slots: int = 0
  chunk_size: int | None = None      # Columns unembedded at one time.
  # URL of an OpenAI-compatible server that samples instead; '' samples here.
  engine: str = ''
  engine_folder: str = ''  # Where it is handed weights; '': in --workdir.
  engine_sync_every: int = 1  # Iterations for which it keeps them.
  # Bound of the weights that correct for a sampler that is not quite the
  # policy; if left, 2 with an engine and no weights without.
  importance_cap: float | None = None
  # Nats by which sampler and training forward may disagree on a token.
  max_decode_gap: float = 1.0
  # Share of the first iteration's responses that must end by themselves.
  min_ended: float = 0.01
  # When responses show that the reward model is hacked: say it, end the run,
  # end it to refresh the reward model, or raise the KL penalty.
  on_hack: telemetry.OnHack = 'note'
  # Folders of more reward models, which nothing is learnt from: how far they
  # disagree is another sign.
  watch_reward_models: tuple[str, ...] = ()
  compare: str = ''                  # Another PPO workdir, for the report.

  @property
  def num_optimizer_steps(self) -> int:
    """Optimizer steps over all iterations."""
    return self.num_steps * self.num_epochs * self.num_minibatches


def fit(cfg: Config, run: runs.Run) -> None:
  """Trains on sampled responses and saves the policy."""
  rollouts.check_groups(cfg, run)
  check_texts(cfg, run)
  policy, tokenizer = runs.load_trainee(cfg, sft.policy_folder(cfg), run.mesh)
  cfg = rollouts.with_layout(cfg, run, policy.model.config)
  width = cfg.max_length - cfg.max_new_tokens
  rows, observe = sources.ppo_prompts(run, cfg, tokenizer, width)
  judge = judges.with_safety(cfg, run, policy, judges.load(cfg, run, policy))
  watch = telemetry.Watch.of(
      run, tokenizer, kl_budget=cfg.kl_target,
      others=judges.load_others(cfg, run, policy))

  names = [field.name for field in dataclasses.fields(train.PPOConfig)]
  settings = train.PPOConfig(**{name: getattr(cfg, name) for name in names})
  optimizers = [
      cfg.make_optimizer(rate, cfg.num_optimizer_steps)
      for rate in (cfg.learning_rate, cfg.value_learning_rate)]
  state, shardings = train.init_ppo_state(
      policy, judge.trainee, *optimizers, settings, mesh=run.mesh,
      seed=cfg.seed)
  held = note_memory(run, policy, judge, state)
  iterate = train.make_ppo_iteration(
      policy, judge.trainee, judge.reward_fn, *optimizers, settings,
      shardings=shardings, mesh=run.mesh, prompt_length=width,
      eos_id=tokenizer.eos_id, chunk_size=cfg.chunk_size,
      generate=rollouts.make_generate(cfg, run, policy, tokenizer),
      observe=telemetry.both(observe, watch.observe))
  try:
    state = train.run_stage(
        run.stage(cfg), telemetry.acting(iterate, watch, cfg.on_hack), state,
        shardings, batches(cfg, run, tokenizer, rows, width),
        check=judges.make_check(cfg, f'reward_model={judge.folder}'),
        stop=telemetry.stopping(watch, cfg.on_hack))
  except telemetry.Hacked as hacked:
    run.save_trained(policy, hacked.state.policy.params, tokenizer)
    raise
  run.save_trained(policy, state.policy.params, tokenizer)
  run.finish(watch.summary() | {
      'prompts': len(rows), 'kl_target': cfg.kl_target,
      'kl_band': [0.75 * cfg.kl_target, 1.25 * cfg.kl_target],
      'parameter_bytes': held})


def batches(cfg: Config, run: runs.Run, tokenizer, rows, width: int):
  """From an iteration to its prompts, and its pretraining text if any."""
  prompts = rollouts.prompt_stream(cfg, run, rows, width)
  if not cfg.ptx_coef:
    return prompts
  texts = sources.pretraining_rows(run, cfg, tokenizer, cfg.ptx_data)
  text_batches = lambda start: data.demonstration_batches(
      texts, batch_size=num_texts(cfg),
      max_length=cfg.max_length, seed=cfg.seed, start=start)
  return lambda start: map(
      PromptTextBatch, prompts(start), text_batches(start))


def note_memory(
    run: runs.Run, policy: adapters.Trainee, judge: judges.Judge,
    state: train.PPOState) -> dict[str, int]:
  """Says what the four models' parameters take, shared ones once."""
  whole = lambda role, params: params if role.base is None else (
      role.base, params)
  held = adapters.memory_of({
      'reference': policy.params if policy.base is None else policy.base,
      'policy': whole(policy, state.policy.params),
      'reward_model': whole(judge.trainee, judge.trainee.params),
      'value': whole(judge.trainee, state.value.params)})
  total = sum(held.values())
  run.console.note('parameters: ' + ', '.join(
      f'{role} {count / 2**20:,.2f} MiB' for role, count in held.items())
      + f'; {total / 2**20:,.2f} MiB in all')
  return held | {'total': total}


def num_texts(cfg: Config) -> int:
  """Pretraining texts in an iteration."""
  return cfg.ptx_batch_size or cfg.batch_size * cfg.num_epochs


def check_texts(cfg: Config, run: runs.Run) -> None:
  """Refuses texts that do not spread over all optimizer steps and devices."""
  parts = math.prod((cfg.num_epochs, cfg.num_minibatches, cfg.num_microbatches,
                     run.num_shards))
  if cfg.ptx_coef and num_texts(cfg) % parts:
    raise InputError(
        f'ptx_batch_size={num_texts(cfg)} does not split over the iteration\'s '
        f'{cfg.num_epochs * cfg.num_minibatches} optimizer steps; use a '
        f'multiple of {parts}')


def outcome(cfg: Config, folder: str) -> dict:
  """What is compared at the end."""
  policy = sft.policy_folder(cfg)
  return {'folders': {'sft': policy, 'ppo': folder}, 'compare': cfg.compare,
          'reward_model': judges.reward_folder(cfg, policy)}


def check(cfg: Config) -> None:
  """Refuses pretraining text that is not there or nobody reads, and engines."""
  if cfg.ptx_coef and not cfg.ptx_data and not runs.is_testbed(cfg.model):
    raise InputError(
        f'ptx_coef={cfg.ptx_coef:g} mixes pretraining text in, and there is '
        'none; give a file of {text} rows, as --ptx-data')
  rollouts.check(cfg)
  if cfg.ptx_data and not cfg.ptx_coef:
    raise InputError(
        f'ptx_data={cfg.ptx_data} would not be read with ptx_coef=0; give its '
        'weight (InstructGPT: 27.8), or leave it out')


def with_rates(cfg: Config) -> Config:
  """Adapters take larger steps; what an engine samples is weighed."""
  if cfg.engine and cfg.importance_cap is None:
    cfg = dataclasses.replace(cfg, importance_cap=2.0)
  if not cfg.lora_rank:
    return cfg
  return runs.with_defaults(
      cfg, testbed=dict(learning_rate=1e-3, value_learning_rate=3e-3),
      folder=dict(learning_rate=1e-5, value_learning_rate=1e-4))


SCRIPT = scripts.Script(
    'ppo', fit, outcome, check=check, prepare=with_rates,
    testbed=dict(num_steps=50, batch_size=128, max_length=48,
                 max_new_tokens=32, learning_rate=3e-4, reward_steps=250,
                 value_learning_rate=1e-3, kl_coef=0.3, kl_target=2.0,
                 kl_horizon=500.0, kl_gain=1.0),
    folder=dict(num_steps=100, batch_size=32, max_length=512,
                max_new_tokens=128, learning_rate=1e-6, reward_steps=100,
                value_learning_rate=1e-5, kl_coef=0.05, kl_target=6.0,
                kl_horizon=10_000.0, kl_gain=0.0))
main, stage, resolve = SCRIPT.main, SCRIPT.stage, SCRIPT.resolve

if __name__ == '__main__':
  cli.run(main, Config)
