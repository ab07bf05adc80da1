"""Settings: argument > environment > profile in the INI file > default, checked once, before anything is sent."""

from __future__ import annotations

import os
import re
import stat
import warnings
from typing import Any, Callable, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple, Union
from urllib.parse import urlsplit

from ._check import check_seconds, check_text, others, quoted
from ._redact import MASK, Secret, bare_url, secret
from .errors import InvalidInput

DEFAULT_BASE_URL = "http://localhost:8000"
_OF_HESTIAOS = ("base_url", "api_key", "api_key_file", "timeout")
_OF_AEGIS = (*_OF_HESTIAOS, "tenant_id", "thread_id")
KNOWN = (*_OF_HESTIAOS, *("aegis_" + name for name in _OF_AEGIS))  # what a section of the file may hold
# what may be shown of a file; any other value may be a key, a misspelt name's too
_SHOWN = ("timeout", "tenant_id", "thread_id")
_LARGEST_FILE = 1 << 20  # characters
CONFIGURATION = "CONFIGURATION"  # the code of an InvalidInput that a setting is to blame for


class NotGiven:
    """The default of a ``timeout`` parameter: environment and profile count, and where they are silent ``seconds``.

    A signature shows it as its number. It is no number, so that a caller's own 30.0 is never taken for it; it is known by
    an attribute, since one made before `importlib.reload` is of another class of the same name.
    """

    is_not_given = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __repr__(self) -> str:
        return repr(self.seconds)


HESTIAOS_TIMEOUT = NotGiven(30.0)
AEGIS_TIMEOUT = NotGiven(10.0)
_TIMEOUTS = {"hestiaos": HESTIAOS_TIMEOUT, "aegis": AEGIS_TIMEOUT}


class Settings(NamedTuple):
    """What one client is built from; `resolve` makes it.

    ``sources`` says of each setting where it came from: ``argument``, the variable, the key and section of a file, or
    ``default``.
    """

    base_url: str
    api_key: Optional[str]
    timeout_seconds: float
    tenant_id: Optional[str] = None
    thread_id: Optional[str] = None
    sources: Mapping[str, str] = {}


class Profile:
    """One section of the configuration file; without a file ``values`` is empty."""

    # no named tuple: to make such a class costs every start a five-hundredth
    def __init__(
        self, path: str, section: str, values: Mapping[str, str], fault: str = "", unread: str = ""
    ) -> None:
        self.path, self.section, self.values = path, section, values
        self.fault = fault  # why the file is not to be trusted with more than a timeout
        self.unread = unread  # why nothing was read from a file that is there, or may be


