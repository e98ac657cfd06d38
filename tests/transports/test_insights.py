"""Same packets in, same insights out: whole nodes over each transport, and the bytes of an answer compared."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from node.making import ALL_LEAVE, NOW, QUESTION, schema_of, table_of
from outroute.node import Node
from outroute.node.joining import Joining, member_place
from outroute.node.living import LivingNode
from outroute.schema import OutcomeKind
from outroute.store import State, load_identity
from outroute.testing.nats_server import running
from outroute.transports.channel import Secrets
from outroute.transports.url import parse_url
from transports.test_plugin import install

SCHEMA = schema_of(OutcomeKind.BINARY)
SITES = ("north", "south", "east")
SECONDS = 120.0
#: How long something may take to come true on a machine that does other things.
URLS = ("dht://", "direct://", "zeromq://", "zeromq://?security=off", "grpc://", "flight://", "shared://", "nats://")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directories of nodes that have observed and made packets, and not handed any over."""
    root = tmp_path_factory.mktemp("prepared")
    for site in SITES:
        load_identity(root / site)
        with Node(SCHEMA, data_dir=root / site, clock=lambda: NOW, approval=ALL_LEAVE) as node:
            node.observe(table_of(OutcomeKind.BINARY, site), case="case")
            assert node.distil().packets > 0
    return root


@pytest.fixture(scope="module")
def expected(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What nodes of one process answer."""
    return answer_over("local://", prepared, tmp_path_factory.mktemp("local"))


def wait_for(what: str, true: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < until, f"not within {SECONDS} s: {what}"
        time.sleep(0.05)


def answer_over(url: str, prepared: Path, root: Path) -> bytes:
    """The bytes of an answer, from copies of the directories prepared."""
    with ExitStack() as stack:
        nodes: list[LivingNode] = []
        for site in SITES:
            shutil.copytree(prepared / site, root / site)
            joining = Joining(
                transport=parse_url(url),
                join=tuple(member_place(one.endpoint) for one in nodes[:1] if one.endpoint),
                secrets=Secrets((bytes(range(32)),)),
            )
            made = LivingNode(SCHEMA, root / site, joining=joining, clock=lambda: NOW, approval=ALL_LEAVE)
            nodes.append(stack.enter_context(made))
        wait_for("all see each other", lambda: all(len(one.peers()) == len(SITES) for one in nodes))
        wait_for("everything is handed over", lambda: all(handed_over(one) for one in nodes))
        assert all(not one.transport.problems for one in nodes)
        insight = nodes[0].ask(QUESTION)
        assert {one.node for one in insight.contributors} >= {one.id.hex() for one in nodes[1:]}
        return json.dumps(insight.to_dict(), sort_keys=True).encode()


def handed_over(living: LivingNode) -> bool:
    living.look_again()
    with living.looking() as node:
        packets = node.journal.outbox.summary().packets
    return packets[State.ACKNOWLEDGED] == sum(packets.values()) > 0


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.parametrize("url", URLS)
def test_the_same_answer_comes_out(url: str, prepared: Path, expected: bytes, tmp_path: Path, plugin: None) -> None:
    root = tmp_path / "nodes"
    root.mkdir()
    if url == "shared://":
        (tmp_path / "meeting").mkdir()
        url += str(tmp_path / "meeting")
    if url == "nats://":
        with running(tmp_path / "server") as server:
            assert answer_over(f"{server.url}?monitor={server.monitor}", prepared, root) == expected
        return
    assert answer_over(url, prepared, root) == expected
