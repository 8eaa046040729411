"""TFDS builders of public alignment datasets, one folder each.

  python -m alignjax.data.builders gsm8k --manual_dir=DOWNLOADED --data_dir=OUT

reads the files that lie in DOWNLOADED and writes OUT/gsm8k/main/1.0.0, which
`--data` takes like a file. See docs/tfds.md.
"""
