"""Names and models are loaded when they are first used: by any thread, after any fork, and again after a reload."""

from __future__ import annotations

from pathlib import Path

import pytest

from hestiaos_lite.sandbox import Sandbox

from .cli_call import NEEDS_FORK, program


def test_one_thread_imports_a_module_while_another_uses_its_name() -> None:
    text = """
import importlib, os, sys, threading, time
from importlib.machinery import PathFinder
import hestiaos_lite

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "hestiaos_lite.aegis.client":
            spec = PathFinder.find_spec(name, path)
            execute = spec.loader.exec_module

            def slowly(module):
                other.start()
                time.sleep(0.3)
                execute(module)

            spec.loader.exec_module = slowly
            return spec

sys.meta_path.insert(0, Slow())
other = threading.Thread(target=lambda: hestiaos_lite.AegisClient, daemon=True)
threading.Timer(20, os._exit, (1,)).start()
importlib.import_module("hestiaos_lite.aegis.client")
other.join()
print(hestiaos_lite.AegisClient.__name__, flush=True)
os._exit(0)
"""
    assert program(text) == ["AegisClient"]


@pytest.mark.parametrize("order", ["as loaded", "the other way round", "by name", "a module a second time"])
def test_a_client_can_be_made_and_used_after_every_module_was_reloaded(order: str, box: Sandbox) -> None:
    text = """
import importlib, sys
import hestiaos_lite as h
from hestiaos_lite import AegisClient, Client
for name in h.__all__:
    getattr(h, name)
Client(sys.argv[1]).run("warm")
names = [name for name in sys.modules if name.partition(".")[0] == "hestiaos_lite"]
if sys.argv[2] == "the other way round":
    names.reverse()
elif sys.argv[2] == "by name":
    names.sort()
elif sys.argv[2] == "a module a second time":
    names = sorted(names) * 2
for name in names:
    importlib.reload(sys.modules[name])
for make in (Client, h.client.Client, h.Client):
    with make(sys.argv[1]) as client:
        print(client.run("hello").text, client.timeout)
        try:
            client.trace("none")
        except Exception as error:
            print(type(error).__name__)
for make in (AegisClient, h.AegisClient):
    with make(sys.argv[1], tenant_id="t", thread_id="x") as client:
        print(client.get_status(client.approve("key", payload={}).request_id).request_id != "")
"""
    assert program(text, box.url, order) == ["processed: hello 30.0", "NotFound"] * 3 + ["True"] * 2


@NEEDS_FORK
def test_a_child_s_calls_load_nothing_that_another_thread_may_have_been_loading(
    box: Sandbox, tmp_path: Path
) -> None:
    text = """
import os, sys
from hestiaos_lite import AegisClient, Client, HestiaError, Outbox
client = Client(sys.argv[1])
aegis = AegisClient(sys.argv[1], tenant_id="t", thread_id="T", outbox=Outbox(sys.argv[2]))
loaded = []
os.register_at_fork(after_in_child=lambda: loaded.extend(sys.modules))
pid = os.fork()
if pid:
    sys.exit(1 if os.waitpid(pid, 0)[1] else 0)
client.health(); client.run("a"); client.chat("b"); client.agents("agent", "task")
client.system.status(); client.system.metrics(); client.system.config(); client.governance.require("note")
list(client.run_stream("c"))
aegis.approve("key"); aegis.flush(); aegis.conclude("another"); aegis.outbox.list()
try:
    client.trace("none")
except HestiaError:
    pass
print(sorted(set(sys.modules) - set(loaded)), flush=True)
os._exit(0)
"""
    assert program(text, box.url, str(tmp_path / "outbox.db")) == ["[]"]
