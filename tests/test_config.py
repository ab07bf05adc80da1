"""config.py: where a setting comes from, and what is wrong with a bad one, before anything is sent."""

from __future__ import annotations

import os
import re
import warnings

import pytest

from hestiaos_lite import Client, InvalidInput, config
from hestiaos_lite.config import Settings, check_api_key, check_base_url, check_timeout, resolve

INI = """\
[default]
base_url = http://ini:1
api_key = ini-key
timeout = 11
aegis_base_url = http://ini-aegis:1
aegis_api_key = ini-aegis-key
aegis_tenant_id = ini-tenant
aegis_thread_id = ini-thread

[work]
base_url = http://work:1
api_key = 100%key
timeout = 12
"""


@pytest.fixture
def ini(monkeypatch, tmp_path):
    """Write an INI file that HESTIAOS_CONFIG names."""

    def write(text, mode=0o600):
        path = tmp_path / "config.ini"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        path.chmod(mode)
        monkeypatch.setenv("HESTIAOS_CONFIG", str(path))
        return str(path)

    return write


def configuration_error(call, *args, **kwargs):
    """The message of the InvalidInput that a bad setting raises."""
    with pytest.raises(InvalidInput) as caught:
        call(*args, **kwargs)
    error = caught.value
    assert (error.code, error.status, error.delivered, error.attempts) == ("CONFIGURATION", None, False, 0)
    return error.message


def resolved(*args, **kwargs):
    """What `resolve` returns, without where it came from."""
    return resolve(*args, **kwargs)._replace(sources={})


def test_the_defaults():
    assert resolved() == Settings("http://localhost:8000", None, 30.0, None, None)
    assert resolved("aegis") == Settings("http://localhost:8000", None, 10.0, None, None)


def test_argument_over_environment_over_profile_over_default(monkeypatch, ini):
    ini(INI)
    assert resolved() == Settings("http://ini:1", "ini-key", 11.0)
    monkeypatch.setenv("HESTIAOS_PROFILE", "work")
    assert resolved() == Settings("http://work:1", "100%key", 12.0)
    assert resolved(profile="default") == Settings("http://ini:1", "ini-key", 11.0)
    monkeypatch.setenv("HESTIAOS_BASE_URL", "http://env:1")
    monkeypatch.setenv("HESTIAOS_API_KEY", "env-key")
    monkeypatch.setenv("HESTIAOS_TIMEOUT", "13")
    assert resolved() == Settings("http://env:1", "env-key", 13.0)
    given = resolved(base_url="http://arg:1/", api_key="arg-key", timeout=14)
    assert given == Settings("http://arg:1", "arg-key", 14.0)
    assert resolved(api_key="") == Settings("http://env:1", None, 13.0)  # an empty key says: none
    for name in ("HESTIAOS_BASE_URL", "HESTIAOS_API_KEY", "HESTIAOS_TIMEOUT", "HESTIAOS_PROFILE"):
        monkeypatch.setenv(name, "")
    assert resolved() == Settings("http://ini:1", "ini-key", 11.0)  # an empty variable counts as not set


def test_each_setting_is_looked_up_by_itself(monkeypatch, ini):
    ini("[default]\napi_key = ini-key\n")
    monkeypatch.setenv("HESTIAOS_TIMEOUT", "2.5")
    assert resolved(base_url="http://arg:1") == Settings("http://arg:1", "ini-key", 2.5)


def test_aegis_has_names_of_its_own(monkeypatch, ini):
    monkeypatch.setenv("HESTIAOS_BASE_URL", "http://hestia:1")
    monkeypatch.setenv("HESTIAOS_API_KEY", "hestia-key")
    assert resolved("aegis") == Settings("http://localhost:8000", None, 10.0)
    ini(INI)
    of_file = Settings("http://ini-aegis:1", "ini-aegis-key", 10.0, "ini-tenant", "ini-thread")
    assert resolved("aegis") == of_file
    for name in ("BASE_URL", "API_KEY", "TENANT_ID", "THREAD_ID"):
        monkeypatch.setenv("AEGIS_" + name, "http://env:1" if name == "BASE_URL" else "env-" + name.lower())
    of_environment = Settings("http://env:1", "env-api_key", 10.0, "env-tenant_id", "env-thread_id")
    assert resolved("aegis") == of_environment
    assert resolve("aegis", tenant_id="arg-t", thread_id="arg-h")[3:5] == ("arg-t", "arg-h")


