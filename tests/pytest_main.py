"""Runs pytest on the file given: what a py_test of BUILD calls as its main."""

import sys

import pytest

if __name__ == '__main__':
  sys.exit(pytest.main(sys.argv[1:]))
