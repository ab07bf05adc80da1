"""One client for many threads and processes: every answer is its question's, nothing leaks, and a fork shares no socket."""

from __future__ import annotations

import collections
import os
import random
import textwrap
import threading
from typing import Any, Callable, Dict, List

import pytest

from hestiaos_lite import Client, ConnectionFailed, NotFound, RateLimited, ServerError, StreamInterrupted
from hestiaos_lite.sandbox import Sandbox

from ..cli_call import NEEDS_FORK, program

THREADS = 16
NEEDS_PROC = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")


def run(client: Client, word: str) -> None:
    assert client.run("create " + word).text == "processed: create " + word


def stream(client: Client, word: str) -> None:
    assert "".join(event.text for event in client.run_stream("create " + word)) == "processed: create " + word


def chat(client: Client, word: str) -> None:
    answer = client.chat("hello " + word, session_id=word)
    assert (word in answer.result, answer.session_id) == (True, word)


def agent(client: Client, word: str) -> None:
    assert client.agents.run(word, "look").agent_id == word


def trace(client: Client, word: str) -> None:
    trace_id = client.run("create " + word).trace_id
    assert client.trace(trace_id).trace_id == trace_id


def secret(client: Client, word: str) -> None:
    client.secrets.set(word, "value of " + word)
    assert client.secrets.get(word) == "value of " + word
    try:
        client.secrets.delete(word)
    except NotFound as error:
        assert error.attempts > 1  # an earlier attempt deleted it, and its answer was lost


def explain(client: Client, word: str) -> None:
    client.governance.explain("create", {"word": word})


def health(client: Client, word: str) -> None:
    assert client.health().ok


CALLS: List[Callable[[Client, str], None]] = [run, stream, chat, agent, trace, secret, explain, health]
# what the random faults may come to
EXPECTED = (ConnectionFailed, RateLimited, ServerError, StreamInterrupted)


@pytest.mark.parametrize("calls_each", [25, pytest.param(1000, marks=pytest.mark.slow)])
def test_sixteen_threads_on_one_client(calls_each: int) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    wrong: List[BaseException] = []
    done: Dict[str, int] = collections.Counter()

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        for count in range(calls_each):
            if wrong:
                return
            call = rng.choice(CALLS)
            try:
                call(client, "t{}-{}".format(number, count))
                done["good"] += 1
            except EXPECTED:
                done["fault"] += 1
            except BaseException as error:  # noqa: BLE001  # raised below, in the test's own thread
                wrong.append(error)

    with Sandbox() as box, Client(box.url, timeout=20) as client:
        box.random_faults(0.02, seed)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30 + calls_each / 5)
        assert not any(thread.is_alive() for thread in threads)
        if wrong:
            raise wrong[0]
        assert sum(done.values()) == THREADS * calls_each
        assert done["good"] > done["fault"]
        assert box.injected
        # a POST was sent again only where the attempt before was refused with 429 or 503
        refused = collections.Counter(item.request_id for item in box.injected if item.kind in ("429", "503"))
        sent = collections.Counter(
            item.headers["x-request-id"] for item in box.requests if item.method == "POST"
        )
        assert not {
            request_id: times for request_id, times in sent.items() if times > 1 + refused[request_id]
        }
        box.clear_faults()
        assert client.health().ok


@NEEDS_FORK
@pytest.mark.parametrize("what", ["after a call", "while another thread calls", "inside a stream"])
def test_four_forks_after_a_warm_call(what: str, box: Sandbox) -> None:
    """Each child opens its own connection; the parent's is as good as before, and nobody reads another's answer."""
    lines = program(
        """
        import os, sys, threading
        from hestiaos_lite import Client
        client = Client(sys.argv[1], timeout=20)
        client.health()
        stop, stream = threading.Event(), None
        if sys.argv[2] == "while another thread calls":
            def call():
                while not stop.is_set():
                    assert client.run("busy").text == "processed: busy"
            other = threading.Thread(target=call)
            other.start()
        elif sys.argv[2] == "inside a stream":
            stream = client.run_stream("one two three")
            next(stream)
        children = []
        for number in range(4):
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    for count in range(8):
                        text = "child {} {}".format(number, count)
                        assert client.run(text).text == "processed: " + text
                    if number % 2:
                        client.close()
                    code = 0
                finally:
                    os._exit(code)
            children.append(pid)
        for count in range(8):
            text = "parent {}".format(count)
            assert client.run(text).text == "processed: " + text
        for pid in children:
            print(os.waitpid(pid, 0)[1])
        stop.set()
        if stream is not None:
            print("".join(event.text for event in stream))
        client.close()
        """,
        box.url,
        what,
    )
    assert lines[:4] == ["0"] * 4
    assert lines[4:] == (["processed: one two three"] if what == "inside a stream" else [])


