"""The whole audit of one table: every attack on packets at several settings, and on federated averaging beside them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from outroute.audit.accounting import DELTA
from outroute.audit.addresses import enumerate_addresses
from outroute.audit.attributes import attribute_gains, attributes
from outroute.audit.clients import clients_of
from outroute.audit.differencing import difference, differences
from outroute.audit.emission import floor_of
from outroute.audit.federated import federations, name_by_updates
from outroute.audit.inversion import available
from outroute.audit.linkage import link, linked
from outroute.audit.membership import judge, membership_pairs
from outroute.audit.naming import name_members, named
from outroute.audit.noisy import bounds, informed, join_informed
from outroute.audit.questions import asked_cells, asked_discreetly, questioned
from outroute.audit.reconstruction import reconstruct, summarise
from outroute.audit.schemas import landmark_membership, schema_leaks
from outroute.audit.scores import FieldScale, psnr, ssim
from outroute.audit.searching import inversions
from outroute.audit.sequence import sequence, sequences
from outroute.audit.settings import Effort, Setting
from outroute.audit.updates import update_pairs
from outroute.audit.utility import against_first, federated_utility, packet_utility, utility_splits
from outroute.distill import Observations
from outroute.errors import DataError
from outroute.node.discretion import Discretion
from outroute.schema import unit_scale
from outroute.trial.parallel import single_threaded

if TYPE_CHECKING:
    from outroute.schema import Schema

__all__ = ["Found", "audit", "drawn"]

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an audit found, as plain values (``to_json``)."""

    values: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return dict(self.values)


def audit(
    schema: Schema,
    sites: Mapping[str, Observations],
    settings: list[Setting],
    *,
    epsilon: float = 1.0,
    effort: Effort | None = None,
    seed: int = 0,
    federated: bool = True,
    side: int = 0,
    progress: Progress | None = None,
) -> Found:
    """Run every attack.

    Args:
        schema: the schema; its floor is set aside for each setting.
        sites: observations by site.
        settings: ways of emitting.
        epsilon: of the federation with clipping and noise, for one subject over its lifetime.
        effort: how much is tried.
        seed: of everything drawn.
        federated: also attack federated averaging.
        side: points of an edge where records are square images, for PSNR and SSIM; 0 for tables.
        progress: told what is being done.

    Raises:
        DataError: no site has enough records with an outcome.
    """
    effort = effort or Effort()
    tell = progress or (lambda text: None)
    used, notes = drawn(sites, effort, seed)
    x = {name: unit_scale(schema, rows.codes) for name, rows in used.items()}
    scale = FieldScale.of(schema, np.vstack(list(x.values())))
    out: dict[str, Any] = {
        "seed": seed,
        "sites": {n: {"records": len(rows), "subjects": len(np.unique(rows.subject))} for n, rows in used.items()},
        "shadows": effort.shadows,
        "epsilon": epsilon,
        "notes": notes,
        "worth_subjects": max(effort.worth, effort.subjects),
        "packets": {},
    }
    with single_threaded():
        worth_of = drawn(sites, replace(effort, subjects=max(effort.worth, effort.subjects)), seed)[0]
        splits = utility_splits(worth_of, _rng(seed, "splits"), effort.repeats)
        for setting in settings:
            out["packets"][setting.name] = {"k": setting.k, "epsilon": setting.epsilon} | _attacked(
                schema, used, setting, scale, effort, seed, side, tell
            )
            tell(f"{setting.name}: what it is worth")
            worth = packet_utility(schema, splits, setting.emit, _rng(seed, setting.name, "utility"))
            out["packets"][setting.name]["utility"] = worth.to_json()
        tell("the schema file, addresses, questions")
        out["schema"] = _schema(schema, sites, used, settings, seed)
        out["questions"] = _questions(schema, used, scale, seed)
        codes = np.vstack([rows.codes for rows in used.values()])
        addresses = enumerate_addresses(schema, codes, _rng(seed, "addresses"))
        out["addresses"] = None if addresses is None else addresses.to_json()
        if federated:
            out["federated"] = _federated(schema, used, splits, scale, epsilon, effort, seed, side, tell)
    against_first(out, "r2" if not schema.outcome.has_classes else "auc")
    return Found(values=out)


def _rng(seed: int, *purpose: str) -> np.random.Generator:
    """A generator for each purpose, so that adding an attack never changes another's figures."""
    return np.random.default_rng([seed, zlib.crc32(" ".join(purpose).encode())])


