"""Nodes as real processes over each transport: the same commands, the same answers, the same coming back."""

from __future__ import annotations

import json
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import fails, in_json, invoke
from outroute.errors import MissingExtraError, TransportError
from outroute.testing.nats_server import free_ports
from outroute.transports import registry
from outroute.transports.registry import BUILT_IN, Entry, holder_of, link_of
from outroute.transports.url import parse_url
from service.processes import Town, until
from service.test_network import observed_and_approved

CASE = {"age": 61, "sex": "f"}


@pytest.mark.parametrize("scheme", ["zeromq", "grpc", "flight"])
def test_a_killed_node_comes_back_and_nothing_acknowledged_is_lost(town: Town, scheme: str) -> None:
    north = town.start("north", "--schema", "ward.toml", "--transport", f"{scheme}://127.0.0.1:0")
    options = ["--transport", f"{scheme}://", "--join", north.endpoint, "--secret-file", str(north.secret)]
    south = town.start("south", "--schema", "ward.toml", *options)
    assert north.said["transport"] == f"{scheme}://127.0.0.1:0"
    until(lambda: north.sees() == 2, "north sees south")
    packets = observed_and_approved("north", "north")
    until(lambda: in_json("status", "--node", "north")["packets_acknowledged"] == packets, "all are acknowledged")
    with south.client() as client:
        before = client.ask(CASE)
        assert before["reach"]["packets"] > 0
        assert [one["node"] for one in before["contributors"]] == [north.said["node"]]
        assert "outroute_refused_handshakes_total" in client.metrics()
    north.end(signal.SIGKILL)
    with south.client() as client:
        assert client.ask(CASE) == before
    again = town.start("north")  # no option is needed again
    assert (again.endpoint, again.said["transport"]) == (north.endpoint, north.said["transport"])
    until(lambda: again.sees() == south.sees() == 2, "they see each other again")
    with south.client() as client:
        assert client.ask(CASE) == before


def test_transports_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {one["scheme"]: one for one in in_json("transports")["transports"]}
    assert set(found) >= {"dht", "direct", "local", "zeromq", "grpc", "flight", "nats"}
    assert all(one["installed"] for one in found.values() if not one["plugin"])
    assert found["zeromq"]["capabilities"] == dict.fromkeys(("durable", "ordered", "back_pressure", "secure"), True)
    assert found["nats"]["capabilities"].keys() == found["zeromq"]["capabilities"].keys()
    assert not found["nats"]["capabilities"]["durable"]  # that hangs on how its servers are set up
    shown = invoke("transports").output
    assert all(f"{scheme}://" in shown for scheme in found)
    monkeypatch.setitem(sys.modules, "zmq", None)  # as if it were not installed
    assert "outroute[zeromq]" in invoke("transports").output
    found = {one["scheme"]: one for one in in_json("transports")["transports"]}
    assert (found["zeromq"]["installed"], found["zeromq"]["extra"]) == (False, "zeromq")


def test_every_entry_of_the_list_is_true() -> None:
    for entry in BUILT_IN:
        kind = entry.load()
        assert hasattr(kind, "from_url") != hasattr(kind, "for_node"), entry.scheme
        assert parse_url(entry.scheme).scheme == entry.scheme
        assert entry.url.startswith(f"{entry.scheme}://")
        if entry.extra:
            wanted = f'extra == "{entry.extra}"'
            assert any(wanted in one for one in metadata.requires("outroute") or []), entry.scheme


class _Point:
    """An entry point of a package that is broken in some way."""

    dist = None

    def __init__(self, name: str, loaded: Any) -> None:
        self.name, self.value, self._loaded = name, f"somewhere:{name}", loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_a_broken_plugin_says_so_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [_Point("crash", RuntimeError("no such thing")), _Point("empty", object()), _Point("dht", object())]
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points)
    found = {one["scheme"]: one for one in in_json("transports")["transports"]}
    assert "no such thing" in found["crash"]["problem"]
    assert not found["crash"]["installed"]
    assert "neither from_url nor for_node" in found["empty"]["problem"]
    assert found["dht"]["plugin"] is None  # nobody takes the place of what comes with outroute
    with pytest.raises(TransportError, match="cannot be loaded"):
        link_of("crash://")


