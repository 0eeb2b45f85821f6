"""SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from coordconv_apps.training.checkpoints import Checkpoints
from coordconv_apps.training.signals import Interrupted, Interrupts, raised_as_interrupted


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


def test_a_signal_that_was_blocked_until_the_end_is_dropped() -> None:
    interrupts = Interrupts()
    interrupts.install()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.raise_signal(signal.SIGTERM)  # to this thread: others do not block it
    interrupts.restore()
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_signal_while_processes_ask_one_another_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, trainer = Checkpoints(Interrupts(), {}), cast(Trainer, SimpleNamespace(world_size=2))

    def reduce(requested: Tensor, *unused: object, **options: object) -> None:
        checkpoints.interrupts.requested = signal.SIGTERM  # all processes sent 0

    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)
    assert not checkpoints._asked_to_stop(trainer), "the other processes go on"
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *unused, **options: None)
    assert checkpoints._asked_to_stop(trainer)


def test_an_interruption_of_an_import_is_none_of_the_import() -> None:
    def stop() -> None:
        try:
            raise Interrupted(signal.SIGTERM)
        except Interrupted as interrupted:
            raise ImportError("initialization failed") from interrupted

    with pytest.raises(Interrupted), raised_as_interrupted():
        stop()
    with pytest.raises(ImportError, match="no such module"), raised_as_interrupted():
        raise ImportError("no such module")
