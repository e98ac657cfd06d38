"""The scikit-learn estimator: what it says, how it behaves in scikit-learn's tools, and scikit-learn's own checks."""

from __future__ import annotations

import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from node.making import KINDS, SITES, Clock, filled, identity, network_of, schema_of, table_of
from outroute import OutcomeRouter
from outroute.errors import DataError, SchemaError
from outroute.estimator import InputError
from outroute.node import Node
from outroute.node.local import join_local
from outroute.schema import Field, FieldKind, Outcome, OutcomeKind, Schema, drawn_landmarks, dumps
from outroute.synthesis import Settings

BINARY = OutcomeKind.BINARY
COLUMNS = ["age", "dose", "ward"]


def data_of(kind: OutcomeKind, site: str, n: int = 60) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    table = pd.DataFrame(table_of(kind, site, n))
    return table[COLUMNS], table[schema_of(kind).outcome.name].to_numpy()


def packets_of(kind: OutcomeKind, *sites: str) -> list[bytes]:
    out = []
    for site in sites:
        with Node(schema_of(kind), identity=identity(site), clock=Clock()) as node:
            node.observe(table_of(kind, site), case="case")
            node.distil()
            out.append(node.outbox().tobytes())
    return out


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_it_predicts_better_with_packets_from_files(kind: OutcomeKind, tmp_path: Path) -> None:
    X, y = data_of(kind, "north", 16)
    test_X, test_y = data_of(kind, "test", 300)
    files = []
    for name, data in zip(SITES[1:], packets_of(kind, *SITES[1:]), strict=True):
        files.append(tmp_path / f"{name}.orp")
        files[-1].write_bytes(data)
    router = OutcomeRouter(schema_of(kind), files, clock=Clock())
    assert router.fit(X, y) is router
    alone = OutcomeRouter(schema_of(kind), clock=Clock()).fit(X, y)
    assert router.score(test_X, test_y) > alone.score(test_X, test_y)
    assert router.refused_ == {}
    assert (is_classifier(router), is_regressor(router)) == (
        kind is not OutcomeKind.NUMERIC,
        kind is OutcomeKind.NUMERIC,
    )
    insights = router.insights(test_X)
    assert len(insights) == 300
    assert {s.node for s in insights[0].contributors} & {identity(site).id.hex() for site in SITES[1:]}
    if kind is OutcomeKind.NUMERIC:
        assert not hasattr(router, "predict_proba")
        assert router.predict(test_X).tolist() == insights.estimate.tolist()
    else:
        share = router.predict_proba(test_X)
        assert share.shape == (300, len(router.classes_))
        assert share.sum(axis=1) == pytest.approx(np.ones(300))
        assert router.classes_.tolist() == list(schema_of(kind).outcome.classes)
        assert set(router.predict(test_X)) <= set(router.classes_)


def test_it_answers_as_a_node_with_the_same_records_and_packets_does() -> None:
    (packets,) = packets_of(BINARY, "south")
    X, y = data_of(BINARY, "north")
    with Node(schema_of(BINARY), clock=Clock()) as node:
        node.observe(table_of(BINARY, "north"), case="case")
        node.receive(packets)
        expected = node.ask_many(X).estimate
    router = OutcomeRouter(schema_of(BINARY), packets, clock=Clock()).fit(X, y)
    assert router.predict_proba(X)[:, 1] == pytest.approx(expected, rel=1e-5)


def test_it_asks_a_network() -> None:
    with network_of(schema_of(BINARY)) as nodes:
        filled({site: nodes[site] for site in SITES[1:]}, BINARY)
        network = nodes["north"].transport._network  # type: ignore[union-attr]
        transport = join_local(network, identity("router"), schema_of(BINARY))
        X, y = data_of(BINARY, "north")
        router = OutcomeRouter(schema_of(BINARY), transport=transport, clock=Clock()).fit(X, y)
        assert len(router.insights(X)[0].contributors) > 1
        assert len(clone(router).fit(X, y).insights(X)[0].contributors) > 1


@pytest.mark.parametrize("form", ["frame", "dict", "array"])
def test_the_form_of_x_and_y_does_not_matter(form: str) -> None:
    X, y = data_of(BINARY, "north")
    given: Any = {"frame": X.assign(note="more"), "dict": X.to_dict("list"), "array": X.to_numpy()}[form]
    expected = OutcomeRouter(schema_of(BINARY)).fit(X, y).predict_proba(X)
    router = OutcomeRouter(schema_of(BINARY)).fit(given, (y == "yes").astype(int))
    assert router.classes_.tolist() == [0, 1]
    assert router.predict(given).dtype.kind == "i"
    assert router.predict_proba(given).tolist() == expected.tolist()
    assert OutcomeRouter(schema_of(BINARY)).fit(X, y == "yes").classes_.tolist() == [False, True]


def test_the_schema_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(dumps(schema_of(BINARY)))
    X, y = data_of(BINARY, "north")
    router = OutcomeRouter(tmp_path / "s.toml").fit(X, y)
    assert router.predict_proba(X).tolist() == OutcomeRouter(schema_of(BINARY)).fit(X, y).predict_proba(X).tolist()
    with pytest.raises(SchemaError):
        OutcomeRouter(None).fit(X, y)  # type: ignore[arg-type]


