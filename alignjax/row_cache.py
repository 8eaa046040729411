"""Rows of large files, kept between runs in the user's cache.

    ~/.cache/alignjax/rows/NAME/   see `data.prepared`; XDG_CACHE_HOME moves it

NAME is a hash of all that the rows were made from: the files' names and what
they hold, the tokenizer's files, the settings, the code that reads and
tokenizes, and the packages it leans on. Nothing that changes any of these finds
old rows. What was not used for 30 days goes when something new is kept.

Rows that a reference was asked about (`experiments.references`) are kept here
too, under what made them: its weights, the rows, the code of the models.
"""

from collections.abc import Callable, Sequence
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import time
from typing import Any

from alignjax import hf
from alignjax import lineage
from alignjax.data import prepared

LEAST_BYTES = 1 << 20  # Smaller files are read anew: that takes no time.
_KEPT_SECONDS = 30 * 24 * 3600
_PACKAGES = ('tokenizers', 'jinja2', 'numpy')


def rows_of(
    paths: Sequence[str], settings: dict[str, Any], tokenizer: hf.Tokenizer,
    make: Callable[[], tuple[Sequence, Any]], *,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Sequence, Any]:
  """`make()`, or what it returned of the same files and settings before.

  Args:
    paths: of files and folders; what is none, or small, is read anew.
    settings: what else the rows depend on, which JSON can hold.
    tokenizer: made the rows.
    make: the rows, of one kind, and notes that JSON can hold.
    note: told where rows were taken from, and why they could not be kept.

  Returns:
    Rows and notes; kept ones are read from the disk as they are asked for.
  """
  files = [pathlib.Path(path) for path in paths if path]
  if not all(map(pathlib.Path.exists, files)) or (
      sum(map(_num_bytes, files)) < LEAST_BYTES):
    return make()
  return kept(
      [{str(path): lineage.digest(path) for path in files}, settings,
       _tokenizer(tokenizer), code('data', 'hf', 'sources.py'), {
           name: importlib.metadata.version(name) for name in _PACKAGES}],
      make, note=note,
      found=f'{", ".join(map(str, files))}: read and tokenized before')


def kept(
    made_from: Any, make: Callable[[], tuple[Sequence, Any]], *, found: str,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Sequence, Any]:
  """`make()`, or what it returned when it was made from the same before.

  Args:
    made_from: all that the rows depend on, which JSON can hold.
    make: the rows, of one kind, and notes that JSON can hold.
    found: what is noted where they were kept.
    note: told so, and why they could not be kept.
  """
  home = root()
  folder = home / hashlib.sha256(
      json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
  loaded = prepared.load(folder)
  if loaded is not None:
    os.utime(folder)
    note(f'{found}; {folder} has the rows')
    return loaded
  rows, notes = make()
  if rows:
    try:
      prepared.store(folder, rows, notes)
      _forget(home)
    except OSError as error:
      note(f'{folder}: the rows could not be kept for the next run '
           f'({error.strerror}); this one has them')
  return rows, notes


def root() -> pathlib.Path:
  """Where rows are kept."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(home) / 'alignjax' / 'rows'


def _num_bytes(path: pathlib.Path) -> int:
  files = [path] if path.is_file() else path.rglob('*')
  return sum(file.stat().st_size for file in files if file.is_file())


def _tokenizer(tokenizer: hf.Tokenizer) -> list:
  """All that a tokenizer's ids depend on."""
  own = hashlib.sha256()
  for name, content in tokenizer.files:
    own.update(name.encode())
    own.update(content.encode() if isinstance(content, str) else content)
  return [own.hexdigest(), tokenizer.chat_template, tokenizer.add_bos]


@functools.cache
def code(*places: str) -> str:
  """A hash of the modules at these places below alignjax/."""
  here, digest = pathlib.Path(__file__).parent, hashlib.sha256()
  for place in map(here.joinpath, places):
    for path in sorted(place.rglob('*.py')) if place.is_dir() else [place]:
      digest.update(path.read_bytes())
  return digest.hexdigest()


def _forget(home: pathlib.Path) -> None:
  oldest = time.time() - _KEPT_SECONDS
  for folder in home.iterdir():
    if folder.is_dir() and folder.stat().st_mtime < oldest:
      shutil.rmtree(folder, ignore_errors=True)
