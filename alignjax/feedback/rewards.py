"""Rewards by rule: what can be checked needs no reward model."""

import re

# The mark that GSM8K puts before the final number.
_FINAL = re.compile(r'####\s*(-?[\d,]*\.?\d+)')
# A dash behind a digit, as in "10-20", is no minus.
_NUMBER = re.compile(r'(?:(?<!\d)-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)')


def final_number(text: str) -> float | None:
  """The number that a text ends on: after '####', else the last one in it.

  Thousands may be set off by commas, and a dollar sign or a full stop may stand
  beside the number: "costs $1,200." gives 1200. None without a number. Cobbe et
  al. (2021), https://arxiv.org/abs/2110.14168, end their answers in "#### 42".
  """
  text = text.replace('$', '')
  marked = _FINAL.findall(text)
  found = marked or _NUMBER.findall(text)
  return float(found[-1].replace(',', '')) if found else None