@NEEDS_FORK
@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("models.run", "lambda text: client.run(text).text"),
        ("stream", 'lambda text: "".join(event.text for event in client.run_stream(text))'),
    ],
    ids=["a model", "the stream"],
)
def test_a_fork_while_another_thread_loads_what_a_call_returns(box: Sandbox, module: str, call: str) -> None:
    """A fork in the middle of an import leaves the child a module's lock that nobody gives back."""
    assert program(
        """
        import os, signal, sys, threading, time
        from importlib.machinery import PathFinder
        from hestiaos_lite import Client
        loading = threading.Event()

        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name != "hestiaos_lite." + sys.argv[2]:
                    return None
                spec = PathFinder.find_spec(name, path)
                execute = spec.loader.exec_module

                def slowly(module):
                    loading.set()
                    time.sleep(1)
                    execute(module)

                spec.loader.exec_module = slowly
                return spec

        sys.meta_path.insert(0, Slow())
        client = Client(sys.argv[1], timeout=20)
        client.health()
        call = eval(sys.argv[3])
        other = threading.Thread(target=call, args=("parent",))
        other.start()
        loading.wait()
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            os._exit(0 if call("child") == "processed: child" else 1)
        print(os.waitpid(pid, 0)[1])
        other.join()
        client.close()
        """,
        box.url,
        module,
        call,
    ) == ["0"]


# Runs strike() at every line of a call in the files that take locks or once did, ours and urllib3's.
AT_EVERY_LINE = """
import os, sys, threading, time
from hestiaos_lite import Client
client = Client(sys.argv[1], timeout=20)
FILES = ("connections.py", "connectionpool.py", "poolmanager.py", "_collections.py", "queue.py")

def at_lines(frame, event, arg):
    if event == "line":
        sys.settrace(None)
        strike()
        sys.settrace(enter)
    return at_lines

def enter(frame, event, arg):
    return at_lines if frame.f_code.co_filename.endswith(FILES) else None

def calls():
    sys.settrace(enter)
    client.health()
    client.health()
    sys.settrace(None)
"""


def test_a_call_of_a_signal_s_handler_at_any_line_of_another_does_not_wait_for_it(box: Sandbox) -> None:
    source = """
        import warnings
        # urllib3 before 2 forgets, unclosed, a pool that a handler's call makes while it makes the same
        warnings.simplefilter("ignore", ResourceWarning)
        struck = []

        def strike():  # the call of a handler
            struck.append(client.health().ok)

        def give_up():
            os._exit(1)

        timer = threading.Timer(30, give_up)
        timer.start()
        calls()
        timer.cancel()
        print(len(struck) > 20, set(struck))
        client.close()
    """
    assert program(AT_EVERY_LINE + textwrap.dedent(source), box.url) == ["True {True}"]


@NEEDS_FORK
def test_a_fork_at_any_line_of_another_thread_s_call_waits_for_no_lock(box: Sandbox) -> None:
    """The child drops the sessions of threads that it does not have, in the middle of whatever they were doing."""
    source = """
        import queue
        lines, forks, ended = queue.Queue(), queue.Queue(), []

        def strike():
            lines.put(True)
            forks.get()

        def work():
            calls()
            lines.put(False)

        client.health()
        worker = threading.Thread(target=work)
        worker.start()
        while lines.get():
            pid = os.fork()
            if not pid:
                os._exit(0 if len(ended) % 10 or client.health().ok else 1)
            give_up_at = time.monotonic() + 20
            status = (0, 0)
            while not status[0] and time.monotonic() < give_up_at:
                status = os.waitpid(pid, os.WNOHANG)
                time.sleep(0.001)
            if not status[0]:
                os.kill(pid, 9)
            ended.append(status == (pid, 0))
            if not ended[-1]:
                print("a child did not end")
                os._exit(0)
            forks.put(None)
        print(len(ended) > 20, set(ended))
        worker.join()
        client.close()
    """
    assert program(AT_EVERY_LINE + textwrap.dedent(source), box.url) == ["True {True}"]


