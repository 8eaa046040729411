"""`alignjax annotate`: a local page for people's judgements."""

import contextlib
import dataclasses
import ipaddress
import pathlib
import secrets

from alignjax import feedback
from alignjax import metrics
from alignjax.types import InputError

RUBRIC = pathlib.Path(__file__).with_name('rubric.toml')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotate:
  """Serves a page on which people rank, choose or give thumbs.

  Each answer is on the disk before the page moves on; the same command goes on
  where it stopped. Several people may work at one time, each by a name of their
  own. `alignjax aggregate` makes preferences of the answers; see
  docs/annotation.md.
  """

  items: str  # JSONL of {"prompt", "responses": [...]} or of pairs.
  answers: str  # JSONL file of the answers; added to if it is there.
  rubric: str = ''  # TOML file; '' takes a general one, for rankings.
  host: str = '127.0.0.1'  # Address to listen on; others than this machine's
  # own ask for a token.
  port: int = 8765  # Of it; 0 takes any that is free.
  token: str = ''  # What a page's address must carry; '' makes one if needed.
  shuffle: bool = True  # Show responses in an order of each annotator's own.


def annotate(cfg: Annotate) -> None:
  """Serves; see `Annotate`."""
  if not 0 <= cfg.port < 2**16:
    raise InputError(f'port={cfg.port} is no port; use 0 to 65535')
  try:
    import uvicorn

    from alignjax import annotating
  except ImportError as error:
    raise InputError(f'annotate needs {error.name}; install it: pip install '
                     "'alignjax[annotate]'") from error
  rubric = feedback.read_rubric(cfg.rubric or RUBRIC)
  items = feedback.read_items(
      cfg.items, min_responses=1 if rubric.task == 'thumb' else 2)
  _check_shapes(items, rubric)
  token = cfg.token or ('' if _is_loopback(cfg.host)
                        else secrets.token_urlsafe(16))
  with contextlib.closing(annotating.Store(
      items, cfg.answers, shuffle=cfg.shuffle)) as store:
    server = uvicorn.Server(uvicorn.Config(
        annotating.make_app(store, rubric, token=token), host=cfg.host,
        port=cfg.port, log_level='critical', server_header=False,
        timeout_graceful_shutdown=2))
    try:
      listener = server.config.bind_socket()
    except SystemExit:
      raise InputError(
          f'port={cfg.port} of host={cfg.host} cannot be listened on; choose '
          'another, or 0 for any that is free') from None
    with listener:
      console = metrics.Console()
      console.note(f'{len(items)} items, {len(store.answers())} answers so far')
      console.note(f'open http://{cfg.host}:{listener.getsockname()[1]}/'
                   + (f'?token={token}' if token else ''))
      server.run(sockets=[listener])


def _check_shapes(items, rubric: feedback.Rubric) -> None:
  """A pair has two responses, and the page's keys reach nine."""
  least, most = {'pair': (2, 2), 'ranking': (2, 9), 'thumb': (1, 1)}[
      rubric.task]
  for item in items:
    if not least <= len(item.responses) <= most:
      raise InputError(
          f'{item.where}: {len(item.responses)} responses, and a {rubric.task} '
          f'is of {least if least == most else f"{least} to {most}"}; give '
          'another rubric, or other items')


def _is_loopback(host: str) -> bool:
  try:
    return host == 'localhost' or ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False
