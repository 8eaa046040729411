"""The tiny model for benchmarks is a whole one."""

from alignjax import runs
from benchmarks import tiny


def test_a_tiny_model_reads_and_speaks_what_it_was_made_of(
    pairs_file, tmp_path):
  tiny.main(tiny.Config(
      model=str(tmp_path / 'tiny'), data=pairs_file, vocab_size=300))
  model, _, tokenizer = runs.load_policy(str(tmp_path / 'tiny'))
  assert model.config.vocab_size == tokenizer.vocab_size <= 300
  assert model.config.num_layers == 4
  text = 'Naïve ☃, and any other byte.'
  assert tokenizer.decode(tokenizer.encode(text)) == text
