"""Files of records become batches: read, tokenize, batch.

  pairs, reading = preferences('hh.jsonl.gz')
  rows, fitted = tokenize_preferences(pairs, tokenizer, max_length=512)
  batches = preference_batches(rows, batch_size=64, max_length=512, seed=0)
"""

from alignjax.data.batches import (
    BatchSource,
    check_batch_size,
    demonstration_batches,
    make_batches,
    num_steps_per_epoch,
    preference_batches,
    prompt_batches,
)
from alignjax.data.collate import (
    collate_demonstrations,
    collate_preferences,
    collate_prompts,
)
from alignjax.data.formats import (
    Demonstration,
    Format,
    Preference,
    PromptOnly,
    Reading,
    Unpaired,
    demonstrations,
    preferences,
    prompts,
    sniff,
    unpaired,
)
from alignjax.data.records import read_jsonl
from alignjax.data.tokenize import (
    Fitted,
    TokenizedPair,
    TokenizedPrompt,
    TokenizedResponse,
    Tokenizer,
    pack_documents,
    tokenize_demonstration,
    tokenize_demonstrations,
    tokenize_documents,
    tokenize_preference,
    tokenize_preferences,
    tokenize_prompt,
    tokenize_prompts,
)

__all__ = [
    'BatchSource',
    'Demonstration',
    'Fitted',
    'Format',
    'Preference',
    'PromptOnly',
    'Reading',
    'TokenizedPair',
    'TokenizedPrompt',
    'TokenizedResponse',
    'Tokenizer',
    'Unpaired',
    'check_batch_size',
    'collate_demonstrations',
    'collate_preferences',
    'collate_prompts',
    'demonstration_batches',
    'demonstrations',
    'make_batches',
    'num_steps_per_epoch',
    'pack_documents',
    'preference_batches',
    'preferences',
    'prompt_batches',
    'prompts',
    'read_jsonl',
    'sniff',
    'tokenize_demonstration',
    'tokenize_demonstrations',
    'tokenize_documents',
    'tokenize_preference',
    'tokenize_preferences',
    'tokenize_prompt',
    'tokenize_prompts',
    'unpaired',
]