def test_the_file_is_looked_for_in_the_users_folder(monkeypatch, tmp_path):
    folder = tmp_path / "elsewhere" / "hestiaos"
    folder.mkdir(parents=True)
    (folder / "config.ini").write_text(INI)
    (folder / "config.ini").chmod(0o600)
    assert resolve().base_url == "http://localhost:8000"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert resolve().base_url == "http://ini:1"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config.config_path() == os.path.join(os.environ["HOME"], ".config", "hestiaos", "config.ini")


# fmt: off
@pytest.mark.parametrize(("check", "given", "value"), [
    *[(check_api_key, *row) for row in ((None, None), ("", None), (" \t\n", None), ("k", "k"), ("  k-1_~!  \n", "k-1_~!"))],
    (check_base_url, "http://h", "http://h"),
    (check_base_url, "https://h:8443/", "https://h:8443"),
    (check_base_url, " http://h/base/path// \n", "http://h/base/path"),
    (check_base_url, "HTTP://H", "HTTP://H"),
    (check_base_url, "http://[::1]:80", "http://[::1]:80"),
    (check_base_url, "http://héllo.example", "http://héllo.example"),
    *[(check_timeout, *row) for row in ((5, 5.0), (0.25, 0.25), ("7", 7.0), (" 1e3 ", 1000.0))],
])
# fmt: on
def test_what_is_good_is_taken_without_what_is_around_it(check, given, value):
    assert check(given) == value


def test_the_client_takes_its_settings_from_here(ini):
    ini(INI.replace("http://", "https://"))
    client = Client(profile="work")
    assert (client.base_url, client.timeout) == ("https://work:1", 12.0)
    assert Client(timeout=30.0, profile="work").timeout == 30.0  # said, though it is the default's value
    assert "100%key" not in repr(client)


# -- the key


def test_a_key_file(monkeypatch, tmp_path, ini):
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbf  file-key\r\n")
    path.chmod(0o600)
    monkeypatch.setenv("HESTIAOS_API_KEY_FILE", str(path))
    ini(INI)
    assert resolve().api_key == "file-key"
    monkeypatch.setenv("HESTIAOS_API_KEY", "env-key")
    assert resolve().api_key == "env-key"
    assert resolve(api_key="arg-key").api_key == "arg-key"
    monkeypatch.delenv("HESTIAOS_API_KEY")
    monkeypatch.delenv("HESTIAOS_API_KEY_FILE")
    ini("[default]\napi_key_file = {}\naegis_api_key_file = {}\n".format(path, path))
    assert (resolve().api_key, resolve("aegis").api_key) == ("file-key", "file-key")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: No such file or directory"), (b"\xff\xfe", "cannot be read: not UTF-8 text")]
    + [(blank, "is empty") for blank in (b"", b" \n")],
    ids=["missing", "not UTF-8", "empty", "blank"],
)
def test_a_bad_key_file(monkeypatch, tmp_path, content, words):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("HESTIAOS_API_KEY_FILE", str(path))
    assert configuration_error(Client) == "the API key file {} {}".format(path, words)


@pytest.mark.parametrize(
    "key",
    ["canary key", "canary\nX: y", "canary\rx", "canary\0", "canaré", "canary\x7f", b"canary"],
    ids=ascii,
)
def test_a_key_that_cannot_be_a_header_is_refused_and_not_shown(key):
    words = "the API key holds a character that cannot be in a header (space, line break, non-ASCII)"
    if isinstance(key, bytes):
        words = "the API key must be a string, not bytes"
    assert configuration_error(Client, api_key=key) == words


