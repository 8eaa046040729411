"""Measures of a model: gold score, win rate, calibration, signs of hacking."""

from alignjax.evaluation.benchmarks import choice_accuracy
from alignjax.evaluation.benchmarks import exact_match
from alignjax.evaluation.benchmarks import read_choices
from alignjax.evaluation.benchmarks import read_instructions
from alignjax.evaluation.benchmarks import read_pairs
from alignjax.evaluation.benchmarks import read_problems
from alignjax.evaluation.benchmarks import subset_accuracy
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
from alignjax.evaluation.exports import alpaca_annotations
from alignjax.evaluation.exports import alpaca_outputs
from alignjax.evaluation.exports import lm_eval_results
from alignjax.evaluation.gold import ModelScore
from alignjax.evaluation.gold import PARTS
from alignjax.evaluation.gold import score_model
from alignjax.evaluation.instructions import Following
from alignjax.evaluation.instructions import following
from alignjax.evaluation.overoptimization import best_of_n
from alignjax.evaluation.overoptimization import best_of_n_kl
from alignjax.evaluation.overoptimization import Fit
from alignjax.evaluation.overoptimization import fit_overoptimization
from alignjax.evaluation.responses import make_sequence_kl
from alignjax.evaluation.responses import mean_kl
from alignjax.evaluation.responses import read_prompts
from alignjax.evaluation.responses import read_responses
from alignjax.evaluation.responses import Response
from alignjax.evaluation.responses import sample_responses
from alignjax.evaluation.talk import make_label_logprobs
from alignjax.evaluation.talk import make_reply
from alignjax.evaluation.talk import make_response_logprobs
from alignjax.evaluation.talk import make_score
from alignjax.evaluation.winrates import compare
from alignjax.evaluation.winrates import length_controlled
from alignjax.evaluation.winrates import share_interval
from alignjax.evaluation.winrates import sign_test
from alignjax.evaluation.winrates import strengths

__all__ = [
    'PARTS',
    'Fit',
    'Following',
    'ModelScore',
    'ReliabilityBins',
    'Response',
    'alpaca_annotations',
    'alpaca_outputs',
    'best_of_n',
    'best_of_n_kl',
    'bootstrap_interval',
    'choice_accuracy',
    'compare',
    'correlation',
    'exact_match',
    'expected_calibration_error',
    'fit_overoptimization',
    'following',
    'length_controlled',
    'lm_eval_results',
    'make_label_logprobs',
    'make_reply',
    'make_response_logprobs',
    'make_score',
    'make_sequence_kl',
    'mean_kl',
    'pair_accuracy',
    'rank_correlation',
    'read_choices',
    'read_instructions',
    'read_pairs',
    'read_problems',
    'read_prompts',
    'read_responses',
    'reliability_bins',
    'sample_responses',
    'score_model',
    'share_interval',
    'sign_test',
    'strengths',
    'subset_accuracy',
    'win_rate',
    'win_rate_interval',
    'win_scores',
]