def drawn(sites: Mapping[str, Observations], effort: Effort, seed: int) -> tuple[dict[str, Observations], list[str]]:
    """The sites and subjects that are attacked, and what a reader must know of that."""
    notes = []
    ordered = sorted((name for name, rows in sites.items() if len(rows)), key=lambda name: (-len(sites[name]), name))
    chosen = ordered
    if len(ordered) > effort.sites:
        places = np.unique(np.linspace(0, len(ordered) - 1, effort.sites).round().astype(int))
        chosen = [ordered[place] for place in places.tolist()]
        notes.append(f"{len(chosen)} of {len(ordered)} sites are attacked, from the largest to the smallest")
    out = {}
    for name in sorted(chosen):
        rows = sites[name]
        people = np.unique(rows.subject)
        if len(people) > effort.subjects:
            kept = _rng(seed, "subjects", name).permutation(people)[: effort.subjects]
            rows = rows.take(np.flatnonzero(np.isin(rows.subject, kept)))
            notes.append(
                f"{name}: {effort.subjects:,} of {len(people):,} subjects, drawn at random; with fewer, cohorts are "
                "wider than they would be"
            )
        out[name] = rows
    if not out:
        raise DataError(
            "No site has a record with an outcome: check the column given with --outcome", code="audit.empty"
        )
    return out, notes


def _attacked(
    schema: Schema,
    used: Mapping[str, Observations],
    setting: Setting,
    scale: FieldScale,
    effort: Effort,
    seed: int,
    side: int,
    tell: Progress,
) -> dict[str, Any]:
    """Every attack on one way of emitting."""
    emit, what, coins = setting.emit, setting.name, bool(setting.epsilon)

    def rng(purpose: str) -> np.random.Generator:
        return _rng(seed, what, purpose)

    def step(text: str, name: str) -> Callable[[int, int], None]:
        return lambda done, of: tell(f"{what}: {text}, {name} ({done} of {of})")

    each = list(used.items())
    found: dict[str, Any] = {}
    draw = rng("membership")
    pairs = [
        membership_pairs(schema, rows, emit, draw, shadows=effort.shadows, coins=coins, step=step("membership", name))
        for name, rows in each
    ]
    found["membership"] = judge([p for p in pairs if p is not None], rng("judge"))
    draw = rng("naming")
    found["naming"] = named(
        _some(
            name_members(schema, rows, emit, draw, packets=effort.packets, step=step("naming members", name))
            for name, rows in each
        )
    )
    tell(f"{what}: reconstruction, linkage, attributes, differencing")
    draw = rng("reconstruction")
    guesses = {name: reconstruct(schema, rows, emit, draw, scale=scale) for name, rows in each}
    found["reconstruction"] = summarise(_some(guesses.values()))
    draw = rng("linkage")
    found["linkage"] = linked(_some(link(schema, rows, emit, draw, scale) for _, rows in each))
    draw = rng("attributes")
    found["attributes"] = attributes(_some(attribute_gains(schema, rows, emit, draw, scale=scale) for _, rows in each))
    draw = rng("differencing")
    found["differencing"] = differences(
        _some(difference(schema, rows, max(setting.k, 2), draw, emit=emit, scale=scale) for _, rows in each)
        if setting.k > 1
        else []
    )
    found["sequence"] = None
    if setting.arrive is not None and effort.watched:
        draw, arrive = rng("sequence"), setting.arrive
        seen = [
            sequence(
                schema,
                rows,
                arrive,
                draw,
                shadows=effort.watched,
                packets=effort.packets,
                coins=coins,
                step=step("as records arrive", name),
            )
            for name, rows in each
        ]
        found["sequence"] = sequences(_some(seen), rng("judge sequence"))
    out: dict[str, Any] = {name: None if value is None else value.to_json() for name, value in found.items()}
    if setting.epsilon:
        out["bound"] = bounds(setting.epsilon)
        draw = rng("informed")
        known = [informed(schema, rows, emit, draw, draws=2 * effort.shadows) for _, rows in each]
        judged = join_informed(_some(known), rng("judge informed"))
        out["knows_all_others"] = None if judged is None else judged.to_json()
    if side:
        truth = {name: unit_scale(schema, rows.codes) for name, rows in each}
        shown = [(truth[name][g.rows], g.guess) for name, g in guesses.items() if g is not None]
        if shown:
            a, b = (np.nan_to_num(np.vstack([pair[i] for pair in shown])) for i in (0, 1))
            public = np.vstack([_class_means(truth[n], used[n].outcome)[g.rows] for n, g in guesses.items() if g])
            out["images"] = {
                "psnr": float(psnr(a, b).mean()),
                "ssim": float(ssim(a, b, side).mean()),
                "class_mean_psnr": float(psnr(a, public).mean()),
                "class_mean_ssim": float(ssim(a, public, side).mean()),
            }
    return out