def test_settings_show_no_key():
    settings = resolve(api_key="canary")
    shown = "Settings(base_url='http://localhost:8000', api_key=***, timeout_seconds=30.0,"
    assert str(settings).startswith(shown)
    assert "canary" not in repr(settings) + str(settings)


# -- the URL


BAD_URLS = {
    "": "the base URL  must begin with http:// or https://",
    "localhost:8000": "the base URL localhost:8000 must begin with http:// or https://",
    "ftp://h": "the base URL ftp://h must begin with http:// or https://",
    "//h": "the base URL //h must begin with http:// or https://",
    "http://": "the base URL http:// names no host",
    "http:///path": "the base URL http:///path names no host",
    "http://h?token=canary": "the base URL http://h must not have a query or fragment",
    "http://h#canary": "the base URL http://h must not have a query or fragment",
    "http://h?": "the base URL http://h must not have a query or fragment",
    "http://h:port": "the base URL http://h:port is malformed",
    "http://h:99999": "the base URL http://h:99999 is malformed",
    "http://[::1": "the base URL *** is malformed",
    "http://h h": "the base URL http://h h must not contain white space",
    "http://h/a/../b": "the base URL http://h/a/../b must not have dot segments",
    "http://user:canary@h": "the base URL ***@h must not hold a user name or password; give the key as api_key",
    "http://canary@h/p?q": "the base URL ***@h/p must not hold a user name or password; give the key as api_key",
    "http://user:can#ary@h": "the base URL ***@h is malformed",
    "http://user:can/ary@h": "the base URL ***@h is malformed",
    "http:/user:canary@h": "the base URL ***@h names no host",
    "user:canary@h": "the base URL ***@h must begin with http:// or https://",
}


@pytest.mark.parametrize(("url", "message"), BAD_URLS.items(), ids=[repr(url) for url in BAD_URLS])
def test_bad_urls_are_told_apart_and_show_no_password(url, message):
    shown = configuration_error(Client, base_url=url)
    if "names no host" in message:  # Pythons differ in the slashes they write before a host that is not there
        shown, message = re.sub("http:/*", "http:", shown), re.sub("http:/*", "http:", message)
    assert shown == message
    assert not [part for part in ("canary", "can", "ary@") if part in shown]


def test_a_bad_url_of_another_type_or_of_the_environment(monkeypatch):
    assert configuration_error(Client, base_url=5) == "the base URL must be a string, not int"
    assert configuration_error(Client, base_url=b"http://h") == "the base URL must be a string, not bytes"
    monkeypatch.setenv("HESTIAOS_BASE_URL", "localhost")
    words = "the base URL localhost must begin with http:// or https:// (HESTIAOS_BASE_URL)"
    assert configuration_error(Client) == words


# -- the timeout


@pytest.mark.parametrize(
    ("given", "shown"),
    [(bad, bad) for bad in (0, -1, "5s", "", True, False, None, [5], (3, 5), 10**400, 1e8, 1e9)]
    + [(bad, float(bad)) for bad in ("nan", "0", "inf")]
    + [(float("nan"), float("nan")), (float("inf"), float("inf"))],
    ids=lambda value: repr(value)[:10],
)
def test_bad_timeouts_would_let_a_call_hang(given, shown):
    message = configuration_error(check_timeout, given)
    bound = "below 1e+08" if shown in (10**400, 1e8, 1e9, float("inf")) else "above 0"
    assert message == "the timeout must be a number of seconds {}, not {!r}".format(bound, shown)


