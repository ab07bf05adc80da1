"""A legacy service with a pool of threads: one client shared by all, one deadline a call, one log line a failure.

Usage: threaded_service.py < inputs.txt     (one input a line; the answers come in the same order)
"""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from hestiaos_lite import Client, HestiaError

log = logging.getLogger("service")


def handle(client: Client, text: str) -> Optional[str]:
    """One unit of work, as a worker thread does it."""
    try:
        return client.run(text).text
    except HestiaError as error:
        # one line: what happened, whether it may have taken effect, and the request id, which is in the service's log too
        log.error("%s", error)
        return None


def main() -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    lines = [line.strip() for line in sys.stdin if line.strip()]
    failed = 0
    try:
        client = Client(timeout=30)
    except HestiaError as error:  # a setting is at fault
        log.error("%s", error)
        return error.exit_code
    with client, ThreadPoolExecutor(8) as pool:
        for text, answer in zip(lines, pool.map(lambda line: handle(client, line), lines)):
            failed += answer is None
            print("{}\t{}".format(text, "-" if answer is None else answer))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
