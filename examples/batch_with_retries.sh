#!/bin/sh
# A file of inputs overnight: started again after any interruption, it goes on where it was, and sends nothing twice.
#
# Usage: batch_with_retries.sh inputs.jsonl results.jsonl failed.jsonl
set -u

tries=0
while :; do
    # --retry-failed resumes, too; of a first run there is nothing to resume
    hestiaos-lite batch "$1" --out "$2" --failed "$3" --retry-failed --jobs 4 --quiet
    code=$?
    tries=$((tries + 1))
    # 75 asks for another try later; whatever else it is, another try would not change it
    if [ "$code" -ne 75 ] || [ "$tries" -ge 3 ]; then exit "$code"; fi
    sleep "${PAUSE_SECONDS:-300}"
done
