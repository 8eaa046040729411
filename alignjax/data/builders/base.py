"""What the builders share: local JSON lines in, one TFDS example per line.

A record keeps its shape, so that reading the dataset gives back the file: text
is `Text`, a list of objects a `Sequence` of them. Three things that a TFDS
example cannot hold as they are:

  null, or a missing field   the field is `Text` that holds JSON, '' if missing
  float64                    eight bytes, as examples hold float32 only
  the order of the rows      TFDS shuffles; these builders do not

Names of fields that hold JSON are in the dataset's metadata.json, under
`json_fields`, where `data.tfds` looks them up.
"""

from collections.abc import Sequence
import json
import os
import pathlib
import re
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from alignjax import types
from alignjax.data import records

TEXT = tfds.features.Text()
FLOAT = tfds.features.Tensor(shape=(), dtype=np.float64, encoding='bytes')
BOOL = tfds.features.Scalar(np.bool_)
MESSAGES = tfds.features.Sequence({'role': TEXT, 'content': TEXT})

JSON_FIELDS = 'json_fields'  # The key in metadata.json.

_SUFFIXES = ('.jsonl', '.jsonl.gz')
_TEST_WORDS = {'test', 'validation', 'valid', 'val', 'dev', 'eval'}
_HOLDS_JSON = 'Holds JSON, because the value may be null; empty if missing.'


class Schema(NamedTuple):
  """The fields of a dataset's rows."""

  features: dict[str, Any]         # Of fields that every row has.
  nullable: tuple[str, ...] = ()   # Fields that may be null or missing.


class RecordsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A dataset of JSONL files that the user has; nothing is downloaded.

  A subclass gives the constants. Rows keep their order, so that example i of a
  split is row i of its files.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
      'Put the .jsonl or .jsonl.gz files into one folder and give it as'
      ' --manual_dir. Files with "test" in their name become the split test,'
      ' those with "train" the split train; a file on its own is train.'
  )

  FEATURES: ClassVar[dict[str, Any]] = {}   # See Schema.
  NULLABLE: ClassVar[tuple[str, ...]] = ()
  DESCRIPTION: ClassVar[str] = ''
  HOMEPAGE: ClassVar[str] = ''
  LICENSE: ClassVar[str] = ''
  CITATION: ClassVar[str] = ''

  def schema(self) -> Schema:
    """The fields of a row; a builder whose configs differ overrides it."""
    return Schema(self.FEATURES, self.NULLABLE)

  def _info(self) -> tfds.core.DatasetInfo:
    features, nullable = self.schema()
    json_text = tfds.features.Text(doc=_HOLDS_JSON)
    return tfds.core.DatasetInfo(
        builder=self,
        description=self.DESCRIPTION,
        features=tfds.features.FeaturesDict(
            features | dict.fromkeys(nullable, json_text)),
        homepage=self.HOMEPAGE,
        license=self.LICENSE,
        citation=self.CITATION,
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict({JSON_FIELDS: list(nullable)}),
    )

  def _split_generators(self, dl_manager):
    paths = split_files(
        pathlib.Path(os.fspath(dl_manager.manual_dir)),
        config=self.builder_config.name if self.builder_config else None,
        configs=[config.name for config in self.BUILDER_CONFIGS],
        default=self.DEFAULT_BUILDER_CONFIG_NAME,
    )
    return {split: self._generate_examples(paths[split]) for split in paths}

  def _generate_examples(self, paths):
    features, nullable = self.schema()
    features = tfds.features.FeaturesDict(features)
    number = 0
    for path in paths:
      for line, record in records.read_jsonl(path):
        fields = {k: v for k, v in record.items() if k not in nullable}
        check(fields, features, '', f'{path}:{line}')
        yield number, fields | {
            name: _to_json(record[name]) if name in record else ''
            for name in nullable
        }
        number += 1


def _to_json(value: Any) -> str:
  return json.dumps(value, ensure_ascii=False)


def configs(*names: str) -> list[tfds.core.BuilderConfig]:
  """One config per name; a file is of the config that its path names."""
  return [tfds.core.BuilderConfig(name=name) for name in names]


