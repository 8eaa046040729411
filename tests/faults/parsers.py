"""Everything that reads a file somebody else may have written.

A parser has a good sample of its files, and a read that says how it knows that
what it accepted is whole. It either refuses with an `InputError` or returns;
`Silent` means that it accepted what it should not have.
"""

from collections.abc import Callable
import dataclasses
import json
import math
import pathlib
import warnings

import jax
import numpy as np

from alignjax import checkpoints
from alignjax import hf
from alignjax import lineage
from alignjax import loading
from alignjax import metrics
from alignjax import runs
from alignjax import telemetry
from alignjax.data import formats
from alignjax.evaluation import benchmarks
from alignjax.feedback import answers
from alignjax.feedback import constitution
from alignjax.feedback import exchange
from alignjax.feedback import judges
from alignjax.feedback import rubrics
from alignjax.feedback import thumbs
from alignjax.models import CausalLM
from alignjax.models import lora
from alignjax.train import skipped
from tests.data import mutations_test as records
from tests.data.schemas_test import FILES
from tests.data.schemas_test import READERS
from tests.data.schemas_test import SHAPES
from tests.families import FAMILIES
from tests.families import random_params
from tests.faults import damage
from tests.hf import sentencepiece_test
from tests.hf import tokenizer_test

_MODEL = FAMILIES['llama']
_LORA = dataclasses.replace(
    _MODEL, lora=lora.Lora(3, 5.0, ('query', 'out', 'up')))


class Silent(Exception):
  """Something was accepted that its schema excludes."""


@dataclasses.dataclass(frozen=True)
class Parser:
  """What reads some files.

  Attributes:
    make: writes a good sample into an empty folder.
    files: those of it that are mutated.
    read: reads the folder; InputError refuses it.
  """

  make: Callable[[pathlib.Path], None]
  files: tuple[str, ...]
  read: Callable[[pathlib.Path], None]


def must(holds: bool, what: str) -> None:
  """Raises `Silent` unless it holds."""
  if not holds:
    raise Silent(what)


def _lines(*rows) -> str:
  return ''.join(json.dumps(row) + '\n' for row in rows)


def _written(name: str, content: str | bytes):
  """Writes one file."""

  def make(folder):
    (folder / name).write_bytes(
        content.encode() if isinstance(content, str) else content)

  return make


# --- Data.


def _read_dataset(name: str, suffix: str):
  def read(folder):
    path = folder / f'rows.{suffix}'
    for reader, count in zip(READERS, SHAPES[name][2], strict=True):
      if count is None:
        continue
      rows, reading = getattr(formats, reader)(path, max_dropped=1.0)
      try:
        records.check_rows(rows)
      except (AssertionError, UnicodeError) as error:
        raise Silent(f'{reader}: {error!r}') from error
      must(reading.num_records == reading.num_kept + len(reading.dropped),
           f'{reader}: {reading} does not add up')
  return read


def _make_table(name: str):
  def make(folder):
    import pyarrow as pa
    import pyarrow.parquet as parquet
    rows = [json.loads(line.replace('"replies": []', '"replies": null'))
            for line in (FILES / f'{name}.jsonl').read_text().splitlines()]
    parquet.write_table(pa.Table.from_pylist(rows), folder / 'rows.parquet')
  return make


def _datasets() -> dict[str, Parser]:
  found = {}
  for name in SHAPES:
    text = (FILES / f'{name}.jsonl').read_text('utf-8')
    found[f'{name}.jsonl'] = Parser(
        _written('rows.jsonl', text), ('rows.jsonl',),
        _read_dataset(name, 'jsonl'))
  for name in ('hh_harmless_base', 'ultrachat_200k', 'alpaca'):
    rows = [json.loads(line) for line in
            (FILES / f'{name}.jsonl').read_text('utf-8').splitlines()]
    found[f'{name}.json'] = Parser(
        _written('rows.json', json.dumps(rows)), ('rows.json',),
        _read_dataset(name, 'json'))
    found[f'{name}.parquet'] = Parser(
        _make_table(name), ('rows.parquet',), _read_dataset(name, 'parquet'))
  return found


# --- Models and tokenizers.


def _make_model(folder: pathlib.Path, *, sharded: bool = False) -> None:
  params = random_params(jax.eval_shape(
      CausalLM(_MODEL).init, jax.random.key(0)))
  hf.save_model(folder, _MODEL, params,
                max_shard_bytes=2_000 if sharded else 10**9)


