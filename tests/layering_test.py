"""The tree's own rules: floors, confinement, sizes, and BUILD tells the truth.

A unit is a module or package directly below `alignjax/`, or `experiments`. It
is one target of BUILD. BUILD is evaluated here as Starlark, so that it stays
true without Bazel; when it does not, the failure prints what belongs in it.
"""

import ast
import configparser
import functools
import os
import pathlib
import re
import sys
from typing import Any, NamedTuple

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent

# An import goes to a lower floor. Floor 2 reaches floor 0 only, so that models
# know nothing of losses; floors 6 and 7 are ends, and only they import ends.
_FLOORS = {
    'errors': -1,  # Under all of them: these two import nothing of ours.
    'partitioning': -1,
    'init': 0,
    'columns': 0,
    'distributed': 0,
    'topologies': 0,
    'types': 0,
    'masked': 0,
    'advantages': 1,
    'logprobs': 1,
    'losses': 1,
    'models': 2,
    'sharding': 2,
    'testbed': 2,
    'adapters': 3,
    'checkpoints': 3,
    'data': 3,
    'endpoint': 3,
    'hf': 3,
    'metrics': 3,
    'scoring': 3,
    'feedback': 4,
    'objectives': 4,
    'rollout': 4,
    'engines': 5,
    'evaluation': 5,
    'train': 5,
    '__main__': 6,
    'annotating': 6,
    'cli': 6,
    'commands': 6,
    'configs': 6,
    'lineage': 6,
    'loading': 6,
    'outcomes': 6,
    'plan': 6,
    'report': 6,
    'row_cache': 6,
    'runs': 6,
    'scripts': 6,
    'serving': 6,
    'settings': 6,
    'sources': 6,
    'telemetry': 6,
    'experiments': 7,
}
_ENDS = 6

# Package on PyPI -> the paths below alignjax/ that may import it. What is not
# listed is free for all; experiments/ may import anything.
_CONFINED = {
    'etils': ['checkpoints/'],
    'flax': ['types.py', 'models/', 'sharding.py', 'train/state.py'],
    'grain': ['data/'],
    'jinja2': ['hf/'],
    'pyarrow': ['data/'],
    'orbax-checkpoint': ['checkpoints/'],
    'qwix': ['models/'],
    'safetensors': ['hf/'],
    'tensorboardX': ['metrics.py'],
    'tensorflow-datasets': ['data/'],
    'starlette': ['annotating/'],
    'tokenizers': ['hf/'],
    'torch': [],
    'transformers': [],
    'uvicorn': ['commands/annotate.py'],
    'wandb': ['metrics.py'],
}
# Path below alignjax/ -> the only packages that it may import.
_ONLY = {
    'losses/': {'jax', 'chex'},
    'testbed/': {'numpy'},
}
# The rest of PyPI names its modules as itself.
_PACKAGE_OF = {
    'orbax': 'orbax-checkpoint',
    'tensorflow_datasets': 'tensorflow-datasets',
}

_MAX_FILE = 400      # Lines.
_MAX_FUNCTION = 60   # Lines of code, the docstring not counted.


class _Import(NamedTuple):
  module: str  # Dotted: 'jax.numpy', 'alignjax.types'.
  where: str   # 'alignjax/data/chat.py:12'.


def _relative(path: pathlib.Path) -> str:
  return path.relative_to(_ROOT).as_posix()


@functools.cache
def _modules() -> tuple[pathlib.Path, ...]:
  """Every module of the library and the experiments."""
  return tuple(
      path
      for folder in ('alignjax', 'experiments')
      for path in sorted((_ROOT / folder).rglob('*.py'))
      if '__pycache__' not in path.parts
  )


def _unit(path: pathlib.Path) -> str:
  """'alignjax/data/chat.py' and 'alignjax/data.py' are both of 'data'."""
  top, *rest = path.relative_to(_ROOT).with_suffix('').parts
  if top != 'alignjax':
    return top
  return 'init' if rest == ['__init__'] else rest[0]


