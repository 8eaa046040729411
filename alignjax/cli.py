"""The command line: configs become flags, bad input one line and status 2."""

from collections.abc import Callable
import contextlib
import difflib
import errno
import inspect
import io
import os
import pathlib
import re
import sys
from typing import TypeVar

import tyro

from alignjax import commands
from alignjax.errors import InputError
from alignjax.errors import Stopped

Config = TypeVar('Config')

# What a disk says that is full, or may not be written to.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
         errno.EFBIG)


def run(main: Callable[[Config], object], config: type[Config]) -> None:
  """Parses the flags of a frozen dataclass and calls `main` with it.

  Flags, their defaults and `--help` come from the dataclass and its comments.
  An `InputError` is printed as one line, with exit status 2. So is a flag that
  does not exist.
  """
  spec = sys.modules['__main__'].__spec__
  prog = f'python -m {spec.name.removesuffix(".__main__")}' if spec else None
  cfg = _parse(config, sys.argv[1:], config_help(config), prog)
  with one_line_errors():
    prepare(cfg)
    from alignjax import distributed
    with distributed.naming():
      main(cfg)


def main() -> None:
  """The `alignjax` command; `commands.COMMANDS` has what follows it.

  A config's own `check`, if it has one, comes before jax is imported.
  """
  args = sys.argv[1:]
  if not args or args[0] not in commands.COMMANDS:
    _no_command(args)
  config, command = commands.load(args[0])
  cfg = _parse(config, args[1:], inspect.cleandoc(config.__doc__),
               prog=f'alignjax {args[0]}')
  with one_line_errors('interrupted; nothing was written'):
    if hasattr(cfg, 'check'):
      cfg.check()
    prepare(cfg)
    command(cfg)


def prepare(cfg) -> None:
  """Makes jax ready for a config's model, before any array is made."""
  from alignjax import distributed
  from alignjax import sharding
  model = getattr(cfg, 'model', '')
  sharding.use_cpu(sharding.cpu_devices(
      model if isinstance(model, str) else '', getattr(cfg, 'mesh', '')))
  distributed.start()
  use_compilation_cache()


@contextlib.contextmanager
def one_line_errors(interrupted: str = (
    'interrupted; the same command with --resume goes on from the last '
    'checkpoint')):
  """Turns an `InputError` into one line on stderr and exit status 2."""
  try:
    yield
    sys.stdout.flush()
  except InputError as error:
    print('error:', ' '.join(str(error).splitlines()), file=sys.stderr)
    sys.exit(2)
  except Stopped as stopped:
    print(stopped, file=sys.stderr)
    sys.exit(stopped.status)
  except BrokenPipeError:  # `| head` has read enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(141)
  except OSError as error:
    if error.errno not in _DISK:
      raise
    print(f'error: {error.filename or "a file"} could not be written: '
          f'{error.strerror}; make room or choose another folder, and the same '
          'command with --resume goes on', file=sys.stderr)
    sys.exit(2)
  except KeyboardInterrupt:
    print(interrupted, file=sys.stderr)
    sys.exit(130)


def use_compilation_cache() -> None:
  """Keeps compiled programs; JAX_COMPILATION_CACHE_DIR moves them."""
  import jax
  if jax.config.jax_compilation_cache_dir is None:
    home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    jax.config.update('jax_compilation_cache_dir',
                      str(pathlib.Path(home) / 'alignjax' / 'xla'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def _no_command(args: list[str]) -> None:
  """Help for `alignjax --help`; one line for anything else. Exits."""
  names = list(commands.COMMANDS)
  if args and args[0] in ('-h', '--help'):
    summaries = [
        f'  alignjax {name:<13} {config.__doc__.splitlines()[0]}'
        for name in names for config, _ in [commands.load(name)]]
    print('usage: alignjax COMMAND [flags]\n', *summaries,
          '\nalignjax COMMAND --help lists the flags and their defaults.',
          sep='\n')
    sys.exit(0)
  got = repr(args[0]) if args else 'none'
  near = difflib.get_close_matches(args[0] if args else '', names, n=1)
  offer = f'did you mean {near[0]}? ' if near else ''
  print(f'error: the command is {got}; {offer}use one of {", ".join(names)}',
        file=sys.stderr)
  sys.exit(2)


def _parse(
    config: type[Config], args: list[str], description: str,
    prog: str | None = None,
) -> Config:
  """tyro's parse, with its boxed messages folded into one line."""
  printed = io.StringIO()
  try:
    with contextlib.redirect_stderr(printed):
      return tyro.cli(config, prog=prog, args=args, description=description)
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
  text = re.sub(r'^╭.*╮$', ' ', message, flags=re.MULTILINE)  # Its title.
  text = re.sub(r'[╭╮╰╯│─]+|-{3,}', ' ', text)
  unknown = re.search(r'Unrecognized (?:options|arguments)[^:]*:\s*(\S+)', text)
  if unknown:
    fields = getattr(config, '__dataclass_fields__', {})
    flags = ['--' + name.replace('_', '-') for name in fields]
    got = unknown.group(1).rstrip(',')
    near = difflib.get_close_matches(got.split('=')[0], flags, n=1)
    offer = f'did you mean {near[0]}? ' if near else ''
    return f'unknown flag {got}; {offer}--help lists all'
  text = re.sub(r'(For full helptext|Argument helptext).*', '', text,
                flags=re.DOTALL)
  return ' '.join(text.split()) + '; --help lists the flags'
