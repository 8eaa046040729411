"""Files of records become batches: read, tokenize, batch.

  pairs, reading = preferences('hh.jsonl.gz')
  rows, fitted = tokenize_preferences(pairs, tokenizer, max_length=512)
  batches = preference_batches(rows, batch_size=64, max_length=512, seed=0)
"""

from alignjax.data.batches import BatchSource
from alignjax.data.batches import check_batch_size
from alignjax.data.batches import demonstration_batches
from alignjax.data.batches import make_batches
from alignjax.data.batches import num_steps_per_epoch
from alignjax.data.batches import preference_batches
from alignjax.data.batches import prompt_batches
from alignjax.data.batches import ranking_batches
from alignjax.data.batches import unpaired_batches
from alignjax.data.collate import collate_demonstrations
from alignjax.data.collate import collate_preferences
from alignjax.data.collate import collate_prompts
from alignjax.data.collate import collate_rankings
from alignjax.data.collate import collate_unpaired
from alignjax.data.dedup import add_dropped
from alignjax.data.dedup import without_duplicates
from alignjax.data.dedup import without_test_prompts
from alignjax.data.dedup import without_test_rows
from alignjax.data.files import read_records
from alignjax.data.fitting import Fitted
from alignjax.data.formats import Demonstration
from alignjax.data.formats import demonstrations
from alignjax.data.formats import Document
from alignjax.data.formats import documents
from alignjax.data.formats import Format
from alignjax.data.formats import OnBadRecord
from alignjax.data.formats import Preference
from alignjax.data.formats import preferences
from alignjax.data.formats import PromptOnly
from alignjax.data.formats import prompts
from alignjax.data.formats import Ranking
from alignjax.data.formats import rankings
from alignjax.data.formats import Reading
from alignjax.data.formats import sniff
from alignjax.data.formats import Unpaired
from alignjax.data.formats import unpaired
from alignjax.data.layout import describe_layout
from alignjax.data.layout import Layout
from alignjax.data.layout import make_layout
from alignjax.data.mixture import mix
from alignjax.data.mixture import Mixture
from alignjax.data.mixture import parse_mixture
from alignjax.data.mixture import read_mixture
from alignjax.data.planned import make_prompt_layout
from alignjax.data.pretraining import pack_documents
from alignjax.data.pretraining import tokenize_documents
from alignjax.data.records import read_jsonl
from alignjax.data.rules import BadRecord
from alignjax.data.subsets import hold_out
from alignjax.data.tokenize import tokenize_demonstration
from alignjax.data.tokenize import tokenize_demonstrations
from alignjax.data.tokenize import tokenize_preference
from alignjax.data.tokenize import tokenize_preferences
from alignjax.data.tokenize import tokenize_prompt
from alignjax.data.tokenize import tokenize_prompts
from alignjax.data.tokenize import tokenize_rankings
from alignjax.data.tokenize import tokenize_unpaired
from alignjax.data.tokenize import TokenizedLabel
from alignjax.data.tokenize import TokenizedPair
from alignjax.data.tokenize import TokenizedPrompt
from alignjax.data.tokenize import TokenizedRanking
from alignjax.data.tokenize import TokenizedResponse
from alignjax.data.tokenize import Tokenizer
from alignjax.data.tokenize import Turns

__all__ = [
    'BadRecord',
    'BatchSource',
    'Demonstration',
    'Document',
    'Fitted',
    'Format',
    'Layout',
    'Mixture',
    'OnBadRecord',
    'Preference',
    'PromptOnly',
    'Ranking',
    'Reading',
    'TokenizedLabel',
    'TokenizedPair',
    'TokenizedPrompt',
    'TokenizedRanking',
    'TokenizedResponse',
    'Tokenizer',
    'Turns',
    'Unpaired',
    'add_dropped',
    'check_batch_size',
    'collate_demonstrations',
    'collate_preferences',
    'collate_prompts',
    'collate_rankings',
    'collate_unpaired',
    'demonstration_batches',
    'demonstrations',
    'describe_layout',
    'documents',
    'hold_out',
    'make_batches',
    'make_layout',
    'make_prompt_layout',
    'mix',
    'num_steps_per_epoch',
    'pack_documents',
    'parse_mixture',
    'preference_batches',
    'preferences',
    'prompt_batches',
    'prompts',
    'ranking_batches',
    'rankings',
    'read_jsonl',
    'read_mixture',
    'read_records',
    'sniff',
    'tokenize_demonstration',
    'tokenize_demonstrations',
    'tokenize_documents',
    'tokenize_preference',
    'tokenize_preferences',
    'tokenize_prompt',
    'tokenize_prompts',
    'tokenize_rankings',
    'tokenize_unpaired',
    'unpaired',
    'unpaired_batches',
    'without_duplicates',
    'without_test_prompts',
    'without_test_rows',
]
