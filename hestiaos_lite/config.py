"""Settings: argument > environment > profile in the INI file > default, checked once, before anything is sent."""

from __future__ import annotations

import os
import re
from typing import Any, Mapping, NamedTuple, Optional, Tuple, Union
from urllib.parse import urlsplit

from ._check import check_seconds, check_text
from ._redact import MASK, bare_url
from .errors import InvalidInput

DEFAULT_BASE_URL = "http://localhost:8000"
CONFIGURATION = "CONFIGURATION"  # the code of an InvalidInput that a setting is to blame for


class NotGiven:
    """The default of a ``timeout`` parameter: environment and profile count, and where they are silent ``seconds``.

    A signature shows it as its number. It is no number, so that a caller's own 30.0 is never taken for it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __repr__(self) -> str:
        return repr(self.seconds)


HESTIAOS_TIMEOUT = NotGiven(30.0)
AEGIS_TIMEOUT = NotGiven(10.0)
_TIMEOUTS = {"hestiaos": HESTIAOS_TIMEOUT, "aegis": AEGIS_TIMEOUT}


class Settings(NamedTuple):
    """What one client is built from; `resolve` makes it."""

    base_url: str
    api_key: Optional[str]
    timeout_seconds: float
    tenant_id: Optional[str] = None
    thread_id: Optional[str] = None

    def __repr__(self) -> str:
        return "Settings(base_url={!r}, api_key={}, timeout_seconds={!r})".format(
            self.base_url, "***" if self.api_key else None, self.timeout_seconds
        )


def resolve(
    service: str = "hestiaos",
    *,
    base_url: Optional[str] = None,
    api_key: Optional[str] = None,
    timeout: Union[float, NotGiven, None] = None,
    profile: Optional[str] = None,
    tenant_id: Optional[str] = None,
    thread_id: Optional[str] = None,
) -> Settings:
    """Resolve the settings of one service, ``hestiaos`` or ``aegis`` (docs/reference.md, "Configuration").

    The environment's names are ``HESTIAOS_BASE_URL`` and so on; the profile's keys are ``base_url`` and so on for
    HestiaOS, ``aegis_base_url`` and so on for AEGIS. An empty variable counts as not set.

    Raises:
        InvalidInput: a setting is malformed; its code is ``CONFIGURATION``.
    """
    section = read_profile(profile)
    prefix = "" if service == "hestiaos" else service + "_"

    def setting(name: str, argument: Any = None) -> Any:
        if argument is not None:
            return argument
        return os.environ.get("{}_{}".format(service, name).upper()) or section.get(prefix + name) or None

    key: Optional[str] = api_key
    variable = service.upper() + "_API_KEY"
    sources: Tuple[Tuple[Mapping[str, str], str, str], ...] = (
        (os.environ, variable, variable + "_FILE"),
        (section, prefix + "api_key", prefix + "api_key_file"),
    )
    for source, key_name, file_name in sources:
        if key is None:
            key = source.get(key_name) or None
        if key is None and source.get(file_name):
            key = read_key_file(source[file_name])
    url = setting("base_url", base_url)
    seconds = setting("timeout", None if isinstance(timeout, NotGiven) else timeout)
    return Settings(
        check_base_url(DEFAULT_BASE_URL if url is None else url),
        check_api_key(key),
        _TIMEOUTS[service].seconds if seconds is None else check_timeout(seconds),
        setting("tenant_id", tenant_id),
        setting("thread_id", thread_id),
    )


def check_base_url(url: Any) -> str:
    """Return the URL without a trailing slash, or raise InvalidInput saying what is wrong with it."""
    if not isinstance(url, str):
        raise _configuration("the base URL must be a string, not {}".format(type(url).__name__))
    url = str.strip(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _configuration("the base URL is malformed: {}".format(_shown(url))) from error
    fault = ""
    if parts.scheme not in ("http", "https"):
        fault = "must begin with http:// or https://"
    elif "@" in parts.netloc:
        fault = "must not hold a user name or password; give the key as api_key"
    elif not host:
        fault = "names no host"
    elif parts.query or parts.fragment or "?" in url or "#" in url:
        fault = "must not have a query or fragment"
    elif any(char.isspace() or ord(char) < 33 for char in url):
        fault = "must not contain white space"
    elif any(part in (".", "..") for part in parts.path.split("/")):
        fault = "must not have dot segments"
    if fault:
        raise _configuration("the base URL {} {}".format(_shown(url), fault))
    return str.rstrip(url, "/")


def _shown(url: str) -> str:
    """Return a faulty URL fit for a message: a password may stand where only a well-formed URL keeps none."""
    start, at, rest = url.rpartition("@")
    return MASK + at + bare_url("//" + rest)[2:] if at else bare_url(url)


def check_prefix(prefix: Any) -> str:
    """Return a path prefix as ``/api/v1``, or ``""``; nothing in it may turn the path into another."""
    parts = [part for part in check_text("api_prefix", prefix).split("/") if part]
    if any(part in (".", "..") or not re.match(r"[A-Za-z0-9._~%-]+\Z", part) for part in parts):
        raise _configuration("the api_prefix {!r} is not a plain path such as /api/v1".format(prefix))
    return "".join("/" + part for part in parts)


def check_api_key(key: Any) -> Optional[str]:
    """Return the key stripped, None for an empty one, or raise InvalidInput if it cannot be a header; never quote it."""
    if key is None:
        return None
    if not isinstance(key, str):
        raise _configuration("the API key must be a string, not {}".format(type(key).__name__))
    key = key.strip()
    if any(not 32 < ord(char) < 127 for char in key):
        raise _configuration(
            "the API key holds a character that cannot stand in a header (space, line break, non-ASCII)"
        )
    return key or None


def check_timeout(seconds: Any) -> float:
    """Return the timeout as a float; the environment and a file give it as text."""
    if isinstance(seconds, str):
        try:
            seconds = float(seconds)
        except ValueError:
            pass  # refused below, as it was written
    return check_seconds("the timeout", seconds, code=CONFIGURATION)


def read_key_file(path: str) -> str:
    """Read an API key from a file, as a service manager's credential folder offers it."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            key = file.read(65536).strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise _configuration("the API key file {} cannot be read: {}".format(path, _why(error))) from error
    if not key:
        raise _configuration("the API key file {} is empty".format(path))
    return key


