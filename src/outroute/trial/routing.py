"""Outcome routing as one side of a trial: real nodes, real packets, a real network in this process.

Every site is a node that holds its training rows only. It distils them into signed packets, hands these to the
holders of their cells, and answers its test cases from what it can fetch and from its own records. Every byte that
leaves a site is counted on the way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.distill import Grouping
from outroute.elections import elect
from outroute.identity import Identity
from outroute.node import Insights, Node
from outroute.node.approval import Automatic
from outroute.node.electing import Electing
from outroute.node.local import guard_for, join_local
from outroute.packet import PACKET_BYTES
from outroute.schema import Distiller, Schema, drawn_landmarks, encode
from outroute.synthesis import Evidence, Records, Settings, fit
from outroute.transports import LocalNetwork
from outroute.trial.fold import Answer, Fold, Rows, SiteOut
from outroute.trial.parallel import side_by_side

__all__ = ["FOUNDERS_PACKETS", "OutcomeRouting", "founders_landmarks", "pooled_same"]

FOUNDERS_PACKETS = 200
"""Packets that each site shows the others before the network starts, for landmarks; they are counted as sent."""
LANDMARKS_LEAST = 16
"""Landmarks of the smallest network."""
LANDMARKS_MOST = 1024
"""Landmarks of the largest: with 1,024, four probes found 0.93 of the nearest packets (DESIGN section 5)."""
PACKETS_PER_CELL = 64
"""Packets that a cell should hold on average: a quarter of what one answer shows, so that few are left out."""
_APPROVAL = Automatic(by="a trial in one process")
"""Nothing leaves the machine: there is nobody to ask."""


@dataclass(frozen=True, kw_only=True)
class OutcomeRouting:
    """Outcome routing with one configuration for all sites.

    Attributes:
        k: subjects in a packet; None for the schema's floor.
        streaming: distil as records arrive (in 20 batches), never regrouping, instead of all at once.
        grouping: how cohorts are formed.
        name: under which its scores appear.
        settings: constants of the synthesis.
        electing: whether packets are elected.
        replicas: copies of each packet.
        learn: learn landmarks from founders' packets; otherwise the schema's own are used.
        on_node: called with the fold, each site's node and its name after it has answered, before it is closed.
    """

    k: int | None = None
    streaming: bool = False
    grouping: Grouping | None = None
    name: str = "outroute"
    settings: Settings = field(default_factory=Settings)
    electing: Electing = field(default_factory=Electing)
    replicas: int = 3
    learn: bool = True
    on_node: Callable[[Fold, str, Node], None] | None = None
    progress: Callable[[str, int, int], None] | None = None

    def __call__(self, fold: Fold) -> Answer:
        """Run the whole loop once."""
        network = LocalNetwork(clock=lambda: _now(fold))
        schema, founders = self.founders(fold)
        private = schema.privacy.distiller is Distiller.PRIVATE
        guard = guard_for(schema)
        nodes: dict[str, Node] = {}
        try:
            for site in fold.train:
                identity = Identity(fold.rng(f"key of {site}").bytes(32))
                transport = join_local(network, identity, schema, guard=guard, replicas=self.replicas)
                nodes[site] = Node(
                    schema,
                    transport=transport,
                    identity=identity,
                    clock=lambda: _now(fold),
                    seed=fold.seed,
                    settings=self.settings,
                    electing=self.electing,
                    approval=_APPROVAL,
                )
            packets = self._publish(fold, schema, nodes)
            predictions: dict[str, NDArray[np.float64]] = {}
            details: dict[str, Any] = {}
            asked: list[str] = []

            def ask(site: str) -> None:
                cases = fold.test[site]
                insights = nodes[site].ask_many(_codes(schema, cases.columns))
                predictions[site] = insights.probabilities if fold.classes else insights.estimate
                details[site] = _detail(insights, len(cases))
                if self.on_node is not None:
                    self.on_node(fold, site, nodes[site])
                asked.append(site)
                if self.progress is not None:
                    self.progress(f"{len(asked)} of {len(nodes)} sites have asked", len(asked), len(nodes))

            side_by_side(ask, sorted(nodes, key=lambda site: -len(fold.train[site])))
            out = {
                site: SiteOut(
                    packets=packets[site],
                    bytes_out=node.bytes_out + founders.get(site, 0) * PACKET_BYTES,
                    # With differential privacy a size is a count with noise: 1 does not say that one record left.
                    records_out=0 if private else int((node.outbox()["size"] == 1).sum()),
                )
                for site, node in nodes.items()
            }
            return Answer(predictions=predictions, out=out, details=details)
        finally:
            for node in nodes.values():
                network.kill(node.id)
                node.close()

    def founders(self, fold: Fold) -> tuple[Schema, dict[str, int]]:
        """The schema with landmarks learnt from founders' packets, and how many packets each site showed for it."""
        if not self.learn or fold.schema.privacy.distiller is Distiller.PRIVATE:
            # With differential privacy nothing is shown beforehand: cells stand in the schema.
            return fold.schema, {}
        if self.progress is not None:
            self.progress("landmarks from founders' packets", 0, 1)

        def show(site: str) -> tuple[int, NDArray[np.uint16]]:
            with Node(fold.schema, clock=lambda: _now(fold), seed=fold.seed, approval=_APPROVAL) as node:
                _observe(node, fold, fold.schema, fold.train[site], slice(None))
                node.distil(k=self.k, grouping=self.grouping)
                packets = node.outbox()
            pick = fold.rng(f"founders of {site}").permutation(len(packets))[:FOUNDERS_PACKETS]
            return len(packets), packets["conditions"][np.sort(pick)][:, : fold.schema.width]

        founders = side_by_side(show, list(fold.train))
        shown = [codes for _, codes in founders]
        sent = {site: len(codes) for site, codes in zip(fold.train, shown, strict=True)}
        total = sum(count for count, _ in founders)
        codes = np.concatenate(shown)
        return founders_landmarks(fold.schema, codes, total, fold.rng("landmarks")), sent

    def _publish(self, fold: Fold, schema: Schema, nodes: Mapping[str, Node]) -> dict[str, int]:
        # One release: the clock of a trial stands still.
        parts = 20 if self.streaming and schema.privacy.distiller is not Distiller.PRIVATE else 1
        packets = dict.fromkeys(nodes, 0)
        for part in range(parts):

            def publish(site: str, part: int = part) -> None:
                rows, node = fold.train[site], nodes[site]
                # Streaming takes rows in order of time where there is one, else in the order of the table.
                order = np.arange(len(rows)) if rows.time is None else np.argsort(rows.time, kind="stable")
                _observe(node, fold, schema, rows, order[part * len(rows) // parts : (part + 1) * len(rows) // parts])
                if schema.privacy.distiller is Distiller.PRIVATE:
                    made = node.distil()
                else:
                    made = node.distil(k=self.k, streaming=self.streaming, grouping=self.grouping)
                packets[site] += made.packets
                if made.packets:
                    node.publish()

            if self.progress is not None:
                self.progress("sites distil and hand over packets", part, parts)
            side_by_side(publish, list(nodes))
        return packets


def _now(fold: Fold) -> int:
    """A clock a day after the newest row: the trial depends on no real clock."""
    times = [int(r.time.max()) for r in fold.train.values() if r.time is not None and len(r)]
    return (max(times) if times else 1_700_000_000) + 86_400


def _detail(insights: Insights, cases: int) -> dict[str, Any]:
    """What is worth keeping of one site's answers."""
    answers = insights.answers
    return {
        "abstained": int((answers.abstained > 0).sum()),
        "support": float(np.median(answers.support)) if cases else None,
        "weights": dict(zip(answers.calculations, answers.weights.tolist(), strict=True)),
        "left_out": insights.reach.left_out,
    }


def _codes(schema: Schema, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.uint16]:
    return encode(schema, columns).codes


def _observe(node: Node, fold: Fold, schema: Schema, rows: Rows, part: Any) -> None:
    columns = {name: values[part] for name, values in rows.columns.items()}
    node.observe_encoded(
        _codes(schema, columns),
        rows.y[part],
        cases=rows.case[part],
        subjects=rows.group[part] if fold.by_subject else None,
        times=None if rows.time is None else rows.time[part],
    )


def founders_landmarks(schema: Schema, codes: NDArray[np.uint16], packets: int, rng: np.random.Generator) -> Schema:
    """The same schema with landmarks learnt from some packets' conditions by k-means.

    Args:
        schema: the schema.
        codes: conditions of the founders' packets, uint16 ``[n, width]``.
        packets: how many packets the network will hold, which decides how many landmarks there are.
        rng: draws the starts.
    """
    from outroute.tables.learning import learn_from_codes

    count = int(np.clip(packets // PACKETS_PER_CELL, LANDMARKS_LEAST, LANDMARKS_MOST))
    if len(codes) < 2 * count:
        count = max(1, len(codes) // 2)
    if len(codes) < LANDMARKS_LEAST:
        return dataclasses.replace(schema, landmarks=drawn_landmarks(schema.fields, LANDMARKS_LEAST))
    learnt = learn_from_codes(schema, codes, count=count, seed=int(rng.integers(2**31)))
    return dataclasses.replace(schema, landmarks=learnt.landmarks)


def pooled_same(fold: Fold, settings: Settings | None = None) -> dict[str, NDArray[np.float64]]:
    """The ceiling through our own synthesis: all other sites' records as evidence, one by one. Nobody may do this."""
    out = {}
    for site, cases in fold.test.items():
        others = [s for s in fold.train if s != site]
        own = fold.train[site]
        x = np.concatenate([fold.train[s].x for s in others])
        y = np.concatenate([fold.train[s].y for s in others])
        n = len(y)
        evidence = Evidence(
            x=x,
            node=np.repeat(np.arange(len(others)), [len(fold.train[s]) for s in others]),
            nodes=tuple(s.encode() for s in others),
            size=np.ones(n),
            counts=np.eye(fold.classes)[y.astype(np.int64)] if fold.classes else None,
            mean=None if fold.classes else y,
            variance=None if fold.classes else np.zeros(n),
            bucket=np.zeros(n, dtype=np.int64),
            cell=np.zeros(n, dtype=np.int64),
        )
        fitted = fit(
            fold.schema,
            evidence,
            Records(x=own.x, y=own.y, group=own.group),
            settings=settings,
            rng=fold.rng("pooled same"),
            trust=lambda names, prior, objective: elect(objective, prior),
        )
        e = fitted.answer(cases.x).estimate
        out[site] = np.column_stack([1 - e, e]) if fold.classes == 2 else e
    return out
