"""``outroute walls``: five failure modes of federated learning, measured on anybody's table."""

from __future__ import annotations

import json
import shlex
import time as clock
from pathlib import Path
from typing import Annotated, Any

import typer

from outroute.cli._common import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEMS,
    emit_json,
    handled,
    say,
    split_names,
    warn,
    working,
    write_files,
)
from outroute.cli._datasets import DEFAULT_K, read_dataset
from outroute.cli._options import (
    Case,
    Columns,
    Delimiter,
    Drop,
    Json,
    MappingFile,
    OutcomeColumn,
    Positive,
    SchemaOrDraft,
    Site,
    Subject,
    Tables,
    Time,
)
from outroute.cli._walls_views import show_walls, watching
from outroute.errors import DataError

__all__ = ["walls"]

STATE_DIR = Path("outroute-walls")
"""Where steps are kept when there is no --html DIR."""
STATE_NAME = "steps"
"""The same, below --html DIR."""


@handled
def walls(
    table: Tables,
    outcome: OutcomeColumn,
    site: Site = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--walls",
            help="Only these: inversion, noniid, communication, byzantine, coordinator.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Splits; intervals need 20.")] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes instead of most of an hour; wide intervals.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Write index.html (one page to show) and report.json to this folder.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            min=1,
            help=f"Subjects in a packet, at least; default the schema's floor, or {DEFAULT_K}.",
            show_default=False,
        ),
    ] = None,
    epsilon: Annotated[
        float, typer.Option(min=0.01, max=100.0, help="Lifetime privacy budget of a subject, where noise is added.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    deployment: Annotated[
        Path | None,
        typer.Option(help="Your network in numbers (TOML): nodes, bandwidth, model, threat.", show_default=False),
    ] = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            help="Of those who lie at the wall byzantine: all, or names (docs/elections.md has the thirteen). Default "
            "label-flip, backdoor, free-rider and adaptive, the last not with --quick; all take three times as long.",
            show_default=False,
        ),
    ] = None,
    divide: Annotated[
        list[str] | None,
        typer.Option(
            help="At the wall noniid, also divide the same records over the sites anew: iid, dirichlet:ALPHA, "
            "classes:COUNT or quantity:ALPHA. Default iid, dirichlet:1 and dirichlet:0.1; with --quick none.",
            show_default=False,
        ),
    ] = None,
    blows: Annotated[
        int,
        typer.Option(
            min=1,
            max=20,
            help="Times that the wall coordinator strikes each side, to see how blows differ; each takes as long "
            "as the first, on which the verdict rests.",
        ),
    ] = 1,
    time: Time = None,
    subject: Subject = None,
    case: Case = None,
    positive: Positive = None,
    drop: Drop = None,
    schema: SchemaOrDraft = None,
    mapping: MappingFile = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    as_json: Json = False,
) -> None:
    """Find out on your own table where federated learning wins, and where outcome routing does.

    Five questions, each answered by a measurement of both sides, with a
    verdict by a rule that was written down before:

    inversion: can records be read out of what leaves a site?
    noniid: what if sites differ?
    communication: what does it cost to send?
    byzantine: what if participants lie?
    coordinator: what stops when somebody fails?

    The other side is real: Flower and fluke, driven as their users drive
    them (extra walls). Without --site the table is one site's, and only the
    walls that make sense for it are run. docs/walls.md has the rules.

    Every finished step is kept: Ctrl-C reports what is done, and --resume
    goes on, with the same table and options only.

    Examples:

    outroute walls visits.csv --outcome died --site hospital --subject patient --html report

    outroute walls basel.csv bern.csv zurich.csv --outcome died --quick

    outroute walls visits.csv --outcome died --site hospital --walls communication --deployment ours.toml --json

    outroute walls visits.csv --outcome died --site hospital --walls byzantine --attacks all
    """
    from outroute.cli.evaluate import floor_of
    from outroute.walls import Deployment, Plan, page, pictures, report, runner
    from outroute.walls.deployment import load_deployment
    from outroute.walls.noniid_partitions import check_divisions
    from outroute.walls.state import DIGEST_CHARACTERS, State, digest_of

    started = clock.monotonic()
    names = _chosen(only)
    lies, divisions = _attacks(attacks, names), split_names(divide)
    if divisions and "noniid" not in names:
        raise DataError("--divide is for the wall noniid, which --walls leaves out", code="walls.partition")
    planned = Deployment() if deployment is None else load_deployment(deployment)
    if html is not None:
        pictures.require()
        if html.exists() and not html.is_dir():
            raise DataError(f"'{html}' is a file; --html takes a folder", code="file.folder")
        html.mkdir(parents=True, exist_ok=True)
    groups = {"time": split_names(time), "subject": split_names(subject), "case": split_names(case)}
    with working("Reading the table"):
        data = read_dataset(
            table,
            outcome,
            site,
            groups,
            positive,
            split_names(drop),
            schema,
            mapping,
            k,
            split_names(columns),
            delimiter,
        )
    if data.group is None:
        from outroute.trial.table import NO_GROUP

        warn(NO_GROUP)
    plan = Plan(
        dataset=data,
        k=floor_of(k, data.schema),
        epsilon=epsilon,
        repeats=repeats,
        seed=seed,
        quick=quick,
        deployment=planned,
        attacks=lies,
        divisions=divisions,
        blows=blows,
    )
    check_divisions(data, divisions, seed)
    digest = digest_of(plan)
    state = State(STATE_DIR if html is None else html / STATE_NAME, digest)
    _tell_state(state, resume=resume)
    with watching() as watch:
        done = runner.run(plan, names, state, resume=resume, watch=watch)
    options = {
        "--outcome": outcome,
        "--site": site,
        "--walls": ",".join(names) if only else None,
        "--repeats": repeats,
        "--quick": quick,
        "--html": html,
        "--k": k,
        "--epsilon": epsilon,
        "--seed": seed,
        "--deployment": deployment,
        "--attacks": ",".join(split_names(attacks)) or None,
        "--divide": ",".join(divisions) or None,
        "--blows": None if blows == 1 else blows,
        "--time": time,
        "--subject": subject,
        "--case": case,
        "--positive": positive,
        "--drop": drop,
        "--schema": schema,
        "--mapping": mapping,
        "--columns": columns,
        "--delimiter": delimiter,
    }
    found = report.to_json(
        plan,
        done,
        digest=digest[:DIGEST_CHARACTERS],
        command=_command(table, options),
        seconds=clock.monotonic() - started,
    )
    if html is not None:
        text = json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1)
        page_text = page.render(found)
        write_files({html / "report.json": text + "\n", html / "index.html": page_text}, force=True, private=True)
    if as_json:
        emit_json(found)
    else:
        show_walls(found)
    if html is not None:
        say(f"Report: {html / 'index.html'}")
    if done.interrupted:
        say(f"Stopped. What is done is kept in '{state.root}': the same command with --resume goes on.")
        raise typer.Exit(EXIT_INTERRUPTED)
    statuses = {outcome.status for outcome in done.outcomes}
    if runner.Status.FAILED in statuses or statuses == {runner.Status.SKIPPED}:
        raise typer.Exit(EXIT_PROBLEMS)


