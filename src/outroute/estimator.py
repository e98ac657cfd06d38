"""Outcome routing as a scikit-learn estimator: own records and peers' packets in, predictions out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets

from outroute.errors import DataError, SchemaError
from outroute.node import Insights, Node
from outroute.node.asking import PROBES
from outroute.node.questions import codes_of_cases
from outroute.packet import PacketArray
from outroute.schema import OutcomeKind, Schema, encode_outcome, load
from outroute.synthesis import Settings
from outroute.transports import Holder

__all__ = ["InputError", "OutcomeRouter"]

Source = str | os.PathLike[str] | bytes | PacketArray
"""Packets: a file, its bytes, or an array."""


class InputError(DataError, ValueError):
    """X, y or groups that cannot be used; a ``ValueError`` too, as scikit-learn expects."""


def _has_classes(router: OutcomeRouter) -> bool:
    return router._agreed().outcome.has_classes


class OutcomeRouter(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Answers cases from own records and from other nodes' packets.

    A classifier or a regressor, as the schema's outcome says. Own records stay inside the estimator: nothing is
    distilled or sent (questions to a ``transport`` carry addresses of cells only). A pickle of a fitted estimator
    holds the records that it was fitted on, so it is as private as they are; one with a ``transport`` cannot be
    pickled unless the transport can.

    Args:
        schema: the schema, or the path of its file.
        packets: of other nodes: a file, bytes, an array, or a list of these; each packet is checked, those refused
            are counted in ``refused_``.
        transport: where to ask for packets, or None. It stays open; whoever made it closes it.
        secret: the network's secret for addresses; None in an open network.
        probes: nearest cells to ask for each case.
        settings: constants of the synthesis; None for the defaults.
        random_state: whole number; equal records and packets give equal answers.
        clock: gives seconds since 1970-01-01 UTC (packets expire); None for this machine's.

    Attributes:
        classes_: class labels as ``y`` has them, in the schema's order (class outcomes only).
        feature_names_in_: the schema's fields, in its order.
        n_features_in_: their number.
        refused_: packets refused, by reason.

    Example:
        >>> import numpy as np
        >>> from outroute import OutcomeRouter
        >>> from outroute.schema import loads
        >>> schema = loads('''
        ... name = "falls"
        ... [outcome]
        ... name = "fell"
        ... kind = "binary"
        ... classes = ["no", "yes"]
        ... [privacy]
        ... distiller = "cohort"
        ... k = 5
        ... [time]
        ... bucket = "1 day"
        ... lifetime = "365 days"
        ... [landmarks]
        ... kind = "drawn"
        ... count = 8
        ... [fields.age]
        ... kind = "numeric"
        ... low = 0
        ... high = 120
        ... unit = "years"
        ... ''')
        >>> ages = np.arange(20, 100)
        >>> fell = np.where(ages + 13 * (ages % 3) > 75, "yes", "no")
        >>> router = OutcomeRouter(schema).fit({"age": ages}, fell)
        >>> router.predict({"age": [25, 95]})
        array(['no', 'yes'], dtype='<U3')
        >>> router.insights({"age": [95]})[0].abstained is None
        True
    """

    def __init__(
        self,
        schema: Schema | str | os.PathLike[str],
        packets: Source | Iterable[Source] | None = None,
        transport: Holder | None = None,
        *,
        secret: bytes | None = None,
        probes: int = PROBES,
        settings: Settings | None = None,
        random_state: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.schema = schema
        self.packets = packets
        self.transport = transport
        self.secret = secret
        self.probes = probes
        self.settings = settings
        self.random_state = random_state
        self.clock = clock

    # fitting ------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, groups: Any = None) -> OutcomeRouter:
        """Take own records in and fit all calculations.

        Args:
            X: columns by field name (DataFrame or mapping; others are ignored), or an array with one column a field,
                in the schema's order.
            y: outcomes: class names, class indexes or numbers, all known.
            groups: rows of one group (a subject, a day) are never split in cross-fitting; None: each row by itself.

        Raises:
            InputError: a value is not one that the schema allows, or lengths differ.
            SchemaError: ``schema`` is not one.
        """
        agreed = self._agreed()
        codes = self._codes(agreed, X)
        if y is None:
            raise InputError("OutcomeRouter requires y to be passed, but the target y is None", code="data.y")
        labels = column_or_1d(y, warn=True)
        if len(labels) != len(codes):
            raise InputError(f"y has {len(labels)} outcomes, X has {len(codes)} rows", code="data.lengths")
        if not len(codes):
            raise InputError("X has 0 rows: at least one is needed to fit", code="data.rows")
        if agreed.outcome.has_classes and labels.dtype.kind == "f" and np.isfinite(labels).all():
            check_classification_targets(labels)
        try:
            outcome = encode_outcome(agreed.outcome, labels)
        except DataError as error:
            raise InputError(str(error), code=error.code) from None
        if not np.isfinite(outcome).all():
            raise InputError("y contains NaN or infinity: leave out cases whose outcome is not known", code="data.y")
        if groups is not None and np.shape(groups) != labels.shape:
            raise InputError("groups must be as long as y", code="data.lengths")
        if agreed.outcome.has_classes:
            self.classes_ = _labels(agreed, labels)
        self.feature_names_in_ = np.array([f.name for f in agreed.fields], dtype=object)
        self.n_features_in_ = len(agreed.fields)
        self._codes_, self._outcome_ = codes, outcome
        self._groups_ = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        self._packets_ = [_bytes(source) for source in _sources(self.packets)]
        self._node_: Node | None = None
        self._opened().ask_many(codes[:1], probes=self.probes)  # fits now, not at the first prediction
        return self

    def _agreed(self) -> Schema:
        if isinstance(self.schema, Schema):
            return self.schema
        if isinstance(self.schema, (str, os.PathLike)):
            return load(self.schema)
        raise SchemaError("schema must be an outroute.Schema or the path of one", code="schema.type")

    def _opened(self) -> Node:
        """The node that answers; made anew after unpickling."""
        node = self._node_
        if node is None:
            node = Node(
                self._agreed(),
                transport=self.transport,
                secret=self.secret or b"",
                clock=self.clock or time.time,
                seed=self.random_state,
                settings=self.settings or Settings(),
            )
            rows = np.arange(len(self._codes_))
            node.observe_encoded(self._codes_, self._outcome_, cases=rows, subjects=self._groups_)
            self.refused_: dict[str, int] = {}
            for data in self._packets_:
                for reason, count in node.receive(data).items():
                    name = reason.name.lower()
                    self.refused_[name] = self.refused_.get(name, 0) + count
            self._node_ = node
        return node

    @staticmethod
    def _codes(schema: Schema, X: Any) -> NDArray[np.uint16]:
        if hasattr(X, "nnz"):
            raise InputError("Sparse data was passed, but dense data is required: X.toarray()", code="data.type")
        if not hasattr(X, "columns") and not hasattr(X, "keys"):
            array = np.asarray(X)
            names = [f.name for f in schema.fields]
            if array.dtype.kind == "c":
                raise InputError("Complex data not supported", code="data.type")
            if array.ndim != 2:
                raise InputError(
                    f"Expected 2D array, got {array.ndim}D array instead. Reshape your data: one row a case, one "
                    "column a field",
                    code="data.shape",
                )
            if not array.shape[1]:
                raise InputError(
                    f"0 feature(s) (shape={array.shape}) while a minimum of 1 is required.", code="data.shape"
                )
            if array.shape[1] != len(names):
                raise InputError(
                    f"X has {array.shape[1]} features, but OutcomeRouter is expecting {len(names)} features as input",
                    code="data.shape",
                )
            X = {name: array[:, i] for i, name in enumerate(names)}
        try:
            return codes_of_cases(schema, X)
        except DataError as error:
            raise InputError(str(error), code=error.code) from None

    # answering ----------------------------------------------------------------------------------------------

    def insights(self, X: Any) -> Insights:
        """Answers in full: interval, support, contributors, what disagreed; ``insights(X)[i]`` is row i's.

        Raises:
            InputError: a value is not one that the schema allows.
            NotFittedError: before ``fit``.
        """
        if not hasattr(self, "_codes_"):
            raise NotFittedError("This OutcomeRouter instance is not fitted yet. Call 'fit' with own records first")
        return self._opened().ask_many(self._codes(self._agreed(), X), probes=self.probes)

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class (as ``y`` has it), or the mean in the outcome's unit; ``[m]``.

        Answers are given also where an insight would abstain; ``insights`` says where.
        """
        found = self.insights(X)
        if not self._agreed().outcome.has_classes:
            return found.estimate
        labels: NDArray[Any] = self.classes_[found.probabilities.argmax(axis=1)]
        return labels

    @available_if(_has_classes)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probability of each of ``classes_``, float64 ``[m, classes]`` (class outcomes only)."""
        return self.insights(X).probabilities

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy (class outcomes) or R squared (numeric)."""
        from sklearn.metrics import accuracy_score, r2_score

        measure = accuracy_score if self._agreed().outcome.has_classes else r2_score
        return float(measure(y, self.predict(X), sample_weight=sample_weight))

    # what scikit-learn asks for -----------------------------------------------------------------------------

    @property
    def _estimator_type(self) -> str:
        return "classifier" if self._agreed().outcome.has_classes else "regressor"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, RegressorTags

        tags = super().__sklearn_tags__()
        outcome = self._agreed().outcome
        tags.estimator_type = self._estimator_type
        if outcome.has_classes:
            tags.classifier_tags = ClassifierTags(multi_class=outcome.kind is OutcomeKind.CATEGORICAL)
        else:
            tags.regressor_tags = RegressorTags()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    def __sklearn_clone__(self) -> OutcomeRouter:
        # Schema and packets are never changed, and a transport must not be copied: clones share them.
        return type(self)(**self.get_params(deep=False))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_codes_")

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = dict(super().__getstate__())
        if "_node_" in state:
            state["_node_"] = None  # it is made again from records and packets
        return state


def _labels(schema: Schema, y: NDArray[Any]) -> NDArray[Any]:
    """Classes as ``y`` writes them, in the schema's order."""
    names = schema.outcome.classes
    if y.dtype.kind in "iufb":
        if not any(name.isdecimal() for name in names):
            return np.arange(len(names)).astype(y.dtype)
        try:
            return np.array([float(name) for name in names]).astype(y.dtype)
        except ValueError:
            pass
    return np.array(names, dtype=object if y.dtype.kind == "O" else None)


def _sources(packets: Source | Iterable[Source] | None) -> list[Source]:
    if packets is None:
        return []
    if isinstance(packets, (str, os.PathLike, bytes, np.ndarray)):
        return [packets]
    return list(packets)


def _bytes(source: Source) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, np.ndarray):
        return source.tobytes()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the packets in {source}: {error.strerror}", code="packet.file") from None