@functools.cache
def _imports(path: pathlib.Path) -> tuple[_Import, ...]:
  """All imports of a file, those inside functions too.

  `from alignjax import types` is an import of alignjax.types when that is a
  module, and of alignjax itself otherwise.
  """
  found = []
  for node in ast.walk(ast.parse(path.read_text('utf-8'))):
    if isinstance(node, ast.Import):
      modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{_relative(path)}:{node.lineno} is relative'
      modules = [
          f'{node.module}.{alias.name}'
          if _is_module(f'{node.module}.{alias.name}')
          else node.module
          for alias in node.names
      ]
    else:
      continue
    where = f'{_relative(path)}:{node.lineno}'
    found += [_Import(module, where) for module in modules]
  return tuple(found)


def _is_module(dotted: str) -> bool:
  path = _ROOT.joinpath(*dotted.split('.'))
  return path.is_dir() or path.with_suffix('.py').is_file()


def _imported_unit(module: str) -> str | None:
  """The unit of ours that a dotted name is of, or None for others' modules."""
  top, *rest = module.split('.')
  if top == 'experiments':
    return top
  if top != 'alignjax':
    return None
  return rest[0] if rest else 'init'


def _package(module: str) -> str | None:
  """The PyPI package of a dotted name; None for ours and Python's own."""
  top = module.partition('.')[0]
  if top in ('alignjax', 'experiments') or top in sys.stdlib_module_names:
    return None
  return _PACKAGE_OF.get(top, top)


@functools.cache
def _needs() -> dict[str, tuple[set[str], set[str]]]:
  """{unit: (units it imports, PyPI packages it imports)}."""
  needs = {_unit(path): (set(), set()) for path in _modules()}
  for path in _modules():
    units, packages = needs[_unit(path)]
    for module, _ in _imports(path):
      units.add(_imported_unit(module))
      packages.add(_package(module))
    units -= {None, _unit(path)}
    packages.discard(None)
  return needs


def _is_allowed(importer: str, imported: str) -> bool:
  """Whether the floors let one unit import another."""
  low, high = _FLOORS[imported], _FLOORS[importer]
  if importer == imported:
    return True
  if high >= _ENDS:
    return True
  return low < high and not (high == 2 and low == 1)


# --- Floors.


def test_every_unit_has_a_floor():
  missing = sorted(_needs().keys() - _FLOORS.keys())
  assert not missing, f'give these a floor in tests/layering_test.py: {missing}'


def test_imports_go_down_only():
  wrong = []
  for path in _modules():
    importer = _unit(path)
    for module, where in _imports(path):
      imported = _imported_unit(module)
      if not {importer, imported} <= _FLOORS.keys():
        continue  # Another's module, or a unit that the test above names.
      if _is_allowed(importer, imported):
        continue
      wrong.append(
          f'{where}: {importer} [floor {_FLOORS[importer]}] imports'
          f' {imported} [floor {_FLOORS[imported]}]'
      )
  assert not wrong, '\n' + '\n'.join(wrong)


@pytest.mark.parametrize(
    'importer, imported, allowed',
    [
        ('losses', 'masked', True),
        ('losses', 'advantages', False),
        ('types', 'masked', False),
        ('models', 'types', True),
        ('models', 'logprobs', False),
        ('scoring', 'logprobs', True),
        ('data', 'hf', False),
        ('objectives', 'losses', True),
        ('train', 'report', False),
        ('cli', 'report', True),
        ('experiments', 'cli', True),
    ],
)
def test_the_rule_itself_allows_and_forbids(importer, imported, allowed):
  assert _is_allowed(importer, imported) is allowed


def test_units_do_not_import_each_other_in_a_circle():
  order = []  # Units whose own imports are all in it already.
  left = {unit: set(units) for unit, (units, _) in _needs().items()}
  while free := [u for u, units in left.items() if units <= set(order)]:
    order += free
    left = {u: units for u, units in left.items() if u not in order}
  assert not left, f'among these there is a circle or an unknown unit: {left}'