def _class_means(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.empty_like(x)
    for value in np.unique(y):
        out[y == value] = x[y == value].mean(axis=0)
    return out


def _some(values: Any) -> list[Any]:
    return [value for value in values if value is not None]


def _schema(
    schema: Schema,
    sites: Mapping[str, Observations],
    used: Mapping[str, Observations],
    settings: list[Setting],
    seed: int,
) -> dict[str, Any]:
    """What the schema file says of all records, and what landmarks would say that are learnt in one way or another."""
    codes = np.vstack([rows.codes for rows in sites.values()])
    number = [rows.subject + at * 2**40 for at, rows in enumerate(sites.values())]
    k = max([setting.k for setting in settings if setting.k > 1], default=5)
    leaks = schema_leaks(schema, codes, np.concatenate(number), k).to_json()
    largest = max(used.values(), key=len)
    learnt = {}
    for text, size in (("records", 1), (f"cohorts of {k}", k)):
        one = landmark_membership(floor_of(schema, size), largest, size, _rng(seed, "landmarks", text))
        learnt[text] = None if one is None else one.ratio.to_json()
    return leaks | {"landmarks_learnt_from": learnt}


def _questions(
    schema: Schema, used: Mapping[str, Observations], scale: FieldScale, seed: int
) -> dict[str, dict[str, Any] | None]:
    """What addresses asked tell, by how a node asks; the attacker has the other sites' records."""
    target = max(used, key=lambda name: (len(used[name]), name))
    others = [rows.codes for name, rows in used.items() if name != target]
    rows = used[target].codes
    mine, known = (rows, np.vstack(others)) if others else (rows[::2], rows[1::2])
    most = 300
    draw = _rng(seed, "questions")
    mine, known = (part[np.sort(draw.permutation(len(part))[:most])] for part in (mine, known))
    ways: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for probes in (1, 4, 16):
        name = "plain, 1 cell" if probes == 1 else f"plain, {probes} cells"
        ways[name] = (asked_cells(schema, mine, probes), asked_cells(schema, known, probes))
    for name, discretion in (("coarse=16", Discretion(group=16)), ("dummies=3", Discretion(dummies=3))):
        # The attacker draws dummies by a secret of its own: the asker's is not known to it.
        pair = (asked_discreetly(schema, part, discretion, draw.bytes(32)) for part in (mine, known))
        ways[name] = tuple(pair)  # type: ignore[assignment]
    out: dict[str, dict[str, Any] | None] = {}
    for name, (asked, theirs) in ways.items():
        found = questioned(
            schema, mine, known, _rng(seed, f"questions {name}"), asked=asked, reference_asked=theirs, scale=scale
        )
        out[name] = None if found is None else found.to_json()
    return out


def _federated(
    schema: Schema,
    used: Mapping[str, Observations],
    splits: Any,
    scale: FieldScale,
    epsilon: float,
    effort: Effort,
    seed: int,
    side: int,
    tell: Progress,
) -> dict[str, Any]:
    """The same attacks on federated averaging."""
    clients, public = clients_of(schema, used), clients_of(schema, used, public=True)
    settings: dict[str, Any] = {}
    for name, (how, aggregated) in federations(clients.classes, epsilon).items():
        if aggregated and len(used) < 2:
            continue
        seen = public if how.training.noise else clients
        pairs = update_pairs(
            seen.sites,
            how,
            _rng(seed, "federated", name),
            shadows=effort.shadows,
            aggregated=aggregated,
            step=lambda done, of, name=name: tell(f"federated averaging, {name}: membership ({done} of {of})"),  # type: ignore[misc]
        )
        judged = judge(pairs, _rng(seed, "federated judge", name))
        solved = name_by_updates(seen, how, _rng(seed, "federated naming", name), aggregated=aggregated)
        worth = federated_utility(schema, splits, how, _rng(seed, "federated utility", name))
        settings[name] = {
            "membership": None if judged is None else judged.to_json(),
            "naming": solved.to_json(),
            "utility": worth.to_json(),
        } | ({"bound": bounds(epsilon, DELTA)} if how.training.noise else {})
    rows = inversions(
        clients,
        scale,
        _rng(seed, "inversions"),
        epsilon=epsilon,
        plan=effort.plan,
        side=side,
        step=lambda text, done, of: tell(f"searching for records in updates: {text} ({done} of {of})"),
    )
    return {
        "settings": settings,
        "inversion": [row.to_json() for row in rows],
        "torch": available(),
        "outcome_cut_at_median": not schema.outcome.has_classes,
    }
