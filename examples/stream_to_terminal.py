"""Print a stream token by token; Ctrl-C ends it at once, and half an answer is never taken for a whole one.

Usage: stream_to_terminal.py "create a report"
"""

import sys

from hestiaos_lite import Client, GovernanceBlock, StreamInterrupted, is_error_event


def main() -> int:
    prompt = " ".join(sys.argv[1:]) or "create a report"
    with Client() as client:
        try:
            with client.run_stream(prompt, timeout=120) as events:
                for event in events:
                    if is_error_event(event):
                        print("\nthe run failed: {}".format(dict(event.data)), file=sys.stderr)
                        return 1
                    print(event.text, end="", flush=True)
        except GovernanceBlock as error:
            print(error, file=sys.stderr)
            return 1
        except StreamInterrupted as error:
            print("\n{}".format(error), file=sys.stderr)
            return 76
        except KeyboardInterrupt:
            return 130
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
