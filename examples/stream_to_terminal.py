"""Print a stream token by token; Ctrl-C ends it at once, and half an answer is never taken for a whole one.

Usage: stream_to_terminal.py "create a report"
"""

import os
import sys

from hestiaos_lite import Client, HestiaError, is_error_event


def main() -> int:
    prompt = " ".join(sys.argv[1:]) or "create a report"
    try:
        with Client() as client, client.run_stream(prompt, timeout=120) as events:
            for event in events:
                if is_error_event(event):
                    print("\nthe run failed: {}".format(dict(event.data)), file=sys.stderr)
                    return 1
                print(event.text, end="", flush=True)
        print(flush=True)
    except HestiaError as error:
        print("\n{}".format(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader has gone, as with `| head`: nowhere takes what Python would flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
