"""alignjax and another library on the same rows, step by step in turns.

  python -m benchmarks.versus --peer trl --task dpo --model DIR --data FILE

Both train the same model on the same token ids, in the same order, with the
same optimizer; the losses of the first steps must agree. Then they take turns,
A B A B, in processes that both stay: what else the machine does falls on both,
and ratios are of neighbours. One line for each pair of turns, medians at the
end, and all of it as JSON.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from typing import Literal

from alignjax import cli
from alignjax.errors import InputError

# What a peer's environment is made of; torch's own index has CPU builds.
_TRL = 'torch==2.13.*', 'transformers', 'datasets', 'accelerate'
PEERS = {'trl': ('trl==1.16.*', *_TRL),
         'trl_ppo': ('trl==1.12.*', *_TRL),  # The last that has PPO.
         'tunix': ('google-tunix==0.1.*',)}
_WORKERS = {'trl': 'benchmarks.peers.trl_steps',
            'trl_ppo': 'benchmarks.peers.trl_ppo_steps',
            'tunix': 'benchmarks.peers.tunix_steps'}
_ONLINE = ('ppo', 'grpo')
_AGREE = 3  # Steps whose losses are compared, from the first on.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Settings of a comparison."""

  # Who else runs. Tunix has SFT and DPO, of models as Llama.
  peer: Literal['trl', 'tunix'] = 'trl'
  # What is trained; or responses, greedy, against transformers' `generate`. PPO
  # samples greedily too and at no rate to speak of, so that both write and
  # learn the same; what agrees is the value function's loss. Of GRPO it is the
  # loss of responses that are given, since what the two sample differs.
  task: Literal[
      'sft', 'dpo', 'kto', 'reward', 'ppo', 'grpo', 'generate'] = 'dpo'
  model: str  # A Hugging Face folder.
  data: str  # Preference pairs; SFT learns the chosen responses.
  turns: int = 5  # Pairs of turns that count.
  warmup: int = 3  # Steps of each before them, of which the losses must agree.
  batch_size: int = 8  # Rows, or pairs, of a step.
  max_length: int = 512  # Tokens of a row, prompt and response.
  max_new_tokens: int = 64  # Of them, of a response that is sampled.
  tolerance: float = 1e-4  # By which losses, or mean token ids, may differ.
  learning_rate: float = 1e-5  # AdamW's.
  beta: float = 0.1  # DPO's and KTO's, and of GRPO's KL.
  num_epochs: int = 4  # PPO's, over each rollout.
  # PPO's and GRPO's responses to a prompt, side by side; 1 and 8 if left out.
  num_samples: int | None = None
  # PPO's prompts as they come, of every length that leaves a response room: the
  # peer pads a batch to its longest, ours packs rows. Else all are that long.
  any_length: bool = True
  # Parts that the peer takes PPO's minibatch in, since whole it may not fit
  # into memory beside ours; 0: of two rows each.
  peer_microbatches: int = 0
  mesh: str = 'data:-1'  # Ours: devices by axis.
  # Ours: what the model reads of a batch; see the scripts' flag.
  layout: Literal['padded', 'packed', 'branched'] = 'branched'
  python: str = ''  # The peer's Python; '' makes its environment in the cache.
  cache: str = '~/.cache/alignjax/versus'  # Where environments are made.
  json: str = ''  # File for the result.


def main(cfg: Config) -> None:
  """Compares; see `Config`."""
  if cfg.turns < 1 or cfg.warmup < _AGREE:
    raise InputError(f'turns={cfg.turns}, warmup={cfg.warmup}: at least 1 and '
                     f'{_AGREE} are needed')
  if cfg.peer == 'tunix' and cfg.task not in ('sft', 'dpo'):
    raise InputError(f'task={cfg.task}: of tunix there are sft and dpo here; '
                     'use peer=trl')
  with tempfile.TemporaryDirectory() as folder:
    settings = prepare(cfg, pathlib.Path(folder))
    peer = peer_of(cfg)
    python = cfg.python or environment(peer, pathlib.Path(
        cfg.cache).expanduser())
    with contextlib.ExitStack() as stack:
      start = lambda module, python: stack.enter_context(
          contextlib.closing(Worker(module, python, settings)))
      ours = start('benchmarks.ours', sys.executable)
      theirs = start(_WORKERS[peer], python)
      result = compare(cfg, ours, theirs)
  show(cfg, result)
  if cfg.json:
    pathlib.Path(cfg.json).write_text(json.dumps(result, indent=2) + '\n')


def peer_of(cfg: Config) -> str:
  """Whose environment and worker a task is compared in."""
  return 'trl_ppo' if (cfg.peer, cfg.task) == ('trl', 'ppo') else cfg.peer