def test_the_step_and_the_loop_are_handed_their_objective():
  for name in ('step', 'loop'):
    path = _ROOT / 'alignjax' / 'train' / f'{name}.py'
    if path.exists():
      for module, where in _imports(path):
        assert _imported_unit(module) != 'objectives', where


# --- Third parties.


def test_third_parties_are_imported_only_where_they_may_be():
  wrong = []
  for path in _modules():
    if _unit(path) == 'experiments':
      continue
    below = path.relative_to(_ROOT / 'alignjax').as_posix()
    for module, where in _imports(path):
      package = _package(module)
      if package is None:
        continue
      places = _CONFINED.get(package, [''])
      if not any(below.startswith(place) for place in places):
        wrong.append(f'{where}: {package} is for {places or "no one"}')
      for place, packages in _ONLY.items():
        if below.startswith(place) and package not in packages:
          wrong.append(f'{where}: {place} may import {sorted(packages)} only')
  assert not wrong, '\n' + '\n'.join(wrong)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg', encoding='utf-8')
  required = _requirement_names(config['options']['install_requires'])
  optional = set()
  for extra, value in config['options.extras_require'].items():
    if extra != 'test':
      optional |= _requirement_names(value)
  imported = set().union(*(packages for _, packages in _needs().values()))
  assert not imported - required - optional, 'add to setup.cfg'
  # tensorflow-datasets imports it and does not declare it.
  assert not required - imported - {'importlib_resources'}, 'not imported'


def test_every_installed_command_names_a_function_that_exists():
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg', encoding='utf-8')
  scripts = config['options.entry_points']['console_scripts'].split('\n')
  for script in filter(None, scripts):
    module, _, function = script.partition('=')[2].strip().partition(':')
    path = _ROOT.joinpath(*module.split('.')).with_suffix('.py')
    defined = {
        node.name
        for node in ast.parse(path.read_text('utf-8')).body
        if isinstance(node, ast.FunctionDef)
    }
    assert function in defined, f'{script}: {_relative(path)} has no {function}'


def _requirement_names(block: str) -> set[str]:
  lines = [line.partition('#')[0].strip() for line in block.splitlines()]
  return {re.split(r'[\s\[<>=]', line)[0] for line in lines if line}


# --- BUILD.


class _Target(NamedTuple):
  kind: str
  attributes: dict[str, Any]
  pip: set[str]  # Named in `# pip: x` comments among its lines.


@functools.cache
def _build() -> dict[str, _Target]:
  """{name: target} of BUILD, evaluated with rules that only take notes."""
  starlark = pytest.importorskip('starlark')
  text = (_ROOT / 'BUILD').read_text('utf-8')
  comments = _pip_comments(text)
  targets = {}

  def make_rule(kind):
    def rule(**attributes):
      name = attributes['name']
      assert name not in targets, f'BUILD has two targets named {name}'
      targets[name] = _Target(kind, attributes, comments.get(name, set()))
    return rule

  rules = starlark.Module()
  for kind in ('py_library', 'py_binary', 'py_test'):
    rules.add_callable(kind, make_rule(kind))
  rules = rules.freeze()
  module = starlark.Module()
  module.add_callable('glob', _glob)
  for ignored in ('package', 'licenses', 'exports_files'):
    module.add_callable(ignored, lambda *args, **kwargs: None)
  starlark.eval(
      module,
      starlark.parse('BUILD', text),
      starlark.Globals.standard(),
      starlark.FileLoader(lambda name: rules),
  )
  return targets


