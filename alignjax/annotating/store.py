"""Answers in a JSONL file that is only ever added to.

An answer is on the disk before its sender hears of it, so whatever a page has
shown as saved survives the server's end, also a kill in the middle of a line.
Of two answers to one item by one person the last one counts, and one that says
what the last one said is not written again: a page that asks twice, since it
did not hear, doubles nothing.
"""

from collections.abc import Sequence
import fcntl
import hashlib
import json
import os
import pathlib
import random
import threading
import time

from alignjax import feedback
from alignjax.types import InputError


class Store:
  """The items of one task, and everybody's answers."""

  def __init__(self, items: Sequence[feedback.Item],
               path: str | os.PathLike[str], *, shuffle: bool = True):
    """Opens the file and reads what is in it.

    Args:
      items: what is judged, in the order that everybody sees.
      path: `answers.jsonl`; made if absent. One process may have it open.
      shuffle: show an item's responses in an order of each annotator's own, so
        that standing first helps none. Answers are kept in the items' order.

    Raises:
      InputError: another process has the file, or a line of it is no answer.
    """
    self.items = list(items)
    self._by_id = {item.id: item for item in items}
    self._shuffle, self._lock = shuffle, threading.Lock()
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._file = self._path.open('a+b')
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      self._file.close()
      raise InputError(f'{path}: another server is writing to it; stop that, '
                       'or give another --answers') from None
    self._drop_half_line()
    self._answers = {}
    if self._path.stat().st_size:
      for answer in feedback.read_answers([self._path], self.items):
        self._answers[answer.annotator, answer.item] = answer

  def close(self) -> None:
    """Gives the file back."""
    self._file.close()

  def order(self, annotator: str, item: feedback.Item) -> list[int]:
    """Which response stands in each place of an annotator's page."""
    order = list(range(len(item.responses)))
    if self._shuffle:
      seed = hashlib.sha256(f'{annotator}\0{item.id}'.encode()).hexdigest()
      random.Random(seed).shuffle(order)
    return order

  def answer(self, annotator: str, name: str) -> feedback.Answer | None:
    """What somebody said to an item, if they did."""
    return self._answers.get((annotator, name))

  def item(self, name: str) -> feedback.Item | None:
    """The item of an id."""
    return self._by_id.get(name)

  def next_item(self, annotator: str) -> feedback.Item | None:
    """The first item that somebody has not answered or skipped."""
    return next((item for item in self.items
                 if (annotator, item.id) not in self._answers), None)

  def count(self, annotator: str) -> int:
    """Items that somebody has answered or skipped."""
    return sum(who == annotator for who, _ in self._answers)

  def answers(self) -> list[feedback.Answer]:
    """Everybody's answers that count."""
    return list(self._answers.values())

  def save(self, record: dict, seconds: float | None = None) -> bool:
    """Writes an answer; tells whether it was news.

    Args:
      record: as a line of `answers.jsonl`, in the items' order of responses.
      seconds: that it took.

    Raises:
      InputError: it is no answer to an item. Nothing is written.
    """
    answer = feedback.parse_answer(record, self._by_id, 'answer')
    key = answer.annotator, answer.item
    with self._lock:
      if self._answers.get(key) == answer:
        return False
      line = answer.record() | {'time': round(time.time(), 3)}
      if seconds is not None:
        line['seconds'] = round(seconds, 3)
      self._file.write(json.dumps(line, ensure_ascii=False).encode() + b'\n')
      self._file.flush()
      os.fsync(self._file.fileno())
      self._answers[key] = answer
    return True

  def _drop_half_line(self) -> None:
    """A kill can leave a line without its end, of which nobody has heard."""
    self._file.seek(0)
    text = self._file.read()
    whole = text.rfind(b'\n') + 1
    if whole < len(text):
      self._file.truncate(whole)
    self._file.seek(0, os.SEEK_END)