def resolve(
    service: str = "hestiaos",
    *,
    base_url: Optional[str] = None,
    api_key: Optional[str] = None,
    timeout: Union[float, NotGiven, None] = None,
    profile: Optional[str] = None,
    tenant_id: Optional[str] = None,
    thread_id: Optional[str] = None,
    mounted: Iterable[str] = (),
) -> Settings:
    """Resolve the settings of one service, ``hestiaos`` or ``aegis`` (docs/reference.md, "Configuration").

    The environment's names are ``HESTIAOS_BASE_URL`` and so on; the profile's keys are ``base_url`` and so on for
    HestiaOS, ``aegis_base_url`` and so on for AEGIS. An empty variable counts as not set.

    ``mounted`` are the prefixes of the adapters of the caller's session.

    Warns of a key in the file that is not a setting, of a file with an API key that others can read, and of one from which
    nothing was read.

    Raises:
        InvalidInput: a setting is malformed, or is in a file that others may write, or nobody names a base URL but a file
            from which nothing was read; its code is ``CONFIGURATION``.
    """
    base_url, api_key = secret(base_url), secret(api_key)
    file = read_profile(profile)
    sources: Dict[str, str] = {}

    def find(name: str, argument: Any = None) -> Any:
        """Return a setting, None where nobody has set it, and keep where it came from."""
        sources[name] = "default" if argument is None else "argument"
        if argument is not None:
            return argument
        spellings = (name, name + "_file") if name == "api_key" else (name,)
        for given in spellings:
            variable = "{}_{}".format(service, given).upper()
            if os.environ.get(variable):
                sources[name] = variable
                value = os.environ[variable] if given.endswith(_SHOWN) else Secret(os.environ[variable])
                return written(given, value, variable)
        for given in spellings:
            key = given if service == "hestiaos" else "{}_{}".format(service, given)
            if file.values.get(key):
                if file.fault and name != "timeout":
                    raise _configuration("{} would be read from it, but {}".format(key, file.fault))
                sources[name] = "{} in [{}] of {}".format(key, file.section, file.path)
                return written(given, file.values[key], sources[name], in_file=True)
        return None

    def written(name: str, value: Any, source: str, *, in_file: bool = False) -> Any:
        """Return a value as it was written, or what is in the key file that it names."""
        fault = "quotes around it, read as part of the value: leave them out"
        if in_file and re.search(r"\s[;#]", value):
            fault = "a comment behind it, read as part of the value: put a comment on its own line"
        elif not (len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"):
            return read_key_file(value) if name == "api_key_file" else value
        raise _configuration("{} has {} ({})".format(name, fault, source))

    def checked(name: str, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except InvalidInput as error:
            if sources[name] == "argument":
                raise
            raise _configuration("{} ({})".format(error.message, sources[name])) from None

    url = secret(find("base_url", base_url))
    if file.unread:
        if url is None:
            raise _configuration(file.unread)
        warnings.warn(file.unread, stacklevel=3)
    key = secret(find("api_key", api_key))
    seconds = find("timeout", None if getattr(timeout, "is_not_given", False) else timeout)
    return Settings(
        checked(
            "base_url", DEFAULT_BASE_URL if url is None else url, lambda url: check_base_url(url, mounted)
        ),
        checked("api_key", key, check_api_key),
        checked("timeout", _TIMEOUTS[service].seconds if seconds is None else seconds, check_timeout),
        find("tenant_id", tenant_id) if service == "aegis" else None,
        find("thread_id", thread_id) if service == "aegis" else None,
        sources,
    )


def check_base_url(url: Any, mounted: Iterable[str] = ()) -> str:
    """Return the URL without a trailing slash, or raise InvalidInput saying what is wrong with it.

    It is http or https, or of another kind of http that an adapter is ``mounted`` for, such as ``http+unix://``.
    """
    url = Secret(check_text("the base URL", url, code=CONFIGURATION).strip())
    fault = _fault_of(url, mounted)
    if fault:
        raise _configuration("the base URL {} {}".format(_bare(url), fault))
    return str.rstrip(url, "/")


def _fault_of(url: str, mounted: Iterable[str]) -> str:
    """Say what is wrong with a base URL; "" where nothing is. Its variables may show a password, and end with it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is malformed"
    others = tuple(prefix for prefix in mounted if prefix.startswith("http+"))
    is_http = parts.scheme in ("http", "https") or url.startswith(others)
    faults = {
        "must begin with http:// or https://": not is_http,
        "must not hold a user name or password; give the key as api_key": "@" in parts.netloc,
        "names no host": not host,
        "must not have a query or fragment": "?" in url or "#" in url,
        "must not contain white space": any(char.isspace() or ord(char) < 33 for char in url),
        "must not have dot segments": any(part in (".", "..") for part in parts.path.split("/")),
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")


def _bare(url: str) -> str:
    """Return a faulty URL fit for a message: a password may be where only a well-formed URL keeps none."""
    start, at, rest = url.rpartition("@")
    return MASK + at + bare_url("//" + rest)[2:] if at else bare_url(url)


def check_prefix(prefix: Any) -> str:
    """Return a path prefix as ``/api/v1``, or ``""``; nothing in it may turn the path into another."""
    parts = [part for part in check_text("api_prefix", prefix).split("/") if part]
    if any(part in (".", "..") or not re.match(r"[A-Za-z0-9._~-]+\Z", part) for part in parts):
        raise _configuration("the api_prefix {} is not a plain path such as /api/v1".format(quoted(prefix)))
    return "".join("/" + part for part in parts)


def check_api_key(key: Any) -> Optional[str]:
    """Return the key stripped, None for an empty one, or raise InvalidInput if it cannot be a header; never quote it."""
    if key is None:
        return None
    key = Secret(check_text("the API key", secret(key), code=CONFIGURATION).strip())
    if any(not 32 < ord(char) < 127 for char in key):
        raise _configuration(
            "the API key holds a character that cannot be in a header (space, line break, non-ASCII)"
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
    """Read an API key from a file, as a service manager's credential folder offers it.

    Warns if others can read it; if others may write to it, it is InvalidInput.
    """
    what = "the API key file {}".format(path)
    text, found = _read_file(path, what)
    fault = _distrust(found, what, path)
    if fault:
        raise _configuration(fault)
    key = Secret(text.strip())
    if not key:
        raise _configuration("{} is empty".format(what))
    if _others_can_read(found, path):
        warnings.warn("others can read {}; cure: chmod 600 {}".format(what, path), stacklevel=2)
    return key


def config_path() -> str:
    """Where the INI file is looked for: ``HESTIAOS_CONFIG``, else ``hestiaos/config.ini`` in the user's config folder."""
    named = os.environ.get("HESTIAOS_CONFIG")
    if named:
        return named
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(folder, "hestiaos", "config.ini")


def read_profile(profile: Optional[str] = None) -> Profile:
    """Return the profile's section of the INI file; empty when there is no file, or no section, and none was asked for."""
    path = config_path()
    asked = profile or os.environ.get("HESTIAOS_PROFILE")
    section = asked or "default"
    what = "the configuration file {}".format(path)
    is_named = bool(asked or os.environ.get("HESTIAOS_CONFIG"))
    if path == os.devnull:
        return Profile(path, section, {})
    try:
        os.lstat(path)  # a link that leads nowhere is meant to be a file
    except (FileNotFoundError, NotADirectoryError):
        if is_named:
            raise _configuration("{} does not exist".format(what)) from None
        return Profile(path, section, {})
    except (OSError, ValueError) as error:
        # sudo -u leaves HOME as it was: that folder is another user's
        unread = "{} cannot be reached: {}; cure: set HOME to this user's home, or HESTIAOS_CONFIG".format(
            what, getattr(error, "strerror", None) or error
        )
        if is_named:
            raise _configuration(unread) from None
        return Profile(path, section, {}, unread=unread)
    import configparser  # here: most jobs have no file, and start faster without

    text, found = _read_file(path, what)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next(
            (number for number, _ in getattr(error, "errors", ())), None
        )
        # the parser's own words would quote the line, key and all
        raise _configuration(
            "{} is malformed{}".format(what, " at line {}".format(line) if line else "")
        ) from None
    if asked and not parser.has_section(asked):
        raise _configuration("{} has no section [{}]".format(what, asked))
    values = {
        name: value if name.endswith(_SHOWN) else Secret(value)
        for name, value in (parser.items(section) if parser.has_section(section) else ())
    }
    for name in values:
        if name not in KNOWN:
            _warn_of_unknown(name, section, path)
    holds_key = any(key in parser[name] for name in parser for key in ("api_key", "aegis_api_key"))
    if holds_key and _others_can_read(found, path):
        warnings.warn(
            "others can read {}, which holds an API key; cure: chmod 600 {}".format(path, path), stacklevel=3
        )
    unread = ""
    if not parser.has_section(section) and (parser.sections() or parser.defaults()):
        known = ", ".join("[{}]".format(name) for name in parser.sections() or [parser.default_section])
        unread = "{} has no section [default], only {}; cure: call it that, or name a profile".format(
            what, known
        )
    return Profile(path, section, values, _distrust(found, what, path), unread)


def _warn_of_unknown(name: str, section: str, path: str) -> None:
    import difflib  # here: it is a slip of the pen

    likely = difflib.get_close_matches(name, KNOWN, 1)
    hint = "did you mean {}?".format(likely[0]) if likely else "known are {}".format(", ".join(KNOWN))
    warnings.warn("{!r} in [{}] of {} is not a setting; {}".format(name, section, path, hint), stacklevel=4)


def _read_file(path: str, what: str) -> Tuple[str, os.stat_result]:
    """Read a small text file; a FIFO or a device, which might keep us waiting, is refused."""
    try:
        nonblock = getattr(os, "O_NONBLOCK", 0)
        with open(
            path, encoding="utf-8-sig", opener=lambda name, flags: os.open(name, flags | nonblock)
        ) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _configuration("{} is not a regular file".format(what))
            text = Secret(file.read(_LARGEST_FILE + 1))
    except OSError as error:
        raise _configuration("{} cannot be read: {}".format(what, error.strerror or error)) from error
    except ValueError:  # not UTF-8, or a path with a zero byte; it holds the whole file
        text = None
    if text is None:
        raise _configuration("{} cannot be read: not UTF-8 text".format(what))
    if len(text) > _LARGEST_FILE:
        raise _configuration("{} is too large".format(what))
    return text, found


def _others_can_read(found: os.stat_result, path: str) -> bool:
    """False in systemd's credential folder, where an access list shows in the mode as if a group could read the file."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    is_credential = folder and os.path.dirname(os.path.abspath(path)) == os.path.abspath(folder)
    return os.name == "posix" and bool(found.st_mode & 0o044) and not is_credential


def _distrust(found: os.stat_result, what: str, path: str) -> str:
    """Say why a file must not decide who gets the key: somebody else may write it; "" where nobody else may."""
    owner, may_write = others(found)
    if owner:
        return "{} belongs to another user ({}); cure: make it your own".format(what, owner)
    if may_write:
        return "others may write to {}; cure: check what it holds, then chmod go-w {}".format(what, path)
    return ""


def _configuration(message: str) -> InvalidInput:
    return InvalidInput(message, code=CONFIGURATION)
