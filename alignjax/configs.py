"""The flags that experiments share, as frozen dataclasses.

Their comments are what `--help` says.
"""

import dataclasses
import math
from typing import Annotated, Literal

import optax
import tyro

from alignjax import data
from alignjax import train
from alignjax.models import lora

# Types of `num_steps`, which has shorter names on the command line.
Steps = Annotated[int | None, tyro.conf.arg(aliases=['--steps'])]
Iterations = Annotated[
    int | None, tyro.conf.arg(aliases=['--steps', '--iterations'])]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """The flags that every experiment has."""

  workdir: str           # Folder of this run; made if absent.
  model: str = 'testbed'  # 'testbed', or a Hugging Face folder to start from.
  # 'testbed', or a file or folder of records: .jsonl, .json, .parquet, .gz
  # of these, a Hugging Face dataset on disk, or a TFDS one.
  data: str = 'testbed'
  split: str = 'train'   # Which split, where --data is a folder of several.
  resume: bool = False   # Go on where the run in --workdir stopped.
  seed: int = 0          # Of the data order, the samples and new weights.
  mesh: str = 'data:-1'  # By axis: data, fsdp, sequence, tensor; -1: the rest.
  save_every: int = 0    # Steps between checkpoints; 0: four in a run.
  # Take steps while a copy of the state is written; the copy takes the host's
  # memory, and where that is not free each save is waited for.
  save_in_background: bool = True
  # Metric whose best checkpoint is kept, and is what the run results in, by its
  # mean since the save before: the least of a loss, the most of all else.
  keep_best: str = ''
  profile: int = 0       # Steps to trace into profile/, from the third on.
  # What to do when a checkpoint cannot be written, of which the ones before it
  # take no harm: stop, or warn and go on to the next save.
  on_save_error: Literal['stop', 'continue'] = 'stop'
  # What to do with prompts that leave no room: drop and count up to a quarter
  # of the file (auto), refuse the file, drop all, or cut them on the left.
  long_prompts: Literal['auto', 'error', 'drop', 'left'] = 'auto'
  max_dropped: float = 0.01  # Share of a file's rows that may be unusable.
  # What to do with a row that is not what its file is: stop, or drop and count
  # it by the name of the rule, up to --max-dropped.
  on_bad_record: Literal['error', 'skip'] = 'error'
  # What to do with rows that say again, or the contrary of, what another says.
  duplicates: Literal['keep', 'drop'] = 'keep'
  # Keep a large file's rows, tokenized, in the user's cache for the next run.
  reuse_rows: bool = True
  plain: bool = False    # Leave the folder's chat template out.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig(RunConfig):
  """The flags of how a model that is trained computes."""

  # Of activations and matmuls, and of models that are not trained. What is
  # trained stays float32.
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  # Make activations anew in the backward pass: less memory, more work.
  remat: bool = False
  # Queries whose attention scores exist at one time; all if left out.
  attention_block: int | None = None
  # What trains attends by: XLA's matmuls, or a kernel for TPUs, whose scores
  # never leave the chip's cache and which skips what a row's mask hides.
  attention_kernel: Literal['xla', 'splash'] = 'xla'


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig(ComputeConfig):
  """The flags of scripts that can train adapters instead of all weights."""

  lora_rank: int = 0  # Rank of LoRA adapters; 0 trains all weights.
  lora_alpha: float = 32.0  # Adapters count alpha / rank times.
  # The projections that have adapters.
  lora_targets: tuple[
      Literal['query', 'key', 'value', 'out', 'gate', 'up', 'down'],
      ...] = lora.TARGETS
  lora_rank_stabilised: bool = False  # alpha / √rank times instead.
  # Bits of the frozen base's matrices, under adapters: 8, or 4.
  quantize: Literal['none', 'int8', 'nf4'] = 'none'


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(RunConfig):
  """The flags of AdamW and of its rate, whose peak each script has."""

  warmup: float = 0.05  # Share of the steps over which the rate rises.
  decay: Literal['cosine', 'linear', 'constant'] = 'cosine'  # Of the rate.
  final_rate: float = 0.1  # Where the decay ends, as a share of the peak.
  weight_decay: float = 0.0  # AdamW's, per step times the rate.
  adam_b2: float = 0.95  # Decay of the second moment.
  # Longest gradient that is learnt from, before it is clipped. NaN and infinity
  # never are.
  skip_above: float = math.inf
  # Standard deviations above the mean of the last 128 steps that were learnt
  # from, at which a loss or a gradient is not, once there were 32; 6 is usual.
  skip_spikes: float = math.inf
  # Steps in a row from which nothing could be learnt that end the run.
  max_skipped: int = 5
  # Take the one step again that an earlier run gave up at, and say what came of
  # it; that run's message names it.
  replay: int = 0
  # Keep AdamW's moments in the host's memory between updates.
  offload_optimizer: bool = False

  def make_optimizer(
      self, peak: float, num_steps: int) -> optax.GradientTransformation:
    """AdamW whose rate rises to `peak` and decays over `num_steps`."""
    return train.make_optimizer(
        peak, num_steps, warmup=self.warmup, decay=self.decay,
        final_rate=self.final_rate, weight_decay=self.weight_decay,
        b2=self.adam_b2, offload=self.offload_optimizer,
        remembers=math.isfinite(self.skip_spikes))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig(AdapterConfig, OptimizerConfig):
  """The flags of scripts that train on the responses of a file."""

  epochs: float | None = None  # Passes over the data, instead of --num-steps.
  num_microbatches: int = 1  # Parts of a batch, to save memory.
  # What the model reads: a row for each response (padded); rows that several
  # share (packed); or each prompt once, with all its responses behind it
  # (branched). The results are the same. The more of what is padded is not
  # real, which a run says as it starts, the more the others save; they compile
  # a few shapes instead of one, and branched rows may be longer. If left out,
  # branched for a folder's model, if it can read such rows, and else padded.
  layout: data.Layout | None = None

  def count_steps(self, num_rows: int):
    """The config with a number of steps, of `epochs` over so many rows."""
    if self.epochs is None:
      return self
    steps = math.ceil(self.epochs * num_rows / self.batch_size)
    return dataclasses.replace(self, num_steps=steps)
