"""KTO learns from thumbs, which come in no pairs.

A user of the SFT model presses good or bad, by a liking that is mostly gold;
popular prompts are answered more often, and some thumbs are pressed twice. The
log becomes rows by `feedback.digest`.
"""

import pathlib
import random

from alignjax import evaluation
from alignjax import feedback
from alignjax import runs
from alignjax import sharding
from alignjax import sources
from alignjax import testbed
from experiments import kto
from experiments.claims import lab as lab_lib

_PROMPTS, _POPULAR = 1_000, 100  # Of them, and those that are asked 5 times.
_LIKED = 0.5  # Gold, from which on a response pleases.


def measure(lab: lab_lib.Lab) -> lab_lib.Finding:
  """Gold after KTO less gold before."""
  path = pathlib.Path(lab.cfg.workdir) / 'thumbs.jsonl'
  rows = pathlib.Path(lab.cfg.workdir) / 'labels.jsonl'
  if not rows.exists():
    sources.write_jsonl(path, log(lab))
    found = feedback.digest(feedback.read_thumbs(path))
    lab.run.console.note(str(found))
    sources.write_jsonl(rows, [row.record() for row in found.rows])
  folders = {'sft': lab.sft, 'kto': kto.stage(kto.Config(
      **lab.at('thumbs'), model=lab.sft, data=str(rows)))}
  scores = lab.scores(folders)
  figure, interval = lab.difference(
      scores['kto']['golds'], scores['sft']['golds'])
  return lab_lib.Finding(figure, interval, lab_lib.above(interval, 0.0),
                         {'models': lab_lib.brief(scores)})


def log(lab: lab_lib.Lab) -> list[dict]:
  """What users press."""
  model, params, tokenizer = runs.load_policy(lab.sft)
  params = sharding.put(params, sharding.replicated(lab.run.mesh))
  prompts, _ = sources.testbed_prompts(
      'train', _PROMPTS, lab.cfg.seed, tokenizer)
  reply = evaluation.make_reply(
      model, params, tokenizer, max_new_tokens=sources.RESPONSE_TOKENS,
      max_length=sources.PROMPT_TOKENS + sources.RESPONSE_TOKENS,
      mesh=lab.run.mesh, seed=lab.cfg.seed)
  rng = random.Random(f'thumbs {lab.cfg.seed}')
  users = testbed.panel(lab.cfg.seed, size=7)
  records = []
  for turn in range(5):
    asked = prompts if not turn else prompts[:_POPULAR]
    for prompt, (text, ended) in zip(
        asked, reply([p.text for p in asked], turn), strict=True):
      user = rng.choice(users)
      liking = user.utility(sources.WORLD, prompt, text, complete=ended,
                            seed=turn)
      press = {'prompt': prompt.text, 'response': text,
               'is_good': liking > _LIKED, 'user': user.name}
      records += [press] * (2 if rng.random() < 0.1 else 1)
  return records


CLAIM = lab_lib.Claim(
    'KTO learns from thumbs alone.',
    'KTO on a log of thumbs has more gold than the SFT model that was rated.',
    'A difference whose interval lies below 0.', measure)
