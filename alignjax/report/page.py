"""One HTML file that holds everything: no network, no script, no other file.

    write_report(path, title='DPO on pairs', sections=[
        Section('Learning', [Text('Loss fell.'), LineChart(...)]),
        Section('Answers', [Transcripts([...])])])

All text is escaped; what a model wrote cannot become markup.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import html
import os
import re
from typing import Any

import numpy as np

from alignjax import distributed
from alignjax.metrics import format_value
from alignjax.report import charts
from alignjax.report import style


@dataclasses.dataclass(frozen=True)
class Text:
  """Paragraphs, parted by empty lines."""

  body: str


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of texts and numbers; the first column names the row."""

  columns: Sequence[str]
  rows: Sequence[Sequence[Any]]
  title: str = ''
  caption: str = ''


@dataclasses.dataclass(frozen=True)
class Transcript:
  """One prompt and what each model answered."""

  prompt: str
  responses: Mapping[str, str]              # By model.
  kind: str = ''
  scores: Mapping[str, float] | None = None  # By model.


@dataclasses.dataclass(frozen=True)
class Transcripts:
  """The same prompts answered by each model, side by side."""

  items: Sequence[Transcript]
  colors: Mapping[str, int] | None = None  # By model; in order if None.


Chart = charts.LineChart | charts.BarChart | charts.Histogram
Block = Text | Table | Transcripts | Chart
_CHARTS = (charts.LineChart, charts.BarChart, charts.Histogram)


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading that the navigation leads to, and what stands below it."""

  title: str
  blocks: Sequence[Block]


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    sections: Sequence[Section],
    lead: str = '',
) -> None:
  """Writes a self-contained HTML report.

  The file is replaced as a whole, so that a browser never sees half of it. The
  same arguments give the same bytes.

  Args:
    path: where; its folder is made.
    title: heading of the page.
    sections: in reading order; neighbouring charts share a row.
    lead: one sentence under the title.
  """
  path = os.fspath(path)
  text = render(title=title, sections=sections, lead=lead)

  def write():
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    part = path + '.part'
    with open(part, 'w', encoding='utf-8', errors='replace') as file:
      file.write(text)
    os.replace(part, path)

  distributed.by_first(write)


def render(*, title: str, sections: Sequence[Section], lead: str = '') -> str:
  """The report as one string of HTML; arguments as for `write_report`."""
  anchors = _anchors([section.title for section in sections])
  links = ''.join(
      f'<li><a href="#{anchor}">{_escape(section.title)}</a></li>'
      for anchor, section in zip(anchors, sections, strict=True))
  body = ''.join(
      f'<section><h2 id="{anchor}">{_escape(section.title)}</h2>\n'
      f'{_blocks(section.blocks)}</section>\n'
      for anchor, section in zip(anchors, sections, strict=True))
  lead = f'<p class="lead">{_escape(lead)}</p>' if lead else ''
  return (
      '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
      '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
      f'<title>{_escape(title)}</title>\n<style>{style.CSS}</style>\n</head>\n'
      f'<body>\n<header><h1>{_escape(title)}</h1>{lead}</header>\n'
      f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n'
      f'<main>\n{body}</main>\n<footer></footer>\n</body>\n</html>\n')


def _blocks(blocks: Sequence[Block]) -> str:
  """Blocks in order, runs of charts gathered in a grid."""
  parts, row = [], []
  for block in [*blocks, None]:
    if isinstance(block, _CHARTS):
      row.append(_figure(block))
      continue
    if row:
      parts.append(f'<div class="charts">{"".join(row)}</div>\n')
      row = []
    if isinstance(block, Text):
      parts += [f'<p>{_escape(paragraph)}</p>\n'
                for paragraph in re.split(r'\n\s*\n', block.body.strip())]
    elif isinstance(block, Table):
      parts.append(_table(block))
    elif isinstance(block, Transcripts):
      parts += [_exchange(item, block.colors or {}) for item in block.items]
    elif block is not None:
      raise TypeError(f'{type(block).__name__} is no block of a report.')
  return ''.join(parts)


def _figure(chart: Chart) -> str:
  wide = ' class="wide"' if getattr(chart, 'wide', False) else ''
  caption = (f'<figcaption>{_escape(chart.caption)}</figcaption>'
             if chart.caption else '')
  return (f'<figure{wide}><h3>{_escape(chart.title)}</h3>{charts.draw(chart)}'
          f'{caption}</figure>\n')


def _table(table: Table) -> str:
  """A table that scrolls sideways rather than break the page."""
  is_number = [
      index > 0 and all(_is_numeric(row[index]) for row in table.rows)
      for index in range(len(table.columns))]

  def cell(tag, content, index):
    kind = ' class="number"' if is_number[index] else ''
    scope = {'th': ' scope="row"', 'td': ''}[tag]
    return f'<{tag}{scope}{kind}>{_escape(format_value(content))}</{tag}>'

  head = ''.join(
      f'<th scope="col"{" class=number" if numeric else ""}>{_escape(name)}'
      '</th>' for name, numeric in zip(table.columns, is_number, strict=True))
  body = ''.join(
      '<tr>' + ''.join(cell('td' if index else 'th', content, index)
                       for index, content in enumerate(row)) + '</tr>\n'
      for row in table.rows)
  title = f'<caption>{_escape(table.title)}</caption>' if table.title else ''
  note = (f'<p class="note">{_escape(table.caption)}</p>\n'
          if table.caption else '')
  return (f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead>\n'
          f'<tbody>{body}</tbody></table></div>\n{note}')


def _exchange(item: Transcript, colors: Mapping[str, int]) -> str:
  """A prompt over the models' answers, each in its model's colour."""
  answers = []
  for index, (model, response) in enumerate(item.responses.items()):
    score = (item.scores or {}).get(model)
    shown = '' if score is None else f'<span class="score">{score:.2f}</span>'
    color = colors.get(model, index) % charts.NUM_COLORS
    answers.append(
        f'<div class="c{color}"><h4>{shown}{_escape(model)}</h4>'
        f'<span>{_escape(response)}</span></div>')
  kind = f'<span class="kind">{_escape(item.kind)}</span>' if item.kind else ''
  return (f'<div class="exchange"><p>{kind}{_escape(item.prompt)}</p>'
          f'<div class="answers">{"".join(answers)}</div></div>\n')


def _is_numeric(content: Any) -> bool:
  """Numbers, and texts that begin with one or stand for none."""
  if isinstance(content, (int, float, np.number)):
    return not isinstance(content, bool)
  return bool(re.match(r'[−+-]?[\d.]|–$|nan', str(content)))


def _anchors(titles: Sequence[str]) -> list[str]:
  """Distinct ids made of the titles' letters and digits."""
  anchors = []
  for number, title in enumerate(titles, 1):
    words = re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')
    anchor = words or f'section-{number}'
    anchors.append(f'{anchor}-{number}' if anchor in anchors else anchor)
  return anchors


def _escape(content: str) -> str:
  return html.escape(str(content))
