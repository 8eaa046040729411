"""What the methods that train on the policy's own samples share, but PPO.

A method says how rewards become advantages and what a minibatch is trained on;
`script` samples, scores with a reward model or by rule, and runs the iteration
of `train.online`.
"""

from collections.abc import Callable
import dataclasses
from typing import Literal

from alignjax import adapters
from alignjax import runs
from alignjax import scripts
from alignjax import sources
from alignjax import telemetry
from alignjax import train
from alignjax.models import CausalLM
from alignjax.types import InputError
from experiments import judges
from experiments import rollouts
from experiments import sft


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(runs.AdapterConfig, runs.OptimizerConfig):
  """Settings of every such method. Where two are given: testbed, folder."""

  # What scores a response: a reward model, or its final number against the
  # answer of --data (1 or 0).
  reward: Literal['model', 'gsm8k'] = 'model'
  reward_model: str = ''             # Its folder; '' trains one here first.
  reward_steps: int | None = None    # Steps of that. 250, 100.
  num_steps: runs.Iterations = None  # Iterations. 50, 100.
  batch_size: int | None = None      # Responses in an iteration. 128, 32.
  num_samples: int = 4               # Responses to each prompt, K.
  # What the models read of them: a row for each response; each prompt once
  # with its K responses behind it, which saves (K - 1) / K of the prompts'
  # tokens; or several such prompts in a row, which saves padding too. The
  # samples are the same. Minibatches hold whole groups where branched, and
  # packed the same responses in each epoch. If left out, packed for a folder's
  # model, if it can read such rows and the batch splits so, and else padded.
  layout: Literal['padded', 'packed', 'branched'] | None = None
  max_length: int | None = None      # Tokens, prompt and response. 48, 512.
  max_new_tokens: int | None = None  # Tokens of a response. 32, 128.
  # Of all weights; of adapters (1e-3 or 1e-5). 3e-4, 1e-6.
  learning_rate: float | None = None
  decay: Literal['cosine', 'linear', 'constant'] = 'constant'  # Of the rate.
  num_epochs: int = 2                # Passes over each rollout.
  num_minibatches: int = 2           # Optimizer steps in each pass.
  num_microbatches: int = 1          # Parts of a minibatch, to save memory.
  missing_eos_penalty: float = 1.0   # Off the reward of a cut response.
  temperature: float = 1.0           # Of sampling.
  # Responses that are sampled at one time, 0: all of a batch. Where one ends,
  # the next prompt moves in; the cache is this many rows. Samples stay as are.
  num_slots: int = 0
  chunk_size: int | None = None      # Columns unembedded at one time.
  # Nats by which sampler and training forward may disagree on a token.
  max_decode_gap: float = 1.0
  # Share of the first iteration's responses that must end by themselves.
  min_ended: float = 0.01
  # When responses show that the reward is hacked: say it, or end the run.
  on_hack: Literal['note', 'stop'] = 'note'
  compare: str = ''                  # Another online workdir, for the report.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(Config):
  """Settings of those that weigh tokens by advantages."""

  # Bound of the weights that correct for the sampler's rounding; none if left.
  importance_cap: float | None = None


TESTBED = dict(num_steps=50, batch_size=128, max_length=48, max_new_tokens=32,
               learning_rate=3e-4, reward_steps=250)
FOLDER = dict(num_steps=100, batch_size=32, max_length=512, max_new_tokens=128,
              learning_rate=1e-6, reward_steps=100)


