"""Measures of a model: gold score, win rate, calibration, their intervals."""

from alignjax.evaluation.bootstrap import bootstrap_interval
from alignjax.evaluation.bootstrap import win_rate
from alignjax.evaluation.bootstrap import win_rate_interval
from alignjax.evaluation.bootstrap import win_scores
from alignjax.evaluation.calibration import correlation
from alignjax.evaluation.calibration import expected_calibration_error
from alignjax.evaluation.calibration import pair_accuracy
from alignjax.evaluation.calibration import rank_correlation
from alignjax.evaluation.calibration import reliability_bins
from alignjax.evaluation.calibration import ReliabilityBins
from alignjax.evaluation.gold import ModelScore
from alignjax.evaluation.gold import PARTS
from alignjax.evaluation.gold import score_model

__all__ = ['ModelScore', 'PARTS', 'ReliabilityBins', 'bootstrap_interval',
           'correlation', 'expected_calibration_error', 'pair_accuracy',
           'rank_correlation', 'reliability_bins', 'score_model', 'win_rate',
           'win_rate_interval', 'win_scores']
