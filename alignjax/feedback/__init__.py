"""Where preferences come from: annotators, their agreement, their votes."""

from alignjax.feedback.aggregation import bradley_terry
from alignjax.feedback.aggregation import dawid_skene
from alignjax.feedback.aggregation import DawidSkene
from alignjax.feedback.aggregation import majority_label
from alignjax.feedback.agreement import Agreement
from alignjax.feedback.agreement import agreement_interval
from alignjax.feedback.agreement import cohen_kappa
from alignjax.feedback.agreement import fleiss_kappa
from alignjax.feedback.agreement import krippendorff_alpha
from alignjax.feedback.annotation import agreement_matrix
from alignjax.feedback.annotation import agreement_rate
from alignjax.feedback.annotation import majority_vote
from alignjax.feedback.annotation import ranking_to_pairs
from alignjax.feedback.annotation import screen
from alignjax.feedback.annotation import Screening
from alignjax.feedback.annotation import Vote
from alignjax.feedback.rewards import final_number

__all__ = [
    'Agreement', 'DawidSkene', 'Screening', 'Vote', 'agreement_interval',
    'agreement_matrix', 'agreement_rate', 'bradley_terry', 'cohen_kappa',
    'dawid_skene', 'final_number', 'fleiss_kappa', 'krippendorff_alpha',
    'majority_label', 'majority_vote', 'ranking_to_pairs', 'screen']
