"""Sentences of the coordinator's wall that are shown and decide nothing: restarts, and models that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outroute.walls.base import Score

__all__ = ["coupled", "coupling_scores", "restart_text"]

Done = Mapping[str, Mapping[str, Any]]


def restart_text(done: Done) -> str:
    """What it took to go on after the first blow; "" if nothing was restarted."""
    said = []
    again = done.get("flower/server", {}).get("restart")
    if again is not None:
        rounds = again["rounds_by_itself"]
        said.append(
            f"Flower's SuperLink, started again from its database after {again['seconds']:.1f} s, knew its nodes, and "
            f"they reconnected by themselves; the run was then '{again['run']}', and {rounds} "
            f"{'round was' if rounds == 1 else 'rounds were'} done without anybody's help."
        )
        if again["seconds_by_hand"] is None:
            said.append(f"A run that was started again by hand did no round ({again['why']}).")
        else:
            said.append(
                "A run that was started again by hand went on from the weights that the app had saved, with its first "
                f"round after {again['seconds_by_hand']:.1f} s."
            )
    back = done.get("network", {}).get("back_seconds")
    if back is not None:
        said.append(
            f"Our first node, started again from its directory, saw all others after {back:.1f} s; nobody had waited "
            "for it."
        )
    new = done.get("network", {}).get("newcomer")
    if new is not None:
        said.append(
            f"A node that knows nothing joined after all blows and found {new['packets']:,} packets of "
            f"{new['packets_before']:,} that one found before them, and answered {new['answered']:,} questions of "
            f"{new['answered_before']:,}, {new['seconds']:.1f} s after it was started."
        )
    return " ".join(said)


def coupled(done: Done) -> str:
    """What became of members whose models differ."""
    said = []
    star = done.get("models/flower")
    if star is not None:
        widths = " and ".join(map(str, star["widths"]))
        said.append(
            f"Two clients of Flower with hidden layers of {widths} units: {star['rounds']} rounds were done, and the "
            f"run was '{star['run']}'. Federated learning that shares no weights (FedProto, FedMD) has no such limit; "
            "it is measured at the wall 'noniid'."
        )
    nodes = done.get("models/outroute")
    if nodes is not None:
        found = nodes["nodes"]
        least = min(one["answered"] / max(one["asked"], 1) for one in found)
        answered = "all of their questions."
        if least < 1:
            answered = f"{least:.0%} or more of their questions; to the others they said that too little is known."
        said.append(
            f"{len(found)} nodes that answer by different calculations all found packets of the others "
            f"({min(one['packets_of_others'] for one in found):,} or more) and answered {answered}"
        )
        if len(nodes["versions"]) > 1:
            a, b = nodes["versions"]
            differ = [f"{name} {a[name]} and {b[name]}" for name in a if name in b and a[name] != b[name]]
            said.append(f"They ran with different versions of {', '.join(differ) or 'nothing'}.")
        else:
            said.append("All ran with the same versions of all libraries: no other installation was named.")
    return " ".join(said)


def coupling_scores(done: Done) -> list[Score]:
    """Answers and rounds as figures."""
    out = []
    nodes = done.get("models/outroute")
    if nodes is not None:
        for one in nodes["nodes"]:
            out.append(
                Score(
                    method=f"node with {one['calculations']}",
                    metric="share of questions answered",
                    value=one["answered"] / max(one["asked"], 1),
                    ours=True,
                    higher_is_better=True,
                    note=f"{one['packets_of_others']:,} packets of others",
                )
            )
    star = done.get("models/flower")
    if star is not None:
        out.append(
            Score(
                method="Flower, two widths",
                metric="rounds done",
                value=float(star["rounds"]),
                higher_is_better=True,
                note=str(star["run"]),
            )
        )
    return out