def _pip_comments(text: str) -> dict[str, set[str]]:
  """{target name: packages}; Starlark of this kind parses as Python too."""
  lines = text.splitlines()
  packages = {}
  for call in ast.walk(ast.parse(text)):
    if not isinstance(call, ast.Call):
      continue
    for keyword in call.keywords:
      if keyword.arg == 'name' and isinstance(keyword.value, ast.Constant):
        body = '\n'.join(lines[call.lineno - 1 : call.end_lineno])
        packages[keyword.value.value] = set(
            re.findall(r'# pip: (\S+)$', body, re.MULTILINE)
        )
  return packages


def _glob(include, exclude=(), allow_empty=False) -> list[str]:
  """Bazel's glob: paths from the root, sorted."""
  def match(patterns):
    return {
        _relative(path)
        for pattern in patterns
        for path in _ROOT.glob(pattern)
        if path.is_file()
    }
  found = sorted(match(include) - match(exclude))
  assert found or allow_empty, f'glob({include}) of BUILD finds nothing'
  return found


def _expected_target(unit: str) -> str:
  """What BUILD should say of a unit, as buildifier would write it."""
  units, packages = _needs()[unit]
  if unit == 'init':
    srcs = '["alignjax/__init__.py"]'
  elif unit == 'experiments':
    srcs = 'glob(["experiments/**/*.py"])'
  elif (_ROOT / 'alignjax' / unit).is_dir():
    srcs = f'glob(["alignjax/{unit}/**/*.py"])'
  else:
    srcs = f'["alignjax/{unit}.py"]'
  inner = [f'        ":{u}",' for u in sorted(units)]
  inner += [f'        # pip: {p}' for p in sorted(packages, key=str.lower)]
  if len(units) == 1 and not packages:
    deps = [f'    deps = [":{min(units)}"],']
  elif inner:
    deps = ['    deps = [', *inner, '    ],']
  else:
    deps = []
  return '\n'.join([
      'py_library(',
      f'    name = "{unit}",',
      f'    srcs = {srcs},',
      *deps,
      ')',
  ])


def test_build_names_exactly_the_imports_of_each_unit():
  wrong = []
  for unit, (units, packages) in _needs().items():
    target = _build().get(unit)
    has = target and (set(target.attributes.get('deps', [])), target.pip)
    if has != ({f':{u}' for u in units}, packages):
      wrong.append(_expected_target(unit))
  assert not wrong, 'BUILD should say:\n\n' + '\n\n'.join(wrong)


def test_build_has_no_unit_that_is_gone():
  units = {
      name
      for name, target in _build().items()
      if target.kind == 'py_library' and target.attributes.get('srcs')
      and not target.attributes.get('testonly')
  }
  assert units <= _needs().keys(), f'remove {units - _needs().keys()}'


def test_every_module_is_in_the_srcs_of_the_target_of_its_unit_only():
  owners = {_relative(path): [] for path in _modules()}
  for name, target in _build().items():
    if target.kind == 'py_library' and not target.attributes.get('testonly'):
      for source in target.attributes.get('srcs', []):
        owners.setdefault(source, []).append(name)
  expected = {_relative(path): [_unit(path)] for path in _modules()}
  assert owners == expected


def test_the_whole_library_is_one_target_over_all_units():
  whole = _build()['alignjax'].attributes
  units = _needs().keys() - {'experiments'}
  assert set(whole['deps']) == {f':{unit}' for unit in units}


def test_every_test_file_is_run_by_one_test_target():
  runs = [
      target.attributes['args']
      for target in _build().values()
      if target.kind == 'py_test'
  ]
  files = [[_relative(p)] for p in (_ROOT / 'tests').rglob('*_test.py')]
  assert sorted(runs) == sorted(files)


def test_every_label_of_build_has_a_target():
  labels = {
      label
      for target in _build().values()
      for label in target.attributes.get('deps', [])
  }
  assert labels <= {f':{name}' for name in _build()}


# --- Sizes and words.


def test_no_file_is_longer_than_one_can_read():
  sizes = {_relative(p): len(p.read_text().splitlines()) for p in _modules()}
  long = {path: n for path, n in sizes.items() if n > _MAX_FILE}
  assert not long, f'split what has more than {_MAX_FILE} lines: {long}'


