#!/bin/sh
# A shell step that asks governance first: the command runs only if governance would allow it.
#
# Usage: guarded_step.sh rsync -a /srv/data /backup
set -eu

input=$(python3 -c 'import json, sys; print(json.dumps({"command": " ".join(sys.argv[1:])}))' "$@")
verdict=$(hestiaos-lite --json explain shell --input "$input") || exit $?
decision=$(printf '%s' "$verdict" | python3 -c 'import json, sys; print(json.load(sys.stdin)["decision"])')

if [ "$decision" = BLOCK ]; then
    echo "governance would block: $*" >&2
    exit 1
fi
exec "$@"
