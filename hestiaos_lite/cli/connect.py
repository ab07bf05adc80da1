"""From parsed arguments to what a call takes: text, JSON, a client, an outbox.

A setting that is not given is left to the environment, the profile and the defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional

from .. import _stdio
from ..errors import InvalidInput
from .parser import Arguments

if TYPE_CHECKING:
    from ..aegis.client import AegisClient
    from ..aegis.outbox import Outbox
    from ..client import Client


def read_stdin(what: str) -> str:
    """Read standard input to its end as UTF-8 (a byte-order mark is dropped); empty or undecodable is InvalidInput."""
    try:
        text = b"".join(_stdio.read_stdin()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput("{} on standard input is not UTF-8: {}".format(what, error)) from error
    if not text.strip():
        raise InvalidInput("{} on standard input is empty".format(what))
    return text


def text_or_stdin(text: str, what: str) -> str:
    """Return the argument, or standard input where it is ``-``; empty is InvalidInput."""
    if text == "-":
        return read_stdin(what)
    if not text.strip():
        raise InvalidInput("{} is empty".format(what))
    return text


def json_object(source: Optional[str], what: str) -> Optional[Dict[str, Any]]:
    """Read a JSON object given as JSON, as ``@file``, or as ``-`` for standard input; None stays None."""
    from .._json import NamedTwice, loads

    if source is None:
        return None
    if source == "-":
        source = read_stdin(what)
    elif source.startswith("@"):
        path = source[1:]
        try:
            with open(path, encoding="utf-8-sig") as file:
                source = file.read()
        except (OSError, ValueError) as error:
            raise InvalidInput("{}: the file {} cannot be read: {}".format(what, path, error)) from error
    try:
        value = loads(source)
    except NamedTwice as error:
        raise InvalidInput("{}: {}".format(what, error)) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("{} is not JSON: {}".format(what, error)) from error
    if not isinstance(value, dict):
        raise InvalidInput('{} must be a JSON object, like {{"amount": 42}}'.format(what))
    return value


def settings_of(args: Arguments, **more: str) -> Dict[str, Any]:
    """Return the settings that were given: those that both clients take, and ``more``, by the name of the argument."""
    given = {"base_url": args.base_url, "api_key": api_key(args)}
    for name, argument in dict({"timeout": "timeout", "profile": "profile"}, **more).items():
        given[name] = getattr(args, argument, None)
    return {name: value for name, value in given.items() if value is not None}


def api_key(args: Arguments) -> Optional[str]:
    """Return the API key of the arguments, or None to leave it to the environment and the profile."""
    key: Optional[str] = args.api_key
    if key is None and args.api_key_file is not None:
        from ..config import read_key_file

        key = read_key_file(args.api_key_file)
    return key


def open_client(args: Arguments) -> Client:
    """Make the HestiaOS client; raises InvalidInput for a malformed setting."""
    from ..client import Client

    client = Client(**settings_of(args, retries="retries"))
    args.asked_url = client.base_url
    return client


def open_aegis(args: Arguments, outbox: Optional[Outbox] = None) -> AegisClient:
    """Make the AEGIS client; raises InvalidInput for a malformed setting."""
    from ..aegis.client import AegisClient

    options = settings_of(args, max_retries="retries", tenant_id="tenant_id", thread_id="thread_id")
    client = AegisClient(outbox=outbox, **options)
    args.asked_url = client.base_url
    return client


def open_outbox(args: Arguments) -> Outbox:
    """Open the outbox file that ``--outbox`` names, with a lease longer than the longest call."""
    from .. import config
    from ..aegis.outbox import Outbox

    # whichever of argument, environment and profile gives it; what else they say is no matter here
    timeout_seconds = config.resolve(
        "aegis", base_url=config.DEFAULT_BASE_URL, api_key="", timeout=args.timeout, profile=args.profile
    ).timeout_seconds
    return Outbox(
        args.outbox, lease_seconds=max(60.0, 2 * timeout_seconds), busy_seconds=min(10.0, timeout_seconds)
    )
