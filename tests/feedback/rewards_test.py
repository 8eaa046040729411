"""Rewards by rule: which number a text ends on."""

import pytest

from alignjax.feedback import rewards


@pytest.mark.parametrize('text, number', [
    ('#### 42', 42), ('3 apples.\n#### 1,200', 1200), ('####7', 7),
    ('#### -3.5', -3.5), ('#### .5', 0.5), ('#### 18\n', 18),
    ('#### 5 apples and 3 pears', 5),     # Behind the mark comes the answer.
    ('#### 1\n#### 2', 2),
    ('it costs $1,200.', 1200), ('$-4', -4), ('-$4', -4),
    ('#### $5, not 3', 5), ('pages 10-20', 20), ('16 - 3-4', 4), ('3 -4', -4),
    ('2 + 3 = 5', 5), ('from 3 to 4.25 km', 4.25), ('0', 0),
    ('12,345,678 people', 12345678), ('the answer is .75', 0.75),
    ('minus -7, I think', -7), ('in 1,2 or 3', 3), ('007', 7),
    ('no number', None), ('', None), ('####', None), ('seven', None),
    ('#### none, though 3 was close', 3),
])
def test_the_final_number(text, number):
  assert rewards.final_number(text) == number