def _chosen(only: list[str] | None) -> tuple[str, ...]:
    """The walls asked for, in their own order."""
    from outroute.walls.runner import NAMES

    asked = split_names(only)
    wrong = [name for name in asked if name not in NAMES]
    if wrong or (only and not asked):
        raise DataError(
            f"There is no wall {wrong[0] if wrong else ''!r}; there are {', '.join(NAMES)}", code="walls.name"
        )
    return tuple(name for name in NAMES if not asked or name in asked)


def _attacks(asked: list[str] | None, walls: tuple[str, ...]) -> tuple[str, ...]:
    """Attacks asked for, by name."""
    from outroute.simulation import ADVERSARIES

    names = split_names(asked)
    wrong = [name for name in names if name not in ADVERSARIES and name != "all"]
    if wrong or (asked and not names):
        raise DataError(
            f"There is no attack {wrong[0] if wrong else ''!r}; there are {', '.join(ADVERSARIES)}, and all",
            code="walls.attack",
        )
    if names and "byzantine" not in walls:
        raise DataError("--attacks is for the wall byzantine, which --walls leaves out", code="walls.attack")
    return tuple(ADVERSARIES) if "all" in names else tuple(name for name in ADVERSARIES if name in names)


def _tell_state(state: Any, *, resume: bool) -> None:
    if resume and not state.folder.is_dir():
        where = "other tables or settings only" if state.root.is_dir() else "nothing"
        warn(f"there is nothing to resume: '{state.root}' holds {where}. Everything is measured anew")
    elif not resume and state.folder.is_dir():
        say(f"Steps of an earlier run are in '{state.folder}'; they are measured anew. --resume would take them.")


def _command(table: list[str], options: dict[str, Any]) -> str:
    """The command that repeats a run, as a shell takes it."""
    words = ["outroute", "walls", *table]
    for name, value in options.items():
        if value is None or value is False:
            continue
        if value is True:
            words.append(name)
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [name, f"{one:g}" if isinstance(one, float) else str(one)]
    return shlex.join(words)
