"""What a run trains of a model, and what stays: all weights, or adapters.

    full       params: every weight       base: None
    adapted    params: adapters           base: every other weight, frozen

The reference of an adapted policy is its base under the plain model: the same
arrays that the train step reads, so that it costs no memory.
"""

from collections.abc import Mapping
import dataclasses

import chex
import jax

from alignjax import sharding
from alignjax.models import CausalLM
from alignjax.models import freeze
from alignjax.models import lora
from alignjax.models import ScalarModel
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True)
class Trainee:
  """A model in two parts; `lora.join` puts them together."""

  model: CausalLM | ScalarModel  # With adapters, if there are any.
  params: chex.ArrayTree         # Where training starts; copied by it.
  axes: chex.ArrayTree           # Logical axes of `params`.
  base: chex.ArrayTree | None    # On the mesh; None if all is trained.
  folder: str                    # Where the base was read from.

  def whole(self, params: chex.ArrayTree) -> chex.ArrayTree:
    """The tree that the model reads, of the trained part."""
    return params if self.base is None else lora.join(self.base, params)

  def whole_shardings(self, trained: chex.ArrayTree) -> chex.ArrayTree:
    """The shardings of the tree that the model reads, of the trained part's."""
    if self.base is None:
      return trained
    return lora.join(shardings_of(self.base), trained)

  def reference(self, mesh: jax.sharding.Mesh) -> tuple[CausalLM, dict, dict]:
    """(model, params, shardings) before training, on the mesh."""
    model = CausalLM(_plain(self.model.config))
    if self.base is not None:
      return model, self.base, shardings_of(self.base)
    shardings = sharding.tree_shardings(mesh, self.model.axes(), self.params)
    params = freeze(sharding.put(self.params, shardings), model.config.dtype)
    return model, params, shardings

  def merged(self, params: chex.ArrayTree):
    """(model, params) without adapters, of the trained part."""
    config = self.model.config
    if config.lora is None:
      return self.model, params
    return (dataclasses.replace(self.model, config=_plain(config)),
            lora.merge(self.whole(params), config.lora))

  def with_head(self, key: jax.Array) -> 'Trainee':
    """A reward model on this policy: its head is trained whole."""
    # A reward model has no unembedding.
    config = dataclasses.replace(self.model.config, tie_embeddings=True)
    model = ScalarModel(config)
    drop = lambda tree: tree and {
        name: leaf for name, leaf in tree.items() if name != 'unembed'}
    params = model.init(key, drop(self.params))
    axes = {'backbone': drop(self.axes), 'head': model.axes()['head']}
    return dataclasses.replace(
        self, model=model, params=params, axes=axes,
        base=self.base and {'backbone': drop(self.base)})


def full(
    model: CausalLM | ScalarModel, params: chex.ArrayTree, folder: str
) -> Trainee:
  """All weights are trained."""
  return Trainee(model, params, model.axes(), None, folder)


def adapted(
    model: CausalLM, base: chex.ArrayTree, settings: lora.Lora, folder: str, *,
    mesh: jax.sharding.Mesh, key: jax.Array,
) -> Trainee:
  """New adapters, which change nothing yet, on a frozen base.

  Args:
    model: without adapters.
    base: its parameters on the mesh, quantized or not; not copied.
    settings: of the adapters.
    folder: where the base was read from.
    mesh: where the adapters are to lie.
    key: of their A's.

  Raises:
    InputError: the layers have none of the matrices that are to be adapted.
  """
  model = CausalLM(dataclasses.replace(model.config, lora=settings))
  make = lambda key: lora.split(model.init(key))[1]
  axes = lora.split(model.axes())[1]
  if not axes:
    raise InputError(
        f'lora_targets={" ".join(settings.targets) or "()"}: a layer of '
        f'{folder} has none of these, and nothing would be trained; name some '
        f'of {", ".join(lora.TARGETS)}')
  shardings = sharding.tree_shardings(mesh, axes, jax.eval_shape(make, key))
  params = jax.jit(make, out_shardings=shardings)(key)
  return Trainee(model, params, axes, base, folder)


def adapted_scalar(
    policy: Trainee, adapters: chex.ArrayTree, head: jax.Array,
    settings: lora.Lora, folder: str,
) -> Trainee:
  """A reward model that is adapters and a head over the policy's own base.

  Args:
    policy: whose base it reads; not copied.
    adapters: the reward model's, for the layers of that base.
    head: [D].
    settings: of these adapters; they may differ from the policy's.
    folder: where the adapters were read from.
  """
  config = dataclasses.replace(
      policy.model.config, lora=settings, tie_embeddings=True)
  model = ScalarModel(config)
  axes = {'backbone': lora.split(model.axes()['backbone'])[1],
          'head': model.axes()['head']}
  base = {'backbone': {name: leaf for name, leaf in policy.base.items()
                       if name != 'unembed'}}
  return Trainee(model, {'backbone': adapters, 'head': head}, axes, base,
                 folder)


def memory_of(roles: Mapping[str, chex.ArrayTree]) -> dict[str, int]:
  """Bytes of each role's parameters, an array that roles share counted once.

  It is the first role's that has it, so that the numbers sum to what is held.
  """
  seen, bytes_of = set(), {}
  for role, tree in roles.items():
    leaves = {id(x): x for x in jax.tree.leaves(tree)}
    bytes_of[role] = sum(
        x.nbytes for key, x in leaves.items() if key not in seen)
    seen |= leaves.keys()
  return bytes_of


def shardings_of(params: chex.ArrayTree) -> chex.ArrayTree:
  """The tree of the shardings that arrays have."""
  return jax.tree.map(lambda x: x.sharding, params)


def _plain(config):
  return dataclasses.replace(config, lora=None)
