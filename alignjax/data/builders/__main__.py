"""`tfds build` for these builders, and without TensorFlow.

The command `tfds` of TFDS 4.9.10 needs TensorFlow before it reads its first
flag, for a subcommand that has nothing to do with building. This runs the
subcommand `build` alone: the same flags, with three defaults of its own. A
name is that of a builder here, files are ArrayRecord, and where a builder has a
default config, that one is built and not all of them.
"""

import dataclasses
import importlib
import pathlib
import sys

from tensorflow_datasets.scripts.cli import build
from tensorflow_datasets.scripts.cli import cli_utils

from alignjax import types

_FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
  """The builders there are."""
  return sorted(
      path.parent.name for path in _FOLDER.glob('*/*_dataset_builder.py'))


def main(argv: list[str]) -> None:
  """Builds the datasets that the command line names."""
  description = (
      'Builds datasets from files in --manual_dir. Datasets:'
      f" {', '.join(names())}.")
  args = cli_utils.make_flags_parser(build.Args, description)(argv)
  datasets = [*args.positional_datasets, *args.datasets]
  if not datasets:
    raise types.InputError(
        f"no dataset is named; name one of {', '.join(names())}.")
  for name in datasets:
    if name not in names():
      raise types.InputError(
          f"dataset={name}: there is no such builder; use one of"
          f" {', '.join(names())}.")
    _build(name, args)


def _build(name: str, args: build.Args) -> None:
  """Builds one dataset, in the config that is asked for or its default."""
  folder = args.paths.manual_dir
  if not folder or not folder.is_dir() or not any(folder.iterdir()):
    raise types.InputError(
        f'manual_dir={folder}: is no folder with files; give the one that holds'
        ' the downloaded files.')
  module = importlib.import_module(
      f'{__package__}.{name}.{name}_dataset_builder')
  config = args.generation.config
  if config is None and args.generation.config_idx is None:
    config = module.Builder.DEFAULT_BUILDER_CONFIG_NAME
  generation = dataclasses.replace(
      args.generation, config=config, imports=module.__name__,
      file_format=args.generation.file_format or 'array_record')
  dataclasses.replace(
      args, positional_datasets=[name], datasets=[], generation=generation,
  ).execute()


if __name__ == '__main__':
  try:
    main(sys.argv)
  except types.InputError as error:
    print('error:', error, file=sys.stderr)
    sys.exit(2)
