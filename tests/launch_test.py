"""The launch files of docs/launch: what runs, and what their tools say of them.

SkyPilot's and Kubernetes' own validators are asked where they are installed:
`pip install skypilot kubernetes-validate`.
"""

import importlib
import pathlib
import re
import shlex
import subprocess

import pytest
import tyro

_FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'docs' / 'launch'
_FILES = ('gke_jobset.yaml', 'skypilot.yaml', 'slurm.sbatch', 'tpu_vm.sh')


def read(name):
  return (_FOLDER / name).read_text('utf-8')


def command_of(name) -> list[str]:
  """The words after `python -m` of a file."""
  if name == 'gke_jobset.yaml':
    container, = pod_of(name)['containers']
    assert container['command'][:2] == ['python', '-m']
    return container['command'][2:] + container['args']
  text = read(name).replace('\\\n', ' ').replace('"\n', '\n')
  line = re.search(r'python -m ([^\n]*)', text)[1]
  return shlex.split(re.sub(r'\$\{?\w+\}?', 'x', line).rstrip('"'))


def pod_of(name):
  yaml = pytest.importorskip('yaml')
  job, = yaml.safe_load(read(name))['spec']['replicatedJobs']
  return job['template']['spec']['template']['spec']


def test_every_file_is_tried():
  assert sorted(path.name for path in _FOLDER.iterdir()) == sorted(_FILES)


@pytest.mark.parametrize('name', _FILES)
def test_the_command_is_one_of_ours_and_every_flag_is_known(name):
  script, *flags = command_of(name)
  config = importlib.import_module(script).Config
  cfg = tyro.cli(config, args=flags)
  assert cfg.resume and cfg.mesh == 'fsdp:-1' and cfg.dtype == 'bfloat16'


@pytest.mark.parametrize('name', ['slurm.sbatch', 'tpu_vm.sh'])
def test_the_shell_reads_it(name):
  subprocess.run(['bash', '-n', _FOLDER / name], check=True)


def test_hosts_times_chips_are_the_topology_s():
  yaml = pytest.importorskip('yaml')
  job, = yaml.safe_load(read('gke_jobset.yaml'))['spec']['replicatedJobs']
  spec = job['template']['spec']
  pod = pod_of('gke_jobset.yaml')
  chips = pod['containers'][0]['resources']['limits']['google.com/tpu']
  rows, columns = map(int, pod['nodeSelector'][
      'cloud.google.com/gke-tpu-topology'].split('x'))
  assert spec['parallelism'] == spec['completions']
  assert spec['parallelism'] * chips == rows * columns


def test_skypilot_takes_its_file():
  sky = pytest.importorskip('sky', reason='SkyPilot is not installed')
  task = sky.Task.from_yaml(str(_FOLDER / 'skypilot.yaml'))
  assert task.num_nodes == 2
  for name in ('COORDINATOR', 'NUM_PROCESSES', 'PROCESS_ID'):
    assert f'ALIGNJAX_{name}=' in task.run


def test_kubernetes_takes_the_job_in_the_jobset():
  yaml = pytest.importorskip('yaml')
  validator = pytest.importorskip(
      'kubernetes_validate', reason='kubernetes-validate is not installed')
  job, = yaml.safe_load(read('gke_jobset.yaml'))['spec']['replicatedJobs']
  validator.validate(
      {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'slice'},
       'spec': job['template']['spec']}, '1.32', strict=True)
