"""A gateway: what devices publish becomes packets of one node; nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outroute.errors import StoreError, TransportError
from outroute.node.gateway import REFUSED_FILE, Gateway
from outroute.node.intake import DEVICE, MESSAGE, Intake, Line
from outroute.node.joining import Joining
from outroute.node.living import LivingNode
from outroute.node.portal import run
from outroute.schema import Distiller, Privacy, Schema, dumps
from outroute.store import Noted
from outroute.tables.mapping import default_mapping
from outroute.testing.making import make_schema
from outroute.testing.nats_server import NatsServer, running
from outroute.transports.nats_options import nats_options
from outroute.transports.nats_source import NatsSource
from outroute.transports.url import parse_url

SCHEMA: Schema = replace(make_schema("pump"), privacy=Privacy(distiller=Distiller.SINGLE, k=1))
PATIENCE = 90.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with running(tmp_path_factory.mktemp("nats")) as started:
        yield started


def until(what: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def published(server: NatsServer, messages: list[tuple[str, bytes]]) -> None:
    async def publish() -> None:
        client = await nats.connect(server.url)
        stream = client.jetstream()
        for subject, data in messages:
            await stream.publish(subject, data)
        await client.close()

    asyncio.run(publish())


def reading(device: int, number: int, *, age: object = 40) -> bytes:
    late = "yes" if number % 3 == 0 else "no"
    return json.dumps({"id": f"{device}-{number}", "age": age, "dose": number % 10 / 10, "late": late}).encode()


@contextlib.contextmanager
def gateway(
    server: NatsServer, directory: Path, topic: str, *, schema: Schema = SCHEMA, dead_letters: str | None = None
) -> Iterator[tuple[LivingNode, Gateway]]:
    url = parse_url(f"{server.url}?prefix=gw{abs(hash(topic))}&monitor={server.monitor}")
    with LivingNode(schema, directory, joining=Joining(transport=url)) as living:
        source = NatsSource(nats_options(parse_url(server.url)), topic, name="gateway-test", make=True)
        intake = Intake(schema, default_mapping(schema, case=("id",), subject=(DEVICE,)))
        made = Gateway(living, source, intake, every=3600.0, streaming=False, dead_letters=dead_letters)
        made.start()
        try:
            yield living, made
        finally:
            made.close()


def test_observations_of_many_devices_become_packets_of_one_node(server: NatsServer, tmp_path: Path) -> None:
    with gateway(server, tmp_path, "one.*") as (living, made):
        lines = [b"\n".join(reading(device, number) for number in range(3)) for device in range(60)]
        published(server, [(f"one.{device}", line) for device, line in enumerate(lines)])
        bad = [b"{", b"[1]", b"\xff\xfe", reading(1, 9, age=5000), b'{"age": 3}', b'{"id": {"a": 1}}']
        published(server, [*(("one.1", one) for one in bad), ("one.2", reading(2, 1))])
        until(lambda: sum(made.counts.refused.values()) == 6)
        assert living.node.counts()["known"] == 180
        assert made.counts.observations == {Noted.ADDED: 180, Noted.DUPLICATE: 1}
        assert made.counts.refused == {
            "not JSON": 2,
            "not a JSON object": 1,
            "age: out of range": 1,
            "case: no case id": 1,
            "a value that is no number, text, true, false or null": 1,
        }
        put_aside = [json.loads(line) for line in (tmp_path / REFUSED_FILE).read_text().splitlines()]
        assert len(put_aside) == 6
        assert {one["device"] for one in put_aside} == {"1"}
        assert (tmp_path / REFUSED_FILE).stat().st_mode & 0o077 == 0
        assert made.distil() == 180
        until(lambda: living.node.counts()["packets_acknowledged"] == 180)
        packets = living.node.journal.outbox.get(np.arange(1, 181)).packets
        assert {bytes(author) for author in packets["author"]} == {living.key}  # the gateway is the node
        assert living.all_problems() == {}


def test_a_cohort_is_of_devices(server: NatsServer, tmp_path: Path) -> None:
    schema = replace(SCHEMA, privacy=Privacy(distiller=Distiller.COHORT, k=5))
    with gateway(server, tmp_path, "cohort.*", schema=schema) as (living, made):
        published(server, [("cohort.1", reading(1, number)) for number in range(50)])
        until(lambda: living.node.counts()["known"] == 50)
        assert made.distil() == 0  # fifty readings of one device hide nobody
        published(server, [(f"cohort.{device}", reading(device, 0)) for device in range(2, 12)])
        until(lambda: living.node.counts()["known"] == 60)
        assert made.distil() > 0
        assert living.node.counts()["packets_pending"] == made.counts.distilled  # persons: somebody approves


def test_what_was_kept_and_not_confirmed_counts_once(server: NatsServer, tmp_path: Path) -> None:
    with gateway(server, tmp_path, "twice.*") as (living, made):
        source, confirm, lost = made._source, made._source.confirm, 0

        async def confirm_later() -> None:
            nonlocal lost
            if lost:
                await confirm()
            else:  # as after a crash: the consumer is there, and waits for what was not confirmed
                source._puller.bind_again("the confirmation was lost")
            lost += 1

        source.confirm = confirm_later  # type: ignore[method-assign]
        published(server, [(f"twice.{device}", reading(device, 0)) for device in range(20)])
        until(lambda: made.counts.observations[Noted.ADDED] == 20)
        until(lambda: made.counts.messages == 20 + 20 or made.counts.observations[Noted.DUPLICATE])
        assert living.node.counts()["known"] == 20


def test_a_full_disk_holds_devices_up_and_loses_nothing(server: NatsServer, tmp_path: Path) -> None:
    with gateway(server, tmp_path, "full.*") as (living, made):
        take, full = made._intake.take, True

        def take_or_not(*arguments: Any) -> Any:
            if full:
                raise StoreError("the disk is full", code="store.full")
            return take(*arguments)

        made._intake.take = take_or_not  # type: ignore[method-assign]
        published(server, [(f"full.{device}", reading(device, 0)) for device in range(20)])
        until(lambda: "full" in living.all_problems().get("gateway", ""))
        assert living.node.counts()["known"] == 0
        progress = run(made._source._puller.progress())
        assert (progress.unconfirmed > 0, progress.confirmed) == (True, 0)  # what is not kept is not confirmed
        full = False
        until(lambda: living.node.counts()["known"] == 20)
        until(lambda: living.all_problems() == {})


def test_dead_letters_go_to_a_subject_before_anything_is_confirmed(server: NatsServer, tmp_path: Path) -> None:
    async def make() -> None:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="DEAD", subjects=["dead"])
        await client.close()

    asyncio.run(make())
    with gateway(server, tmp_path, "letters.*", dead_letters="dead") as (_, made):
        published(server, [("letters.7", b"nonsense"), ("letters.8", reading(8, 0))])
        until(lambda: made.counts.refused and made.counts.observations)

    async def read() -> tuple[bytes, dict[str, str]]:
        client = await nats.connect(server.url)
        found = await client.jetstream().get_msg("DEAD", 1)
        await client.close()
        return found.data, found.headers

    data, headers = asyncio.run(read())
    assert data == b"nonsense"
    assert (headers["Outroute-Reason"], headers["Outroute-Device"]) == ("not JSON", "7")
    assert not (tmp_path / REFUSED_FILE).exists()


def test_a_subject_that_no_stream_keeps_is_said(server: NatsServer, tmp_path: Path) -> None:
    source = NatsSource(nats_options(parse_url(server.url)), "nowhere.*", name="x")
    with pytest.raises(TransportError, match="--make-stream"):
        asyncio.run(source.start())


def test_wrong_rows_of_one_device_do_not_stop_the_others() -> None:
    """A table with so many wrong values would be refused as a whole; a strange device must not achieve that."""
    intake = Intake(SCHEMA, default_mapping(SCHEMA, case=(MESSAGE,), subject=(DEVICE,)))
    lines = [Line(data=reading(n, n, age=-1 if n % 2 else 50), device=str(n), message=str(n)) for n in range(200)]
    kept: list[Any] = []

    def note(codes: Any, outcome: Any, **ids: Any) -> dict[Noted, int]:
        kept.extend(ids["cases"])
        return {Noted.ADDED: len(codes)}

    taken = intake.take(lines, note)
    assert sorted(kept, key=int) == [str(n) for n in range(0, 200, 2)]
    assert {one.reason for one in taken.refused} == {"age: out of range"}
    assert len(taken.refused) == 100


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_taken_or_refused(data: list[bytes]) -> None:
    intake = Intake(SCHEMA, default_mapping(SCHEMA, case=(MESSAGE,), subject=(DEVICE,)))
    taken = intake.take(
        [Line(data=one, device="d", message=str(at)) for at, one in enumerate(data)],
        lambda codes, *_, **__: {Noted.ADDED: len(codes)},
    )
    assert sum(taken.noted.values()) + len(taken.refused) == len(data)


def test_a_gateway_that_is_killed_loses_nothing_and_counts_nothing_twice(server: NatsServer, tmp_path: Path) -> None:
    (tmp_path / "pump.toml").write_text(dumps(SCHEMA))
    program = [sys.executable, "-c", "from outroute.cli import main; main()"]
    command = [*program, "gateway", "--schema", "pump.toml", "--data-dir", "plant", "--every", "1", "--case", "id"]
    command += ["--from", f"{server.url}?prefix=killed&monitor={server.monitor}", "--topic", "killed.*"]
    command += ["--make-stream", "--json", "--until-eof"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[bytes]:
        with open(tmp_path / "log", "ab") as log:
            made = subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        assert made.stdout is not None
        said = b""
        while not said.rstrip().endswith(b"}"):  # it runs, and there is a stream
            line = made.stdout.readline()
            assert line, (tmp_path / "log").read_text()
            said += line
        return made

    def counts() -> dict[str, Any]:
        done = subprocess.run(
            [*program, "status", "--node", "plant", "--json"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def end(one: subprocess.Popen[bytes]) -> None:
        one.send_signal(signal.SIGKILL)
        one.communicate()

    process = start()
    try:
        messages = [(f"killed.{n % 50}", reading(n % 50, n)) for n in range(600)]
        published(server, messages[:300])
        until(lambda: counts().get("known", 0) > 0)
        end(process)
        published(server, messages[300:])
        process = start()
        until(lambda: counts().get("known") == 600)
        until(lambda: counts().get("packets_acknowledged") == 600)
        process.communicate(timeout=PATIENCE)  # its standard input ends
        assert process.returncode == 0
    finally:
        end(process)