def split_files(
    folder: pathlib.Path,
    *,
    config: str | None = None,
    configs: Sequence[str] = (),
    default: str | None = None,
) -> dict[str, list[pathlib.Path]]:
  """The files below a folder that make each split, in the order of their names.

  Paths are compared by their words: the runs of letters and digits below
  `folder`. `test`, `validation` and their short forms mean the split test, the
  word train means train. A file that names neither is left out, unless it is
  the only one, which is then train.

  Args:
    folder: Where the user's files lie, in folders or not.
    config: Take the files whose path holds this name, such as harmless_base in
      harmless-base/train.jsonl.gz.
    configs: All names that a path may hold.
    default: The config of files that name none.

  Returns:
    {'train': paths, 'test': paths}, without those that have no file.

  Raises:
    InputError: No file is there for this config.
  """
  found = []
  for path in sorted(folder.rglob('*')):
    if path.name.lower().endswith(_SUFFIXES) and path.is_file():
      words = re.findall('[a-z0-9]+', str(path.relative_to(folder)).lower())
      text = f"_{'_'.join(words)}_"
      named = next((c for c in configs if f'_{c}_' in text), default)
      if config is None or config == named:
        found.append((path, set(words)))
  splits = {
      'train': [p for p, w in found if 'train' in w and not w & _TEST_WORDS],
      'test': [p for p, w in found if w & _TEST_WORDS],
  }
  if len(found) == 1 and not any(splits.values()):
    splits['train'] = [found[0][0]]
  if not any(splits.values()):
    raise types.InputError(_no_files(folder, len(found), config, configs))
  return {split: paths for split, paths in splits.items() if paths}


def _no_files(
    folder: pathlib.Path, found: int, config: str | None, configs: Sequence[str]
) -> str:
  what = f' of the config {config!r}' if config else ''
  some = f'none of the {found} files{what} names' if found else (
      f'holds no .jsonl or .jsonl.gz file{what} that names')
  example = f'{config}-train.jsonl.gz' if config else 'train.jsonl.gz'
  other = f", or give --config ({', '.join(configs)})" if configs else ''
  return (
      f'manual_dir={folder}: {some} train or test, as {example} does; rename'
      f' them or put them there{other}.')


def check(value: Any, feature: Any, field: str, where: str) -> None:
  """InputError unless the feature holds the value without any loss."""
  if isinstance(feature, tfds.features.FeaturesDict):
    _check_fields(value, feature, field, where)
  elif isinstance(feature, tfds.features.Sequence):
    _check_type(value, list, 'a list', field, where)
    for i, item in enumerate(value):
      check(item, feature.feature, f'{field}[{i}]', where)
  elif isinstance(feature, tfds.features.Text):
    _check_type(value, str, 'text', field, where)
  elif feature.np_dtype == np.bool_:
    _check_type(value, bool, 'true or false', field, where)
  else:
    is_exact = type(value) is int and abs(value) <= 2**53  # JSON may drop '.0'.
    kind = int if is_exact else float
    _check_type(value, kind, 'a number, as float64 holds it', field, where)


def _check_fields(
    value: Any, feature: tfds.features.FeaturesDict, field: str, where: str
) -> None:
  """An object must have exactly the fields of its feature."""
  _check_type(value, dict, 'an object', field, where)
  prefix = f'{field}.' if field else ''
  for name in feature:
    if name not in value:
      raise types.InputError(
          f"{where}: field '{prefix}{name}' is missing; every row of this"
          ' dataset has it; add it, or build another dataset.'
      )
  for name in value:
    if name not in feature:
      raise types.InputError(
          f"{where}: field {records.show(prefix + name)} is none of this"
          f" dataset's ({', '.join(feature)}); take it out, or build another"
          ' dataset.'
      )
  for name, inner in feature.items():
    check(value[name], inner, f'{prefix}{name}', where)


def _check_type(
    value: Any, kind: type, called: str, field: str, where: str
) -> None:
  if not isinstance(value, kind):
    raise types.InputError(
        f"{where}: field '{field}' is {records.show(value)}; it must be"
        f' {called}; rewrite it.'
    )
