"""Reports: one self-contained HTML file per run."""

from alignjax.report.charts import BarChart
from alignjax.report.charts import Bars
from alignjax.report.charts import Histogram
from alignjax.report.charts import LineChart
from alignjax.report.charts import Series
from alignjax.report.page import render
from alignjax.report.page import Section
from alignjax.report.page import Table
from alignjax.report.page import Text
from alignjax.report.page import Transcript
from alignjax.report.page import Transcripts
from alignjax.report.page import write_report
from alignjax.report.sections import calibration
from alignjax.report.sections import testbed_report
from alignjax.report.sections import training_curves

__all__ = [
    'BarChart', 'Bars', 'Histogram', 'LineChart', 'Section', 'Series', 'Table',
    'Text', 'Transcript', 'Transcripts', 'calibration', 'render',
    'testbed_report', 'training_curves', 'write_report']
