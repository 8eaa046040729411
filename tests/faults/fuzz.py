"""Searches for a file that breaks its reader, led by what its lines reach.

  pip install atheris
  python -m tests.faults.fuzz tokenizer.json --seconds 60

Without a name it lists those there are. It ends with status 0, or with the
first file that breaks `mutations.try_one`'s promise, which it leaves behind.
"""

import dataclasses
import pathlib
import random
import shutil
import sys
import tempfile

import tyro

from alignjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
  """What is fuzzed, and for how long."""

  parser: tyro.conf.Positional[str] = ''  # A name of parsers.PARSERS.
  file: str = ''     # Which of its files; the first if left.
  seconds: int = 60  # How long.
  seed: int = 0      # Of what is tried.


def main(cfg: Config) -> None:
  """Fuzzes one file of a parser."""
  try:
    import atheris
  except ImportError:
    raise InputError('fuzz needs atheris; pip install atheris') from None
  with atheris.instrument_imports(include=['alignjax']):
    from tests.faults import mutations
    from tests.faults import parsers
  if cfg.parser not in parsers.PARSERS:
    raise InputError(f'parser={cfg.parser!r} is none; use one of '
                     f'{", ".join(sorted(parsers.PARSERS))}')
  parser = parsers.PARSERS[cfg.parser]
  root = pathlib.Path(tempfile.mkdtemp())
  folder, corpus = root / 'sample', root / 'corpus'
  folder.mkdir()
  corpus.mkdir()
  parser.make(folder)
  name = cfg.file or parser.files[0]
  sample = (folder / name).read_bytes()
  (corpus / 'sample').write_bytes(sample)

  def try_one(content: bytes) -> None:
    copy = mutations.copied(folder)
    (copy / name).write_bytes(content)
    try:
      parser.read(copy)
    except InputError as error:
      if not str(error).isprintable() or len(str(error)) > 1_500:
        raise AssertionError(f'no clear line: {error}') from error
    finally:
      shutil.rmtree(copy)

  def mutate(content: bytes, size: int, seed: int) -> bytes:
    if seed % 2:
      return atheris.Mutate(content, size)
    return mutations.mutate_bytes(content, random.Random(seed))[:size]

  atheris.Setup([sys.argv[0], f'-max_total_time={cfg.seconds}',
                 f'-seed={cfg.seed + 1}', f'-max_len={4 * len(sample) + 64}',
                 '-timeout=5', f'-artifact_prefix={root}/', str(corpus)],
                try_one, custom_mutator=mutate)
  atheris.Fuzz()


if __name__ == '__main__':
  from alignjax import cli
  cli.run(main, Config)