def test_a_bad_timeout_of_the_environment_or_the_file(monkeypatch, ini):
    path = ini("[default]\ntimeout = soon\n")
    words = "the timeout must be a number of seconds above 0, not "
    assert configuration_error(Client) == words + "'soon' (timeout in [default] of {})".format(path)
    monkeypatch.setenv("HESTIAOS_TIMEOUT", "-3")
    assert configuration_error(Client) == words + "-3.0 (HESTIAOS_TIMEOUT)"
    assert Client(timeout=4).timeout == 4.0


@pytest.mark.parametrize("retries", [-1, 1.5, True, "3", None], ids=repr)
def test_bad_retries(retries):
    message = configuration_error(Client, retries=retries)
    assert message == "retries must be a whole number, 0 or more, not {!r}".format(retries)


# -- the file


@pytest.mark.parametrize(("text", "words"), [
    ("base_url = http://h\n", "is malformed at line 1"),
    ("[default]\napi_key = canary\napi_key = canary\n", "is malformed at line 3"),
    ("[default]\n[default]\n", "is malformed at line 2"),
    ("[default]\nx = 1\ncanary\n", "is malformed at line 3"),
    (b"[default]\napi_key = \xff\n", "cannot be read: not UTF-8 text"),
], ids=["no section", "twice the key", "twice the section", "no value", "not UTF-8"])  # fmt: skip
def test_a_malformed_file_is_named_with_its_line_and_not_quoted(ini, text, words):
    path = ini(text)
    assert configuration_error(Client) == "the configuration file {} {}".format(path, words)


def test_a_file_or_section_that_is_asked_for_must_exist(monkeypatch, ini, tmp_path):
    def fault(**options):
        return configuration_error(Client, **options)[len("the configuration file ") :]

    missing = str(tmp_path / "missing.ini")
    assert fault(profile="work") == config.config_path() + " does not exist"
    monkeypatch.setenv("HESTIAOS_CONFIG", missing)
    assert fault() == missing + " does not exist"
    assert fault(profile="play") == missing + " does not exist"
    path = ini(INI)
    assert fault(profile="play") == path + " has no section [play]"
    monkeypatch.setenv("HESTIAOS_CONFIG", str(tmp_path))
    assert fault() == str(tmp_path) + " cannot be read: Is a directory"


def missed(path, why, cure):
    """What is said of a file from which nothing was read."""
    return "the configuration file {} {}; cure: {}".format(path, why, cure)


NAME_IT = "call it that, or name a profile"
HOME = "set HOME to this user's home, or HESTIAOS_CONFIG"


@pytest.mark.parametrize(("text", "why", "cure"), [
    ("[prod]\nbase_url = http://h\n[play]\n", "has no section [default], only [prod], [play]", NAME_IT),
    ("[DEFAULT]\nbase_url = http://h\n", "has no section [default], only [DEFAULT]", NAME_IT),
    (None, "cannot be reached: ", HOME),
], ids=["other sections", "DEFAULT", "folder"])  # fmt: skip
def test_a_file_from_which_nothing_is_read_is_never_passed_over(monkeypatch, tmp_path, ini, text, why, cure):
    """Without a base URL from elsewhere the job would go to localhost, without a key."""
    if text is None:  # as a folder that this user may not enter, which root may
        path = str(tmp_path / ("x" * 300) / "hestiaos" / "config.ini")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ("x" * 300)))
        why += "File name too long"
    else:
        path = ini(text)
    assert configuration_error(resolve) == configuration_error(Client) == missed(path, why, cure)
    with pytest.warns(UserWarning) as warned:
        assert resolve(base_url="http://arg:1").base_url == "http://arg:1"
    assert [str(warning.message) for warning in warned] == [missed(path, why, cure)]
    if text is not None:
        ini("# nothing yet\n[DEFAULT]\n")
        assert resolve().base_url == "http://localhost:8000"


def test_a_link_that_leads_nowhere_is_no_file_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "hestiaos" / "config.ini"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "gone")
    words = "the configuration file {} cannot be read: No such file or directory".format(path)
    assert configuration_error(Client) == configuration_error(Client, base_url="http://h") == words


