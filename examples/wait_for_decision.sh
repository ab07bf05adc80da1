#!/bin/sh
# A job waits for one decision whose request id it was handed, and runs a command once it is approved and committed.
# Rejected or failed is exit 1, still pending after an hour 75; the command does not run then.
#
# Usage: wait_for_decision.sh REQUEST_ID COMMAND [ARGUMENT]...
set -eu

request_id=$1
shift
hestiaos-lite hitl status "$request_id" --wait "${WAIT_SECONDS:-3600}" > /dev/null
exec "$@"
