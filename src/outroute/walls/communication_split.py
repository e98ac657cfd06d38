"""One split of the table: what both sides sent, and how well they answered the cases that were held out."""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.datasets import Dataset, GroupKind
from outroute.node import Node
from outroute.node.approval import Automatic
from outroute.schema import Distiller, encode
from outroute.transports import Traffic
from outroute.trial import Fold, Protocol, Split, fold_of, local, majority, pooled_recal, prepare, split
from outroute.trial.estimators import Layout
from outroute.trial.federated import federated
from outroute.trial.fold import Rows
from outroute.trial.metrics import CLASS_METRICS, MIN_FOR_R2, MIN_PER_CLASS, NUMBER_METRICS, score
from outroute.trial.opponents import tuned_fedavg
from outroute.trial.routing import FOUNDERS_PACKETS, OutcomeRouting
from outroute.walls.base import Tell
from outroute.walls.communication_train import METHODS, train
from outroute.walls.opponents.baselines import pooled_site

__all__ = ["csv_file", "measure", "one_site", "parquet_file", "raw_bytes"]

Predictions = Mapping[str, NDArray[np.float64]]


class _Scores:
    """Mean scores over the sites of one split; AUC and R2 of too few test cases are left out (DESIGN 10)."""

    def __init__(self, truth: Predictions, classes: int) -> None:
        self._truth, self._classes = truth, classes
        self._metrics = CLASS_METRICS if classes else NUMBER_METRICS

    def _counts(self, y: NDArray[np.float64]) -> bool:
        if not self._classes:
            return len(y) >= MIN_FOR_R2
        return int(np.bincount(y.astype(np.int64), minlength=self._classes).min()) >= MIN_PER_CLASS

    def __call__(self, predicted: Predictions) -> dict[str, float]:
        kept: dict[str, list[float]] = {metric: [] for metric in self._metrics}
        for site, y in self._truth.items():
            if not len(y):
                continue
            for metric, value in score(y, predicted[site], self._classes).items():
                if metric in kept and (metric not in ("auc", "r2") or self._counts(y)) and np.isfinite(value):
                    kept[metric].append(float(value))
        return {metric: float(np.mean(values)) if values else float("nan") for metric, values in kept.items()}


def measure(dataset: Dataset, *, repeat: int, seed: int, k: int, replicas: int, tell: Tell) -> dict[str, Any]:
    """Everything of one split.

    Args:
        dataset: the table, of several sites.
        repeat, seed: which split.
        k: subjects in a packet.
        replicas: holders of a packet.
        tell: is told.
    """
    prepared = prepare(dataset)
    protocol = Protocol.ROWS if dataset.group_kind is GroupKind.NONE else Protocol.GROUPED
    parts = split(prepared.dataset.site, prepared.dataset.group, protocol=protocol, repeat=repeat, seed=seed)
    fold = fold_of(prepared, parts, seed=seed, protocol=protocol)
    scores = _Scores({site: prepared.y[rows] for site, rows in parts.test.items()}, prepared.classes)
    sizes = [(len(parts.train[site]), len(parts.test[site])) for site in fold.train]
    found: dict[str, Any] = {
        "train": float(np.mean([train for train, _ in sizes])),
        "test": float(np.mean([test for _, test in sizes])),
        "sites": len(fold.train),
        "slots": int(next(iter(fold.train.values())).x.shape[1]),
    }
    tell("outcome routing")
    found["ours"] = _ours(fold, k, replicas, scores)
    tell("federated averaging: settings by inner validation")
    tuned = tuned_fedavg(fold)
    found["federated"] = {}
    for key, method in METHODS.items():
        tell(method.name)
        found["federated"][key] = train(fold, tuned, key, scores)
    tell("baselines")
    found["baselines"] = {
        method.name: scores(method(fold).predictions) for method in (majority(), local(), pooled_recal(), pooled_site())
    }
    found["raw"] = {
        name: float(np.mean([raw_bytes(rows)[name] for rows in fold.train.values()])) for name in ("csv", "parquet")
    }
    return found


