"""Nodes as real processes over a real NATS server: killed, and the server too; and what goes wrong at the start."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from cli.conftest import in_json, invoke
from outroute.cli._settings import SETTINGS_FILE
from outroute.testing.nats_server import NatsServer, free_ports, running
from service.processes import Town, until
from service.test_network import observed_and_approved

CASE = {"age": 61, "sex": "f"}


def test_nodes_and_the_server_are_killed_and_nothing_acknowledged_is_lost(town: Town, tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "server").start()
    try:
        url = f"{server.url}?monitor={server.monitor}"
        north = town.start("north", "--schema", "ward.toml", "--transport", url)
        south = town.start("south", "--schema", "ward.toml", "--transport", url)
        assert north.said["transport"] == url
        until(lambda: north.sees() == south.sees() == 2, "they see each other")
        packets = observed_and_approved("north", "north")
        until(lambda: in_json("status", "--node", "north")["packets_acknowledged"] == packets, "all are acknowledged")
        with south.client() as client:
            before = client.ask(CASE)
            assert [one["node"] for one in before["contributors"]] == [north.said["node"]]
            assert 'outroute_receipts_total{receipt="durable"}' in client.metrics()
        north.end(signal.SIGKILL)
        server.kill()
        with south.client() as client:
            assert client.ask(CASE) == before  # from its own store
            until(lambda: "connection" in client.status()["network"]["problems"], "it says that the server is away")
        server.start()
        again = town.start("north")  # no option is needed again
        until(lambda: again.sees() == south.sees() == 2, "they see each other again")
        back = in_json("withdraw", "--case", "north-3", "--by", "Dr. Weber", "--reason", "twice", "--node", "north")
        assert back["withdrawn"] == 1
        with south.client() as client:
            until(lambda: client.status()["network"]["problems"] == {}, "nothing is wrong any more")
            until(lambda: client.ask(CASE)["reach"]["packets"] == before["reach"]["packets"] - 1, "it is taken back")
    finally:
        server.stop()


def test_what_cannot_be_used_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str, *arguments: str, says: str, command: str = "node") -> None:
        where = ("--transport", url) if command == "node" else ("--from", url, "--topic", "t.*")
        done = invoke(command, "--schema", "ward.toml", "--data-dir", "x", *where, *arguments, "--json", code=2)
        message = json.loads(done.stdout)["error"]["message"]
        assert says in message
        assert "\n" not in message
        assert "hunter2" not in done.output
        assert "Traceback" not in done.output

    nobody = f"nats://127.0.0.1:{free_ports(1)[0]}"
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "nats.toml").write_text('user = "tom"\npassword_file = "secret"\n')
    for command in ("node", "gateway"):
        refused("nats://tom:hunter2@127.0.0.1", says="options file", command=command)
        refused("nats://127.0.0.1?safety=on", says="no option 'safety'", command=command)
        refused(nobody, says="is it running", command=command)
    refused(nobody, "--join", "127.0.0.1:9", "--open", says="leave out --join")
    for topic in ("a b", "", "a..b", "a.>.b"):
        refused(nobody, "--topic", topic, says="is no subject", command="gateway")
    for subject in ("a b", "refused.*"):
        refused(nobody, "--dead-letter", subject, says="is no subject", command="gateway")
    with running(tmp_path / "server", more='authorization { user: "tom", password: "right" }') as server:
        refused(f"{server.url}?options={tmp_path / 'nats.toml'}", says="refuses the credentials")
        refused(server.url, says="refuses a node without these credentials")
        # What carries packets would do; who has nothing to take in does not join for it.
        refused(
            server.url, "--transport", "local://", says="refuses a node without these credentials", command="gateway"
        )
        assert not (folder / "x" / SETTINGS_FILE).exists()
    refused("dht://", says="--from takes nats://", command="gateway")
    monkeypatch.setitem(sys.modules, "nats", None)  # as if it were not installed
    refused(nobody, says="pip install 'outroute[nats]'")
    refused(nobody, says="pip install 'outroute[nats]'", command="gateway")
