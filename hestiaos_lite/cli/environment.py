"""environment: what of this machine keeps a job from working: its packages, and the way from here to a URL."""

from __future__ import annotations

import os
import platform
from typing import Iterator, NamedTuple, Tuple
from urllib.parse import urlsplit

from .._redact import bare_url
from .._version import __version__

_SAFE_URLLIB3 = (1, 26, 5)  # an older one has known vulnerabilities that a hostile service can use
_NEW_OPENSSL = (1, 1, 1)  # an older one has no TLS 1.3, and gets no mending


class Finding(NamedTuple):
    """One line: ``level`` is ok, note (works, but know it) or problem; ``cure`` says what to do, or is empty."""

    level: str
    check: str
    text: str
    cure: str = ""


def finding_of(level: str, check: str, message: object) -> Finding:
    """Part a message of ours, which may name its own cure."""
    text, _, cure = str(message).partition("; cure: ")
    return Finding(level, check, text, cure)


def packages() -> Iterator[Finding]:
    """Look at this package, Python and the dependencies; the first finding says whether a service can be asked at all."""
    try:
        import requests
        import urllib3

        from .. import sse  # noqa: F401 - it refuses the wrong package
    except ImportError as error:
        found = finding_of("problem", "packages", error)
        is_missing = isinstance(error, ModuleNotFoundError)  # any other error says itself what is wrong
        yield found._replace(cure="pip install requests sseclient-py") if is_missing else found
        return
    installed = str(vars(urllib3)["__version__"])
    versions = [
        "hestiaos-lite " + __version__,
        "Python " + platform.python_version(),
        "requests " + requests.__version__,
        "urllib3 " + installed,
        "sseclient-py " + _version_of("sseclient-py"),
    ]
    yield Finding("ok", "packages", ", ".join(versions))
    if _numbers(installed) < _SAFE_URLLIB3:
        text = "urllib3 {} has known vulnerabilities that a hostile service can exploit".format(installed)
        yield Finding("problem", "packages", text, "pip install 'urllib3>=1.26.5'")
    try:
        import ssl
    except ImportError:
        yield Finding("note", "tls", "this Python has no ssl: https cannot be used", "use another Python")
        return
    if ssl.OPENSSL_VERSION_INFO[:3] < _NEW_OPENSSL:
        cure = "use a Python that is built with OpenSSL 1.1.1 or later"
        yield Finding("problem", "tls", "{} is old, and has no TLS 1.3".format(ssl.OPENSSL_VERSION), cure)
    else:
        yield Finding("ok", "tls", ssl.OPENSSL_VERSION)


def way_to(url: str, has_key: bool, key_variable: str) -> Iterator[Finding]:
    """Look at what is between this machine and a URL: key in the clear, netrc, certificates, proxy."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_environ_proxies, get_netrc_auth, select_proxy

    from ..wire.connections import is_loopback

    host = urlsplit(url).hostname
    if has_key and url.startswith("http://") and not is_loopback(url):
        text = "the API key goes over plain http: anyone on the way can read it"
        yield Finding("problem", "key", text, "use an https URL")
    if get_netrc_auth(url) is not None:  # requests would send it
        text = "~/.netrc has an entry for {}, which this library never sends".format(host)
        cure = "" if has_key else "if it is meant for this service, set " + key_variable
        yield Finding("note", "netrc", text, cure)
    if url.startswith("https://"):
        variables = [name for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE") if os.environ.get(name)]
        bundle = os.environ[variables[0]] if variables else DEFAULT_CA_BUNDLE_PATH
        text = "{}{}".format(variables[0] + " names " if variables else "those of ", bundle)
        if not os.path.exists(bundle):
            cure = "name an existing file, or unset " + variables[0] if variables else "reinstall certifi"
            yield Finding("problem", "certificates", text + ", which does not exist", cure)
        else:
            yield Finding("note" if variables else "ok", "certificates", text)
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            if os.environ.get(name):
                text = "{} has no effect on requests".format(name)
                yield Finding("note", "certificates", text, "use REQUESTS_CA_BUNDLE")
    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy is not None and is_loopback(url):
        text = "{} is this machine: the environment's proxy is not used".format(host)
        yield Finding("ok", "proxy", text)
    elif proxy is not None:
        text = "the environment sends requests for {} through {}".format(host, bare_url(proxy))
        yield Finding("note", "proxy", text, "NO_PROXY={} goes past it".format(host))


def _version_of(package: str) -> str:
    try:
        from importlib.metadata import version

        return version(package)
    except ImportError:  # Python 3.7; or a package that is there without having been installed
        return "of an unknown version"


def _numbers(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