def _read_model(folder: pathlib.Path) -> None:
  config, params = hf.load_model(folder)
  due = jax.eval_shape(CausalLM(config).init, jax.random.key(0))
  must(jax.tree.structure(due) == jax.tree.structure(params), 'another tree')
  for name, a, b in zip(
      checkpoints.manifest.describe(due), jax.tree.leaves(due),
      jax.tree.leaves(params), strict=True):
    must(a.shape == b.shape and b.dtype == np.float32,
         f'{name} is {b.dtype}{b.shape}, not {a.dtype}{a.shape}')
  _check_config(config)


def _make_config(family: str):
  return _written('config.json', json.dumps(
      hf.config_to_hf(FAMILIES[family]), indent=1))


def _read_config(folder: pathlib.Path) -> None:
  _check_config(hf.read_config(folder))


def _check_config(config) -> None:
  must(config.num_heads % config.num_kv_heads == 0, f'{config}')
  for number in jax.tree.leaves(dataclasses.asdict(config)):
    must(isinstance(number, str) or (
        math.isfinite(number) and abs(number) < 1e301), f'{config}')


def _make_adapters(folder: pathlib.Path) -> None:
  shapes = jax.eval_shape(CausalLM(_LORA).init, jax.random.key(0))
  hf.save_adapters(folder, _LORA, random_params(lora.split(shapes)[1]),
                   base='org/base')


def _read_adapters(folder: pathlib.Path) -> None:
  config, adapters, head = hf.load_adapters(folder, _MODEL)
  due = lora.split(jax.eval_shape(CausalLM(config).init, jax.random.key(0)))[1]
  must(jax.tree.map(np.shape, adapters)
       == jax.tree.map(lambda x: x.shape, due), 'adapters of other shapes')
  must(head is None or head.shape == (_MODEL.hidden_size,), 'another head')
  must(math.isfinite(config.lora.alpha) and config.lora.alpha > 0,
       f'{config.lora}')


def _make_tokenizer(folder: pathlib.Path) -> None:
  made = tokenizer_test.make(
      tokenizer_test.word_json(), chat_template=tokenizer_test.TEMPLATE)
  made.save(folder)
  (folder / 'chat_template.jinja').write_text(tokenizer_test.TEMPLATE)


def _make_sentencepiece(folder: pathlib.Path) -> None:
  (folder / 'tokenizer.model').write_bytes(sentencepiece_test.model_bytes())
  (folder / 'tokenizer_config.json').write_text(json.dumps({
      'bos_token': '<s>', 'eos_token': '</s>', 'legacy': False,
      'added_tokens_decoder': {'18': {'content': '<x>', 'special': True}}}))


def _read_tokenizer(folder: pathlib.Path) -> None:
  tokenizer = hf.load_tokenizer(folder)
  ids = tokenizer.encode('hi you </s> ab')
  if tokenizer.chat_template is not None:
    ids += tokenizer.prompt_tokens([{'role': 'user', 'content': 'hi you'}])
  must(all(0 <= i < tokenizer.vocab_size for i in ids), f'{ids}')
  must(all(0 <= i < tokenizer.vocab_size for i in (
      tokenizer.eos_id, tokenizer.pad_id)), f'{tokenizer}')
  must(isinstance(tokenizer.decode(ids), str), 'decodes to no text')


# --- What a run leaves.


def _make_checkpoint(folder: pathlib.Path) -> None:
  for step in (1, 2):
    checkpoints.save(folder, step, damage.state_of(step))


def _read_checkpoint(folder: pathlib.Path) -> None:
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    found = checkpoints.restore(folder, damage.state_of(0))
  must(damage.is_state(found.state, found.step), 'another state')
  must(found.step == 2 or len(caught) > 0, 'an older step, unsaid')


_ROWS = [dict(step=i, stage='sft', loss=1.5 / i, kl=None,
              nonfinite={'kl': 'nan'}) for i in (1, 2, 3)]


def _read_metrics(folder: pathlib.Path) -> None:
  rows = metrics.read_jsonl(folder / 'metrics.jsonl')
  must(all(isinstance(row['step'], int) and isinstance(row['stage'], str)
           for row in rows), f'{rows}')
  writer = metrics.JsonlWriter(folder / 'metrics.jsonl')
  writer.truncate_after(2, 'sft')
  writer.close()


def _run_config(folder: pathlib.Path) -> runs.RunConfig:
  return runs.RunConfig(workdir=str(folder), resume=True)


def _make_run(folder: pathlib.Path) -> None:
  with runs.start(_run_config(folder), 'sft'):
    pass


