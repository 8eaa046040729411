"""What was made from what: a manifest for each step of a long pipeline.

    lineage.json
      name        of the step, 'round 3'
      artifacts   name → path below the pipeline's folder, and its SHA-256
      parents     name of an earlier step → SHA-256 of its manifest
      config      the settings
      figures     what was measured

There is no clock and no path of a machine in it: two runs of one seed write the
same bytes, and a figure can be followed to the files that it came from.
"""

from collections.abc import Mapping
import hashlib
import json
import os
import pathlib

from alignjax.types import InputError

NAME = 'lineage.json'
# Of a folder these are no part of what it holds.
_PASSING = ('*.tmp',)
_BLOCK = 2**20


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file, or of a folder: of its files' names and digests.

  Raises:
    InputError: there is nothing.
  """
  if path.is_file():
    hashed = hashlib.sha256()
    with path.open('rb') as file:
      while block := file.read(_BLOCK):
        hashed.update(block)
    return hashed.hexdigest()
  if not path.is_dir():
    raise InputError(f'{path} is not there, and is part of a manifest; run '
                     'what makes it again')
  files = sorted(p for p in path.rglob('*') if p.is_file()
                 and not any(p.match(pattern) for pattern in _PASSING))
  lines = [f'{p.relative_to(path).as_posix()} {digest(p)}\n' for p in files]
  return hashlib.sha256(''.join(lines).encode()).hexdigest()


def record(
    root: pathlib.Path, folder: pathlib.Path, *, name: str,
    artifacts: Mapping[str, pathlib.Path], parents: Mapping[str, pathlib.Path],
    config: Mapping, figures: Mapping,
) -> pathlib.Path:
  """Writes a step's manifest, whole or not at all, and returns its path.

  Args:
    root: of the pipeline; paths in the manifest are below it.
    folder: of the step, where the manifest goes.
    name: of the step.
    artifacts: files and folders that it made, by name.
    parents: manifests of the steps that it was made from, by name.
    config: settings that JSON can hold.
    figures: numbers by name, that JSON can hold.

  Raises:
    InputError: an artifact or a parent is missing.
  """
  manifest = {
      'name': name,
      'artifacts': {key: {'path': path.relative_to(root).as_posix(),
                          'sha256': digest(path)}
                    for key, path in artifacts.items()},
      'parents': {key: digest(path) for key, path in parents.items()},
      'config': dict(config), 'figures': dict(figures)}
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / NAME
  draft = path.with_name(NAME + '.tmp')
  draft.write_text(json.dumps(manifest, indent=2, sort_keys=True) + '\n')
  os.replace(draft, path)
  return path


def verify(root: pathlib.Path, path: pathlib.Path) -> dict:
  """The manifest at `path`, whose artifacts are what they were.

  Raises:
    InputError: an artifact is missing or has changed, by name.
  """
  manifest = _read(path)
  for name, artifact in manifest['artifacts'].items():
    found = digest(root / artifact['path'])
    if found != artifact['sha256']:
      raise InputError(
          f'{root / artifact["path"]} is not the {name} that {path} speaks of '
          f'(SHA-256 {found[:12]}…, not {artifact["sha256"][:12]}…); restore '
          'it, or remove the folder of that step and run it again')
  return manifest


def _read(path: pathlib.Path) -> dict:
  """A manifest whose artifacts are paths within the run, with their digests."""
  try:
    manifest = json.loads(path.read_text())
    for artifact in manifest['artifacts'].values():
      place = pathlib.PurePath(artifact['path'])
      if place.is_absolute() or '..' in place.parts:
        raise ValueError(f'{str(place)!r:.80} is not in the run')
      bytes.fromhex(artifact['sha256'])
  except (ValueError, KeyError, TypeError, AttributeError,
          RecursionError) as error:
    raise InputError(
        f'{path} is no manifest of a step ({error!s:.120}); remove the folder '
        'of that step and run it again') from error
  return manifest
