from __future__ import annotations

import shlex

from lorafit.run.commands import predict_command


def test_a_pair_is_suggested_as_the_command_line_takes_it() -> None:
    assert predict_command("runs/a b", ["text"]) == "lorafit predict 'runs/a b' \"a text\""
    assert predict_command("runs/x", "text").endswith('"a text"')
    command = predict_command("runs/x", ["premise", "hypothesis"])
    assert shlex.split(command)[:3] == ["lorafit", "predict", "runs/x"]
    assert command.endswith(r"$'a text\tits partner'")
