"""From parsed arguments to a client: what was not given is left to the environment, the profile and the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional

from .. import config
from .parser import Arguments

if TYPE_CHECKING:
    from ..aegis.client import AegisClient
    from ..aegis.outbox import Outbox
    from ..client import Client


def open_client(args: Arguments) -> Client:
    """Make the HestiaOS client; raises InvalidInput for a malformed setting."""
    from ..client import Client

    options = common_options(args)
    if args.retries is not None:
        options["retries"] = args.retries
    client = Client(**options)
    args.asked_url = client.base_url
    return client


def open_aegis(args: Arguments, outbox: Optional[Outbox] = None) -> AegisClient:
    """Make the AEGIS client; raises InvalidInput for a malformed setting."""
    from ..aegis.client import AegisClient

    options = common_options(args)
    if args.retries is not None:
        options["max_retries"] = args.retries
    for name in ("tenant_id", "thread_id"):
        if getattr(args, name, None) is not None:
            options[name] = getattr(args, name)
    client = AegisClient(outbox=outbox, **options)
    args.asked_url = client.base_url
    return client


def open_outbox(args: Arguments) -> Outbox:
    """Open the outbox file that ``--outbox`` names, with a lease longer than the longest call."""
    from ..aegis.outbox import Outbox

    # whichever of argument, environment and profile gives it; what else they say is no matter here
    given = config.resolve(
        "aegis", base_url=config.DEFAULT_BASE_URL, api_key="", timeout=args.timeout, profile=args.profile
    )
    timeout_seconds = given.timeout_seconds
    return Outbox(
        args.outbox, lease_seconds=max(60.0, 2 * timeout_seconds), busy_seconds=min(10.0, timeout_seconds)
    )


def api_key(args: Arguments) -> Optional[str]:
    """Return the API key of the arguments, or None to leave it to the environment and the profile."""
    if args.api_key is None and args.api_key_file is not None:
        return config.read_key_file(args.api_key_file)
    key: Optional[str] = args.api_key
    return key


def common_options(args: Arguments) -> Dict[str, Any]:
    """Return the settings that both clients take, those that were given."""
    given = {
        "base_url": args.base_url,
        "api_key": api_key(args),
        "timeout": args.timeout,
        "profile": args.profile,
    }
    return {name: value for name, value in given.items() if value is not None}