def test_what_cannot_be_used_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str, says: str) -> None:
        done = invoke("node", "--schema", "ward.toml", "--data-dir", "x", *arguments, "--json", code=2)
        message = json.loads(done.stdout)["error"]["message"]
        assert says in message
        assert "\n" not in message
        assert "Traceback" not in done.output

    refused("--transport", "carrier-pigeon://", says="there is no transport 'carrier-pigeon'")
    refused("--transport", "http//x", says="write a transport as SCHEME://")
    refused("--transport", "zeromq://127.0.0.1:70000", says="no URL")
    refused("--transport", "direct://127.0.0.1:0/there", says="no path")
    refused("--transport", "zeromq://127.0.0.1:1,127.0.0.1:2", says="names one place")
    refused("--transport", "zeromq://me:word@127.0.0.1:1", says="'zeromq://127.0.0.1:1'")
    refused("--transport", "zeromq://?safety=on", says="no option 'safety'")
    refused("--transport", "zeromq://0.0.0.0:0?security=off", says="--advertise")
    refused("--transport", "zeromq://", "--dht", "on", says="--dht belongs to dht://")
    refused("--transport", "zeromq://127.0.0.1:0", "--listen", "127.0.0.1:0", says="leave --listen out")
    refused("--transport", "zeromq://", "--join", "127.0.0.1:9", "--open", says="HOST:PORT/KEY")
    monkeypatch.setitem(sys.modules, "zmq", None)
    refused("--transport", "zeromq://", says="pip install 'outroute[zeromq]'")
    with pytest.raises(MissingExtraError, match="some"):
        Entry(
            scheme="x", about="", url="", target="a:b", capabilities=None, extra="some", needs=("no_such_module",)
        ).load()


@pytest.mark.parametrize(
    ("scheme", "needs", "extra"),
    [
        ("dht", "cryptography", "dht"),
        ("direct", "cryptography", "dht"),
        ("grpc", "grpc_reflection", "grpc"),
        ("flight", "pyarrow", "flight"),
    ],
)
def test_each_link_says_in_one_line_who_is_away_and_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, needs: str, extra: str
) -> None:
    def refused(url: str, *arguments: str, says: str) -> None:
        options = ("--schema", "ward.toml", "--data-dir", "x", "--open", "--transport", url, *arguments)
        message = json.loads(invoke("node", *options, "--json", code=2).stdout)["error"]["message"]
        assert says in message
        assert "\n" not in message

    refused(f"{scheme}://127.0.0.1:70000", says="no URL")
    refused(f"{scheme}://127.0.0.1:0?colour=red", says="no option")
    refused(f"{scheme}://192.0.2.1:7411", says="7411")  # no address of this machine
    refused(f"{scheme}://127.0.0.1:0", "--join", f"127.0.0.1:{free_ports(1)[0]}", says="nobody to join: nobody answers")
    refused(f"{scheme}://127.0.0.1:0", "--join", "nonsense", says="write HOST:PORT")
    monkeypatch.setitem(sys.modules, needs, None)  # as if it were not installed
    refused(f"{scheme}://127.0.0.1:0", says=f"pip install 'outroute[{extra}]'")


def test_nobody_there_is_one_line(folder: Path) -> None:
    key = "ab" * 32
    options = ["--schema", "ward.toml", "--open", "--transport", "zeromq://"]
    fails("node", *options, "--data-dir", "a", "--join", f"127.0.0.1:9/{key}", cwd=folder, says="nobody to join")
    options[-1] = "direct://"
    fails("node", *options, "--data-dir", "b", "--join", "127.0.0.1:9", cwd=folder, says="nobody to join")


def test_a_link_is_no_holder() -> None:
    with pytest.raises(TransportError, match="no links between nodes"):
        link_of("nats://127.0.0.1:1")
    with pytest.raises(AttributeError):
        holder_of(parse_url("zeromq://"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "options"),
    [
        ("zeromq", "", 0, "", {}),
        ("zeromq://10.0.0.5:7", "10.0.0.5", 7, "", {}),
        ("grpc://[::1]:7?security=off", "[::1]", 7, "", {"security": "off"}),
        ("shared:///a%20b/c", "", 0, "/a b/c", {}),
        ("nats://user:word@a.example:4222?creds=/x", "a.example", 4222, "", {"creds": "/x"}),
    ],
)
def test_urls(text: str, host: str, port: int, path: str, options: dict[str, str]) -> None:
    found = parse_url(text)
    assert (found.host, found.port, found.path, dict(found.options)) == (host, port, path, options)
    assert "word" not in f"{found} {found!r}"


@pytest.mark.parametrize("text", ["", "://", "x" * 3000 + "://", "zeromq://a:b", "1x://", "zeromq://x?a", "a\nb://"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(TransportError):
        parse_url(text)
