"""`alignjax serve`: an OpenAI-compatible server of a folder."""

import dataclasses
import pathlib
from typing import Literal

from alignjax import metrics
from alignjax import serving
from alignjax import sharding
from alignjax.hf import files as hf_files
from alignjax.types import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
  """Serves a model's samples over HTTP, until it is interrupted.

  OpenAI's /v1/completions with token ids, logprobs and seeds; see
  docs/engines.md. It has no authentication, so think before --host 0.0.0.0.
  """

  model: str  # Hugging Face model folder.
  host: str = '127.0.0.1'  # Address to listen on.
  port: int = 8000  # Of it; 0 takes any that is free.
  max_batch: int = 128  # Requests sampled together.
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # Of weights and matmuls.
  mesh: str = 'data:-1'  # By axis: data, fsdp, sequence, tensor; -1: the rest.


def serve(cfg: Serve) -> None:
  """Serves; see `Serve`."""
  if not 0 <= cfg.port < 2**16 or cfg.max_batch < 1:
    raise InputError(f'port={cfg.port}, max_batch={cfg.max_batch}: a port is '
                     'from 0 to 65535, and a batch has 1 request or more')
  hf_files.require_folder(pathlib.Path(cfg.model))
  sampler = serving.Sampler(
      cfg.model, dtype=cfg.dtype, mesh=sharding.make_mesh(cfg.mesh),
      max_batch=cfg.max_batch)
  server = serving.make_server(
      sampler, pathlib.Path(cfg.model).name, host=cfg.host, port=cfg.port)
  metrics.Console().note(
      f'serving {cfg.model} at http://{cfg.host}:{server.server_port}')
  try:
    server.serve_forever()
  finally:
    server.server_close()
