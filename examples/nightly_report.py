"""A nightly report: one run, its text on standard output, and an exit code that cron and systemd understand.

Usage: nightly_report.py "summarise yesterday's orders"
"""

import sys

from hestiaos_lite import Client, HestiaError


def main() -> int:
    prompt = " ".join(sys.argv[1:]) or "create a report"
    try:
        with Client(timeout=60) as client:
            answer = client.run(prompt)
    except HestiaError as error:
        # one line: what happened, whether it may have taken effect, and what to do next
        print(error, file=sys.stderr)
        return error.exit_code
    try:
        # in one piece: unbuffered, print would drop what a full disk has no room for and go on
        with open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False) as report:
            report.write(answer.text + "\n")
    except OSError as error:
        print("the report cannot be written: {}".format(error.strerror), file=sys.stderr)
        return 74
    return 0


if __name__ == "__main__":
    sys.exit(main())
