#!/bin/bash
# Runs on each host of a TPU VM at each boot. What was set up is not set up again; what was trained is not trained again.
set -uo pipefail
# SETTINGS
HERE=${VIT_ATTN_HERE:-/opt/vit_attn}
WORK="$HERE/runs/$SWEEP"
EVERY=${VIT_ATTN_EVERY:-30}  # seconds between two looks at the bucket
mkdir -p "$WORK" && cd "$HERE" || exit 1
exec >>"$HERE/startup.log" 2>&1
export HOME=${HOME:-/root}

try() {  # a network may fail: five times, ever longer apart
  for pause in 1 4 16 64; do "$@" && return; sleep $((pause * EVERY / 30)); done
  "$@"
}

set_up() {
  gcloud storage cp "$CODE" code.tar && tar -xf code.tar &&
    python3 -m pip install --quiet uv && python3 -m uv venv --quiet --allow-existing --python 3.12 .venv &&
    python3 -m uv pip install --quiet --python .venv/bin/python -r requirements-tpu.txt && touch ready
}

# Only what this pack's worker writes: the others' files here are as old as this machine.
push() {
  for member in "${MEMBERS[@]}"; do
    gcloud storage rsync --recursive --exclude='^(checkpoints|refused_checkpoints)/|^\.lock$' "$WORK/$member" "$MIRROR/$member"
  done
  for file in "jobs/$PACK.jsonl" "logs/$PACK.log"; do
    [ -e "$WORK/$file" ] && gcloud storage cp "$WORK/$file" "$MIRROR/$file"
  done
}

RANK=$(curl -sf -H 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number || echo 0)
export VIT_ATTN_RANK=$RANK
[ -e ready ] || try set_up || exit 1
try gcloud storage rsync --recursive --exclude='(^|/)(checkpoints|refused_checkpoints)/|^stop$' "$MIRROR" "$WORK" || exit 1

rm -f "$WORK/stop"
.venv/bin/python -m launch.worker "$WORK" "$PACK" --submission "$SUBMISSION" &
WORKER=$!
trap 'kill -TERM $WORKER' TERM  # the machine is wanted back
(
  while sleep "$EVERY"; do
    gcloud storage cp "$MIRROR/stop" "$WORK/stop" 2>/dev/null
    [ "$RANK" = 0 ] && push
  done
) &
LOOKER=$!
wait $WORKER; EXIT=$?
while kill -0 $WORKER 2>/dev/null; do wait $WORKER; EXIT=$?; done  # the signal ended the first wait
kill $LOOKER
[ "$RANK" = 0 ] || exit 0
try push
case $EXIT in
  3 | 143) ;;  # the machine is wanted back: the launcher asks for another one
  *) gcloud compute tpus queued-resources delete "$RESOURCE" --zone="$ZONE" --force --async --quiet ;;
esac
