import os
import signal
import threading

import pytest

from lorafit.training.interrupt import Interruptible


def test_first_signal_is_noted_and_the_second_one_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with Interruptible() as signals:
        assert not signals.requested
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.requested
        assert signal.getsignal(signal.SIGINT) is before
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_without_a_run_ctrl_c_acts_at_once():
    with Interruptible(enabled=False), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_leave_signals_alone():
    failures = []

    def work():
        try:
            with Interruptible():
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures
