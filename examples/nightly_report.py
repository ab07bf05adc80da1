"""A nightly report: one run, its text on standard output, and an exit code that cron and systemd understand.

Usage: nightly_report.py "summarise yesterday's orders"
"""

import sys

from hestiaos_lite import (
    Client,
    ConnectionFailed,
    GovernanceBlock,
    HestiaError,
    RateLimited,
    RequestTimeout,
    ServerError,
)

DONE, REFUSED, UNKNOWN, TRY_AGAIN = 0, 1, 3, 75


def main() -> int:
    prompt = " ".join(sys.argv[1:]) or "create a report"
    with Client(timeout=60) as client:
        try:
            answer = client.run(prompt)
        except GovernanceBlock as error:
            print("refused: {}".format(error), file=sys.stderr)
            return REFUSED
        except (RateLimited, ServerError) as error:
            print(error, file=sys.stderr)
            # a gateway's 502 or 504 does not say what became of the request
            return UNKNOWN if error.status in (502, 504) else TRY_AGAIN
        except (ConnectionFailed, RequestTimeout) as error:
            print(error, file=sys.stderr)
            # delivered is False when the request certainly never arrived: then the next run of this job may send it
            return TRY_AGAIN if error.delivered is False else UNKNOWN
        except HestiaError as error:
            print(error, file=sys.stderr)
            return REFUSED
    print(answer.text)
    print("trace id {}".format(answer.trace_id), file=sys.stderr)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
