#!/bin/sh
# A person decides, a job acts. Until the deadline anybody who may approves, on any machine:
#
#     hestiaos-lite hitl approve invoice-42-eur-1200
#
# At the deadline the job concludes the key: somebody has approved it, or from now on nobody can. Both need AEGIS_BASE_URL,
# AEGIS_TENANT_ID and AEGIS_THREAD_ID, the crontab too (examples/crontab has them, and a PATH). Running it again is safe, and silent once it is paid, so that its line in the crontab, for the
# evening of 27 November and to be taken out afterwards, may be:
# 0,15,30 18 27 11 *  /opt/hestiaos-lite/bin/pay_if_approved.sh invoice-42-eur-1200 /var/lib/hestiaos-lite pay 1200
# The amount is twice in it: in the key, which is what people approve, and in what is paid.
#
# Usage: pay_if_approved.sh KEY FOLDER PAY [ARGUMENT]...       ends with the exit code of `hitl conclude`, or of PAY
set -u
key=$1 folder=$2
shift 2
case $key in */*) echo "a key with a slash has no mark in $folder: $key" >&2; exit 2 ;; esac

outcome=$(hestiaos-lite hitl conclude -q --timeout 600 --retries 300 "$key") || {
    code=$?
    if [ -n "$outcome" ]; then echo "$key is not paid: $outcome" >&2; fi # else an error has been shown
    exit "$code"
}

# An approval does not reserve the action, and this job may be killed at any line: the payer is given the key, and pays once per key.
# The mark is made after that, and only saves asking again.
[ ! -e "$folder/paid-$key" ] || exit 0
"$@" --idempotency-key "$key" && : > "$folder/paid-$key"
