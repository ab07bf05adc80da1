"""A decision that can be rerun: this job approves by itself, waits until that is committed, and acts once.

It is for a job that has decided; where a person decides, see pay_if_approved.sh. The idempotency key is made of what is
decided, the amount too, so that every run of this job on the same invoice has the same key, and the outbox holds a decision
that could not be sent. Run it from cron as often as you like.

Usage: rerunnable_decision.py OUTBOX INVOICE_NUMBER AMOUNT
"""

import os
import sys

import hestiaos_lite as hestia

TRY_AGAIN = 75


def pay_once(invoice: str, amount: str, key: str, folder: str) -> None:
    """Pay, then make a mark, which saves asking again; killed in between, the next run pays under the same key."""
    mark = os.path.join(folder, "paid-" + key[:16])
    if os.path.exists(mark):
        print("invoice {} was paid before".format(invoice))
        return
    # stand-in for the real action: the system that pays gets the key, and pays once per key
    print("paid invoice {}: {}, under key {}".format(invoice, amount, key[:16]))
    with open(mark, "w"):
        pass


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    path, invoice, amount = sys.argv[1:]
    key = hestia.idempotency_key("invoice", invoice, amount=amount)
    try:
        with hestia.Outbox(path) as outbox, hestia.AegisClient(outbox=outbox, thread_id="invoices") as client:
            result = client.approve(key, payload={"invoice": invoice, "amount": amount})
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
    pay_once(invoice, amount, key, os.path.dirname(os.path.abspath(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