def _ours(fold: Fold, k: int, replicas: int, scores: _Scores) -> dict[str, Any]:
    """Outcome routing, every frame counted."""
    traffic: dict[str, Traffic] = {}
    landmarks: dict[str, int] = {}

    def keep(_: Fold, site: str, node: Node) -> None:
        traffic[site] = node.traffic
        landmarks[site] = int(node.schema.landmarks.codes.nbytes) if node.schema.landmarks is not None else 0

    private = fold.schema.privacy.distiller is Distiller.PRIVATE
    answer = OutcomeRouting(k=None if private else k, replicas=replicas, on_node=keep)(fold)
    topics: Counter[str] = Counter()
    for one in traffic.values():
        for way in (one.sent, one.received):
            topics.update({topic.value: count for topic, count in way.items()})
    sites = len(traffic)
    packets = sum(out.packets for out in answer.out.values())
    shown = 0 if private else sum(min(out.packets, FOUNDERS_PACKETS) for out in answer.out.values())
    return {
        "scores": scores(answer.predictions),
        "packets": packets / sites,
        "frames": sum(one.frames for one in traffic.values()) / sites,
        "bytes": {topic: count / sites for topic, count in sorted(topics.items())},
        "founders_packets": shown / sites,
        "landmark_bytes": 0.0 if private else float(np.mean(list(landmarks.values()))),
        "cases": sum(len(cases) for cases in fold.test.values()) / sites,
    }


def raw_bytes(rows: Rows) -> dict[str, int]:
    """Bytes of a site's rows as files that people would upload."""
    return {"csv": len(csv_file(rows)), "parquet": len(parquet_file(rows))}


def csv_file(rows: Rows) -> bytes:
    """A site's rows as CSV, through gzip."""
    columns = {**rows.columns, "outcome": rows.outcome}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*([_cell(value) for value in values.tolist()] for values in columns.values()), strict=True))
    return gzip.compress(text.getvalue().encode(), mtime=0)


def parquet_file(rows: Rows) -> bytes:
    """A site's rows as Parquet, through zstd."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = {**rows.columns, "outcome": rows.outcome}
    table = pa.table({name: pa.array(values.tolist(), from_pandas=True) for name, values in columns.items()})
    held = io.BytesIO()
    parquet.write_table(table, held, compression="zstd")
    return held.getvalue()


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def one_site(dataset: Dataset, *, k: int, seed: int, tell: Tell) -> dict[str, Any]:
    """What a site's own rows would be: packets, raw files, and a model of its fields.

    Args:
        dataset: of one site.
        k: subjects in a packet.
        seed: of the cohorts.
        tell: is told.
    """
    prepared = prepare(dataset)
    rows = np.arange(len(prepared.dataset), dtype=np.int64)
    site = prepared.dataset.sites[0]
    fold = fold_of(
        prepared,
        Split(repeat=0, train={site: rows}, test={site: rows[:0]}),
        seed=seed,
        protocol=Protocol.ROWS,
    )
    train_rows = fold.train[site]
    tell("packets")
    schema = dataset.schema
    with Node(schema, clock=lambda: 1_700_000_000, seed=seed, approval=Automatic(by="a count of packets")) as node:
        node.observe_encoded(
            encode(schema, train_rows.columns).codes,
            train_rows.y,
            cases=train_rows.case,
            subjects=train_rows.group if fold.by_subject else None,
        )
        private = schema.privacy.distiller is Distiller.PRIVATE
        packets = node.distil(k=None if private else k).packets
    model = federated(
        {site: (train_rows.x, train_rows.y)},
        layout=Layout.of(schema),
        classes=fold.classes,
        strength=1.0,
        local_steps=1,
        rounds=1,
    )
    return {
        "rows": len(rows),
        "packets": packets,
        "slots": int(train_rows.x.shape[1]),
        "weights": int(model.weights.size),
        "raw": min(raw_bytes(train_rows).values()),
    }
