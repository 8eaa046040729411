"""Where preferences come from: people, models, and what both say together."""

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
from alignjax.feedback.answers import Answer
from alignjax.feedback.answers import Item
from alignjax.feedback.answers import item_id
from alignjax.feedback.answers import parse_answer
from alignjax.feedback.answers import parse_item
from alignjax.feedback.answers import read_answers
from alignjax.feedback.answers import read_items
from alignjax.feedback.constitution import choice_question
from alignjax.feedback.constitution import Principle
from alignjax.feedback.constitution import principle_judge
from alignjax.feedback.constitution import read_constitution
from alignjax.feedback.constitution import revise
from alignjax.feedback.constitution import Transcript
from alignjax.feedback.exchange import export_items
from alignjax.feedback.exchange import import_answers
from alignjax.feedback.judges import AnswerCache
from alignjax.feedback.judges import both_orders
from alignjax.feedback.judges import Comparison
from alignjax.feedback.judges import EndpointJudge
from alignjax.feedback.judges import Judge
from alignjax.feedback.judges import label_judge
from alignjax.feedback.judges import parse_verdict
from alignjax.feedback.judges import rubric_question
from alignjax.feedback.judges import score_judge
from alignjax.feedback.judges import Verdict
from alignjax.feedback.panels import aggregate
from alignjax.feedback.panels import agreement_table
from alignjax.feedback.panels import make_panel
from alignjax.feedback.panels import Method
from alignjax.feedback.panels import Pair
from alignjax.feedback.panels import Panel
from alignjax.feedback.panels import screen_panel
from alignjax.feedback.rewards import final_number
from alignjax.feedback.rubrics import read_rubric
from alignjax.feedback.rubrics import Rubric
from alignjax.feedback.thumbs import Digest
from alignjax.feedback.thumbs import digest
from alignjax.feedback.thumbs import Labeled
from alignjax.feedback.thumbs import read_thumbs
from alignjax.feedback.thumbs import Thumb

__all__ = [
    'Agreement', 'Answer', 'AnswerCache', 'Comparison', 'DawidSkene', 'Digest',
    'EndpointJudge', 'Item', 'Judge', 'Labeled', 'Method', 'Pair', 'Panel',
    'Principle', 'Rubric', 'Screening', 'Thumb', 'Transcript', 'Verdict',
    'Vote', 'aggregate', 'agreement_interval', 'agreement_matrix',
    'agreement_rate', 'agreement_table', 'both_orders', 'bradley_terry',
    'choice_question', 'cohen_kappa', 'dawid_skene', 'digest', 'export_items',
    'final_number', 'fleiss_kappa', 'import_answers', 'item_id',
    'krippendorff_alpha', 'label_judge', 'majority_label', 'majority_vote',
    'make_panel', 'parse_answer', 'parse_item', 'parse_verdict',
    'principle_judge', 'ranking_to_pairs', 'read_answers', 'read_constitution',
    'read_items', 'read_rubric', 'read_thumbs', 'revise', 'rubric_question',
    'score_judge', 'screen', 'screen_panel']
