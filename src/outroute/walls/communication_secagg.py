"""Flower's secure aggregation (SecAgg+), a real round of it in this process, and what it sends.

The workflow is the one that Flower's server runs, the clients are wrapped in Flower's own mod, and every message is
turned into the bytes that would travel and back. The server gets each client's weights under a mask, and the sum.

Source: Bell et al., Secure Single-Server Aggregation with (Poly)Logarithmic Overhead (CCS 2020), as in flwr 1.41.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outroute.walls.base import Tell
from outroute.walls.flower_log import quiet

__all__ = ["MESSAGES", "Secure", "measured", "secure_round"]

Weights = NDArray[np.float32]

MESSAGES = 4
"""To a client and back, in each round: set up, share keys, collect masked weights, unmask."""
CLIENTS = (3, 6, 9)
PARAMETERS = (16, 4_096)
"""Of which the law of its bytes is taken."""
THRESHOLD = 0.67
"""Of the shares of a key, those that open it: some clients may leave within a round."""
SERVER = 2**32
"""Node id of the server; clients count from 1."""


@dataclass(slots=True, kw_only=True)
class Secure:
    """One round.

    Attributes:
        aggregate: what the server knows at its end, the mean weighted by records.
        masked: what it got from each client, integers below 2^32.
        up, down: bytes of a client's messages, mean over the clients.
    """

    aggregate: Weights
    masked: Mapping[int, NDArray[np.int64]]
    up: float
    down: float


@dataclass(slots=True)
class _Grid:
    """Carries messages between Flower's workflow and clients with Flower's mod, as bytes."""

    clients: Mapping[int, tuple[Weights, int]]
    contexts: dict[int, Any] = field(default_factory=dict)
    up: dict[int, int] = field(default_factory=dict)
    down: dict[int, int] = field(default_factory=dict)
    masked: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    def send_and_receive(self, messages: Sequence[Any], *, timeout: float | None = None) -> list[Any]:
        """What the workflow calls."""
        return [self._one(message) for message in messages]

    def _one(self, message: Any) -> Any:
        from flwr.app import Context, RecordDict
        from flwr.client.mod import secaggplus_mod
        from flwr.common import bytes_to_ndarray
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

        node = message.metadata.dst_node_id
        if node not in self.contexts:
            self.contexts[node] = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
        came, size = _carried(message)
        self.down[node] = self.down.get(node, 0) + size
        reply, size = _carried(secaggplus_mod(came, self.contexts[node], self._train))
        self.up[node] = self.up.get(node, 0) + size
        reply.metadata.__dict__["_src_node_id"] = node
        told = reply.content.config_records[RECORD_KEY_CONFIGS]
        if Key.MASKED_PARAMETERS in told:  # the first is the weight of the client, masked too
            self.masked[node] = np.asarray(bytes_to_ndarray(told[Key.MASKED_PARAMETERS][1]), dtype=np.int64)
        return reply

    def _train(self, message: Any, context: Any) -> Any:
        """The app of a client: it has trained already."""
        from flwr.app import Message
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
        from flwr.compat.common import recorddict_compat as compat

        weights, records = self.clients[context.node_id]
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([weights]), records, {})
        return Message(compat.fitres_to_recorddict(result, False), reply_to=message)


def _carried(message: Any) -> tuple[Any, int]:
    """A message as it arrives, and its bytes."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    parts = {name: of.deflate() for name, of in get_all_nested_objects(message).items()}
    size = sum(map(len, parts.values()))
    arrived = inflate_object_from_contents(message.object_id, parts)
    arrived.metadata.__dict__["_message_id"] = message.object_id
    return arrived, size


def secure_round(clients: Mapping[int, tuple[Weights, int]]) -> Secure:
    """One round of SecAgg+ in which everybody is everybody's neighbour.

    Args:
        clients: by node id, from 1: float32[n] weights within -8 and 8 (others are cut there), and how many records
            (1,000 at most) they stand for. At least three clients.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    from flwr.app import ConfigRecord, Context, RecordDict
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.compat.common import recorddict_compat as compat
    from flwr.server import SimpleClientManager
    from flwr.server.compat.grid_client_proxy import GridClientProxy
    from flwr.server.compat.legacy_context import LegacyContext
    from flwr.server.strategy import FedAvg
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
    from flwr.supercore.task_identity import TaskIdentity

    # The server's app runs in a process of its own and is told by this who it is.
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SERVER, 1
    grid, manager, count = _Grid(clients), SimpleClientManager(), len(clients)
    for node in clients:
        manager.register(GridClientProxy(node, grid, 1))
    strategy = FedAvg(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=count,
        min_available_clients=count,
        fit_metrics_aggregation_fn=lambda _: {},
    )
    start = ndarrays_to_parameters([np.zeros_like(next(iter(clients.values()))[0])])
    state = RecordDict(
        {
            MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}),
            MAIN_PARAMS_RECORD: compat.parameters_to_arrayrecord(start, True),
        }
    )
    server = Context(run_id=1, node_id=SERVER, node_config={}, state=state, run_config={})
    context = LegacyContext(server, strategy=strategy, client_manager=manager)
    with quiet():
        SecAggPlusWorkflow(1.0, THRESHOLD)(grid, context)
    found = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    return Secure(
        aggregate=parameters_to_ndarrays(found)[0],
        masked=grid.masked,
        up=float(np.mean(list(grid.up.values()))),
        down=float(np.mean(list(grid.down.values()))),
    )


def measured(tell: Tell) -> dict[str, Any]:
    """The law of the bytes of a client in one round, and how far the aggregate is from the mean.

    Returns:
        ``up`` and ``down``: each ``fixed`` bytes, ``each`` neighbour's, and ``slope`` for each parameter; ``error``:
        the largest difference between the aggregate and the weighted mean of all weights, which are standard normal.
    """
    tell("Flower's secure aggregation")
    rng = np.random.default_rng(0)
    terms, up, down, error = [], [], [], 0.0
    for count in CLIENTS:
        for size in PARAMETERS:
            clients = {
                node: (rng.normal(size=size).astype(np.float32), int(rng.integers(50, 500)))
                for node in range(1, count + 1)
            }
            found = secure_round(clients)
            records = np.array([of for _, of in clients.values()], dtype=np.float64)
            mean = np.average([weights for weights, _ in clients.values()], axis=0, weights=records)
            error = max(error, float(np.abs(found.aggregate - mean).max()))
            terms.append([1.0, count - 1.0, float(size)])
            up.append(found.up)
            down.append(found.down)
    law = {}
    for way, of in (("up", up), ("down", down)):
        fixed, each, slope = np.linalg.lstsq(np.array(terms), np.array(of), rcond=None)[0]
        law[way] = {"fixed": float(fixed), "each": float(each), "slope": float(slope)}
    return law | {"error": error}
