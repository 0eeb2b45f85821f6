"""SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal

import pytest

from coordconv_apps.training.signals import Interrupted, Interrupts


def test_the_first_signal_waits_and_the_second_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupts.install()
    try:
        with pytest.raises(Interrupted) as at_once:
            os.kill(os.getpid(), signal.SIGTERM)
        assert at_once.value.exit_status == 143
        interrupts.deferred = True
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.requested == signal.SIGINT
        assert "stopping" in capfd.readouterr().err
        with pytest.raises(Interrupted) as second:
            os.kill(os.getpid(), signal.SIGINT)
        assert second.value.exit_status == 130
    finally:
        interrupts.restore()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
