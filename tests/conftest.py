"""The conformance suite lies in the package: its assertions are shown like those of the tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("outroute.testing")
