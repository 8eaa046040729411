"""The command line: configs become flags, bad input one line and status 2."""

from collections.abc import Callable
import contextlib
import difflib
import io
import os
import pathlib
import re
import sys
from typing import TypeVar

import jax
import tyro

from alignjax import sharding
from alignjax.types import InputError

Config = TypeVar('Config')


def run(main: Callable[[Config], object], config: type[Config]) -> None:
  """Parses the flags of a frozen dataclass and calls `main` with it.

  Flags, their defaults and `--help` come from the dataclass and its comments.
  An `InputError` is printed as one line, with exit status 2. So is a flag that
  does not exist.
  """
  cfg = _parse(config, sys.argv[1:])
  sharding.use_cpu()
  use_compilation_cache()
  with one_line_errors():
    main(cfg)


@contextlib.contextmanager
def one_line_errors():
  """Turns an `InputError` into one line on stderr and exit status 2."""
  try:
    yield
  except InputError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print('interrupted; the same command with --resume goes on from the last '
          'checkpoint', file=sys.stderr)
    sys.exit(130)


def use_compilation_cache() -> None:
  """Keeps compiled programs between runs; JAX_COMPILATION_CACHE_DIR moves it."""
  if jax.config.jax_compilation_cache_dir is None:
    home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    jax.config.update('jax_compilation_cache_dir',
                      str(pathlib.Path(home) / 'alignjax' / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _parse(config: type[Config], args: list[str]) -> Config:
  """tyro's parse, with its boxed messages folded into one line."""
  printed = io.StringIO()
  try:
    with contextlib.redirect_stderr(printed):
      return tyro.cli(config, args=args, description=config_help(config))
  except SystemExit as stop:
    if stop.code in (0, None):
      raise
  print(f'error: {_fold(printed.getvalue(), config)}', file=sys.stderr)
  sys.exit(2)


def config_help(config: type) -> str:
  """What `--help` says above the flags: the script's own docstring."""
  module = sys.modules[config.__module__]
  return module.__doc__ or config.__doc__ or ''


def _fold(message: str, config: type) -> str:
  """A boxed message as one line; a flag that is close is offered."""
  text = re.sub(r'[╭╮╰╯│─]+', ' ', message)
  unknown = re.search(r'Unrecognized (?:options|arguments)[^:]*:\s*(\S+)', text)
  if unknown:
    fields = getattr(config, '__dataclass_fields__', {})
    flags = ['--' + name.replace('_', '-') for name in fields]
    got = unknown.group(1)
    near = difflib.get_close_matches(got.split('=')[0], flags, n=1)
    offer = f'did you mean {near[0]}? ' if near else ''
    return f'unknown flag {got}; {offer}--help lists all'
  text = re.sub(r'(For full helptext|Argument helptext).*', '', text,
                flags=re.DOTALL)
  return ' '.join(text.split()) + '; --help lists the flags'
