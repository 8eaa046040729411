"""tests/golden/families.json holds what transformers says.

`ALIGNJAX_GOLDEN=write` writes the file anew.
"""

import json
import os
import pathlib

import jax
import numpy as np
import pytest

from alignjax import hf
from alignjax.models import CausalLM
from tests.families import FAMILIES
from tests.families import random_params
from tests.models.families_test import MASK
from tests.models.families_test import TOKENS

pytestmark = pytest.mark.parity
torch = pytest.importorskip('torch', reason='torch is not installed')
transformers = pytest.importorskip(
    'transformers', reason='transformers is not installed')

PATH = pathlib.Path(__file__).parents[1] / 'golden' / 'families.json'


def test_stored_logits_are_those_of_transformers(tmp_path):
  golden = {}
  for name, config in FAMILIES.items():
    params = random_params(
        jax.eval_shape(CausalLM(config).init, jax.random.key(0)))
    hf.save_model(tmp_path / name, config, params)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / name, attn_implementation='eager').eval()
    with torch.no_grad():
      logits = theirs(torch.tensor(TOKENS),
                      attention_mask=torch.tensor(MASK).long()).logits
    golden[name] = logits[:, 6].numpy().round(5).tolist()
  if os.environ.get('ALIGNJAX_GOLDEN') == 'write':
    PATH.write_text(json.dumps(golden, indent=None) + '\n')
  stored = json.loads(PATH.read_text())
  assert stored.keys() == golden.keys()
  for name in golden:
    np.testing.assert_allclose(stored[name], golden[name], atol=2e-5)