def _read_run(folder: pathlib.Path) -> None:
  written = (folder / 'config.json').read_bytes()
  with runs.start(_run_config(folder), 'sft'):
    pass
  before = json.loads(written)
  after = json.loads((folder / 'config.json').read_text())
  must(all(before.get(name) == value and type(before.get(name)) is type(value)
           for name, value in after.items()
           if name not in runs.FREE), f'{before} taken for {after}')


_BATCH = {'tokens': np.arange(6, dtype=np.int32).reshape(2, 3),
          'weight': np.ones(2, np.float32)}


def _make_batch(folder: pathlib.Path) -> None:
  np.savez(folder / 'batch.npz', **{
      f"['{name}']": value for name, value in _BATCH.items()})


def _read_batch(folder: pathlib.Path) -> None:
  batch = skipped.read_batch(folder / 'batch.npz', _BATCH, 'replay=1')
  must(jax.tree.map(lambda x: (x.shape, x.dtype), batch)
       == jax.tree.map(lambda x: (x.shape, x.dtype), _BATCH), f'{batch}')


def _read_mean(folder: pathlib.Path) -> None:
  must(math.isfinite(loading.read_reward_mean(folder)), 'no finite mean')


def _telemetry(step: int) -> dict:
  return {'step': step, 'kl': 0.5, 'rewards': [[0.5] * telemetry.WINDOW],
          'responses': ['So it is.'] * telemetry.WINDOW}


def _read_telemetry(folder: pathlib.Path) -> None:
  watch = telemetry.Watch(
      folder / 'telemetry.jsonl', lambda tokens: '', eos_id=0, start=3)
  must(watch.step == 3, f'{watch.step}')


def _make_lineage(folder: pathlib.Path) -> None:
  (folder / 'data.txt').write_text('x')
  lineage.record(folder, folder, name='round 1', config={'seed': 0},
                 figures={'gold': 0.5}, parents={},
                 artifacts={'data': folder / 'data.txt'})


def _read_lineage(folder: pathlib.Path) -> None:
  for artifact in lineage.verify(
      folder, folder / lineage.NAME)['artifacts'].values():
    path = (folder / artifact['path']).resolve()
    must(path.is_relative_to(folder.resolve()), f'{path} is outside')


def _read_cache(folder: pathlib.Path) -> None:
  cache = judges.AnswerCache(folder / 'cache.jsonl')
  must(cache.get('a') is None or math.isfinite(cache.get('a')), 'no margin')


# --- Feedback and benchmarks.


_ITEMS = [
    {'id': 'a', 'prompt': 'Why?', 'responses': ['So.', 'No.'],
     'known': [0, 1]},
    {'prompt': [{'role': 'user', 'content': 'Who?'}], 'responses': ['I.', '.']},
]
_ANSWERS = [{'item': 'a', 'annotator': 'ann', 'ranks': [1, 0]},
            {'item': 'a', 'annotator': 'bob', 'good': True},
            {'item': 'a', 'annotator': 'cy', 'skip': True}]


def _make_answers(folder: pathlib.Path) -> None:
  (folder / 'items.jsonl').write_text(_lines(*_ITEMS))
  (folder / 'answers.jsonl').write_text(_lines(*_ANSWERS))


def _read_answers(folder: pathlib.Path) -> None:
  items = answers.read_items(folder / 'items.jsonl')
  said = answers.read_answers([folder / 'answers.jsonl'], items)
  _check_answers(items, said)


def _check_answers(items, said) -> None:
  counts = {item.id: len(item.responses) for item in items}
  for answer in said:
    must(answer.item in counts, f'{answer}')
    must(answer.good in (None, True, False), f'{answer}')
    must(answer.ranks is None or (
        len(answer.ranks) == counts[answer.item]
        and all(map(math.isfinite, answer.ranks))), f'{answer}')


def _make_export(tool: exchange.Tool):
  def make(folder):
    items = [answers.parse_item(item, 'here') for item in _ITEMS]
    said = [answers.Answer('a', 'ann', ranks=(1.0, 0.0))]
    (folder / 'export.json').write_text(json.dumps(
        exchange.export_items(items, tool, said)))
  return make


def _read_export(tool: exchange.Tool):
  def read(folder):
    _check_answers(*exchange.import_answers(folder / 'export.json', tool))
  return read


_RUBRIC = '''name = "short"
task = "pair"
instructions = "Which is better?"
[[criteria]]
name = "true"
question = "Is it true?"
'''
_CONSTITUTION = '''# Ours.
Do no harm.
critique: Does it harm?
revision: Rewrite it without harm.

Be true.
'''