def script(
    name: str,
    make_objective: Callable[[CausalLM, Config, int], train.Objective],
    make_estimate: Callable[[Config], Callable] | None,
    *, make_rows: Callable[[Config], Callable] | None = None,
    min_samples: int = 2, check: Callable[[Config], None] = lambda cfg: None,
    testbed: dict, folder: dict,
) -> scripts.Script:
  """The script of an online method.

  Args:
    name: of the experiment.
    make_objective: from the model, the config and the column at which
      responses begin to the objective.
    make_estimate: from the config to the advantages' estimator; None for
      pairs, which need none.
    make_rows: from the config to what turns a trajectory into other rows.
    min_samples: the fewest responses to a prompt that it can compare.
    check: see `scripts.Script`.
    testbed: settings on the testbed, besides or instead of `TESTBED`.
    folder: settings for model folders, besides or instead of `FOLDER`.
  """

  def fit(cfg: Config, run: runs.Run) -> None:
    rollouts.check_groups(cfg, run, in_pairs=make_rows is not None)
    policy, tokenizer = runs.load_trainee(
        cfg, sft.policy_folder(cfg), run.mesh)
    cfg = rollouts.with_layout(cfg, run, policy.model.config)
    width = cfg.max_length - cfg.max_new_tokens
    rows, observe, reward_fn, judge = prompts_and_reward(
        cfg, run, policy, tokenizer, width)
    optimizer = cfg.make_optimizer(
        cfg.learning_rate, cfg.num_steps * cfg.num_epochs * cfg.num_minibatches)
    state, shardings = train.init_state(
        policy.params, policy.axes, optimizer, mesh=run.mesh, seed=cfg.seed)
    watch = telemetry.Watch.of(run, tokenizer, kl_budget=None)
    iterate = train.make_online_iteration(
        policy, reward_fn, make_objective(policy.model, cfg, width),
        make_estimate and make_estimate(cfg), optimizer, settings(cfg),
        shardings=shardings, mesh=run.mesh, prompt_length=width,
        eos_id=tokenizer.eos_id, chunk_size=cfg.chunk_size,
        observe=telemetry.both(observe, watch.observe),
        make_rows=make_rows and make_rows(cfg))
    state = train.run_stage(
        run.stage(cfg), iterate, state, shardings,
        rollouts.prompt_stream(cfg, run, rows, width),
        check=judges.make_check(cfg, judge),
        stop=telemetry.stopping(watch, cfg.on_hack))
    run.save_trained(policy, state.params, tokenizer)
    run.finish(watch.summary() | {'prompts': len(rows)})

  def outcome(cfg: Config, folder: str) -> dict:
    policy = sft.policy_folder(cfg)
    scored = {} if cfg.reward != 'model' else {
        'reward_model': judges.reward_folder(cfg, policy)}
    return {'folders': {'sft': policy, name: folder},
            'compare': cfg.compare} | scored

  def check_all(cfg: Config) -> None:
    check(cfg)
    check_reward(cfg)
    if cfg.num_samples < min_samples:
      raise InputError(
          f'num_samples={cfg.num_samples} leaves {name} nothing to compare a '
          f'response with; it must be at least {min_samples}')

  return scripts.Script(
      name, fit, outcome, check=check_all, prepare=with_rates,
      testbed=TESTBED | testbed, folder=FOLDER | folder)


def with_rates(cfg: Config) -> Config:
  """Adapters take larger steps."""
  return cfg if not cfg.lora_rank else runs.with_defaults(
      cfg, testbed=dict(learning_rate=1e-3), folder=dict(learning_rate=1e-5))


def settings(cfg: Config) -> train.OnlineConfig:
  """The iteration's part of the config."""
  return train.OnlineConfig(**{
      field.name: getattr(cfg, field.name)
      for field in dataclasses.fields(train.OnlineConfig)})


def prompts_and_reward(
    cfg: Config, run: runs.Run, policy: adapters.Trainee, tokenizer,
    width: int):
  """(prompts, who watches, what scores a trajectory, how that is called)."""
  if cfg.reward == 'gsm8k':
    rows, reward_fn = sources.verified_prompts(run, cfg, tokenizer, width)
    return rows, None, reward_fn, f'reward={cfg.reward}'
  rows, observe = sources.ppo_prompts(run, cfg, tokenizer, width)
  judge = judges.load(cfg, run, policy)
  score = lambda t: judge.reward_fn(t.tokens, t.attention_mask, t.rows)
  return rows, observe, score, f'reward_model={judge.folder}'


def check_reward(cfg: Config) -> None:
  """A rule needs answers, and no reward model."""
  if cfg.reward == 'model':
    return
  if cfg.reward_model:
    raise InputError(
        f'reward={cfg.reward} scores by rule, and reward_model='
        f'{cfg.reward_model} would not be asked; leave one of them out')
  if cfg.data == 'testbed':
    raise InputError(
        f'reward={cfg.reward} scores by the answers of a file; give one of '
        'question/answer rows, as --data')
