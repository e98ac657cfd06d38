"""Nodes as real processes: joining, answering each other, dying, coming back, leaving."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from cli.conftest import IDS, in_json, invoke, program
from outroute.node import Node
from outroute.schema import load
from service.processes import Process, Town, until

CASE = {"age": 61, "sex": "f"}


def observed_and_approved(name: str, node: str) -> int:
    """Observe, distil and approve with the commands, which talk to the running node; packets approved."""
    assert in_json("observe", f"{name}.csv", *IDS, "--node", node)["added"] == 80
    made = in_json("distil", "--node", node)
    assert made["packets"] == made["pending"] > 0
    digest = in_json("outbox", "show", "--node", node)["digest"]
    invoke("outbox", "export", "-o", f"{name}.orp", "--node", node)
    assert in_json("outbox", "approve", digest, "--by", "Dr. Weber", "--node", node)["approved"] == made["packets"]
    return int(made["packets"])


def test_what_one_observes_the_other_is_told(town: Town) -> None:
    north = town.start("north", "--schema", "ward.toml")
    south = town.start("south", "--schema", "ward.toml", "--join", north.endpoint, "--secret-file", north.secret)
    assert south.said["peers"] == 2
    until(lambda: north.sees() == 2, "north sees south")
    packets = observed_and_approved("north", "north")
    until(lambda: in_json("status", "--node", "north")["packets_acknowledged"] == packets, "all are acknowledged")

    insight = in_json("ask", "age=61", "sex=f", "--node", "south", "--case", "visit-1")
    assert insight["reach"]["packets"] > 0
    assert [source["node"] for source in insight["contributors"]] == [north.said["node"]]
    assert in_json("confirm", "visit-1", "yes", "--node", "south")["result"] == "confirmed"
    assert "support" in invoke("ask", "age=61", "--node", "south").output
    shown = in_json("peers", "--node", "south")
    assert {one["node"] for one in shown["peers"]} == {north.said["node"], south.said["node"]}

    # What is kept of a cell is what left: the same bytes that were exported for the review.
    with north.client() as client:
        sent = list(client.outbox("acknowledged"))
        cell = client.cell(sent[0]["address"])
        assert sent[0]["bytes"] in cell["packets"]
        assert cell["durable"]
    with south.client() as client:
        assert sent[0]["bytes"] in client.cell(sent[0]["address"])["packets"]

    # One cause from observe to acknowledgement, on both nodes.
    causes = {one["event"]: one["cause"] for one in north.lines() if "cause" in one}
    assert causes["observed"] == causes["distilled"] == causes["acknowledged"]
    taken = [one for one in south.lines() if one["event"] == "deposit taken"]
    assert {one["cause"] for one in taken} == {causes["observed"]}
    assert sum(one["packets"] for one in taken) == packets

    # Nothing of a record, no key and no secret stands in a log.
    said = north.log.read_text() + south.log.read_text()
    for private in (north.secret.read_text().strip(), north.token, "north-p1", "north-1,", "crp"):
        assert private not in said


def test_a_killed_node_comes_back_from_its_directory(town: Town) -> None:
    north = town.start("north", "--schema", "ward.toml")
    south = town.start("south", "--schema", "ward.toml", "--join", north.endpoint, "--secret-file", north.secret)
    until(lambda: north.sees() == 2, "north sees south")
    packets = observed_and_approved("north", "north")
    until(lambda: in_json("status", "--node", "north")["packets_acknowledged"] == packets, "all are acknowledged")
    until((town.folder / "north" / "peers").exists, "north keeps south's place")
    north.end(signal.SIGKILL)
    assert in_json("status", "--node", "north")["packets_acknowledged"] == packets  # the directory, opened
    # Alone, south answers from what it holds itself.
    with south.client() as client:
        assert client.ask(CASE)["reach"]["packets"] > 0
    again = town.start("north")  # no option is needed again
    assert again.endpoint == north.endpoint
    until(lambda: again.sees() == 2, "north sees south again")
    until(lambda: south.sees() == 2, "south sees north again")
    assert in_json("status", "--node", "north")["known"] == 80
    # Both die, and come back: the first one finds the second by the place it kept.
    again.end(signal.SIGKILL)
    south.end(signal.SIGKILL)
    town.start("south")
    last = town.start("north")
    until(lambda: last.sees() == 2, "they found each other again")
    with last.client() as client:
        assert client.ask(CASE)["contributors"][0]["node"] == "own"


def test_ctrl_c_hands_over_first(town: Town) -> None:
    north = town.start("north", "--schema", "ward.toml", "--dht", "on")
    south = town.start(
        "south", "--schema", "ward.toml", "--join", north.endpoint, "--secret-file", north.secret, "--dht", "on"
    )
    until(lambda: north.sees() == 2, "north sees south")
    packets = observed_and_approved("north", "north")
    assert north.end(signal.SIGINT) == 0
    assert not (town.folder / "north" / "api.json").exists()
    assert in_json("status", "--node", "north")["packets_acknowledged"] == packets
    until(lambda: south.sees() == 1, "south knows that north has left")
    with south.client() as client:
        assert client.ask(CASE)["reach"]["packets"] > 0
    assert south.end(signal.SIGTERM) == 0
    loaded = load("ward.toml")
    with Node(loaded, data_dir=town.folder / "north") as node:  # whole, and open to nobody else
        assert node.log.verify() == []


def refused(*arguments: str | Path, says: str, cwd: Path) -> None:
    done = program("node", *arguments, "--json", cwd=cwd)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in json.loads(done.stdout)["error"]["message"]
    assert "Traceback" not in done.stderr


def test_who_may_not_join_is_told_why(town: Town) -> None:
    north = town.start("north", "--schema", "ward.toml")
    joining: list[str | Path] = ["--schema", "ward.toml", "--join", north.endpoint]
    refused(*joining, "--data-dir", "a", says="give --secret-file", cwd=town.folder)
    wrong = town.folder / "wrong.secret"
    wrong.write_text("ab" * 32 + "\n")
    refused(*joining, "--data-dir", "b", "--secret-file", wrong, says="chmod 600", cwd=town.folder)
    wrong.chmod(0o600)
    refused(*joining, "--data-dir", "b", "--secret-file", wrong, says="network secret differs", cwd=town.folder)
    refused(*joining, "--data-dir", "c", "--open", says="network secret differs", cwd=town.folder)
    # While the secret rotates, the previous one is good too.
    wrong.write_text("ab" * 32 + "\n" + north.secret.read_text())
    both = town.start("d", *joining, "--secret-file", wrong)
    assert both.said["peers"] == 2
    with north.client() as client:
        numbers = client.metrics()
    assert 'outroute_refused_handshakes_total{reason="secret"} 2.0' in numbers


def test_taken_ports_and_bad_options_are_one_sentence(town: Town) -> None:
    north = town.start("north", "--schema", "ward.toml", "--http", "127.0.0.1:0")
    new: list[str | Path] = ["--schema", "ward.toml", "--data-dir", "x"]
    refused(*new, "--listen", north.endpoint, says="cannot listen on", cwd=town.folder)
    refused(*new, "--http", north.url.removeprefix("http://"), says="another with --http", cwd=town.folder)
    refused(*new, "--listen", "0.0.0.0:0", says="--advertise HOST:PORT", cwd=town.folder)
    refused(*new, "--listen", "nowhere", says="is no place", cwd=town.folder)
    refused(*new, "--roles", "emit,rule", says="'rule' is no role", cwd=town.folder)
    refused(*new, "--dht", "perhaps", says="--dht takes", cwd=town.folder)
    refused("--data-dir", "empty", says="There is no node", cwd=town.folder)
    refused("--data-dir", "north", says="in use", cwd=town.folder)  # it runs already
    for command in (["status", "--restored"], ["publish"]):
        done = program(*command, "--node", "north", cwd=town.folder)
        assert done.returncode == 2
        assert "runs" in done.stderr
    parent = load("north/schema.toml").id.hex()
    Path("next.toml").write_text(f'parent = "{parent}"\n' + Path("ward.toml").read_text().replace("300", "400"))
    done = program("schema", "migrate", "next.toml", "--node", "north", cwd=town.folder)
    assert (done.returncode, "Stop the node" in done.stderr) == (2, True)
    deaf = town.start("deaf", "--schema", "ward.toml", "--http", "off")
    assert deaf.said["http"] is None
    assert "start it again with --http" in program("log", "show", "--node", "deaf", cwd=town.folder).stderr


def test_only_listed_members_take_part(town: Town) -> None:
    invoke("org", "init", "clinic")
    keys = {}
    for name in ("north", "south", "east"):  # a first start makes the key
        one = town.start(name, "--schema", "ward.toml", "--open")
        keys[name] = one.said["key"]
        place = one.endpoint
        assert one.end() == 0
        if name == "north":
            first = place
    Path("members.txt").write_text(f"{keys['north']} {first} the first\n# none\n{keys['south']}\n")
    invoke("org", "members", "members.txt", "--org", "clinic", "-o", "members.json", "--number", "1")
    north = town.start("north", "--members", "members.json")
    assert north.endpoint == first
    south = town.start("south", "--members", "members.json")  # finds north by the list
    until(lambda: south.sees() == 2, "south sees north")
    refused("--data-dir", "east", "--members", "members.json", says="is not in", cwd=town.folder)
    refused("--data-dir", "east", "--open", "--join", first, says="not on its list of members", cwd=town.folder)
    changed = Path("members.json").read_text().replace(keys["south"], keys["east"])
    Path("forged.json").write_text(changed)
    refused("--data-dir", "east", "--members", "forged.json", says="does not hold", cwd=town.folder)

    # A new list takes effect while the node runs: east comes in.
    Path("members.txt").write_text(f"{keys['north']} {first}\n{keys['east']}\n")
    invoke("org", "members", "members.txt", "--org", "clinic", "-o", "members.json", "--number", "2", "--force")
    until(lambda: any(one["event"] == "new list of members" for one in north.lines()), "north reads it")
    east = town.start("east", "--members", "members.json")
    until(lambda: east.sees() >= 2, "east sees north")


def test_the_secret_rotates_while_nodes_run(town: Town) -> None:
    north = town.start("north", "--schema", "ward.toml")
    joining: list[str | Path] = ["--schema", "ward.toml", "--join", north.endpoint]
    old = north.secret.read_text()
    later = town.folder / "later.secret"
    later.write_text("ab" * 32 + "\n")
    later.chmod(0o600)
    refused(*joining, "--data-dir", "b", "--secret-file", later, says="network secret differs", cwd=town.folder)
    north.secret.write_text("nonsense")
    until(lambda: north.has_logged("secret failed"), "what is no secret is not taken")
    with north.client() as client:
        assert "is no network secret" in client.health()["problems"]["secret"]
    north.secret.write_text("ab" * 32 + "\n" + old)
    until(lambda: north.has_logged("network secret read again"), "north reads it again")
    assert town.start("b", *joining, "--secret-file", later).said["peers"] == 2
    first = town.folder / "first.secret"  # while it rotates, the previous one is good too
    first.write_text(old)
    first.chmod(0o600)
    assert town.start("c", *joining, "--secret-file", first).said["peers"] >= 2  # b does not know it any more
    north.secret.write_text("ab" * 32)
    until(lambda: north.has_logged("network secret read again", 2), "north forgets the previous one")
    refused(*joining, "--data-dir", "d", "--secret-file", first, says="network secret differs", cwd=town.folder)
    said = north.log.read_text()
    assert "ab" * 32 not in said
    assert old.strip() not in said


@pytest.mark.parametrize("count", [3])
def test_a_swarm_runs_until_ctrl_c(folder: Path, count: int) -> None:
    swarm = Process(str(count), "--schema", "ward.toml", command="swarm")
    try:
        nodes = swarm.said["nodes"]
        assert len(nodes) == count
        until(lambda: len(in_json("peers", "--node", nodes[0]["directory"])["peers"]) == count, "all see each other")
        assert in_json("doctor", "--data-dir", nodes[1]["directory"])["findings"]
    finally:
        code = swarm.end(signal.SIGINT)
    assert code == 0
    for one in nodes:
        assert not (Path(one["directory"]) / "api.json").exists()  # each has left by itself


@pytest.mark.skipif(os.name != "posix", reason="looks for processes as POSIX has them")
def test_a_swarm_that_is_killed_leaves_no_node_behind(folder: Path) -> None:
    swarm = Process("2", "--schema", "ward.toml", command="swarm")
    nodes = [json.loads((Path(one["directory"]) / "api.json").read_text())["pid"] for one in swarm.said["nodes"]]
    assert all(alive(pid) for pid in nodes)
    swarm.end(signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in nodes), "the nodes end too")
    for one in swarm.said["nodes"]:
        with Node(load("ward.toml"), data_dir=one["directory"]) as node:  # they left in order
            assert node.log.verify() == []


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waits for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_doctor_says_what_to_put_right(town: Town) -> None:
    def states() -> dict[str, str]:
        done = program("doctor", "--data-dir", "north", "--json", *joins, cwd=town.folder)
        found = {one["what"]: one["state"] for one in json.loads(done.stdout)["findings"]}
        assert done.returncode == (1 if "bad" in found.values() else 0)
        return found

    joins: list[str] = []
    assert states() == {"directory": "bad"}
    north = town.start("north", "--schema", "ward.toml", "--listen", "127.0.0.1:0")
    assert states()["running"] == "care"  # alone
    south = town.start("south", "--schema", "ward.toml", "--join", north.endpoint, "--secret-file", north.secret)
    until(lambda: states()["running"] == "ok", "it sees the other")
    joins += ["--join", south.endpoint]
    assert states()[f"node at {south.endpoint}"] == "ok"
    north.end()
    joins += ["--join", "127.0.0.1:9"]
    (town.folder / "north" / "node.key").chmod(0o644)
    found = states()
    assert found["node.key"] == "bad"
    (town.folder / "north" / "node.key").chmod(0o600)
    found = states()
    assert found["node.key"] == "ok"
    assert found["node at 127.0.0.1:9"] == "bad"
    assert found[f"node at {south.endpoint}"] == "ok"
    assert found["clock"] == "ok"