def test_it_works_in_scikit_learns_tools() -> None:
    X, y = data_of(BINARY, "north", 80)
    router = OutcomeRouter(schema_of(BINARY), packets_of(BINARY, "south"), clock=Clock())
    groups = np.arange(80) // 4
    scores = cross_val_score(router, X, y, groups=groups, cv=GroupKFold(4), scoring="roc_auc")
    assert scores.mean() > 0.6
    search = GridSearchCV(
        router, {"settings": [Settings(), Settings(calculations=("kernel", "regression"))]}, cv=3
    ).fit(X, y)
    assert search.best_score_ > 0.5


def test_a_clone_shares_nothing_that_was_fitted() -> None:
    X, y = data_of(BINARY, "north")
    router = OutcomeRouter(schema_of(BINARY), random_state=3).fit(X, y)
    again = clone(router)
    assert again.get_params() == router.get_params()
    with pytest.raises(NotFittedError):
        again.predict(X)
    assert "secret" not in repr(OutcomeRouter(schema_of(BINARY)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_a_pickle_answers_the_same(kind: OutcomeKind) -> None:
    X, y = data_of(kind, "north")
    router = OutcomeRouter(schema_of(kind), packets_of(kind, "south")).fit(X, y, groups=np.arange(60) // 3)
    again = pickle.loads(pickle.dumps(router))
    assert again.predict(X).tolist() == router.predict(X).tolist()


def test_packets_that_are_refused_are_counted() -> None:
    (packets,) = packets_of(BINARY, "south")
    bad = bytearray(packets)
    bad[450] ^= 1
    X, y = data_of(BINARY, "north")
    router = OutcomeRouter(schema_of(BINARY), [bytes(bad)], clock=Clock()).fit(X, y)
    assert router.refused_ == {"signature": 1}


def test_wrong_input_is_a_value_error_that_says_what_to_do() -> None:
    X, y = data_of(BINARY, "north")
    router = OutcomeRouter(schema_of(BINARY))
    for bad_X, bad_y, groups, words in (
        (X.assign(age=400), y, None, "age: '400.*out of range; the schema allows 0 to 100 years"),
        (X, np.where(y == "yes", "perhaps", y), None, "'perhaps'"),
        (X, y[:-1], None, "59 outcomes"),
        (X, y, [1, 2], "groups must be as long"),
        (X.to_numpy()[:, :2], y, None, "expecting 3 features"),
        (X.head(0), y[:0], None, "0 rows"),
        (X.rename(columns=str.upper), y, None, "no column is a field"),
        (X, [None, *y[1:]], None, "outcome is not known"),
    ):
        with pytest.raises(InputError, match=words):
            router.fit(bad_X, bad_y, groups=groups)
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, DataError)
    with pytest.raises(InputError, match="cannot read the packets"):
        OutcomeRouter(schema_of(BINARY), "nowhere.orp").fit(X, y)


# scikit-learn's own checks ----------------------------------------------------------------------------------


class AnyTable(OutcomeRouter):
    """The estimator under a schema made after the data that a check brings: in earnest the schema comes first."""

    def _agreed(self) -> Schema:
        return getattr(self, "_made", None) or super()._agreed()

    def fit(self, X: Any, y: Any, groups: Any = None) -> OutcomeRouter:
        base: Schema = self.schema  # type: ignore[assignment]
        count = 1 if hasattr(X, "nnz") or np.asarray(X).ndim != 2 else np.asarray(X).shape[1]
        fields = tuple(
            Field(name=f"x{i}", kind=FieldKind.NUMERIC, low=Decimal(-1000), high=Decimal(1000)) for i in range(count)
        )
        classes = (
            tuple(str(c) for c in np.unique(np.asarray(y)).tolist())
            if base.outcome.has_classes and y is not None
            else ()
        )
        kind = BINARY if len(classes) == 2 else OutcomeKind.CATEGORICAL
        outcome = base.outcome
        if not outcome.has_classes:
            outcome = Outcome(name="y", kind=OutcomeKind.NUMERIC, low=Decimal(-10000), high=Decimal(10000))
        elif 2 <= len(classes) <= 10:
            outcome = Outcome(name="y", kind=kind, classes=classes)
        if fields:
            self._made = schema_of(kind, fields=fields, outcome=outcome, landmarks=drawn_landmarks(fields, 4))
        return super().fit(X, y, groups)


CANNOT_APPLY = {
    "check_methods_subset_invariance": "wants 1e-7; similarities are computed in single precision",
    "check_classifier_data_not_an_array": "a data frame's columns must be called as the schema's fields",
    "check_regressor_data_not_an_array": "the same",
    "check_array_api_input": "skipped by scikit-learn without SCIPY_ARRAY_API",
}
"""Checks of scikit-learn that do not hold, and why."""


@pytest.mark.filterwarnings("ignore")  # the checks themselves provoke warnings of scikit-learn's
@pytest.mark.parametrize("kind", [OutcomeKind.CATEGORICAL, OutcomeKind.NUMERIC], ids=lambda k: k.name)
def test_scikit_learns_own_checks(kind: OutcomeKind) -> None:
    failed = {}
    passed = 0
    for estimator, check in estimator_checks_generator(AnyTable(schema_of(kind))):
        name = check.func.__name__
        try:
            check(estimator)
            passed += 1
        except (Exception, SkipTest) as error:  # noqa: BLE001 - whatever a check fails with
            failed[name] = str(error)[:300]
    assert {name: why for name, why in failed.items() if name not in CANNOT_APPLY} == {}
    assert passed > 40
