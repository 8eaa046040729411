"""Where preferences come from: annotators, their agreement, their votes."""

from alignjax.feedback.annotation import agreement_matrix
from alignjax.feedback.annotation import agreement_rate
from alignjax.feedback.annotation import majority_vote
from alignjax.feedback.annotation import ranking_to_pairs
from alignjax.feedback.annotation import screen
from alignjax.feedback.annotation import Screening
from alignjax.feedback.annotation import Vote
from alignjax.feedback.rewards import final_number

__all__ = ['Screening', 'Vote', 'agreement_matrix', 'agreement_rate',
           'final_number', 'majority_vote', 'ranking_to_pairs', 'screen']
