"""What holds for all tests: assertions of the conformance suite are shown like theirs, and Ctrl-C reaches programs.

The conformance suite lies in the package. A shell that starts a command in the background lets it ignore Ctrl-C, and
whatever that command starts inherits this: tests that stop programs by Ctrl-C would wait for ever.
"""

from __future__ import annotations

import signal
import threading

import pytest

pytest.register_assert_rewrite("outroute.testing")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
