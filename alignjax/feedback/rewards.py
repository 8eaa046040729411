"""Rewards by rule: what can be checked needs no reward model."""

import re

# The mark that GSM8K puts before the final number.
_FINAL = re.compile(r'####\s*(-?[\d,]*\.?\d+)')
# A dash behind a digit, as in "10-20", is no minus.
_NUMBER = re.compile(r'(?:(?<!\d)-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)')


def final_number(text: str) -> float | None:
  """The number that a text ends on: after '####', else the last one in it.

  Thousands may be set off by commas, and a dollar sign or a full stop may stand
  beside the number: "costs $1,200." gives 1200. None without a number.
  """
  text = text.replace('$', '')
  marked = _FINAL.findall(text)
  found = marked or _NUMBER.findall(text)
  return float(found[-1].replace(',', '')) if found else None


def number_reward(response: str, answer: str) -> float:
  """1 where response and answer end on the same number, else 0.

  Cobbe et al. (2021), https://arxiv.org/abs/2110.14168, whose answers end in
  "#### 42". An answer without a number matches nothing.
  """
  want = final_number(answer)
  return float(want is not None and final_number(response) == want)
