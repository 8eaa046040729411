"""`python -m alignjax` is the `alignjax` command."""

from alignjax import cli

if __name__ == '__main__':
  cli.main()
