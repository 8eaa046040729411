"""Which characters of a rendered chat the assistant wrote.

A template that marks them with `{% generation %}` is believed. Of any other we
ask what a model is asked: an assistant's turn begins where the template would
have let it answer, and ends with the last control token that the template puts
behind it.

  up to turn 1       <|user|>hi<|end|>⏎<|assistant|>
  through turn 1     <|user|>hi<|end|>⏎<|assistant|>hello<|end|>⏎
  the assistant's                                   hello<|end|>

So the first must begin the second, and both the whole chat. A template that
writes a turn differently once another follows, as those do that drop a model's
thoughts, has written in the history what no model wrote, and is refused.
"""

from collections.abc import Callable, Sequence
import re

from alignjax.types import InputError

Spans = Sequence[tuple[int, int]]  # [start, end) in characters, in order.


def assistant_spans(
    render: Callable[[list[dict[str, str]], bool], str],
    messages: list[dict[str, str]],
    text: str,
    controls: re.Pattern,
) -> Spans:
  """Where the assistant's turns stand in a chat without generation marks.

  Args:
    render: (messages, add_generation_prompt) to text.
    messages: of the chat. An assistant's turn that no user's comes before is
      no answer, and is left out.
    text: the chat as it was rendered.
    controls: matches a control token.

  Returns:
    A span for each assistant's turn, its end of turn included.

  Raises:
    InputError: if the template rewrites a turn, or does not end it.
  """
  spans, asked = [], False
  for i, message in enumerate(messages):
    asked = asked or message['role'] == 'user'
    if message['role'] != 'assistant' or not asked:
      continue
    before = render(messages[:i], True)
    through = render(messages[:i + 1], False)
    same = through.startswith(before) and text.startswith(before)
    if same and not controls.search(through, len(before)):
      raise InputError(
          f'messages[{i}]: the chat template ends this assistant turn with no '
          'special token, so that a model would not learn to end it; add '
          'eos_token to the template, or train on the last turn only '
          "(turns='last')")
    shared = _shared(through, text)
    ends = [m.end() for m in controls.finditer(text, len(before))
            if m.end() <= shared]
    # Behind the end, what this turn has as the last one is but another end.
    if not same or not ends or controls.sub('', through[ends[-1]:]).strip():
      raise InputError(
          f'messages[{i}]: the chat template writes this assistant turn other '
          'than the model would, as one does that drops its thoughts later; '
          "train on the last turn only (turns='last'), or use a template that "
          'keeps turns or marks them with {% generation %}')
    spans.append((len(before), ends[-1]))
  return spans


def _shared(a: str, b: str) -> int:
  """How many characters two texts have in common from the beginning."""
  length = min(len(a), len(b))
  if a[:length] == b[:length]:
    return length
  return next(i for i in range(length) if a[i] != b[i])


def mask(offsets: Sequence[tuple[int, int]], spans: Spans) -> list[bool]:
  """Whether each token holds a character of a span.

  One pass, as in transformers: tokens and spans are both in order.
  """
  inside, current = [], 0
  for start, end in offsets:
    while current < len(spans) and start >= spans[current][1]:
      current += 1
    inside.append(current < len(spans) and end > spans[current][0])
  return inside