COMMENT = "{} has a comment behind it, read as part of the value: put a comment on its own line ({} in [default] of {})"
QUOTES = "{} has quotes around it, read as part of the value: leave them out ({})"


@pytest.mark.parametrize("name", ["base_url", "api_key", "api_key_file", "timeout", "tenant_id", "thread_id"])
def test_a_comment_or_quotes_are_no_part_of_a_value(monkeypatch, ini, name):
    """They would send an approval to another tenant."""
    key = "aegis_" + name
    for value in ("canary  ; production", "canary # production"):
        path = ini("[default]\n{} = {}\n".format(key, value))
        assert configuration_error(resolve, "aegis") == COMMENT.format(name, key, path)
    for quoted in ('"canary"', "'canary'"):
        path = ini("[default]\n{} = {}\n".format(key, quoted))
        source = "{} in [default] of {}".format(key, path)
        assert configuration_error(resolve, "aegis") == QUOTES.format(name, source)
        monkeypatch.setenv(key.upper(), quoted)
        assert configuration_error(resolve, "aegis") == QUOTES.format(name, key.upper())
        monkeypatch.delenv(key.upper())


def test_a_semicolon_or_a_quote_inside_is_a_part_of_a_value(monkeypatch, ini):
    ini("[default]\naegis_tenant_id = a;b#c\naegis_thread_id = it's\n")
    assert resolve("aegis")[3:5] == ("a;b#c", "it's")
    monkeypatch.setenv("AEGIS_TENANT_ID", "acme # 2")  # a variable has no comments
    assert resolve("aegis", thread_id='"t"')[3:5] == ("acme # 2", '"t"')


def test_a_file_with_a_bom_comments_and_odd_spelling(ini):
    ini(b"\xef\xbb\xbf# ours\n[default]\nBase_URL: http://h:1\n; old\nAPI_KEY=k%(x)s\n")
    assert resolved() == Settings("http://h:1", "k%(x)s", 30.0)


posix = pytest.mark.skipif(os.name != "posix", reason="file modes and FIFOs are POSIX's")


@posix
@pytest.mark.parametrize(("text", "mode", "exposed"), [
    (INI, 0o600, False),
    (INI, 0o644, True),
    (INI, 0o640, True),
    ("[default]\n[work]\n API_KEY : k\n", 0o604, True),
    ("[default]\n[work]\naegis_api_key=k\n", 0o644, True),
    ("[default]\n[DEFAULT]\napi_key=k\n", 0o644, True),
    ("[default]\n[work]\napi_key_file = /x\n# api_key = none\n", 0o644, False),
], ids=["private", "all", "group", "colon", "aegis", "of all sections", "no key"])  # fmt: skip
def test_a_file_that_others_can_read_and_that_holds_a_key_is_warned_of(ini, text, mode, exposed):
    path = ini(text, mode)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        resolve()
    words = "others can read {}, which holds an API key; cure: chmod 600 {}".format(path, path)
    assert [str(warning.message) for warning in warned] == ([words] if exposed else [])


@posix
def test_a_key_file_that_others_can_read_is_warned_of(monkeypatch, tmp_path):
    path = tmp_path / "key"
    path.write_text("k")
    path.chmod(0o640)
    monkeypatch.setenv("AEGIS_API_KEY_FILE", str(path))
    assert resolve().api_key is None
    with pytest.warns(UserWarning) as warned:
        assert resolve("aegis").api_key == "k"
    words = "others can read the API key file {}; cure: chmod 600 {}".format(path, path)
    assert [str(warning.message) for warning in warned] == [words]
    # systemd's is root's, with the user on its access list
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert resolve("aegis").api_key == "k"


