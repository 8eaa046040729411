"""A run's folder: who may write there, its config, and how it ends.

    workdir/
      config.json     the settings, defaults resolved
      metrics.jsonl   one line per step
      checkpoints/    to resume from
      model/          the result, a Hugging Face folder
      summary.json    the last file written: its presence means "done"
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import time

import jax

from alignjax import adapters
from alignjax import configs
from alignjax import distributed
from alignjax import hf
from alignjax import loading
from alignjax import metrics as metrics_lib
from alignjax import settings
from alignjax import sharding
from alignjax import train
from alignjax.types import InputError

# In a model's folder: it speaks the testbed's language.
TESTBED_MARK = 'testbed.json'

# Settings that may differ between a run and its continuation.
FREE = ('workdir', 'resume', 'mesh', 'save_every', 'compare', 'profile',
         'on_save_error', 'max_skipped', 'replay', 'save_in_background',
         'reuse_rows')

# Files that a run writes before it trains, and can write again.
_BEFORE_TRAINING = ('config.json', 'demonstrations.jsonl')


AdapterConfig = configs.AdapterConfig
ComputeConfig = configs.ComputeConfig
BatchConfig = configs.BatchConfig
Iterations = configs.Iterations
OptimizerConfig = configs.OptimizerConfig
RunConfig = configs.RunConfig
Steps = configs.Steps

is_adapter = loading.is_adapter
computed = loading.computed
load_policy = loading.load_policy
load_reward_model = loading.load_reward_model
load_trainee = loading.load_trainee
load_value = loading.load_value
read_reward_mean = loading.read_reward_mean
write_reward_mean = loading.write_reward_mean


@dataclasses.dataclass(frozen=True)
class Run:
  """An opened workdir."""

  workdir: pathlib.Path
  name: str
  console: metrics_lib.Console
  mesh: jax.sharding.Mesh
  started: float
  is_testbed: bool
  # What was read, for summary.json.
  readings: list[dict] = dataclasses.field(default_factory=list)

  @property
  def model_dir(self) -> pathlib.Path:
    """Where the result is written, as a Hugging Face folder."""
    return self.workdir / 'model'

  @property
  def num_shards(self) -> int:
    """Into how many parts each batch is split."""
    return sharding.num_batch_shards(self.mesh)

  @property
  def is_done(self) -> bool:
    """Whether an earlier call of the same command finished."""
    return (self.workdir / 'summary.json').exists()

  def summary(self) -> dict:
    """What `finish` wrote."""
    return json.loads((self.workdir / 'summary.json').read_text())

  def stage(self, cfg: 'RunConfig', **settings) -> train.Stage:
    """How long and where this run trains, from its config."""
    return train.Stage(
        name=self.name, workdir=self.workdir, mesh=self.mesh, seed=cfg.seed,
        num_steps=cfg.num_steps, console=self.console, profile=cfg.profile,
        save_every=cfg.save_every or max(1, cfg.num_steps // 4),
        goes_on_unsaved=cfg.on_save_error == 'continue',
        saves_in_background=cfg.save_in_background,
        keep_best=cfg.keep_best, **{
            name: getattr(cfg, name)
            for name in ('skip_above', 'skip_spikes', 'max_skipped', 'replay')
            if hasattr(cfg, name)}, **settings)

  def save_model(self, model, params, tokenizer, head=None) -> None:
    """Writes the result to `model/`; marks a testbed model as one."""
    if jax.process_count() > 1:
      params, head = sharding.to_host((params, head))
    distributed.by_first(lambda: hf.save_model(
        self.model_dir, model.config, params, tokenizer=tokenizer, head=head))
    if self.is_testbed:
      write_json(self.model_dir / TESTBED_MARK, {'world': 0})

  def save_trained(self, trainee: adapters.Trainee, params, tokenizer) -> None:
    """Writes the trained model to `model/`, and its adapters to `adapter/`."""
    config = trainee.model.config
    if config.lora is not None:
      own = sharding.to_host(params)
      distributed.by_first(lambda: hf.save_adapters(
          self.workdir / 'adapter', config, own.get('backbone', own),
          base=trainee.folder, head=own.get('head')))
    model, whole = trainee.merged(params)
    self.save_model(model, whole.get('backbone', whole), tokenizer,
                    head=whole.get('head'))

  def stage_summary(self, name: str) -> dict | None:
    """What a stage in a folder of this run's left; None if it left nothing."""
    path = self.workdir / name / 'summary.json'
    return json.loads(path.read_text()) if path.exists() else None

  def note_reading(self, text: str, summary: dict) -> None:
    """Says what was read from a file, and keeps it for summary.json."""
    self.console.note(text)
    if summary not in self.readings:
      self.readings.append(summary)

  def finish(self, summary: dict) -> dict:
    """Writes summary.json, the last file of a run, and returns it.

    Its 'data' lists what was read, from the start of the run on.
    """
    seconds = round(time.monotonic() - self.started, 1)
    summary = {'stage': self.name, 'seconds': seconds} | summary
    before = self.summary().get('data', []) if self.is_done else []
    read = before + [each for each in self.readings if each not in before]
    if read:
      summary['data'] = read
    write_json(self.workdir / 'summary.json', summary)
    return summary


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON so that a reader sees the old file or the new, never half."""
  distributed.by_first(lambda: _write_json(path, value))


def _write_json(path: pathlib.Path, value) -> None:
  draft = path.with_name(path.name + '.tmp')
  draft.write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + '\n')
  os.replace(draft, path)


def _finite(value):
  """What JSON can hold: NaN and infinities are spelled out as text."""
  if isinstance(value, dict):
    return {name: _finite(item) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def with_defaults(cfg: RunConfig, *, testbed: dict, folder: dict) -> RunConfig:
  """Fills the settings that are None: one set for the testbed, one for folders.

  A world of 400 words and a 135M model do not want the same learning rate.
  A folder that holds a testbed model counts as the testbed. The steps stay
  open where epochs are given.

  Raises:
    InputError: both steps and epochs are given.
  """
  values = dict(testbed if is_testbed(cfg.model) else folder)
  if getattr(cfg, 'epochs', None) is not None:
    values.pop('num_steps', None)
    if cfg.num_steps is not None:
      raise InputError(
          f'num_steps={cfg.num_steps} and epochs={cfg.epochs:g} both say how '
          'long to train; leave one of them out')
  return dataclasses.replace(cfg, **{
      name: value for name, value in values.items()
      if getattr(cfg, name) is None})


def is_testbed(model: str) -> bool:
  """Whether `--model` is the testbed or a folder that one of its runs wrote."""
  return model == 'testbed' or (pathlib.Path(model) / TESTBED_MARK).exists()


def check(cfg: RunConfig) -> jax.sharding.Mesh:
  """Refuses settings that cannot work, before anything is written.

  Returns:
    The mesh that `cfg.mesh` asks for.

  Raises:
    InputError: a number is out of range, sizes do not fit together, a folder
      or file is not there, or model and data are of two worlds.
  """
  given = dataclasses.asdict(cfg)
  mesh = sharding.make_mesh(cfg.mesh)
  settings.check(given, sharding.num_batch_shards(mesh),
                 mesh.shape['sequence'])
  platform = mesh.devices.flat[0].platform
  if given.get('attention_kernel') == 'splash' and platform != 'tpu':
    raise InputError(
        f'attention_kernel=splash is a kernel for TPUs, and this run is on '
        f'{platform.upper()}s; leave it out, or use attention_block=128')
  for name in ('model', 'reward_model', 'compare'):
    folder = given.get(name)
    if folder and folder != 'testbed' and not pathlib.Path(folder).is_dir():
      raise InputError(f'{name}={folder} is not a folder; give one that exists '
                       '(nothing is downloaded)')
  compare = given.get('compare')
  if compare and not any(pathlib.Path(compare).rglob('metrics.jsonl')):
    raise InputError(f'compare={compare} holds no metrics.jsonl; give the '
                     'workdir of a run')
  for name in ('data', 'test_data'):
    file = given.get(name)
    if file and file != 'testbed' and not pathlib.Path(file).exists():
      raise InputError(f'{name}={file} is not there; give the path of a .jsonl '
                       'or .parquet file, or of a dataset\'s folder')
  if given.get('test_data') and cfg.data != 'testbed' and (
      pathlib.Path(given['test_data']).resolve()
      == pathlib.Path(cfg.data).resolve()):
    raise InputError(
        f'test_data={given["test_data"]} is what --data names too, and would '
        'test on what was trained on; give other rows, or leave --test-data '
        'out and some of --data are held out')
  if cfg.model == 'testbed' and cfg.data != 'testbed':
    raise InputError(
        f'data={cfg.data} without a model: the testbed knows 400 words of its '
        'own; give a model folder too, as --model')
  if cfg.data == 'testbed' and not is_testbed(cfg.model):
    raise InputError(
        f'model={cfg.model} without data: the testbed\'s data are for its own '
        'models; give a .jsonl file, as --data')
  return mesh


@contextlib.contextmanager
def start(cfg: RunConfig, name: str) -> Iterator[Run]:
  """Opens the workdir for this config, or refuses it.

  A run that fails before its first step, because its data cannot be read say,
  takes the workdir that it made away again: the corrected command finds it as
  this one did.

  Args:
    cfg: the settings, none left open that the run needs.
    name: of the experiment.

  Raises:
    InputError: a setting is out of range; or the folder holds another run, or
      one that --resume was not asked to continue, or files that are no run's.
  """
  mesh = check(cfg)
  workdir = pathlib.Path(cfg.workdir)
  is_new = not (workdir / 'config.json').exists()
  made = [p for p in (workdir, *workdir.parents) if not p.exists()]
  distributed.by_first(lambda: _open(cfg, name, workdir))
  try:
    yield Run(workdir, name, metrics_lib.Console(), mesh, time.monotonic(),
              is_testbed(cfg.model))
  except BaseException:
    if is_new and distributed.is_first():
      _take_away(workdir, made)
    raise


def _open(cfg: RunConfig, name: str, workdir: pathlib.Path) -> None:
  """Writes config.json, or sees that what is there is this run's."""
  path = workdir / 'config.json'
  config = {'experiment': name} | _finite(dataclasses.asdict(cfg))
  if path.exists():
    _check_same(config, path, cfg)
  elif workdir.is_dir() and any(workdir.iterdir()):
    raise InputError(
        f'workdir={cfg.workdir} holds files but no run (no config.json); '
        'choose an empty or a new folder')
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    _write_json(path, config)
  except OSError as error:
    raise InputError(
        f'workdir={cfg.workdir} cannot be written to ({error.strerror}); '
        'choose another folder') from error


