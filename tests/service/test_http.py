"""The HTTP interface: what it answers, whom it refuses, and what hostile input does to it (nothing)."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import COLUMNS, SCHEMA, rows_of
from outroute.errors import DataError, SchemaError, StoreError, TransportError
from outroute.packet import PACKET_BYTES
from outroute.schema import MISSING
from outroute.service import Client
from outroute.service.access import BODY_BYTES
from outroute.service.bodies import ROWS_MOST
from outroute.service.connections import CONNECTIONS_MOST
from service.processes import Process, raw, until


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A node alone; tests of this module share it, none leaves it broken."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "ward.toml").write_text(SCHEMA, encoding="utf-8")
    process = Process("--schema", folder / "ward.toml", directory=folder / "north")
    yield process
    assert process.end() == 0


@pytest.fixture
def client(one: Process) -> Iterator[Client]:
    with one.client() as made:
        yield made


def rows(n: int, prefix: str = "a") -> list[dict[str, object]]:
    names = COLUMNS.split(",")
    made = rows_of(prefix, n, 0.0, np.random.default_rng(5))
    wanted = ("visit", "patient", "age", "sex", "crp", "sick")
    return [{k: v for k, v in zip(names, line.split(","), strict=True) if k in wanted} for line in made]


def test_the_loop_through_the_client(client: Client) -> None:
    said = client.observe(rows(60), case="visit", subject="patient")
    assert (said["added"], said["refused"], said["problems"]) == (60, 0, [])
    assert client.observe(rows(60), case="visit", subject="patient")["duplicate"] == 60
    bad = [*rows(1, "b"), {"visit": "b-x", "patient": "p", "age": 900, "sex": "f", "crp": 1, "sick": "no"}]
    said = client.observe(bad, case="visit", subject="patient")
    assert (said["added"], said["refused"]) == (1, 1)
    assert "age" in said["problems"][0]
    waiting = [{"visit": "w-1", "patient": "w", "age": 50, "sex": "f", "crp": 3.5, "sick": None}]
    assert client.observe(waiting, case="visit", subject="patient")["waiting"] == 1
    assert client.confirm("w-1", "yes") == "confirmed"
    assert client.confirm("nobody", "yes") == "unknown"
    insight = client.ask({"age": 50, "sex": "f"}, case_id="q-1")
    assert insight["positive"] == "yes"
    assert 0 <= insight["estimate"] <= 1
    assert client.confirm("q-1", "no") == "confirmed"

    made = client.distil()
    assert made["packets"] == made["pending"] > 0
    pending = list(client.outbox("pending"))
    assert len(pending) == made["packets"]
    assert len(list(client.outbox("pending", limit=2))) == 2
    assert all(len(base64.b64decode(one["bytes"])) == PACKET_BYTES for one in pending)
    assert client.find(pending[0]["digest"][:12])[0]["number"] == pending[0]["number"]
    rejected = client.reject(pending[0]["digest"], by="W", again=True)
    assert rejected["rejected"] == 1
    review = client.review()
    assert client.approve(review["digest"], by="W")["approved"] == made["packets"] - 1
    until(lambda: not list(client.outbox("queued")), "what is approved is tried")
    taken = client.withdraw(by="W", packet=pending[1]["digest"])
    assert taken["withdrawn"] == 1
    assert client.erase("a-p1", by="W")["observations"] == 2
    assert client.correct(by="W")["withdrawn"] == 0
    status = client.status()
    assert status["log"]["entries"] > 5
    assert status["network"]["peers"] == 1
    assert client.health()["status"] == "ok"
    assert client.peers()["peers"][0]["self"]


def test_mistakes_are_errors_of_their_kind(client: Client) -> None:
    with pytest.raises(SchemaError, match="did you mean age"):
        client.ask({"agee": 1})
    with pytest.raises(DataError):
        client.ask({"age": "old"})
    with pytest.raises(StoreError, match="digest"):
        client.approve("0" * 64, by="W")
    with pytest.raises(TransportError, match="digest"):
        client.approve("nothing", by="W")
    with pytest.raises(DataError):
        client.withdraw(by="W", case="never seen")
    with pytest.raises(DataError, match="one entry each"):
        client._call("POST", "/observe/encoded", {"codes": [[0, 0, 0]], "outcome": [], "cases": ["x"]})
    with pytest.raises(DataError, match="has 4 entries"):
        client._call("POST", "/observe/encoded", {"codes": [[0]], "outcome": [0], "cases": ["x"]})
    with pytest.raises(DataError, match="a code is not"):
        client._call("POST", "/observe/encoded", {"codes": [[1, 2, 3, 4]], "outcome": [0], "cases": ["x"]})
    with pytest.raises(DataError, match="an outcome is not"):
        client._call("POST", "/observe/encoded", {"codes": [[MISSING] * 4], "outcome": [7], "cases": ["x"]})
    with pytest.raises(TransportError, match="does not answer"):
        Client("http://127.0.0.1:9").health()


def test_nobody_changes_anything_without_the_token(one: Process) -> None:
    with raw(one.url) as http:
        for path in ("/health", "/peers", "/metrics", "/status", "/openapi.json", f"/cells/{'0' * 64}"):
            assert http.get(path).status_code == 200, path
        for path in ("/outbox", "/outbox/find/000000000000", "/log", "/log/export", "/received", "/nothing"):
            assert http.get(path).status_code == 401, path
        document = http.get("/openapi.json").json()
        for path, methods in document["paths"].items():
            if "post" in methods:
                assert http.post(path, json={}).status_code == 401, path
        for header in ("Bearer wrong", "Bearer", one.token, f"Basic {one.token}"):
            assert http.post("/distil", json={}, headers={"authorization": header}).status_code == 401
        assert http.delete("/health").status_code == 401
        assert http.get("/health", headers={"host": "evil.example"}).status_code == 421  # another name for this machine
        assert http.get("/health", headers={"host": "localhost:1"}).status_code == 200
    if os.name == "posix":
        assert one.directory is not None
        assert (one.directory / "api.token").stat().st_mode & 0o077 == 0
        assert (one.directory / "network.secret").stat().st_mode & 0o077 == 0


def test_reachable_from_elsewhere_it_takes_a_token_for_everything(tmp_path: Path) -> None:
    (tmp_path / "ward.toml").write_text(SCHEMA, encoding="utf-8")
    process = Process("--schema", tmp_path / "ward.toml", "--http", "0.0.0.0:0", directory=tmp_path / "north")
    try:
        with raw(process.url) as http:
            assert http.get("/health").status_code == 401
            assert http.get("/health", headers={"authorization": f"Bearer {process.token}"}).status_code == 200
        assert process.sees() == 1  # the client sends it by itself
    finally:
        process.end()


def test_hostile_input_is_refused_and_the_node_goes_on(one: Process, client: Client) -> None:
    before = client.status()
    headers = {"authorization": f"Bearer {one.token}", "content-type": "application/json"}
    with raw(one.url, headers=headers) as http:

        def refused(path: str, content: object, *statuses: int) -> None:
            answer = http.post(path, content=content)  # type: ignore[arg-type]
            assert answer.status_code in statuses, (path, answer.status_code, answer.text[:300])
            assert set(answer.json()["error"]) == {"code", "message"}
            assert len(answer.text) < 1000  # nobody gets back what he sent

        refused("/observe", b"{", 422)
        refused("/observe", b"[" * 200_000, 400, 422)
        refused("/observe", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, 422)
        refused("/observe", b"\xff\xfe\x00", 400, 422)
        refused("/observe", b"null", 422)
        refused("/ask", b'{"case": {"age": NaN}}', 400, 422)
        refused("/ask", b'{"case": {"age": 1e999}}', 400, 422)
        refused("/ask", b'{"case": {"age": [1]}}', 422)
        refused("/ask", b'{"case": {}, "probes": 100000}', 422)
        refused("/ask", b'{"case": {"age": ' + b"9" * 5000 + b"}}", 400, 422)
        refused("/ask", json.dumps({"case": {str(i): 1 for i in range(2000)}}).encode(), 422)
        refused("/ask", b'{"case": {}, "secret": 1}', 422)
        refused("/confirm", b'{"case": "", "outcome": "yes"}', 422)
        refused("/confirm", json.dumps({"case": "x" * 10_000, "outcome": "yes"}).encode(), 422)
        refused("/distil", b'{"k": 0}', 422)
        refused("/distil", b'{"k": 1}', 400)  # below the schema's floor
        refused("/observe", json.dumps({"rows": [], "case": "visit"}).encode(), 422)
        many = {"rows": [{"visit": 1}] * (ROWS_MOST + 1), "case": "visit"}
        refused("/observe", json.dumps(many).encode(), 422)
        refused("/outbox/approve", b'{"digest": "zz", "by": "W"}', 422)
        refused("/outbox/approve", json.dumps({"digest": "0" * 64, "by": "W\n" * 10}).encode(), 400, 409)
        refused("/observe", (b"x" * 65536 for _ in range(BODY_BYTES // 65536 + 2)), 413)  # chunked, no length
        for path in ("/outbox?state=gone", "/outbox?limit=0", "/outbox?after=-1", "/outbox?limit=99999999"):
            assert http.get(path).status_code in (400, 422), path
        for path in ("/cells/zz", "/cells/..%2f..%2fetc", f"/cells/{'0' * 63}", "/outbox/find/%00", "/..//"):
            assert http.get(path).status_code in (400, 404, 409, 422), path
        answer = http.request("PUT", "/observe", content=b"{}")
        assert answer.status_code == 405
    where = one.url.removeprefix("http://").split(":")
    address = (where[0], int(where[1]))
    for data in (
        f"POST /observe HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {one.token}\r\n"
        f"Content-Length: {10**12}\r\n\r\n".encode(),
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00nonsense\r\n\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(address, timeout=30) as link:
            try:
                link.sendall(data)
                assert b" 200 " not in link.recv(4096)
            except ConnectionError:
                pass
    assert {k: v for k, v in client.status().items() if k not in ("log", "network")} == {
        k: v for k, v in before.items() if k not in ("log", "network")
    }
    assert client.health()["status"] == "ok"


def test_dribbled_headers_and_idle_connections_end(one: Process, client: Client) -> None:
    """A byte now and then keeps no connection open, before a request or after one; meanwhile others are answered."""
    where = one.url.removeprefix("http://").split(":")
    address = (where[0], int(where[1]))
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    unread = b"POST /observe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"  # no token: answered at once
    openings = {"silent": b"", "dribbling": head, "after an answer": head + b"\r\n" + head, "body": unread}
    ended: dict[str, bytes] = {}

    def dribble(name: str, opening: bytes) -> None:
        received = b""
        with socket.create_connection(address, timeout=0.2) as connection:
            connection.sendall(opening)
            try:
                for _ in range(600):
                    try:
                        part = connection.recv(65_536)
                        if not part:
                            break
                        received += part
                    except TimeoutError:
                        if name != "silent":
                            connection.sendall(b"X")
                else:
                    return
            except OSError:
                pass
        ended[name] = received

    threads = [threading.Thread(target=dribble, args=pair) for pair in openings.items()]
    for thread in threads:
        thread.start()
    assert client.health()["status"] == "ok"
    for thread in threads:
        thread.join()
    assert set(ended) == set(openings)
    assert ended["silent"] == ended["dribbling"] == b""
    assert ended["after an answer"].startswith(b"HTTP/1.1 200")
    assert ended["body"].startswith(b"HTTP/1.1 401")


def test_connections_are_bounded(one: Process, client: Client) -> None:
    where = one.url.removeprefix("http://").split(":")
    address = (where[0], int(where[1]))
    opened = [socket.create_connection(address, timeout=60) for _ in range(CONNECTIONS_MOST + 20)]
    try:
        ended = 0
        for connection in reversed(opened):  # those beyond the bound are closed at once, the others in a while
            try:
                ended += connection.recv(1) == b""
            except ConnectionError:
                ended += 1
        assert ended == len(opened)
    finally:
        for connection in opened:
            connection.close()
    assert client.health()["status"] == "ok"


def test_many_questions_at_once(client: Client) -> None:
    client.observe(rows(60, "m"), case="visit", subject="patient")
    cases = [{"age": 30 + i, "sex": "fm"[i % 2], "crp": np.float64(5 * i)} for i in range(40)]
    many = client.ask_many([*cases, {"age": np.nan}])
    assert len(many["estimate"]) == len(many["low"]) == len(many["support"]) == len(many["abstained"]) == 41
    assert many["classes"] == ["no", "yes"]
    assert many["estimate"][3] == pytest.approx(client.ask(cases[3])["estimate"])
    assert many["estimate"][40] == pytest.approx(client.ask({})["estimate"])
    with pytest.raises(DataError, match="in case 2"):
        client.ask_many([{"age": 30}, {"age": 999}])
    with pytest.raises(TransportError, match="at most 10000"):
        client.ask_many([{}] * (ROWS_MOST + 1))


def test_questions_are_answered_while_packets_are_made(one: Process, client: Client) -> None:
    """Asking, distilling and looking from several threads: nobody waits for ever, and nothing is lost."""
    client.observe(rows(400, "d"), case="visit", subject="patient")
    known = client.status()["known"]
    problems: list[BaseException] = []
    over = threading.Event()

    def work(call: Callable[[Client], object]) -> None:
        try:
            with one.client() as mine:
                while not over.is_set():
                    call(mine)
        except BaseException as error:  # noqa: BLE001  (told by the test below)
            problems.append(error)

    calls: list[Callable[[Client], object]] = [
        lambda mine: mine.ask({"age": 44}),
        lambda mine: mine.ask_many([{"age": 44}, {"age": 70}]),
        lambda mine: mine.status(),
        lambda mine: list(mine.outbox("pending")),
        lambda mine: mine.verify_log()["problems"] == [] or problems.append(AssertionError("the log broke")),
    ]
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    made = sum(client.distil(streaming=bool(i % 2))["packets"] for i in range(4))
    for i in range(5):
        client.observe(rows(10, f"e{i}"), case="visit", subject="patient")
        client.distil()
    over.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert made > 0
    assert client.status()["known"] == known + 50


def test_many_callers_at_once(one: Process) -> None:
    """Questions and observations from many threads: every one is answered, none is lost."""
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with one.client() as mine:
                said = mine.observe(rows(20, f"t{number}"), case="visit", subject="patient")
                assert said["added"] == 20
                assert mine.ask({"age": 40 + number})["support"] >= 0
        except BaseException as error:  # noqa: BLE001  (told by the test below)
            problems.append(error)

    with one.client() as client:
        known = client.status()["known"]
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert client.status()["known"] == known + 160


def test_numbers_for_prometheus(client: Client) -> None:
    text = client.metrics()
    for name in ("outroute_observations", "outroute_peers 1.0", "outroute_http_requests_total", "outroute_receipts"):
        assert name in text
    assert "north" not in text