@pytest.mark.parametrize(("key", "hint"), [
    ("timout", "did you mean timeout?"),
    ("base-url", "did you mean base_url?"),
    ("aegis_tenant", "did you mean aegis_tenant_id?"),
    ("tenant_id", "did you mean aegis_tenant_id?"),
    ("retries", "known are base_url, api_key, api_key_file, timeout, aegis_base_url"),
])  # fmt: skip
def test_a_key_that_is_no_setting_is_warned_of(ini, key, hint):
    path = ini("[default]\n{} = 3\n[other]\nquiet = 1\n".format(key))
    with pytest.warns(UserWarning) as warned:
        assert resolved() == Settings("http://localhost:8000", None, 30.0)
    (warning,) = warned
    words = "{!r} in [default] of {} is not a setting; {}".format(key, path, hint)
    assert str(warning.message).startswith(words)


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666], ids=oct)
@pytest.mark.parametrize(("service", "key", "value"), [
    ("hestiaos", "base_url", "http://h"),
    ("hestiaos", "api_key", "k"),
    ("hestiaos", "api_key_file", "/nonexistent"),
    ("aegis", "aegis_base_url", "http://h"),
    ("aegis", "aegis_api_key", "k"),
    ("aegis", "aegis_tenant_id", "t"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:others can read")
def test_a_file_that_others_may_write_decides_no_more_than_a_timeout(ini, mode, service, key, value):
    path = ini("[default]\ntimeout = 3\naegis_timeout = 3\n", mode)
    assert resolve(service).timeout_seconds == 3.0
    path = ini("[default]\n{} = {}\n".format(key, value), mode)
    assert configuration_error(resolve, service) == (
        "{} would be read from it, but others may write to the configuration file {}; "
        "cure: check what it holds, then chmod go-w {}".format(key, path, path)
    )
    given = {"base_url": "http://arg:1", "api_key": "arg", "tenant_id": "t"}
    if service == "hestiaos":
        del given["tenant_id"]
    assert resolve(service, **given).base_url == "http://arg:1"  # nothing of the file is used


@posix
def test_a_key_file_that_others_may_write_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_text("k")
    path.chmod(0o620)
    words = "others may write to the API key file {}; cure: check what it holds, then chmod go-w {}"
    assert configuration_error(config.read_key_file, str(path)) == words.format(path, path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_decides_nothing_either(ini, tmp_path):
    path = ini(INI)
    os.chown(path, 65534, 0)
    words = (
        "base_url would be read from it, but the configuration file {} belongs to another user (uid 65534)"
    )
    assert configuration_error(Client).startswith(words.format(path))


@posix
def test_a_fifo_or_a_device_is_an_error_and_not_a_wait(monkeypatch, tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    for path in (path, "/dev/zero"):
        words = "file {} is not a regular file".format(path)
        assert configuration_error(config.read_key_file, path) == "the API key " + words
        monkeypatch.setenv("HESTIAOS_CONFIG", path)
        assert configuration_error(Client) == "the configuration " + words
    monkeypatch.setenv("HESTIAOS_CONFIG", os.devnull)  # says: no file
    assert resolved() == Settings("http://localhost:8000", None, 30.0)


def test_a_file_of_any_size_is_not_read(tmp_path, ini):
    path = ini("[default]\n" + "# comment\n" * 200000)
    assert configuration_error(Client) == "the configuration file {} is too large".format(path)
    assert configuration_error(config.read_key_file, path) == "the API key file {} is too large".format(path)


def test_where_each_setting_came_from(monkeypatch, tmp_path, ini):
    assert resolve().sources == dict.fromkeys(["base_url", "api_key", "timeout"], "default")
    path = ini(INI)
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o600)
    monkeypatch.setenv("AEGIS_API_KEY_FILE", str(key))
    monkeypatch.setenv("AEGIS_TENANT_ID", "t")
    assert resolve("aegis", timeout=5).sources == {
        "base_url": "aegis_base_url in [default] of {}".format(path),
        "api_key": "AEGIS_API_KEY_FILE",
        "timeout": "argument",
        "tenant_id": "AEGIS_TENANT_ID",
        "thread_id": "aegis_thread_id in [default] of {}".format(path),
    }
