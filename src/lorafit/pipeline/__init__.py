"""The stages of one run, each one function: problem, subject, training, finish."""

from __future__ import annotations

from lorafit.pipeline.compute import make_engine, uses_bf16
from lorafit.pipeline.problem import Live, Problem, live_model, pose, roles, test_rows
from lorafit.pipeline.subject import (
    START,
    Subject,
    adapter_config,
    data_record,
    data_truth,
    encode,
    keep_start,
    load_base,
    longest_input,
    prepare,
    try_adapter,
)

__all__ = [
    "START",
    "Live",
    "Problem",
    "Subject",
    "adapter_config",
    "data_record",
    "data_truth",
    "encode",
    "keep_start",
    "live_model",
    "load_base",
    "longest_input",
    "make_engine",
    "pose",
    "prepare",
    "roles",
    "test_rows",
    "try_adapter",
    "uses_bf16",
]
