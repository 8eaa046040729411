"""Tests of the page: one file, well formed, nothing from outside."""

import html.parser
import re

import pytest

from alignjax import report

_EVIL = '</span><script>alert("1")</script><img src=x onerror=alert(2)>'
_VOID = {'meta', 'link', 'img', 'br'}


class _Page(html.parser.HTMLParser):
  """Collects tags and text, and checks that every tag is closed in turn."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.texts, self._open = [], [], [], []
    self.feed(text)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs
    if tag not in _VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data)


def _everything(text='plain'):
  """A report with every kind of block, `text` wherever text can stand."""
  return report.render(title=text, lead=text, sections=[
      report.Section(text, [
          report.Text(f'{text}\n\n{text}'),
          report.Table((text, 'n'), [(text, 1)], title=text, caption=text),
          report.LineChart(
              text, [report.Series(text, [0, 1], [1, 2]),
                     report.Series(f'{text} 2', [0, 1], [1, 2])],
              text, text, text, marks=True),
          report.BarChart(text, [text], [report.Bars(text, [1]),
                                         report.Bars('b', [2])], text, text),
          report.Histogram(text, {text: [1, 2], 'b': [1]}, text, text),
          report.Transcripts([report.Transcript(
              text, {text: text, 'b': ''}, text, {text: 0.5})]),
      ])])


def test_every_block_is_well_formed_html():
  page = _Page(_everything())
  assert page.tags.count('svg') == 3 and page.tags.count('table') == 1
  assert page.tags.count('h1') == page.tags.count('h2') == 1


def test_what_a_model_wrote_cannot_become_markup():
  plain, evil = _Page(_everything()), _Page(_everything(_EVIL))
  assert evil.tags == plain.tags
  assert 'script' not in evil.tags and 'img' not in evil.tags
  assert any(_EVIL in text for text in evil.texts)


def test_the_page_needs_no_network_no_script_and_no_other_file():
  text = _everything()
  assert not re.search(r'https?:|//|url\(|@import|<script|<link', text)
  names = {name for name, _ in _Page(text).attributes}
  assert not names & {'src', 'srcset', 'data', 'xlink:href'}
  assert not any(name.startswith('on') for name in names)


def test_navigation_leads_to_every_section():
  text = report.render(title='t', sections=[
      report.Section(title, []) for title in ('A b', 'A b', '日本', 'C')])
  attributes = _Page(text).attributes
  targets = [value[1:] for name, value in attributes if name == 'href']
  ids = [value for name, value in attributes if name == 'id']
  assert targets == ids and len(set(ids)) == 4


def test_light_and_dark_define_the_same_colours():
  light, dark = re.findall(r':root\{([^}]*)\}', _everything())
  names = [set(re.findall(r'--[a-z0-9]+', part)) for part in (light, dark)]
  assert names[0] == names[1] and len(names[0]) == 13


def _luminance(color):
  channels = [int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in channels]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_can_be_read_on_its_page():
  for part in re.findall(r':root\{([^}]*)\}', _everything()):
    colors = dict(re.findall(r'--([a-z0-9]+):(#[0-9a-f]{3,6});', part))
    page = _luminance(colors['page'].replace('#fff', '#ffffff')
                      if len(colors['page']) == 4 else colors['page'])
    for name in ['ink', 'soft', *(f'c{i}' for i in range(8))]:
      low, high = sorted([page, _luminance(colors[name])])
      assert (high + 0.05) / (low + 0.05) >= 4.5, (name, colors[name])


def test_numbers_are_rounded_and_flush_right_and_names_are_not():
  text = report.render(title='t', sections=[report.Section('s', [report.Table(
      ('model', 'gold', 'note'), [('sft', 0.123456, 'x'), ('ppo', '–', '1')],
  )])])
  assert '<td class="number">0.1235</td>' in text
  assert '<th scope="row">sft</th>' in text and '<td>x</td>' in text


def test_writing_makes_the_folder_and_leaves_one_file(tmp_path):
  path = tmp_path / 'new' / 'report.html'
  for _ in range(2):
    report.write_report(path, title='t', sections=[])
  assert [file.name for file in path.parent.iterdir()] == ['report.html']
  assert path.read_text('utf-8') == report.render(title='t', sections=[])


def test_a_lone_surrogate_from_a_tokenizer_does_not_stop_the_report(tmp_path):
  report.write_report(tmp_path / 'r.html', title='a\ud800b', sections=[])
  assert 'a?b' in (tmp_path / 'r.html').read_text('utf-8')


def test_something_that_is_no_block_is_refused():
  with pytest.raises(TypeError, match='str is no block'):
    report.render(title='t', sections=[report.Section('s', ['text'])])
