"""A Python without SQLite, and an outbox without requests: each does what it can."""

from __future__ import annotations

from hestiaos_lite.sandbox import Sandbox

from .outbox_kit import finished

WITHOUT_SQLITE = """
    import sys
    for name in [name for name in sys.modules if "sqlite3" in name]:
        del sys.modules[name]
    sys.modules["_sqlite3"] = None  # as where it was not built
    from hestiaos_lite import AegisClient, HestiaError, Outbox
    with AegisClient(sys.argv[1], tenant_id="t", thread_id="th") as client:
        print(client.approve("k").accepted)
    try:
        Outbox(sys.argv[2])
    except HestiaError as error:
        print(error.code, error.delivered, error.exit_code, error.message)
"""

WITHOUT_REQUESTS = """
    import sys
    sys.modules["requests"] = sys.modules["urllib3"] = None
    from hestiaos_lite import Outbox
    from hestiaos_lite.aegis.rows import Decision
    with Outbox(sys.argv[1]) as box:
        box.record(Decision("http://h", "approve", "k", None, "T", "r", {}))
        print(box.counts(), box.list()[0].state)
"""


def test_without_sqlite_everything_but_an_outbox_works(script, path):
    with Sandbox() as box:
        lines = finished(script(WITHOUT_SQLITE, box.url, path)).splitlines()
    assert lines[0] == "True"
    assert lines[1].startswith("OUTBOX False 78 an outbox needs SQLite, and this Python was built without it")
    assert not path.exists()


def test_an_outbox_opens_without_requests(script, path):
    out = finished(script(WITHOUT_REQUESTS, path))
    assert out == "{'queued': 0, 'claimed': 1, 'settled': 0, 'dead': 0} claimed\n"
