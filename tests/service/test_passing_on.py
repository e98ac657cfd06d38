"""Packets that came in a file, brought to the holders of their cells by a node that runs."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from cli.conftest import IDS, in_json, invoke, rows_of, write_table
from outroute.cli.app import app
from outroute.node.emitting import addresses_of
from outroute.packet import as_packets
from outroute.schema import load
from service.processes import Town, until

BY = ["--by", "Dr. Weber"]


def test_packets_of_tiny_practices_reach_a_network_of_processes(folder: Path, town: Town) -> None:
    """Six practices of two patients, two synthesizers that are no members; north passes on, south keeps."""
    rng = np.random.default_rng(5)
    for site in (*(f"tiny{i}" for i in range(6)), "a", "b"):
        write_table(folder / f"{site}.csv", rows_of(site, 4 if site[0] == "t" else 1, 0.0, rng))
        invoke("observe", f"{site}.csv", "--schema", "ward.toml", *IDS, "--node", site)
    a, b = (in_json("status", "--node", who)["key"] for who in "ab")
    for i in range(6):
        files = ["-o", f"{i}.a", "-o", f"{i}.b"]
        invoke("shares", "give", "--to", a, "--to", b, *files, *BY, "--node", f"tiny{i}")
    for who, other in (("a", b), ("b", a)):
        invoke("shares", "take", *(f"{i}.{who}" for i in range(6)), "--node", who)
        invoke("shares", "roll", "--with", other, "-o", f"{who}.roll", "--node", who)
    invoke("shares", "sum", "b.roll", "-o", "a.sums", "--node", "a")
    invoke("shares", "sum", "a.roll", "-o", "b.sums", "--node", "b")
    made = in_json("shares", "combine", "a.sums", "b.sums", "-o", "rare.orp", "--node", "a")["packets"]
    assert made > 0

    north = town.start("north", "--schema", "ward.toml")
    joining = ["--join", north.endpoint, "--secret-file", north.secret]
    south = town.start("south", "--schema", "ward.toml", *joining)
    until(lambda: north.sees() == 2, "north sees south")
    done = in_json("receive", "rare.orp", "--pass-on", "Dr. Weber", "--node", "north")
    assert done["passed_on"] == {"sent": made, "acknowledged": made, "refused": 0, "left": 0}
    schema, packets = load(folder / "ward.toml"), as_packets((folder / "rare.orp").read_bytes())
    codes, cell = packets["conditions"][:, : schema.width], packets["cell"].astype(np.int64)
    with south.client() as client:
        for one, place in zip(packets, addresses_of(schema, codes, cell, b""), strict=True):
            assert b64encode(one.tobytes()).decode() in client.cell(place.hex())["packets"]
    (entry,) = in_json("log", "show", "--kind", "passed_on", "--node", "north")["entries"]
    assert (entry["packets"], entry["acknowledged"], entry["by"]) == (made, made, "Dr. Weber")

    told = CliRunner().invoke(app, ["shares", "take", "0.a", "--node", "north", "--json"])
    assert json.loads(told.stdout)["error"]["code"] == "node.running"


def test_what_a_node_made_itself_leaves_by_its_outbox_only(folder: Path, town: Town) -> None:
    invoke("observe", "south.csv", "--schema", "ward.toml", *IDS, "--node", "south")
    invoke("distil", "--node", "south")
    invoke("outbox", "export", "-o", "review.orp", "--node", "south")
    town.start("south")
    arguments = ["receive", "review.orp", "--pass-on", "Dr. Weber", "--node", "south", "--json"]
    told = CliRunner().invoke(app, arguments)
    assert json.loads(told.stdout)["error"]["code"] == "packet.none"


def test_a_node_that_does_not_run_passes_nothing_on(folder: Path) -> None:
    invoke("observe", "south.csv", "--schema", "ward.toml", *IDS, "--node", "south")
    (folder / "some.orp").write_bytes(bytes(512))
    told = CliRunner().invoke(app, ["receive", "some.orp", "--pass-on", "W", "--node", "south", "--json"])
    assert json.loads(told.stdout)["error"]["code"] == "node.stopped"