def prepare(cfg: Config, folder: pathlib.Path) -> str:
  """Writes token ids, and a reward model if one is asked for; the settings."""
  import jax

  from alignjax import data
  from alignjax import hf
  from alignjax import runs
  from alignjax.models import ScalarModel

  records, _ = data.preferences(cfg.data)
  tokenizer = hf.load_tokenizer(cfg.model)
  samples = _samples(cfg)
  if cfg.batch_size % samples:
    raise InputError(f'batch_size={cfg.batch_size} does not hold whole groups '
                     f'of {samples}; use a multiple of {samples}')
  if cfg.peer_microbatches < 0 or cfg.batch_size % _parts(cfg):
    raise InputError(f'peer_microbatches={_parts(cfg)} does not divide '
                     f'batch_size={cfg.batch_size}')
  needed = cfg.batch_size // samples * (cfg.turns + cfg.warmup)
  width = cfg.max_length - cfg.max_new_tokens
  rows, _ = data.tokenize_preferences(
      records, tokenizer, long_prompts='drop',
      max_length=4 * width if cfg.task in _ONLINE else cfg.max_length)
  if _is_any_length(cfg):
    rows = [row for row in rows if row.chosen.prompt_length <= width]
  elif cfg.task in _ONLINE:  # No prompt is padded.
    rows = [row for row in rows if row.chosen.prompt_length >= width]
  if cfg.task == 'grpo':  # Nor a response that is given.
    rows = [row for row in rows if all(
        len(x.tokens) - x.prompt_length >= cfg.max_new_tokens
        for x in (row.chosen, row.rejected))]
  if len(rows) < needed:
    raise InputError(f'data={cfg.data}: {len(rows)} pairs fit max_length='
                     f'{cfg.max_length}, and {needed} are needed')
  path = folder / 'rows.jsonl'
  with path.open('w') as file:
    for row in rows[:needed]:
      start = row.chosen.prompt_length
      file.write(json.dumps({
          'prompt': row.chosen.tokens[:start].tolist(),
          'chosen': row.chosen.tokens[start:].tolist(),
          'rejected': row.rejected.tokens[
              row.rejected.prompt_length:].tolist()}) + '\n')
  settings = {'task': cfg.task, 'model': cfg.model, 'rows': str(path),
              'batch_size': cfg.batch_size, 'max_length': cfg.max_length,
              'steps': cfg.warmup + cfg.turns,
              'mesh': cfg.mesh, 'layout': cfg.layout,
              'max_new_tokens': cfg.max_new_tokens,
              'num_epochs': cfg.num_epochs, 'num_samples': samples,
              'peer_microbatches': _parts(cfg),
              'any_length': _is_any_length(cfg),
              'learning_rate': cfg.learning_rate, 'beta': cfg.beta,
              'threads': len(os.sched_getaffinity(0)),
              'reward_model': str(folder / 'reward_model')}
  if cfg.task in ('reward', 'ppo'):
    model, params, _ = runs.load_policy(cfg.model)
    scalar = ScalarModel(model.config)
    head = scalar.init(jax.random.key(0), params)['head']
    hf.save_model(folder / 'reward_model', model.config, params, head=head,
                  tokenizer=tokenizer)
  path = folder / 'settings.json'
  path.write_text(json.dumps(settings))
  return str(path)


def _samples(cfg: Config) -> int:
  """Responses to a prompt."""
  if cfg.task not in _ONLINE:
    return 1
  return cfg.num_samples or {'ppo': 1, 'grpo': 8}[cfg.task]


