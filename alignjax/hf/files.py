"""Reading and writing the files of a model folder, with errors that name them.
"""

import json
import os
import pathlib
import tempfile

from alignjax.types import InputError


def require_folder(folder: pathlib.Path) -> None:
  """Raises InputError unless `folder` is a directory."""
  if not folder.is_dir():
    raise InputError(
        f'{folder} is not a folder; give a local Hugging Face model folder '
        '(nothing is downloaded)')


def listing(folder: pathlib.Path, limit: int = 6) -> str:
  """The first names in a folder, for an error line."""
  names = sorted(path.name for path in folder.iterdir())
  more = [f'{len(names) - limit} more'] if len(names) > limit else []
  return ', '.join(names[:limit] + more) or 'nothing'


def read_text(path: pathlib.Path) -> str:
  """The file's text, or an InputError naming it."""
  try:
    return path.read_bytes().decode('utf-8')
  except FileNotFoundError:
    require_folder(path.parent)
    raise InputError(
        f'{path} is missing (found {listing(path.parent)}); copy it from the '
        'model it belongs to') from None
  except UnicodeDecodeError as error:
    raise InputError(
        f'{path} is not UTF-8 text ({error.reason} at byte {error.start}); '
        'copy it again') from error


def parse_json(text: str, where: str) -> dict:
  """The JSON object in `text`, or an InputError naming line and column."""
  try:
    value = json.loads(text)
  except json.JSONDecodeError as error:
    raise InputError(
        f'{where}:{error.lineno}:{error.colno} is not JSON ({error.msg}); '
        'copy the file again') from error
  except (ValueError, RecursionError) as error:  # Of 4,300 digits, say.
    raise InputError(
        f'{where} is not JSON that can be read ({error}); copy the file again'
    ) from error
  if not isinstance(value, dict):
    raise InputError(
        f'{where} holds a JSON {type(value).__name__}; it must be an object')
  return value


def read_json(path: pathlib.Path) -> dict:
  """The JSON object in a file, or an InputError naming it."""
  return parse_json(read_text(path), str(path))


def check_name(name: object, where: str) -> None:
  """Raises InputError unless a file's name stays in the folder it is in."""
  if not isinstance(name, str) or not name or '\0' in name or (
      pathlib.PurePath(name).name != name or name == '..' or len(name.encode(
          'utf-8', 'replace')) > 255):
    raise InputError(
        f'{where} names {name!r:.80}, which is no file of its folder; a model '
        'is one folder: copy it from where it was published')


def to_json(value: dict) -> str:
  """The text of a JSON file, for people to read."""
  return json.dumps(value, indent=2, ensure_ascii=False) + '\n'


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Writes the file whole or not at all."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.tmp-')
  try:
    with os.fdopen(handle, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise
