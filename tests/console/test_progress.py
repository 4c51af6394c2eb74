import io
import sys

import pytest
from rich.console import Console

from lorafit.console.progress import PlainProgress, RichProgress, duration, make_progress
from lorafit.training.progress import QuietProgress, Update
from tests.training import toy


def update(step):
    return Update(
        step=step,
        total_steps=100,
        epoch=step / 50,
        loss=0.51234,
        learning_rate=1e-3,
        tokens_per_s=12345.6,
        time_left_s=75.0,
    )


def test_plain_lines_come_at_most_every_ten_seconds():
    now = 0.0
    text = io.StringIO()
    progress = PlainProgress(text, clock=lambda: now)
    progress.start(0, 100)
    for step in range(1, 31):
        now += 1.0
        progress.step(update(step))
    progress.evaluated(30, {"eval_loss": 0.4, "eval_accuracy": 0.75}, best=True)
    progress.stop()
    assert text.getvalue().splitlines() == [
        "training for 100 steps",
        "step 10/100  epoch 0.20  loss 0.5123  12,346 tokens/s  1:15 left",
        "step 20/100  epoch 0.40  loss 0.5123  12,346 tokens/s  1:15 left",
        "step 30/100  epoch 0.60  loss 0.5123  12,346 tokens/s  1:15 left",
        "step 30: validation loss 0.4000  accuracy 0.7500  (best)",
    ]


def test_resumed_training_says_where_it_goes_on():
    text = io.StringIO()
    PlainProgress(text).start(40, 100)
    assert text.getvalue() == "training for 100 steps (step 40 is done)\n"


def test_bar_shows_loss_speed_and_time_left():
    text = io.StringIO()
    progress = RichProgress(Console(file=text, force_terminal=True, width=100))
    progress.start(0, 100)
    progress.step(update(50))
    progress.evaluated(50, {"eval_loss": 0.4}, best=False)
    progress.stop()
    shown = text.getvalue()
    for part in ("50/100", "loss 0.5123", "12,346 tokens/s", "1:15 left", "validation loss 0.4000"):
        assert part in shown


@pytest.mark.parametrize(("terminal", "kind"), [(True, RichProgress), (False, PlainProgress)])
def test_terminal_gets_a_bar_and_a_log_gets_lines(monkeypatch, terminal, kind):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert isinstance(make_progress(), kind)
    assert isinstance(make_progress(quiet=True), QuietProgress)


def test_quiet_shows_nothing(capsys):
    progress = make_progress(quiet=True)
    progress.start(0, 100)
    progress.step(update(1))
    progress.evaluated(1, {"eval_loss": 0.4}, best=True)
    progress.stop()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (-3, "0:00")]
)
def test_durations_read_as_clock_times(seconds, text):
    assert duration(seconds) == text


def test_a_bar_shows_the_phases_of_a_search_and_what_each_has_cost() -> None:
    out = io.StringIO()
    progress = RichProgress(Console(file=out, force_terminal=True, width=100))
    progress.start(0, 100)
    progress.phase("learning rate", 0.0, 0.0)
    progress.phase("learning rate", 0.13, 61.0)
    progress.phase("rank", 0.3, 120.0)
    progress.stop()
    shown = out.getvalue()
    for text in ("learning rate", "0.13", "1:01", "rank", "0.30", "2:00"):
        assert text in shown


def test_lines_name_each_phase_once() -> None:
    out = io.StringIO()
    progress = PlainProgress(out)
    for name in ("rank", "rank", "modules"):
        progress.phase(name, 0.1, 1.0)
    assert out.getvalue() == "phase: rank (short trials)\nphase: modules (short trials)\n"


def test_plain_progress_shows_a_whole_run():
    text = io.StringIO()
    toy.run_fit(toy.config(max_steps=2, eval_steps=2), progress=PlainProgress(text, interval_s=0.0))
    first, *steps, last = text.getvalue().splitlines()
    assert first == "training for 2 steps"
    assert len(steps) == 2
    assert last.startswith("step 2: validation loss 0.")
    assert last.endswith("(best)")