def _parts(cfg: Config) -> int:
  """What the peer takes a minibatch of PPO in."""
  return cfg.peer_microbatches or max(1, cfg.batch_size // 2)


def _is_any_length(cfg: Config) -> bool:
  """Whether prompts are as they come."""
  return cfg.task == 'ppo' and cfg.any_length


def environment(peer: str, cache: pathlib.Path) -> str:
  """The Python of a peer's environment, made on first use."""
  folder = cache / peer
  python = folder / 'bin' / 'python'
  done = folder / 'requirements.txt'
  wanted = '\n'.join(PEERS[peer])
  if not done.exists() or done.read_text() != wanted:
    print(f'making an environment for {peer} in {folder}', file=sys.stderr)
    subprocess.run([sys.executable, '-m', 'venv', str(folder)], check=True)
    subprocess.run(
        [str(python), '-m', 'pip', 'install', '-q', *PEERS[peer]], check=True)
    done.write_text(wanted)
  return str(python)


class Worker:
  """A process that takes a step when it is told to."""

  def __init__(self, module: str, python: str, settings: str):
    """Starts it; it says when its first step is done."""
    root = str(pathlib.Path(__file__).parents[1])
    self._process = subprocess.Popen(
        [python, '-m', module, settings], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, bufsize=1,
        env=os.environ | {'PYTHONPATH': os.pathsep.join(
            [root, *filter(None, [os.environ.get('PYTHONPATH')])])})
    self.first = self._hear()

  def step(self) -> dict:
    """Takes one step, and says what it took."""
    print('step', file=self._process.stdin, flush=True)
    return self._hear()

  def end(self) -> dict:
    """Ends it; it says what memory it took at most."""
    self._process.stdin.close()
    said = self._hear()
    self._process.wait()
    return said

  def close(self) -> None:
    """Ends it wherever it is, if it has not ended."""
    self._process.kill()
    self._process.wait()

  def _hear(self) -> dict:
    line = self._process.stdout.readline()
    if not line:
      raise InputError(f'{" ".join(self._process.args[1:3])} ended with status '
                       f'{self._process.wait()}; what it said is above')
    return json.loads(line)


def compare(cfg: Config, ours: Worker, theirs: Worker) -> dict:
  """Turns, and what they say together."""
  losses = [(ours.first['loss'], theirs.first['loss'])]
  for _ in range(cfg.warmup - 1):
    losses.append((ours.step()['loss'], theirs.step()['loss']))
  difference = max(abs(a - b) for a, b in losses[:_AGREE])
  if difference > cfg.tolerance:
    raise InputError(
        f'the losses of the first steps differ by {difference:.1e}, more than '
        f'tolerance={cfg.tolerance:g}: {losses[:_AGREE]}; the two do not do '
        'the same work')
  pairs = []
  for turn in range(cfg.turns):
    pairs.append((ours.step(), theirs.step()))
    a, b = (side['seconds'] for side in pairs[-1])
    print(f'turn {turn + 1}/{cfg.turns}: {a:.2f} s and {b:.2f} s, '
          f'{b / a:.2f} times as fast', file=sys.stderr, flush=True)
  ratios = [b['seconds'] / a['seconds'] for a, b in pairs]
  memory = [worker.end()['rss_gib'] for worker in (ours, theirs)]
  of = lambda name: [statistics.median(side[name] for side in sides)
                     for sides in zip(*pairs, strict=True)]
  return {
      'task': cfg.task, 'peer': cfg.peer,
      'speed_ratio': statistics.median(ratios),
      'speed_ratios': ratios, 'rss_ratio': memory[0] / memory[1],
      'loss_difference': difference, 'losses': losses,
      'rows_per_second': [cfg.batch_size / s for s in of('seconds')],
      'cpu_seconds': of('cpu_seconds'), 'rss_gib': memory,
      'first_step_seconds': [ours.first['first_step_seconds'],
                             theirs.first['first_step_seconds']],
      'prepare_seconds': [ours.first['prepare_seconds'],
                          theirs.first['prepare_seconds']],
      'batch_size': cfg.batch_size, 'max_length': cfg.max_length,
      'num_samples': _samples(cfg), 'mesh': cfg.mesh, 'layout': cfg.layout,
      'peer_microbatches': _parts(cfg),
      'any_length': _is_any_length(cfg), 'model': cfg.model,
      'python': platform.python_version(),
      'jax': importlib.metadata.version('jax'),
      'peer_is': PEERS[peer_of(cfg)],
      'cores': len(os.sched_getaffinity(0))}


def show(cfg: Config, result: dict) -> None:
  """The table."""
  rows = [('rows a second', 'rows_per_second'),
          ('CPU seconds a step', 'cpu_seconds'), ('peak GiB', 'rss_gib'),
          ('seconds to the first step', 'first_step_seconds'),
          ('and of preparation', 'prepare_seconds')]
  print(f'{cfg.task} against {cfg.peer}, medians of {cfg.turns} turns')
  print(f'{"":28}{"alignjax":>10}{cfg.peer:>10}{"ratio":>8}')
  for name, key in rows:
    a, b = result[key]
    ratio = f'{a / b:8.2f}' if b >= 0.01 else ''
    print(f'{name:28}{a:10.2f}{b:10.2f}{ratio}')
  low, high = min(result['speed_ratios']), max(result['speed_ratios'])
  print(f'speed {result["speed_ratio"]:.2f} times {cfg.peer}\'s '
        f'({low:.2f} to {high:.2f}); losses differ by at most '
        f'{result["loss_difference"]:.1e}')


if __name__ == '__main__':
  cli.run(main, Config)
