"""The testbed: a kitchen small enough to know the true reward.

Nobody knows the true reward of a real assistant. Here it is known: `judge`
scores any response, so alignment can be watched, and so can its failures. Only
the standard library is used; everything is a pure function of a seed and
has the same bytes on every machine.

    world = make_world(seed=0)
    documents = corpus(world, seed=0, num_documents=6_000)   # A base model.
    shown = demonstrations(world, seed=0, count=480)         # SFT.
    asked = prompts(world, 'train', count=384)               # Preferences, PPO.
    ranks = annotate(panel(seed=0)[0], world, asked[0], responses, seed=0)
    verdict = judge(world, prompts(world, 'test')[0], response)
"""

from alignjax.testbed.annotators import annotate as annotate
from alignjax.testbed.annotators import Annotator as Annotator
from alignjax.testbed.annotators import is_confident as is_confident
from alignjax.testbed.annotators import is_list as is_list
from alignjax.testbed.annotators import panel as panel
from alignjax.testbed.corpus import corpus as corpus
from alignjax.testbed.critics import constitution as constitution
from alignjax.testbed.critics import conversations as conversations
from alignjax.testbed.critics import critique as critique
from alignjax.testbed.critics import passes as passes
from alignjax.testbed.critics import PRINCIPLES as PRINCIPLES
from alignjax.testbed.demonstrations import demonstrations as demonstrations
from alignjax.testbed.demonstrations import flawed_response as flawed_response
from alignjax.testbed.judge import is_fabrication as is_fabrication
from alignjax.testbed.judge import is_ignorance as is_ignorance
from alignjax.testbed.judge import is_refusal as is_refusal
from alignjax.testbed.judge import judge as judge
from alignjax.testbed.judge import perfect_response as perfect_response
from alignjax.testbed.judge import Verdict as Verdict
from alignjax.testbed.prompts import KINDS as KINDS
from alignjax.testbed.prompts import Prompt as Prompt
from alignjax.testbed.prompts import prompts as prompts
from alignjax.testbed.vocabulary import chat_template as chat_template
from alignjax.testbed.vocabulary import SPECIALS as SPECIALS
from alignjax.testbed.vocabulary import tokenizer_json as tokenizer_json
from alignjax.testbed.vocabulary import vocabulary as vocabulary
from alignjax.testbed.world import make_world as make_world
from alignjax.testbed.world import SPLITS as SPLITS
from alignjax.testbed.world import World as World
