"""A folder's manifest: what it holds, with the SHA-256 of every file.

It is written last, so that a folder without one was interrupted.
"""

from collections.abc import Iterator
import concurrent.futures
import hashlib
import json
import os
from typing import Any

from etils import epath
import jax

from alignjax.types import InputError

NAME = 'manifest.json'
FORMAT = 1  # Of the folder; what reads one format reads all before it.
_CHUNK = 1 << 22  # Bytes hashed at a time: bounds memory, not speed.
_HASH_THREADS = 8  # hashlib frees the GIL, and shards are many files.


class FormatError(InputError):
  """A checkpoint of a later format, which is not damaged."""


def find_damage(path: epath.Path) -> str | None:
  """How the files differ from the manifest, or None when they do not.

  Raises:
    FormatError: it is of a format that this release does not know.
  """
  try:
    expected = read(path)['files']
  except FormatError:
    raise
  except InputError as e:
    return str(e)
  actual = hash_files(path)
  for name in sorted(expected.keys() | actual.keys()):
    if name not in actual:
      return f'{name} is missing'
    if name not in expected:
      return f'{name} is not in its manifest'
    if actual[name] != expected[name]:
      return f'{name} does not have the checksum it was saved with'
  return None


def hash_files(path: epath.Path) -> dict[str, str]:
  """{path within: SHA-256} of every file but the manifest."""
  files = sorted(_files(path / 'arrays'))
  with concurrent.futures.ThreadPoolExecutor(_HASH_THREADS) as pool:
    digests = list(pool.map(_digest, files))
  return {
      file.relative_to(path).as_posix(): digest
      for file, digest in zip(files, digests)
  }


def _files(folder: epath.Path) -> Iterator[epath.Path]:
  """Every file below `folder`."""
  if not folder.exists():
    return
  for path in folder.iterdir():
    if path.is_dir():
      yield from _files(path)
    else:
      yield path


def _digest(file: epath.Path) -> str:
  """SHA-256 of a file, in hex."""
  digest = hashlib.sha256()
  with file.open('rb') as f:
    while chunk := f.read(_CHUNK):
      digest.update(chunk)
  return digest.hexdigest()


def write(
    path: epath.Path, step: int, meta: dict[str, Any], leaves: dict[str, str],
    score: float | None = None,
) -> None:
  """Hashes the files and says what they hold; whole or not written at all."""
  body = {'format': FORMAT, 'step': step, 'meta': meta, 'leaves': leaves,
          'files': hash_files(path)}
  if score is not None:
    body['score'] = score
  partial = path / f'{NAME}.partial'
  partial.write_text(
      json.dumps({'body': body, 'sha256': _json_digest(body)}, indent=1)
  )
  partial.rename(path / NAME)


def read(path: epath.Path) -> dict[str, Any]:
  """The manifest's body, if it still has the checksum beside it."""
  try:
    manifest = json.loads((path / NAME).read_bytes())
    body, digest = manifest['body'], manifest['sha256']
  except (ValueError, KeyError, TypeError, RecursionError) as e:
    raise InputError(f'{NAME} is not readable ({e})') from e
  if _json_digest(body) != digest:
    raise InputError(f'{NAME} does not have its own checksum')
  found = body.get('format', 1)
  if found not in range(1, FORMAT + 1):
    raise FormatError(
        f'{path}: a checkpoint of format {found}, and this alignjax reads up '
        f'to format {FORMAT}; use the release that wrote it, or a later one')
  return body


def _json_digest(body: Any) -> str:
  """SHA-256 of the one text that JSON has for a value with sorted keys."""
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def describe(tree: Any) -> dict[str, str]:
  """{path of a leaf: its dtype and shape}, such as {'.step': 'int32[]'}."""
  leaves = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = jax.tree_util.keystr(path)
    if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
      raise InputError(
          f'the state{name} is of type {type(leaf).__name__}; a checkpoint'
          ' holds arrays only: make it an array or move it to meta.'
      )
    leaves[name] = f'{leaf.dtype}{list(leaf.shape)}'
  return leaves


def as_json(meta: dict[str, Any]) -> dict[str, Any]:
  """`meta` itself, if JSON gives it back unchanged."""
  try:
    back = json.loads(json.dumps(meta, allow_nan=False))
  except (TypeError, ValueError) as e:
    raise InputError(f'meta cannot be written as JSON: {e}.') from e
  if back != meta:
    raise InputError(
        f'meta={meta} would come back from JSON as {back}; use string keys,'
        ' lists and plain numbers.'
    )
  return back


def absolute(directory: str | os.PathLike[str]) -> epath.Path:
  """Orbax takes absolute paths only; `gs://...` is one already."""
  name = os.fspath(directory)
  return epath.Path(name if '://' in name else os.path.abspath(name))
