"""Results as AlpacaEval and lm-eval write them, for tools that read those."""

from collections.abc import Mapping, Sequence
from typing import Any


def alpaca_outputs(
    prompts: Sequence[str], responses: Sequence[str], generator: str,
) -> list[dict[str, str]]:
  """AlpacaEval's `model_outputs.json`: what it annotates."""
  return [{'instruction': prompt, 'output': response, 'generator': generator}
          for prompt, response in zip(prompts, responses, strict=True)]


def alpaca_annotations(
    prompts: Sequence[str], rival: tuple[str, Sequence[str]],
    model: tuple[str, Sequence[str]], scores: Sequence[float], judge: str,
) -> list[dict[str, Any]]:
  """AlpacaEval's `annotations.json`.

  Args:
    prompts: [N].
    rival: name and [N] responses of the baseline, which is output 1.
    model: name and [N] responses of the model, output 2.
    scores: [N] 1 where the model wins, 0.5 for a tie, 0 where it loses.
    judge: its name.

  Returns:
    Rows whose `preference` is 2 where the model wins, 1 where the baseline
    does, and 1.5 for a tie: 1 + the score.
  """
  return [
      {'instruction': prompt, 'output_1': first, 'generator_1': rival[0],
       'output_2': second, 'generator_2': model[0], 'annotator': judge,
       'preference': 1.0 + float(score)}
      for prompt, first, second, score in zip(
          prompts, rival[1], model[1], scores, strict=True)]


def lm_eval_results(
    model: str, tasks: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """lm-eval's `results.json` of a model.

  Args:
    model: its name.
    tasks: numbers by metric of each task; `X_interval` beside a share X gives
      its standard error, a 95 % interval being 3.92 of them wide.

  Returns:
    A dictionary with `results`, `n-samples`, `versions` and `config`.
  """
  results, counts = {}, {}
  for task, numbers in tasks.items():
    row = {'alias': task}
    for name, value in numbers.items():
      if isinstance(value, float):
        row[f'{name},none'] = value
        if interval := numbers.get(f'{name}_interval'):
          row[f'{name}_stderr,none'] = (interval[1] - interval[0]) / 3.92
    results[task] = row
    if 'count' in numbers:
      counts[task] = {'original': numbers['count'],
                      'effective': numbers['count']}
  return {'results': results, 'versions': dict.fromkeys(tasks, 1),
          'n-samples': counts,
          'config': {'model': 'alignjax', 'model_args': f'pretrained={model}'}}
