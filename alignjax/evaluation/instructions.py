"""Instructions that a program can check, of IFEval.

Zhou et al. (2023), https://arxiv.org/abs/2311.07911. A row is {"prompt",
"instruction_id_list": ["punctuation:no_comma", ...], "kwargs": [{...}, ...]}.
A check follows its instruction's words; where the paper's program asks other
libraries, we depart: sentences are what ends in . ! or ? before a space, and
`language:response_language` is not checked, but counted as such.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import re
from typing import Any, NamedTuple

from alignjax import types

_HIGHLIGHT = re.compile(r'\*\*[^\n*]+\*\*|\*[^\n*]+\*')
_CHOICES = ('My answer is yes.', 'My answer is no.', 'My answer is maybe.')
UNCHECKED = ('language:response_language',)


class Following(NamedTuple):
  """How well instructions were followed; shares in [0, 1]."""

  prompt_strict: float       # Prompts all of whose instructions were followed.
  instruction_strict: float  # Instructions that were followed.
  prompt_loose: float        # The same, after what chat models put around.
  instruction_loose: float
  num_prompts: int
  num_instructions: int
  unchecked: int             # Instructions that no check is for.


def is_followed(
    name: str, response: str, settings: Mapping[str, Any], prompt: str = '',
) -> bool:
  """Whether a response follows one instruction.

  Args:
    name: the instruction's id.
    response: the text.
    settings: its kwargs; those that are None are not given.
    prompt: what was asked, for the instructions that repeat it.

  Raises:
    InputError: there is no such instruction, or a setting of it is missing.
  """
  if name not in CHECKS:
    raise types.InputError(f'instruction {name!r} is not known; known are '
                           f'{", ".join(CHECKS)}')
  given = {k: v for k, v in settings.items() if v is not None}
  try:
    return bool(response.strip()) and bool(
        CHECKS[name](response, given | {'_prompt': prompt}))
  except (KeyError, TypeError) as error:
    raise types.InputError(
        f'instruction {name!r} with {given!r:.80}: {error!r}; give its '
        'settings') from error


def following(rows: Sequence[Mapping[str, Any]],
              responses: Sequence[str]) -> Following:
  """The four accuracies of IFEval.

  Args:
    rows: of the data set.
    responses: one to each.

  Returns:
    A `Following`; strict is never above loose.
  """
  strict, loose, unchecked = [], [], 0
  for row, response in zip(rows, responses, strict=True):
    names, settings = row['instruction_id_list'], row['kwargs']
    unchecked += sum(name in UNCHECKED for name in names)
    own = [(name, given) for name, given in zip(names, settings, strict=True)
           if name not in UNCHECKED]
    if not own:
      continue
    follows = lambda text: [is_followed(name, text, given, row['prompt'])
                            for name, given in own]
    strict.append(follows(response))
    tries = [follows(text) for text in _variants(response)]
    loose.append([any(each) for each in zip(*tries, strict=True)])
  if not strict:
    raise types.InputError('no row has an instruction that can be checked')
  share = lambda values: sum(values) / len(values)
  flat = lambda rows: [x for row in rows for x in row]
  return Following(
      share([all(r) for r in strict]), share(flat(strict)),
      share([all(r) for r in loose]), share(flat(loose)), len(strict),
      len(flat(strict)), unchecked)


def _variants(response: str) -> list[str]:
  """The response without a first line, a last line, and emphasis marks."""
  lines = response.split('\n')
  cut = [response, '\n'.join(lines[1:]).strip(), '\n'.join(lines[:-1]).strip(),
         '\n'.join(lines[1:-1]).strip()]
  return cut + [text.replace('*', '') for text in cut]


def _compared(count: int, relation: str, limit: int) -> bool:
  """'at least' or 'less than' the limit."""
  if relation not in ('at least', 'less than'):
    raise KeyError(f'relation {relation!r}')
  return count >= limit if relation == 'at least' else count < limit


def _words(text: str) -> list[str]:
  return re.findall(r'\w+', text)


def _count(word: str, text: str) -> int:
  return len(re.findall(re.escape(word), text, re.IGNORECASE))


def _whole_word(word: str, text: str) -> bool:
  return bool(re.search(rf'\b{re.escape(word)}\b', text, re.IGNORECASE))


def _sentences(text: str) -> int:
  return len([s for s in re.split(r'(?<=[.!?])\s+', text.strip()) if s])


def _paragraphs(text: str) -> bool | int:
  """How many a divider *** makes; 0 if one in the middle is empty."""
  parts = re.split(r'\s?\*\*\*\s?', text)
  inner = [p for i, p in enumerate(parts)
           if p.strip() or 0 < i < len(parts) - 1]
  return len(inner) if all(p.strip() for p in inner) else 0


def _first_word(text: str, s: Mapping) -> bool:
  parts = [p for p in re.split(r'\n\n', text) if p.strip()]
  place = s['nth_paragraph']
  if len(parts) != s['num_paragraphs'] or place > len(parts):
    return False
  word = re.match(r'[\'"]?(\w+)', parts[place - 1].strip())
  return bool(word) and word.group(1).lower() == s['first_word'].lower()


def _is_json(text: str) -> bool:
  text = re.sub(r'^```(?:json)?|```$', '', text.strip(), flags=re.IGNORECASE)
  try:
    json.loads(text.strip())
  except ValueError:
    return False
  return True


def _two_responses(text: str) -> bool:
  parts = text.split('******')
  inner = [p.strip() for i, p in enumerate(parts)
           if p.strip() or 0 < i < len(parts) - 1]
  return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def _postscript(text: str, marker: str) -> bool:
  pattern = {'P.P.S': r'\s*p\.\s?p\.\s?s.*$', 'P.S.': r'\s*p\.\s?s\..*$'}.get(
      marker, r'\s*' + re.escape(marker.lower()) + r'.*$')
  return bool(re.search(pattern, text.lower(), re.MULTILINE))


def _capitals(text: str) -> int:
  return sum(word.isupper() for word in re.findall(r"[\w'-]+", text))


CHECKS: dict[str, Callable[[str, Mapping[str, Any]], bool | int]] = {
    'keywords:existence': lambda t, s: all(
        _count(w, t) for w in s['keywords']),
    'keywords:frequency': lambda t, s: _compared(
        _count(s['keyword'], t), s['relation'], s['frequency']),
    'keywords:forbidden_words': lambda t, s: not any(
        _whole_word(w, t) for w in s['forbidden_words']),
    'keywords:letter_frequency': lambda t, s: _compared(
        t.lower().count(s['letter'].lower()), s['let_relation'],
        s['let_frequency']),
    'length_constraints:number_sentences': lambda t, s: _compared(
        _sentences(t), s['relation'], s['num_sentences']),
    'length_constraints:number_paragraphs': lambda t, s: (
        _paragraphs(t) == s['num_paragraphs']),
    'length_constraints:number_words': lambda t, s: _compared(
        len(_words(t)), s['relation'], s['num_words']),
    'length_constraints:nth_paragraph_first_word': _first_word,
    'detectable_content:number_placeholders': lambda t, s: (
        len(re.findall(r'\[.*?\]', t)) >= s['num_placeholders']),
    'detectable_content:postscript': lambda t, s: _postscript(
        t, s['postscript_marker']),
    'detectable_format:number_bullet_lists': lambda t, s: len(
        re.findall(r'^\s*(?:\*[^*]|-).*$', t, re.MULTILINE)
        ) == s['num_bullets'],
    'detectable_format:constrained_response': lambda t, s: any(
        choice in t for choice in _CHOICES),
    'detectable_format:number_highlighted_sections': lambda t, s: sum(
        bool(x.strip('*').strip()) for x in _HIGHLIGHT.findall(t)
        ) >= s['num_highlights'],
    'detectable_format:multiple_sections': lambda t, s: len(re.findall(
        rf'\s?{re.escape(s["section_spliter"])}\s?\d+\s?', t)
        ) >= s['num_sections'],
    'detectable_format:json_format': lambda t, s: _is_json(t),
    'detectable_format:title': lambda t, s: any(
        x.strip('<>').strip() for x in re.findall(r'<<[^\n]+>>', t)),
    'combination:two_responses': lambda t, s: _two_responses(t),
    'combination:repeat_prompt': lambda t, s: t.strip().lower().startswith(
        s.get('prompt_to_repeat', s['_prompt']).strip().lower()),
    'startend:end_checker': lambda t, s: t.strip().strip('"').lower().endswith(
        s['end_phrase'].strip().lower()),
    'startend:quotation': lambda t, s: (
        len(t.strip()) > 1 and t.strip()[0] == t.strip()[-1] == '"'),
    'change_case:capital_word_frequency': lambda t, s: _compared(
        _capitals(t), s['capital_relation'], s['capital_frequency']),
    'change_case:english_capital': lambda t, s: t.isupper(),
    'change_case:english_lowercase': lambda t, s: t.islower(),
    'punctuation:no_comma': lambda t, s: ',' not in t,
}