def config_path() -> str:
    """Where the INI file is looked for: ``HESTIAOS_CONFIG``, else ``hestiaos/config.ini`` in the user's config folder."""
    named = os.environ.get("HESTIAOS_CONFIG")
    if named:
        return named
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(folder, "hestiaos", "config.ini")


def read_profile(profile: Optional[str] = None) -> Mapping[str, str]:
    """Return the profile's section of the INI file; empty when there is no file and none was asked for."""
    path = config_path()
    name = profile or os.environ.get("HESTIAOS_PROFILE")
    if not os.path.exists(path):
        if name or os.environ.get("HESTIAOS_CONFIG"):
            raise _configuration("the configuration file {} does not exist".format(path))
        return {}
    import configparser  # here: most jobs have no file, and start faster without

    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8-sig") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError) as error:
        raise _configuration(
            "the configuration file {} cannot be read: {}".format(path, _why(error))
        ) from error
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(
            (number for number, _ in getattr(error, "errors", ())), None
        )
        where = (
            " at line {}".format(line) if line else ""
        )  # the parser's own words would quote the line, key and all
        raise _configuration("the configuration file {} is malformed{}".format(path, where)) from None
    if name and not parser.has_section(name):
        raise _configuration("the configuration file {} has no section [{}]".format(path, name))
    section = name or "default"
    return dict(parser.items(section)) if parser.has_section(section) else {}


def exposed_key_file() -> Optional[str]:
    """Return the path of an INI file that holds a key and that others may read, or None."""
    path = config_path()
    try:
        mode = os.stat(path).st_mode
        if os.name != "posix" or not mode & 0o044:
            return None
        with open(path, encoding="utf-8", errors="replace") as file:
            keys = [line.partition("=")[0].partition(":")[0].strip().lower() for line in file]
    except OSError:
        return None  # a file that cannot be read is read_profile's to report
    return path if "api_key" in keys or "aegis_api_key" in keys else None


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8 text"


def _configuration(message: str) -> InvalidInput:
    return InvalidInput(message, code=CONFIGURATION)
