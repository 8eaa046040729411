"""Templates of strangers, and a bound on the time and memory they may take.

Jinja's own sandbox keeps a template from reaching out. It does not keep one
from running for ever, from writing `'a' * 10**10`, or from nesting a list in
itself forty times and printing it. Here every operation that makes something
is counted; limits.py has the bounds. A signal or an alarm would be simpler, but
works on the main thread only, and stops no single operation that fills the
memory.
"""

import contextvars
from typing import Any, NamedTuple

import jinja2
import jinja2.ext
import jinja2.nodes as nodes
import jinja2.sandbox
import jinja2.utils
import jinja2.visitor

from alignjax.hf import limits

_SOURCE = 100_000  # Characters; the longest that are shipped have 20,000.

# Filters that take longer than what they are given is long, or that draw at
# random. No chat template needs them.
_NO_FILTERS = ('pprint', 'random', 'striptags', 'urlize', 'wordwrap', 'xmlattr')
_NO_METHODS = frozenset((
    'encode', 'expandtabs', 'from_bytes', 'fromhex', 'maketrans', 'striptags',
    'to_bytes', 'translate', 'unescape'))


class Rendered(NamedTuple):
  """A text, and where `{% generation %}` stood in it."""

  text: str
  spans: tuple[tuple[int, int], ...]  # [start, end) in characters.


class Template(NamedTuple):
  """A template that may be rendered on any thread."""

  template: jinja2.Template
  marks_generation: bool  # Whether it says which text is the assistant's.

  def render(self, **variables) -> Rendered:
    """The text for these variables; raises what the template raises."""
    use = limits.Use(variables)
    token = _USE.set(use)
    try:
      for chunk in self.template.generate(**variables):
        use.chunks.append(chunk)
        use.length += len(chunk)
    finally:
      _USE.reset(token)
    return Rendered(''.join(use.chunks), tuple(use.spans))


def compile_template(source: str, **functions) -> Template:
  """The template in a sandbox where these functions are known too.

  Args:
    source: Jinja source.
    **functions: what it may call, and `tojson`, which is a filter.

  Raises:
    Exception: of any kind, as the parser and Python's own compiler find.
  """
  if len(source) > _SOURCE:
    raise limits.LimitError(
        f'it has {len(source):,} characters, and may have {_SOURCE:,}')
  env, plain = _Environment(), _Environment()
  plain.filters['tojson'] = functions.pop('tojson')
  for name in plain.filters.keys() - set(_NO_FILTERS):
    env.filters[name] = _guarded_filter(plain, name)
  for name in _NO_FILTERS:
    del env.filters[name]
  env.tests = {name: _guarded_test(plain, name) for name in plain.tests}
  env.globals |= functions
  tree = env.parse(source)
  marks = any(found.identifier == _Generation.identifier
              for found in tree.find_all(nodes.ExtensionAttribute))
  return Template(env.from_string(_Counting().visit(tree)), marks)


_USE: contextvars.ContextVar[limits.Use] = contextvars.ContextVar('use')


class _Namespace(jinja2.utils.Namespace):
  """A namespace that does not write out all that it holds."""

  def __repr__(self) -> str:
    return '<Namespace>'


