"""What `generate` and `score` share: few shapes."""

from alignjax.commands import common


def test_widths_are_few_and_hold_at_most_half_as_much_again():
  widths = [common.bucket(length) for length in range(1, 1025)]
  assert all(w >= length for length, w in enumerate(widths, start=1))
  assert all(w < 1.5 * length for length, w in enumerate(widths, start=1)
             if length > 24)
  assert sorted(set(widths)) == [
      24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
