"""Keys, node ids and organisations, and what organisations say about keys."""

from __future__ import annotations

from outroute.identity.certificates import CERTIFICATE_BYTES, Certificate
from outroute.identity.filing import Learned, Refused, StatementReason
from outroute.identity.keys import (
    CLOCK_SKEW_SECONDS,
    KEY_BYTES,
    SEAL_BYTES,
    SIGNATURE_BYTES,
    Identity,
    Purpose,
    exchange_key,
    node_id,
    seal,
    signing_keys,
    verify,
)
from outroute.identity.register import Register
from outroute.identity.statements import (
    STATEMENT_BYTES,
    Membership,
    Revocation,
    Statement,
    StatementKind,
    Succession,
    read_statement,
)

__all__ = [
    "CERTIFICATE_BYTES",
    "CLOCK_SKEW_SECONDS",
    "KEY_BYTES",
    "SEAL_BYTES",
    "SIGNATURE_BYTES",
    "STATEMENT_BYTES",
    "Certificate",
    "Identity",
    "Learned",
    "Membership",
    "Purpose",
    "Refused",
    "Register",
    "Revocation",
    "Statement",
    "StatementKind",
    "StatementReason",
    "Succession",
    "exchange_key",
    "node_id",
    "read_statement",
    "seal",
    "signing_keys",
    "verify",
]
