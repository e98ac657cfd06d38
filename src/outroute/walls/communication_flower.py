"""Bytes that Flower really sends: its own server and its own connection of a client, through a relay that counts.

The server is the SuperLink's web service, in this process and in memory; the client is the connection that a
SuperNode uses, over TLS. What the app of a client does between pulling and pushing sends nothing, and is left out.
"""

from __future__ import annotations

import datetime
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from outroute.errors import TransportError
from outroute.walls.base import Tell
from outroute.walls.communication_wire import Relay, line
from outroute.walls.flower_log import quiet

__all__ = ["POLL_SECONDS", "messages"]

SIZES = (64, 4_096, 65_536, 1_048_576)
"""Bytes of the arrays in a message, of which the law of its size is taken."""
ROUNDS = 3
"""Of each size: pull a message, push a reply."""
POLL_SECONDS = 3.0
"""Between two questions of a SuperNode that has nothing to do. Source: flwr 1.41, ``start_client_internal``."""
HEARTBEAT_SECONDS = 30.0
"""Between two heartbeats of a SuperNode. Source: flwr 1.41, ``HEARTBEAT_DEFAULT_INTERVAL``."""
POLLS = 5
START_SECONDS = 60.0
"""Until the server must be there: a busy machine takes long to import it."""


def messages(tell: Tell) -> dict[str, Any]:
    """What a round of Flower costs one client, by the bytes of the arrays that it carries.

    Returns:
        ``down`` and ``up``: each ``fixed`` bytes and ``slope`` for each byte of the arrays, of a whole round with
        everything that goes the other way beside it; ``poll``: bytes both ways of asking for work in vain;
        ``join``: of registering and leaving, both ways; ``rounds``: what was measured.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    tell("starting Flower's server")
    with _server() as (state, port, certificate), Relay(port) as relay:
        tell("messages of Flower over a real connection")
        with quiet():
            return _talk(state, relay, certificate)


@contextmanager
def _server() -> Iterator[tuple[Any, int, bytes]]:
    """The SuperLink's web service on a free port, over TLS: its state, the port, and its certificate."""
    import uvicorn
    from flwr.superlink.main import create_app

    with tempfile.TemporaryDirectory() as folder:
        key, certificate = _certificate()
        key_file, certificate_file = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        key_file.write_bytes(key)
        certificate_file.write_bytes(certificate)
        app = create_app()
        config = uvicorn.Config(
            app,
            log_level="critical",
            ssl_keyfile=str(key_file),
            ssl_certfile=str(certificate_file),
            lifespan="off",
            ws="none",
        )
        server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            until = time.monotonic() + START_SECONDS
            while not server.started:
                if not thread.is_alive() or time.monotonic() > until:
                    raise TransportError("Flower's server did not start", code="walls.flower")
                time.sleep(0.02)
            yield app.state.linkstate_factory.state(), listening.getsockname()[1], certificate
        finally:
            server.should_exit = True
            thread.join(timeout=START_SECONDS)
            listening.close()


def _certificate() -> tuple[bytes, bytes]:
    """A key and a certificate for this machine, for an hour."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def _talk(state: Any, relay: Relay, certificate: bytes) -> dict[str, Any]:
    from flwr.common.constant import SUPERLINK_NODE_ID
    from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supernode.fleet_http_connection import http_request_response

    with http_request_response(f"localhost:{relay.port}", False, certificate) as connection:
        node, receive, *rest = connection
        run = state.create_run(None, None, None, {}, NOOP_FEDERATION_ID, None, "", TaskType.SERVER_APP)
        task = next(iter(state.get_tasks(run_ids=[run]))).task_id
        state.claim_task(task)
        state.activate_task(task)
        # An app of the server runs in a process of its own and is told by this who it is.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, SUPERLINK_NODE_ID, task
        receive()
        joined = sum(relay.count())
        before = sum(relay.count())
        for _ in range(POLLS):
            receive()
        poll = (sum(relay.count()) - before) / POLLS
        found: list[list[float]] = []
        for size in SIZES:
            spent = [_round(state, run, node, size, receive, rest, relay) for _ in range(ROUNDS + 1)]
            # The first round of a size may open connections, which are kept: they are counted with joining.
            joined += max(0, sum(spent[0]) - sum(spent[1]))
            found.append([size, *(float(np.mean([one[way] for one in spent[1:]])) for way in (0, 1))])
        before = sum(relay.count())
    left = sum(relay.count()) - before
    law = {}
    for way, at in (("up", 1), ("down", 2)):
        fixed, slope = line([one[0] for one in found], [one[at] for one in found])
        law[way] = {"fixed": fixed, "slope": slope}
    return law | {"poll": poll, "join": joined + left, "rounds": found}


def _round(
    state: Any, run: int, node: int, size: int, receive: Any, calls: Sequence[Any], relay: Relay
) -> tuple[int, int]:
    """One message to the client and its reply; bytes up and down."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.app.message import remove_content_from_message
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
    from flwr.supercore.inflatable.inflatable_utils import (
        inflate_object_from_contents,
        pull_objects,
        push_object_contents_from_iterable,
    )

    send, _, _, pull_object, push_object, confirm = calls
    rng = np.random.default_rng()
    array = rng.integers(0, 256, size, dtype=np.uint8)  # as incompressible as weights
    content = RecordDict(
        {"arrays": ArrayRecord(numpy_ndarrays=[array]), "config": ConfigRecord({"lr": 0.1, "server-round": 1})}
    )
    message = Message(content, node, "train", group_id="1")
    message.metadata.__dict__["_message_id"] = message.object_id
    session = state.start_session(run)
    state.store_message_and_object_tree(remove_content_from_message(message), get_object_tree(message), session)
    for name, of in get_all_nested_objects(message).items():
        state.object_store.put(name, of.deflate())

    before = relay.count()
    pulled = receive()
    if pulled is None:
        raise TransportError("Flower's server has no message for its client", code="walls.flower")
    told, tree = pulled
    wanted = list(_names(tree))
    contents = pull_objects(wanted, pull_object_fn=partial(pull_object, run))
    confirm(run, told.metadata.message_id)
    got = inflate_object_from_contents(told.metadata.message_id, dict(contents))
    got.metadata.__dict__["_message_id"] = told.metadata.message_id
    sent = rng.integers(0, 256, size, dtype=np.uint8)
    reply = Message(
        RecordDict(
            {"arrays": ArrayRecord(numpy_ndarrays=[sent]), "metrics": MetricRecord({"num-examples": 100, "loss": 0.5})}
        ),
        reply_to=got,
    )
    reply.metadata.__dict__["_message_id"] = reply.object_id
    asked, session = send(remove_content_from_message(reply), get_object_tree(reply), 1.0)
    parts = {name: of.deflate() for name, of in get_all_nested_objects(reply).items() if name in asked}
    push_object_contents_from_iterable(iter(parts.items()), push_object_fn=partial(push_object, run, session))
    after = relay.count()
    return after[0] - before[0], after[1] - before[1]


def _names(tree: Any) -> Iterator[str]:
    """Ids of all objects of a message."""
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

    seen = dict.fromkeys(one.object_id for one in iterate_object_tree(tree))
    yield from seen
