"""help: what --help says, as a command, and two pages that no command's help has room for."""

from __future__ import annotations

import functools

from .exits import DONE
from .output import Output
from .parser import EXIT_CODES, OUTPUT_OPTIONS, Arguments, Parser, build_parser, command_in

ENVIRONMENT = """\
environment variables; an argument wins over a variable, a variable over the configuration file

  HESTIAOS_BASE_URL, AEGIS_BASE_URL          URL of the service (default http://localhost:8000)
  HESTIAOS_API_KEY, AEGIS_API_KEY            API key
  HESTIAOS_API_KEY_FILE, AEGIS_API_KEY_FILE  file to read the API key from, where the variable above is not set
  HESTIAOS_TIMEOUT, AEGIS_TIMEOUT            total deadline of a call in seconds (default 30; AEGIS 10)
  AEGIS_TENANT_ID, AEGIS_THREAD_ID           tenant and thread of a decision
  HESTIAOS_CONFIG                            the configuration file (default hestiaos/config.ini in XDG_CONFIG_HOME,
                                             which is ~/.config by default)
  HESTIAOS_PROFILE                           the section of that file to use (default "default")
  HTTPS_PROXY, HTTP_PROXY, ALL_PROXY         the proxy; NO_PROXY names the hosts that are asked without one.
                                             A service on this machine is always asked without one
  REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE         file or folder with the certificate authorities to trust
  NO_COLOR, TERM=dumb                        no colours on a terminal; COLUMNS is the width of the help

hestiaos-lite doctor shows which of them are in use
"""
PAGES = {"environment": ENVIRONMENT, "exit-codes": EXIT_CODES}


def declare(parser: Parser) -> None:
    """Declare ``help``."""
    parser.takes = OUTPUT_OPTIONS
    help = "a command, such as run or hitl approve; or environment, or exit-codes"
    parser.add_argument("topic", nargs="*", metavar="TOPIC", help=help)
    parser.set_defaults(execute=_help)


def _help(args: Arguments, output: Output) -> int:
    topic = " ".join(args.topic)
    text = PAGES.get(topic) or build_parser(functools.reduce(command_in, args.topic, "")).format_help()
    output.result({"topic": topic, "text": text}, text=text)
    return DONE