class _Generation(jinja2.ext.Extension):
  """`{% generation %}` around assistant text: shows it, and says where it is.

  As in transformers, a span begins behind all that was written by the template
  itself; what a macro or a block has collected by then does not count.
  """

  tags = {'generation'}

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    call = self.call_method('mark')
    return nodes.CallBlock(call, [], [], body).set_lineno(line)

  def mark(self, caller) -> str:
    text, use = caller(), _USE.get()
    use.spans.append((use.length, use.length + len(text)))
    return text


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
  """Where every value that an operation makes is counted."""

  intercepted_binops = frozenset(('+', '*', '**', '%'))

  def __init__(self):
    super().__init__(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[_Generation, jinja2.ext.loopcontrols],
        finalize=_finalize)
    self.globals['namespace'] = _Namespace
    del self.globals['lipsum']

  def tick(self) -> None:
    """Called in every loop; what matters is that `call` was, too."""

  def counted(self, value: Any) -> Any:
    """Called around what an expression makes without a call."""
    return value  # As `call` has counted it.

  def joined(self, *operands: Any) -> str:
    """`a ~ b`: its operands were measured before they are written out."""
    return ''.join(map(str, operands))

  def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
    return attr not in _NO_METHODS and (
        super().is_safe_attribute(obj, attr, value))

  def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
    # Jinja's own would be written out as nothing, and nobody would hear of it.
    raise jinja2.sandbox.SecurityError(
        f'access to attribute {attribute!r} of a {type(obj).__name__} '
        'is unsafe')

  def is_safe_callable(self, obj: Any) -> bool:
    return getattr(obj, '__name__', None) not in _NO_METHODS and (
        super().is_safe_callable(obj))

  def getitem(self, obj: Any, argument: Any) -> Any:
    _USE.get().tick()
    return super().getitem(obj, argument)

  def call_binop(self, context, operator: str, left: Any, right: Any) -> Any:
    use = _USE.get()
    use.tick()
    if operator == '%' and isinstance(left, str):
      limits.foresee_percent(use, left, right)
    elif operator in ('*', '**'):
      limits.foresee_product(use, operator, left, right)
    return use.admit(super().call_binop(context, operator, left, right))

  # The names of the first arguments are not for a template to give.
  def call(__self, __context, __obj, *args, **kwargs) -> Any:  # noqa: N805
    use = _USE.get()
    use.tick()
    use.measure(args, kwargs)
    text = getattr(__obj, '__self__', None)
    if isinstance(text, str):
      args = limits.foresee_method(use, text, __obj.__name__, args)
    use.enter()
    try:
      return use.admit(super().call(__context, __obj, *args, **kwargs))
    finally:
      use.calls -= 1

  def wrap_str_format(self, value: Any) -> Any:
    wrapped = super().wrap_str_format(value)
    if wrapped is None:
      return None

    def formatted(*args, **kwargs):
      values = (*args, *kwargs.values())
      limits.foresee_format(_USE.get(), value.__self__, values)
      return wrapped(*args, **kwargs)

    return formatted


class _Counting(jinja2.visitor.NodeTransformer):
  """Puts a call where the compiler would write Python that nobody counts."""

  def visit(self, node: nodes.Node, *args, **kwargs) -> nodes.Node:
    self.generic_visit(node)
    match node:
      case nodes.For():
        tick = _call('tick', node.lineno)
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
      case nodes.TemplateData():  # As a constant it is for `_finalize` to see.
        return nodes.Const(node.data, lineno=node.lineno)
      case nodes.Concat():
        return _call('joined', node.lineno, *node.nodes)
      case (nodes.List() | nodes.Dict() | nodes.Tuple(ctx='load')
            | nodes.Getitem(arg=nodes.Slice())):
        return _call('counted', node.lineno, node)
    return node


def _call(method: str, line: int, *arguments: nodes.Expr) -> nodes.Call:
  """A node that calls a method of the environment."""
  function = nodes.EnvironmentAttribute(method, lineno=line)
  return nodes.Call(function, list(arguments), [], None, None, lineno=line)


@jinja2.pass_context
def _finalize(context, value: Any) -> Any:
  """Counts what is written, be it to the end or to a block that collects."""
  return _USE.get().admit(value)


def _guarded_filter(plain: _Environment, name: str):
  """The filter, foreseen and counted.

  It takes the context, so that the compiler does not run it on constants.
  """

  @jinja2.pass_context
  def guarded(context, value, *args, **kwargs):
    use = _USE.get()
    use.tick()
    value = limits.foresee_filter(use, name, value, args, kwargs)
    return use.admit(plain.call_filter(
        name, value, args, kwargs, context=context, eval_ctx=context.eval_ctx))

  return guarded


def _guarded_test(plain: _Environment, name: str):
  """The test, which `select` may ask of many items without a loop."""

  @jinja2.pass_context
  def guarded(context, value, *args, **kwargs):
    _USE.get().tick()
    return plain.call_test(
        name, value, args, kwargs, context=context, eval_ctx=context.eval_ctx)

  return guarded


