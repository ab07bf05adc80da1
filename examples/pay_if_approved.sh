#!/bin/sh
# A person decides, a job acts. Until its hour anybody who may does, on any machine:
#
#     hestiaos-lite hitl approve invoice-42
#
# At its hour the job concludes the key: somebody has approved it, or from now on nobody can. Running it again is safe, so that
# its line in the crontab may be: 0,15,30 18 * * *  pay_if_approved.sh invoice-42 /var/lib/hestiaos-lite
#
# Usage: pay_if_approved.sh KEY FOLDER
set -u

outcome=$(hestiaos-lite hitl conclude -q --timeout 600 --retries 300 "$1") || {
    code=$?
    if [ -n "$outcome" ]; then echo "$1 is not paid: $outcome" >&2; fi # else an error has been shown
    exit "$code"
}

# Stand-in for the real action, which must be safe to repeat: an approval is no claim, and two jobs that conclude one key are
# both told "approved". Only the first of them makes this file.
if (set -C && : > "$2/paid-$1") 2> /dev/null; then echo "paid $1"; else echo "$1 was paid before"; fi