def test_no_function_is_longer_than_one_can_read():
  long = []
  for path in _modules():
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        lines = _code_lines(node)
        if lines > _MAX_FUNCTION:
          long.append(f'{_relative(path)}:{node.lineno} {node.name}: {lines}')
  assert not long, f'over {_MAX_FUNCTION} lines of code:\n' + '\n'.join(long)


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
  """Lines of a function from its `def`, less those of its docstring."""
  lines = node.end_lineno - node.lineno + 1
  if ast.get_docstring(node) is not None:
    lines -= node.body[0].end_lineno - node.body[0].lineno + 1
  return lines


def test_a_docstring_does_not_count_as_code():
  source = 'def f():\n  """One.\n\n  Two.\n  """\n  return 1\n'
  assert _code_lines(ast.parse(source).body[0]) == 2


def test_every_module_says_what_it_is():
  silent = [
      _relative(path)
      for path in _modules()
      if path.read_text().strip()
      and not ast.get_docstring(ast.parse(path.read_text('utf-8')))
  ]
  assert not silent, f'give these a docstring: {silent}'


def test_no_file_names_a_folder_of_the_machine_it_was_written_on():
  pattern = re.compile(r'(?<![\w.~$}])/(work|opt|root|home|Users)/')
  wrong = []
  for path in _text_files():
    for number, line in enumerate(path.read_text('utf-8').splitlines(), 1):
      if pattern.search(line):
        wrong.append(f'{_relative(path)}:{number}: {line.strip()}')
  assert not wrong, '\n' + '\n'.join(wrong)


def _text_files() -> list[pathlib.Path]:
  """The text files of a checkout; what git ignores is left out."""
  skipped = {'__pycache__', 'dist', 'runs', 'node_modules'}
  files = []
  for folder, folders, names in os.walk(_ROOT):
    folders[:] = [
        name
        for name in folders
        if name not in skipped
        and (name in ('.ci', '.github') or not name.startswith('.'))
        and not name.endswith('.egg-info')
    ]
    files += [pathlib.Path(folder, name) for name in names]
  return [path for path in files if b'\0' not in path.read_bytes()]


_RUNS_CODE = ('eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen')
_READS_CODE = ('pickle', 'marshal', 'shelve', 'dill', 'cloudpickle', 'joblib')


@pytest.mark.parametrize('folder', ['alignjax', 'experiments', 'benchmarks'])
def test_nothing_that_is_read_can_run_code(folder):
  found = []
  for path in sorted((_ROOT / folder).rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
      found += [f'{path.relative_to(_ROOT)}:{node.lineno}: {what}'
                for what in _unsafe(node)]
  assert not found, found


def _unsafe(node) -> list[str]:
  """What of a node imports, loads or runs code that came as data."""
  if isinstance(node, ast.Import | ast.ImportFrom):
    names = [alias.name for alias in node.names] + [
        getattr(node, 'module', None) or '']
    return [name for name in names if name.split('.')[0] in _READS_CODE]
  if not isinstance(node, ast.Call):
    return []
  name = ast.unparse(node.func)
  found = [name] if name in _RUNS_CODE or name.endswith('torch.load') else []
  return found + [
      f'{name}({keyword.arg})' for keyword in node.keywords
      if keyword.arg in ('trust_remote_code', 'shell') or (
          keyword.arg == 'allow_pickle'
          and ast.unparse(keyword.value) != 'False')]


@pytest.mark.parametrize('line', [
    'import pickle', 'from joblib import load', 'eval(x)', 'torch.load(x)',
    'np.load(x, allow_pickle=True)', 'run(x, shell=True)',
    'AutoModel.from_pretrained(x, trust_remote_code=True)'])
def test_what_could_run_code_is_seen(line):
  assert any(_unsafe(node) for node in ast.walk(ast.parse(line)))