@NEEDS_FORK
def test_closing_in_a_child_before_its_first_call_does_not_wait_for_the_parent_s_lock(box: Sandbox) -> None:
    assert program(
        """
        import os, sys
        from hestiaos_lite import Client
        client = Client(sys.argv[1], timeout=20)
        client.health()
        with client._caller._sessions._lock:  # as another thread may at the moment of the fork
            pid = os.fork()
            if not pid:
                client.close()
                os._exit(0)
        print(os.waitpid(pid, 0)[1], client.health().ok)
        client.close()
        """,
        box.url,
    ) == ["0 True"]


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=NEEDS_FORK)])
def test_multiprocessing(method: str, box: Sandbox, tmp_path: Any) -> None:
    lines = program(
        """
        import multiprocessing, sys
        from hestiaos_lite import Client
        client = None

        def work(url, number, results):
            with Client(url) if client is None else client as mine:
                results.put(mine.run("child {}".format(number)).text)

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[2])
            client = Client(sys.argv[1])
            client.health()
            results = context.Queue()
            workers = [context.Process(target=work, args=(sys.argv[1], number, results)) for number in range(2)]
            for worker in workers:
                worker.start()
            print(sorted(results.get(timeout=30) for _ in workers))
            for worker in workers:
                worker.join()
            print([worker.exitcode for worker in workers], client.health().ok)
            client.close()
            results.close()
            results.join_thread()
        """,
        box.url,
        method,
        path=tmp_path / "program.py",
    )
    assert lines == [str(["processed: child {}".format(number) for number in range(2)]), "[0, 0] True"]


@NEEDS_PROC
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "only-dropped"])
def test_no_descriptor_and_no_thread_is_left(closed: bool, box: Sandbox) -> None:
    box.random_faults(0.2, 7)
    lines = program(
        """
        import gc, os, sys, threading
        from hestiaos_lite import Client, HestiaError

        def use(client):
            for number in range(6):
                try:
                    client.health()
                    client.run("x")
                    stream = client.run_stream("one two three")
                    if number % 3 == 0:
                        next(stream)
                    elif number % 3 == 1:
                        list(stream)
                    client.secrets.set("k", "v")
                except HestiaError:
                    pass

        def once():
            client = Client(sys.argv[1], timeout=20, retries=0)
            workers = [threading.Thread(target=use, args=(client,)) for _ in range(4)]
            for worker in workers:
                worker.start()
            use(client)
            for worker in workers:
                worker.join()
            if sys.argv[2] == "True":
                client.close()

        Client(sys.argv[1]).close()
        before = os.listdir("/proc/self/fd")
        once()
        gc.collect()
        print(before == os.listdir("/proc/self/fd"), threading.active_count())
        """,
        box.url,
        str(closed),
    )
    assert lines == ["True 1"]


@NEEDS_PROC
def test_without_the_collector_nothing_is_left_either(box: Sandbox) -> None:
    """No reference cycle holds a socket, nor what a caller's own variables hold while a call of his fails."""
    box.drop_next(20, path="/api/v1/run")
    assert program(
        """
        import gc, os, sys, warnings
        from hestiaos_lite import Client, ConnectionFailed
        gc.disable()

        def fail(client):
            mine = open(os.devnull)  # never closed by hand
            try:
                client.run("x")
            except ConnectionFailed:
                return
            raise AssertionError

        client = Client(sys.argv[1], timeout=20)
        client.health()
        client.close()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            stream = client.run_stream("one two three")
            next(stream)
            client.run_stream("one two three")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fail(client)
        del stream
        print(len(os.listdir("/proc/self/fd")) - before)
        del client
        print(len(os.listdir("/proc/self/fd")) - before)
        """,
        box.url,
    ) == ["0", "0"]


@NEEDS_PROC
def test_two_hundred_short_lived_threads_leave_no_connection_behind(box: Sandbox) -> None:
    """Nor where somebody keeps their errors, whose tracebacks refer to all that the thread used."""
    box.drop_next(200, path="/api/v1/run")
    lines = program(
        """
        import os, sys, threading
        from hestiaos_lite import Client, ConnectionFailed
        client = Client(sys.argv[1], timeout=20)
        client.health()
        before, most, good, kept = len(os.listdir("/proc/self/fd")), 0, [], []

        def work():
            try:
                client.run("x")
            except ConnectionFailed as error:
                kept.append(error)
            good.append(client.health().ok)

        for _ in range(25):
            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
        print(len(good), all(good), len(kept), most)
        client.close()
        """,
        box.url,
    )
    assert lines == ["200 True 200 0"]
