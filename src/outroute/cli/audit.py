"""``outroute audit``: attack what would leave each site, beside the same attacks on federated averaging."""

from __future__ import annotations

import time as clock
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import typer

from outroute.cli._audit_views import show_audit
from outroute.cli._common import emit_json, err, handled, say, split_names, warn, working, write_files
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
from outroute.errors import DataError

__all__ = ["audit"]

QUIET_SECONDS = 2.0
"""Where standard error is no terminal, a line says what goes on at most this often."""


@handled
def audit(
    table: Tables,
    outcome: OutcomeColumn,
    site: Site = None,
    time: Time = None,
    subject: Subject = None,
    case: Case = None,
    positive: Positive = None,
    drop: Drop = None,
    schema: SchemaOrDraft = None,
    mapping: MappingFile = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            min=2,
            help=f"Subjects in a packet; default the schema's floor, or {DEFAULT_K}. Nothing leaves here, so a number "
            "below the floor may be tried.",
            show_default=False,
        ),
    ] = None,
    epsilon: Annotated[
        float, typer.Option(min=0.01, max=100.0, help="Lifetime privacy budget of a subject, where noise is added.")
    ] = 1.0,
    html: Annotated[
        Path | None, typer.Option(help="Write a report to show: one page with plots.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option(help="Seconds instead of minutes; wide intervals, fewer searches.")] = False,
    federated: Annotated[
        bool, typer.Option("--federated/--no-federated", help="Attack federated averaging beside packets.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    columns: Columns = None,
    delimiter: Delimiter = None,
    as_json: Json = False,
) -> None:
    """Attack what would leave each site of your table, before anything does.

    Every attack stands beside a guess that knows only public statistics
    (means of the site, of a class, of a cell): what it gains over that guess
    is what leaks. The attacker knows the schema, the projection, k, the
    distiller, and how records are spread. Attacked are single records,
    cohorts of k, cohorts as advised, and the distiller private at --epsilon,
    which also has a bound that no attack can pass. The same attacks run on
    federated averaging on the same records: one step, realistic epochs, with
    clipping and noise (at the same epsilon), and with secure aggregation,
    where only sums are seen. What each setting is worth stands beside it,
    and how much less that is than single records.

    membership: was this person among them? 0.5 is chance.
    naming: who has the list of all candidates solves for the members.
    reconstruction: a record's values, in decibel above the best public guess.
    as records arrive: membership over all that leaves, and when it leaves.
    linkage, attributes, differencing, questions, addresses, the schema file:
    docs/what-leaves.md says in plain words what each of them means.

    Without --site the table is yours alone, and your own emission is attacked.
    Nothing leaves this process, and no file is changed but the report.
    Searches in gradients (DLG, iDLG, Geiping) need the extra audit, the plots
    of --html the extra plot.

    Examples:

    outroute audit visits.csv --outcome died --site hospital --subject patient

    outroute audit mine.csv --outcome died --schema ward.toml --k 10 --html audit.html

    outroute audit visits.csv --outcome died --site hospital --quick --json
    """
    from outroute.audit import run, settings
    from outroute.audit.inversion import available
    from outroute.datasets.observations import observations_of

    if html is not None:
        from outroute.audit import page

        page.require()
        _writable(html)
    names = {"time": split_names(time), "subject": split_names(subject), "case": split_names(case)}
    started = clock.monotonic()
    with working("Reading the table"):
        data = read_dataset(
            table,
            outcome,
            site,
            names,
            positive,
            split_names(drop),
            schema,
            mapping,
            k,
            split_names(columns),
            delimiter,
        )
    if not names["subject"]:
        warn(
            "no --subject: every row counts as another person. With several rows each, people are easier to find "
            "than this says"
        )
    if federated and not available():
        warn("without the extra audit, the searches in gradients (DLG, iDLG, Geiping) are left out")
    size = k or max(data.schema.privacy.k, 2)
    with told() as progress:
        found = run.audit(
            data.schema,
            observations_of(data),
            settings.settings_of((1, size), epsilon=epsilon),
            epsilon=epsilon,
            effort=settings.QUICK if quick else None,
            seed=seed,
            federated=federated,
            progress=progress,
        ).to_json()
    about = {"table": data.name, "outcome": data.schema.outcome.name, "k": size, "quick": quick}
    found = about | found | {"notes": [*data.notes, *list(found["notes"])]}
    if html is not None:
        write_files({html: page.render(found)}, force=True)
    if as_json:
        emit_json(found | {"seconds_in_all": round(clock.monotonic() - started, 3)})
    else:
        show_audit(found)
    if html is not None:
        say(f"Report: {html}")


def _writable(path: Path) -> None:
    """Say before minutes of work that the report could not be written."""
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; give a file name", code="file.exists")
    if not path.absolute().parent.is_dir():
        raise DataError(f"There is no folder '{path.absolute().parent}'; make it first", code="file.folder")


class Told(Protocol):
    """Takes a line that says what is being done."""

    def __call__(self, text: str) -> None:
        """Show it."""


@contextmanager
def told() -> Iterator[Told]:
    """A line that changes on a terminal; elsewhere a line at most every ``QUIET_SECONDS``."""
    if err.is_terminal:
        with err.status("starting") as status:
            yield lambda text: status.update(text)
        return
    last = clock.monotonic()

    def line(text: str) -> None:
        nonlocal last
        if clock.monotonic() - last >= QUIET_SECONDS:
            last = clock.monotonic()
            say(text)

    yield line
