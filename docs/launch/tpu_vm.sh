#!/bin/bash
# A slice of Cloud TPU VMs: the same command on every worker, which jax finds by
# itself.
#   MODEL=... PAIRS=... SOURCE=... bash docs/launch/tpu_vm.sh
set -euo pipefail
: "${NAME:=alignjax}" "${ZONE:=us-west4-a}" "${TYPE:=v5litepod-32}"
: "${VERSION:=v2-alpha-tpuv5-lite}" "${RUNS:=/mnt/shared/runs}"
: "${MODEL:?a Hugging Face folder that all workers see}"
: "${PAIRS:?a file of pairs that all workers see}"
: "${SOURCE:?what pip installs alignjax from: a wheel, or a repository}"

# Say first whether it fits; exit status 1 ends this before anything is rented.
alignjax plan --method dpo --model 7b --topology v5e:4x8 --batch 64 --length 1024

gcloud compute tpus tpu-vm create "$NAME" --zone "$ZONE" \
  --accelerator-type "$TYPE" --version "$VERSION" --spot
on_all() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command="$1"
}
on_all "pip install 'jax[tpu]' '$SOURCE'"
on_all "python -m experiments.dpo --workdir '$RUNS/dpo' --model '$MODEL' \
  --data '$PAIRS' --resume --mesh fsdp:-1 --dtype bfloat16 --remat \
  --attention-block 128 --chunk-size 128 --batch-size 64 --max-length 1024"