def _read_rubric(folder: pathlib.Path) -> None:
  found = rubrics.read_rubric(folder / 'rubric.toml')
  must(found.task in rubrics.TASKS and bool(found.text().strip()), f'{found}')


def _read_constitution(folder: pathlib.Path) -> None:
  found = constitution.read_constitution(folder / 'principles.txt')
  must(all(each.text.strip() for each in found), f'{found}')


def _read_thumbs(folder: pathlib.Path) -> None:
  for each in thumbs.read_thumbs(folder / 'thumbs.jsonl'):
    must(each.is_good in (True, False) and isinstance(each.response, str),
         f'{each}')


_BENCHMARKS = {
    'read_choices': [
        {'input': '2 + 2?', 'target_scores': {'4': 1, '5': 0}},
        {'prompt': '1 + 1?', 'choices': ['2', '3'], 'answer': 0}],
    'read_problems': [{'question': 'How many?', 'answer': 'So #### 72'}],
    'read_instructions': [{
        'prompt': 'Write.', 'instruction_id_list': ['punctuation:no_comma'],
        'kwargs': [{}]}],
    'read_pairs': [{'prompt': 'Why?', 'chosen': 'So.', 'rejected': 'No.',
                    'subset': 'chat'}],
}


def _benchmark(name: str) -> Parser:
  return Parser(
      _written('rows.jsonl', _lines(*_BENCHMARKS[name])), ('rows.jsonl',),
      lambda folder: must(
          bool(getattr(benchmarks, name)(folder / 'rows.jsonl')), 'no row'))


PARSERS: dict[str, Parser] = _datasets() | {
    name: _benchmark(name) for name in _BENCHMARKS} | {
    'model': Parser(_make_model, ('config.json', 'model.safetensors'),
                    _read_model),
    **{f'config {name}': Parser(
        _make_config(name), ('config.json',), _read_config)
       for name in FAMILIES},
    'sharded model': Parser(
        lambda folder: _make_model(folder, sharded=True),
        ('model.safetensors.index.json',), _read_model),
    'adapters': Parser(
        _make_adapters, ('adapter_config.json', 'adapter_model.safetensors'),
        _read_adapters),
    'tokenizer': Parser(
        _make_tokenizer, ('tokenizer.json', 'tokenizer_config.json',
                          'chat_template.jinja'), _read_tokenizer),
    'sentencepiece': Parser(
        _make_sentencepiece, ('tokenizer.model', 'tokenizer_config.json'),
        _read_tokenizer),
    'checkpoint': Parser(
        _make_checkpoint, ('step_00000002/manifest.json',), _read_checkpoint),
    'metrics': Parser(_written('metrics.jsonl', _lines(*_ROWS)),
                      ('metrics.jsonl',), _read_metrics),
    'run': Parser(_make_run, ('config.json',), _read_run),
    'batch': Parser(_make_batch, ('batch.npz',), _read_batch),
    'reward mean': Parser(
        _written(loading._REWARD_MEAN, '{"mean": 0.25}\n'),
        (loading._REWARD_MEAN,), _read_mean),
    'telemetry': Parser(_written('telemetry.jsonl', _lines(
        *map(_telemetry, (1, 2, 3)))), ('telemetry.jsonl',), _read_telemetry),
    'lineage': Parser(_make_lineage, (lineage.NAME,), _read_lineage),
    'judge cache': Parser(_written('cache.jsonl', _lines(
        {'key': 'a', 'margin': 0.5, 'text': 'A'},
        {'key': 'b', 'margin': -1.0, 'text': 'B'})), ('cache.jsonl',),
        _read_cache),
    'answers': Parser(_make_answers, ('items.jsonl', 'answers.jsonl'),
                      _read_answers),
    'label_studio': Parser(_make_export('label_studio'), ('export.json',),
                           _read_export('label_studio')),
    'argilla': Parser(_make_export('argilla'), ('export.json',),
                      _read_export('argilla')),
    'rubric': Parser(_written('rubric.toml', _RUBRIC), ('rubric.toml',),
                     _read_rubric),
    'constitution': Parser(_written('principles.txt', _CONSTITUTION),
                           ('principles.txt',), _read_constitution),
    'thumbs': Parser(_written('thumbs.jsonl', _lines(
        {'prompt': 'Why?', 'response': 'So.', 'is_good': True, 'user': 'ann'},
        {'prompt': [{'role': 'user', 'content': 'Who?'}], 'response': 'I.',
         'is_good': False})), ('thumbs.jsonl',), _read_thumbs),
}
