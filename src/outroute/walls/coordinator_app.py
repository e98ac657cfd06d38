"""A Flower app as its users write one: the server averages, each client trains on the file that its node names.

It is copied into a folder and handed to ``flwr run``; Flower then loads it in processes of its own. After each round
that changed the weights the server appends the time to ``rounds.txt`` and saves them, as Flower's guide to checkpoints
shows; a run that is started again begins with the weights saved last.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from outroute.walls.coordinator_model import load, steps

WARM_ROUNDS = 2
"""Rounds with a long time-out, after which it is known how long a round takes here."""
TIMEOUT_ROUNDS = 2.0
"""How many times that the server then waits for clients before it goes on without them, as a careful operator sets it.
Flower's default is an hour: a client that hangs would stop everybody for so long."""
TIMEOUT_LEAST = 5.0
"""Seconds that it waits at least."""

client = ClientApp()
server = ServerApp()


@server.main()  # type: ignore[untyped-decorator, unused-ignore]
def main(grid: Grid, context: Context) -> None:
    """All rounds."""
    config = context.run_config
    folder = Path(str(config["folder"]))
    saved = folder / "checkpoint.npy"
    shape = (int(config["features"]), int(config["outputs"]))
    first = np.load(saved) if saved.exists() else np.zeros(shape, dtype=np.float32)

    last, ended = first, time.monotonic()
    took = 0.0

    def keep(number: int, arrays: ArrayRecord) -> None:
        nonlocal last, ended, took
        took, ended = time.monotonic() - ended, time.monotonic()
        new = arrays.to_numpy_ndarrays()[0]
        if number and np.array_equal(new, last):  # nobody answered in time: no work was done
            return
        last = new
        part = folder / "checkpoint.part.npy"
        np.save(part, new)
        part.replace(saved)
        with (folder / "rounds.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.time()} {number}\n")

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=int(config["least"]),
        min_available_nodes=int(config["least"]),
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([first]),
        num_rounds=WARM_ROUNDS,
        timeout=float(config["timeout"]),
        evaluate_fn=keep,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([last]),
        num_rounds=int(config["rounds"]),
        timeout=max(TIMEOUT_LEAST, TIMEOUT_ROUNDS * took),
        evaluate_fn=keep,
    )


@client.train()  # type: ignore[untyped-decorator, unused-ignore]
def train(message: Message, context: Context) -> Message:
    """One round at one site; where sites choose their own model, what comes back has its shape."""
    records = load(str(context.node_config["data"]))
    config = context.run_config
    weights = message.content["arrays"].to_numpy_ndarrays()
    width = int(context.node_config.get("width", 0))
    if width:  # a network with a hidden layer of this width instead; its first step from its own start
        rng = np.random.default_rng(width)
        new: list[NDArray[Any]] = [
            rng.normal(size=(records[0].shape[1], width)),
            rng.normal(size=(width, records[1].shape[1])),
        ]
    else:
        new = [steps(records, weights[0], int(config["classes"]))]
    content = {"arrays": ArrayRecord(new), "metrics": MetricRecord({"num-examples": len(records[0])})}
    return Message(content=RecordDict(content), reply_to=message)
