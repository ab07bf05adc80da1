"""A decision that can be rerun: this job approves by itself, waits until that is committed, and acts once.

It is for a job that has decided; where a person decides, see pay_if_approved.sh. The idempotency key is made of what is
decided, so that every run of this job on the same invoice has the same key, and the outbox holds a decision that could not
be sent. Run it from cron as often as you like.

Usage: rerunnable_decision.py OUTBOX INVOICE_NUMBER YYYY-MM-DD
"""

import os
import sys

import hestiaos_lite as hestia

TRY_AGAIN = 75


def pay_once(invoice: str, key: str, folder: str) -> None:
    """Stand-in for the real action, which takes the same key: a file that only the first can make."""
    try:
        os.close(os.open(os.path.join(folder, "paid-" + key[:16]), os.O_CREAT | os.O_EXCL))
        print("paid invoice {}".format(invoice))
    except FileExistsError:
        print("invoice {} was paid before".format(invoice))


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    path, invoice, date = sys.argv[1:]
    key = hestia.idempotency_key("invoice", invoice, date=date)
    try:
        with hestia.Outbox(path) as outbox, hestia.AegisClient(outbox=outbox, thread_id="invoices") as client:
            result = client.approve(key, payload={"invoice": invoice, "date": date})
            if result.queued:
                print("the service is away; the approval waits in {}".format(path), file=sys.stderr)
                return TRY_AGAIN
            status = client.wait(result.request_id, timeout=30)
    except hestia.HestiaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if not status.done:
        return TRY_AGAIN
    if not status.approved:
        print("invoice {} was not approved: {}".format(invoice, status.status), file=sys.stderr)
        return 1
    pay_once(invoice, key, os.path.dirname(os.path.abspath(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