def _take_away(workdir: pathlib.Path, made: list[pathlib.Path]) -> None:
  """Removes a workdir in which nothing was trained or collected yet."""
  files = [path for path in workdir.rglob('*') if path.is_file()]
  if any(path.name not in _BEFORE_TRAINING for path in files):
    return
  for path in files:
    path.unlink()
  for path in made:
    with contextlib.suppress(OSError):  # Another run moved in.
      path.rmdir()


def _check_same(config: dict, path: pathlib.Path, cfg: RunConfig) -> None:
  """A workdir continues the run that it holds, with --resume, or none."""
  if not cfg.resume:
    raise InputError(
        f'workdir={cfg.workdir} already holds a run; add --resume to go on '
        'with it, or choose a new folder')
  try:
    before = json.loads(path.read_text())
    if not isinstance(before, dict):
      raise ValueError(f'a {type(before).__name__}')
  except (ValueError, RecursionError) as error:
    raise InputError(f'{path} is not JSON of settings ({error}); choose a new '
                     'folder') from error
  fields = sorted((config.keys() | before.keys()) - {'experiment', *FREE})
  for field in ('experiment', *fields):
    if config.get(field) != before.get(field):
      raise InputError(
          f'workdir={cfg.workdir} holds a run with {field}='
          f'{before.get(field)!r:.80}, not {config.get(field)!r}; repeat its '
          'settings to resume, or choose a new folder')
