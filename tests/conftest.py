"""Test settings that must hold before jax starts, and the optional inputs.

Eight CPU devices stand in for a mesh, here and in every xdist worker. Compiled
programs are shared between workers and runs through one cache on disk.
"""

import functools
import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_FLAGS = {
    'xla_force_host_platform_device_count': 8,
    # Most programs here run once: to compile them well takes a third of the
    # time of all tests.
    'xla_backend_optimization_level': 0,
}

# jax reads these once, when it is imported or makes its first device.
for flag, value in _FLAGS.items():
  if flag not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = (
        f'{os.environ.get("XLA_FLAGS", "")} --{flag}={value}'.strip())
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR', str(_ROOT / '.pytest_cache' / 'xla')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')
# No test may reach for a network, and none may ask the cloud who it is.
os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')


import hypothesis  # noqa: E402
import pytest  # noqa: E402

# Shapes compile once, so a first example may take seconds; a failure found in
# CI must be found again by whoever looks into it.
hypothesis.settings.register_profile(
    'alignjax', deadline=None, derandomize=True, max_examples=25,
    print_blob=True,
)
hypothesis.settings.load_profile('alignjax')


def _folder_from(variable: str, what: str) -> pathlib.Path:
  """The folder that an environment variable names; skips when unset."""
  value = os.environ.get(variable)
  if not value:
    pytest.skip(f'{variable} is not set; it names {what}')
  path = pathlib.Path(value)
  if not path.is_dir():
    pytest.fail(f'{variable}={value} is not a folder; it names {what}')
  return path


@pytest.fixture(scope='session')
def real_data() -> pathlib.Path:
  """Folder with real public datasets, or a skip that says how to give it."""
  return _folder_from('ALIGNJAX_DATA', 'a folder of public datasets')


@pytest.fixture(scope='session')
def real_model() -> pathlib.Path:
  """Folder with a real Llama checkpoint, or a skip that says how to give it."""
  return _folder_from('ALIGNJAX_MODEL', 'a downloaded Llama model folder')


@pytest.fixture(scope='session')
def mesh_of():
  """From text to a mesh over the 8 devices; `one` is a mesh of one device."""

  import jax  # Only now: it reads the environment that is set above.

  from alignjax import sharding

  @functools.cache
  def make(spec):
    if spec != 'one':
      return sharding.make_mesh(spec)
    return sharding.make_mesh('data:1', jax.devices()[:1])

  return make


@pytest.fixture(scope='session')
def tiny_llama(tmp_path_factory) -> str:
  """Folder of a random Llama of one layer, in the testbed's words."""

  import jax

  from alignjax import hf
  from alignjax import models
  from alignjax import sources

  tokenizer = sources.testbed_tokenizer()
  config = models.ModelConfig(
      vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=32,
      num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8, max_positions=64)
  params = jax.jit(models.CausalLM(config).init)(jax.random.key(0))
  folder = tmp_path_factory.mktemp('tiny') / 'llama'
  hf.save_model(folder, config, params, tokenizer=tokenizer)
  return str(folder)
