"""The calls: what the command line and Python users make. Each is the whole story, short.

>>> import lorafit
>>> run = lorafit.train("distilbert-base-uncased", "rotten_tomatoes")  # doctest: +SKIP
>>> run.eval["tuned"]["accuracy"]["value"], run.adapter  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit import packaged, pipeline
from lorafit.comparison import fitting
from lorafit.comparison.fitting import Field
from lorafit.comparison.forecast import ComparisonPlan, forecast
from lorafit.comparison.outcome import Comparison, conclude
from lorafit.comparison.request import Size, find_or_make, make_request
from lorafit.comparison.workers import run_arms
from lorafit.config import Config
from lorafit.console.calls import shown
from lorafit.console.python import RESULT, progress_of, result_lines
from lorafit.data.fingerprint import fingerprint
from lorafit.errors import ConfigError, LorafitError, RunError
from lorafit.evaluation import forgetting
from lorafit.export import merged
from lorafit.export.folder import check_free
from lorafit.inspection.rows import Preview
from lorafit.machine import signals
from lorafit.machine.placement import find_device
from lorafit.pipeline import finishing, planning, previewing, seen, unchanged
from lorafit.pipeline.defaults import record_choices
from lorafit.pipeline.job import Job
from lorafit.pipeline.lent import gives_back
from lorafit.pipeline.planning import Plan
from lorafit.pipeline.problem import Live, Problem, identified
from lorafit.pipeline.room import make_room
from lorafit.pipeline.tuned import Tuned, opened
from lorafit.report import closing
from lorafit.report.comparison import write_comparison
from lorafit.report.html import write_report
from lorafit.result import Run
from lorafit.run import Run as RunFolder
from lorafit.run import RunWriter
from lorafit.run.commands import way_back
from lorafit.settings import LIVE, Settings, from_call
from lorafit.settings.keywords import CompareKeywords, SettingsKeywords, ShrinkKeywords
from lorafit.settings.spoken import in_python, is_typed
from lorafit.shrinking import files
from lorafit.shrinking.choose import check_rank, with_data, without_data
from lorafit.shrinking.files import Shrunk
from lorafit.shrinking.measure import Shrinking
from lorafit.training import guest
from lorafit.training.progress import Progress
from lorafit.training.trackers import check_trackers
from lorafit.trust import Trust, check_same, granted
from lorafit.tune import search
from lorafit.using import evaluate, load, predict

__all__ = [
    "Tuned",
    "compare",
    "demo",
    "evaluate",
    "load",
    "merge",
    "plan",
    "plan_comparison",
    "predict",
    "preview",
    "shrink",
    "train",
]

log = logging.getLogger(__name__)

COMPARE_AGAIN = "stopped. The same command goes on after the last finished run."

RETRAIN_STEPS = 50
RETRAIN_RATE = 5e-4
"""Of `shrink`: the weights are near where they should be, so a quarter of the usual rate."""


@shown
@guest.training()
@gives_back
def train(
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: Config | Settings | None = None,
    origins: Mapping[str, str] | None = None,
    resume: str | Path | Run | None = None,
    progress: Progress | bool = True,
    **settings: Unpack[SettingsKeywords],
) -> Run:
    """Fine-tunes a model on data and returns the finished run.

    Args:
        model: Hub id, local folder, ``package:NAME/path``, or a live model, which is given
            back as it came, bit for bit (`load` puts the adapter on it).
        data: Hub id, file, folder, ``package:NAME/path``, or a data set in memory.
        tokenizer: The tokenizer of a live model.
        config: Complete settings; keyword settings go on top. Model and data may be among them.
        origins: Where the values of ``config`` came from, for the record.
        resume: An interrupted run to go on with, as it was; needs no other argument but
            what was passed as live objects, and ``trust_remote_code`` where its model needs it:
            what the run's folder says of trust does not count.
        progress: Whether, or with what, to show progress and all that is said along the way (in
            a notebook: one block); ``False``: warnings only. A logging handler of the caller's
            program gets what is said instead (logger ``lorafit``).
        **settings: Any setting by its name: ``r=8``, ``learning_rate=1e-3``, ``label="stars"``.

    Returns:
        The run: ``run.adapter`` (PEFT format), ``run.eval``, ``run.choices``.

    Raises:
        ConfigError: A setting is unknown, wrong, or does not fit the model.
        DataError: The data cannot be read, or not be trained on.
        ModelError: The model cannot be loaded, or needs code that was not allowed.
        TrainingError: Training cannot go on; the run can be resumed from its last checkpoint.
        HandoffError: The saved adapter does not compute what the trained one does.
        RunError: The run folder cannot be written, or there is no such run.
    """
    live = pipeline.live_model(model, tokenizer)
    with signals.raising():
        if resume is not None:
            run = RunWriter(opened(resume).path)
            with signals.naming(way_back(run.path)):
                trust = Trust.of(settings)
                return _told(_resumed(run, data, live, progress_of(progress), trust))
        whole = from_call(model, data, config, origins, settings)
        check_trackers(whole.config.train.report_to)
        job = _prepared(whole, data, live)
        wish = search.wanted(job)
        make_room(job.subject, job.config.train)
        job = job.begun()  # only now: wrong input leaves no folder behind
        with signals.naming(way_back(job.folder.path)):
            return _told(_trained(job, wish, progress_of(progress)))


@shown
@gives_back
def compare(
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    *,
    methods: Sequence[str] | str = "all",
    seeds: int = 3,
    budget: float = 1.0,
    general_text: str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: Config | Settings | None = None,
    origins: Mapping[str, str] | None = None,
    progress: bool = True,
    **settings: Unpack[CompareKeywords],
) -> Comparison:
    """Trains a model with several methods on an equal footing and sets them side by side.

    Each method gets a learning rate of its own by the same small search, the same data in
    the same order, the same schedule and the same number of runs. The same call goes on with
    a comparison that was interrupted.

    Args:
        model: As for `train`.
        data: As for `train`.
        methods: Names of methods, or ``all``: those that fit the model.
        seeds: Runs of each method.
        budget: What the search for one method's rate may cost, in full runs.
        general_text: A file, one text a line, on which forgetting is measured; ``None``: the
            sentences that come with lorafit.
        tokenizer: The tokenizer of a live model.
        config: Complete settings; keyword settings go on top.
        origins: Where the values of ``config`` came from.
        progress: As for `evaluate`.
        **settings: Any setting by its name; those of an adapter hold for the methods that
            have them.

    Returns:
        The comparison: ``rows``, ``recommendation``, and all of ``compare.json``.

    Raises:
        ConfigError: There is no such method, one does not fit the model, or ``seeds`` or
            ``budget`` are out of range; nothing was trained.
        DataError: The data or the general text cannot be read, or not be trained on, or the
            comparison that was begun under this run name has other rows.
        ModelError: The comparison goes on, and the base model is not what it was.
        TrainingError: No arm finished.
    """
    live = pipeline.live_model(model, tokenizer)
    size = Size(seeds, budget)
    whole = from_call(model, data, config, origins, settings)
    text = forgetting.general_text(general_text)
    base = identified(whole.config.model, live)  # before there are adapters on a live one
    with guest.as_found():
        problem, field = _entered(whole, methods, data, live)
    base = base or identified(whole.config.model, live)
    request = replace(make_request(problem, field, whole.config, size, text), identity=base)
    with signals.raising(), signals.naming(COMPARE_AGAIN):
        folder, known = find_or_make(request, problem.splits, text, live)
        log.info("%s %s", "going on with" if known else "comparing in", folder)
        failed = run_arms(folder, request, _trust(whole))
        found = conclude(folder, request, field.left_out, failed)
        write_comparison(folder, found.record)
    return found


@shown
@guest.as_found()
@gives_back
def plan_comparison(
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    *,
    methods: Sequence[str] | str = "all",
    seeds: int = 3,
    budget: float = 1.0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: Config | Settings | None = None,
    origins: Mapping[str, str] | None = None,
    progress: bool = True,
    **settings: Unpack[CompareKeywords],
) -> ComparisonPlan:
    """Says what `compare` would do and how long it would train; nothing is trained or written.

    A few steps of each method are timed on the model, which takes seconds a method.

    Args:
        model: As for `compare`, and so are all others.
        data: The data.
        methods: Names of methods, or ``all``.
        seeds: Runs of each method.
        budget: What the search for one method's rate may cost, in full runs.
        tokenizer: The tokenizer of a live model.
        config: Complete settings; keyword settings go on top.
        origins: Where the values of ``config`` came from.
        progress: As for `evaluate`.
        **settings: Any setting by its name.

    Raises:
        LorafitError: Whatever `compare` would refuse before its first training.
    """
    live = pipeline.live_model(model, tokenizer)
    size = Size(seeds, budget)
    whole = from_call(model, data, config, origins, settings)
    problem, field = _entered(whole, methods, data, live)
    request = make_request(problem, field, whole.config, size, [])
    return forecast(problem, field, request, whole, live)


@shown
@guest.as_found()
def merge(
    run: str | Path | Run,
    out: str | Path,
    *,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    progress: bool = True,
) -> Path:
    """Writes the tuned model of a run as a plain transformers model.

    The written model is loaded again and compared with the adapted one before this returns.

    Args:
        run: A finished run.
        out: A folder that does not exist or is empty.
        trust_remote_code: As for `load`.
        attn_implementation: As for `load`.
        progress: As for `evaluate`.

    Raises:
        HandoffError: The merged model computes something else; nothing is left behind.
        RunError: The folder is not empty or cannot be written.
    """
    tuned = load(
        opened(run), trust_remote_code=trust_remote_code, attn_implementation=attn_implementation
    )
    merged.save(tuned.adapters, out, tokenizer=tuned.tokenizer)
    return Path(out)


@shown
@guest.training()
@gives_back
def shrink(
    adapter: str | Path | Run,
    r: int | Literal["auto"] = "auto",
    data: Any = None,
    out: str | Path | None = None,
    *,
    model: str | Path | PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    retrain_steps: int = RETRAIN_STEPS,
    progress: bool = True,
    **settings: Unpack[ShrinkKeywords],
) -> Shrunk:
    """Writes a LoRA adapter at a smaller rank, and says what that loses.

    With data, each rank is measured on the validation examples: by plain SVD, by SVD weighted
    with the layers' inputs, and by the latter after a short retraining. Without data, plain
    SVD of the rank that was asked for, which loses more than it has to.

    Args:
        adapter: A run, or the folder or Hub id of a LoRA adapter, ours or PEFT's.
        r: The new rank; ``"auto"``: the smallest that loses at most 2 % of what the adapter
            gains over the base, with 95 % confidence.
        data: What `train` takes, with the columns the adapter was trained on.
        out: A folder that does not exist; ``None``: beside the adapter, ``<its name>-shrunk``.
        model: The base, where the adapter's folder does not name it; live, or its name.
        tokenizer: The tokenizer of a live model.
        retrain_steps: Optimizer steps of retraining at each rank; 0: none.
        progress: As for `evaluate`.
        **settings: How the data is read and the retraining done, as for `train`.

    Raises:
        AdapterError: It is not LoRA, or does not fit the model.
        ConfigError: The rank is not one, or ``"auto"`` without data.
    """
    source = files.read(_lora_folder(adapter))
    asked = check_rank(r, source, data is not None)
    if retrain_steps < 0:
        raise ConfigError(f"retrain_steps is {retrain_steps}, but it should be 0 or more.")
    name = source.folder.resolve()
    target = Path(out) if out is not None else name.with_name(f"{name.name}-shrunk")
    check_free(target)
    if data is None:
        assert asked is not None
        return without_data(source, asked, target)
    pipeline.live_model(model, tokenizer)
    given = {"learning_rate": RETRAIN_RATE} | settings
    base = model if model is not None else source.config.base_model_name_or_path or LIVE
    config = from_call(base, data, None, None, given).config
    find_device(config.train.device)
    found = Shrinking(source, data, config, model, tokenizer)
    return with_data(found, asked, retrain_steps, target)


@shown
@guest.as_found()
@gives_back
def preview(
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    config: Config | Settings | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsKeywords],
) -> Preview:
    """Describes the data as the model will see it; nothing is trained or written.

    Args:
        model: As for `train`.
        data: As for `train`.
        config: Complete settings; keyword settings go on top.
        tokenizer: The tokenizer of a live model.
        progress: As for `evaluate`.
        **settings: Any setting by its name.

    Raises:
        DataError: The data cannot be read.
        ConfigError: A setting is wrong, or the adapter does not fit the model.
    """
    live = pipeline.live_model(model, tokenizer)
    whole = from_call(model, data, config, None, settings)
    find_device(whole.config.train.device)
    problem = pipeline.pose(data, whole.config, live)
    found = previewing.describe(problem, whole.config, live)
    return found if is_typed() else found.spoken(in_python)


@shown
@guest.as_found()
@gives_back
def plan(
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: Config | Settings | None = None,
    origins: Mapping[str, str] | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsKeywords],
) -> Plan:
    """Says what `train` would do and cost; nothing is trained or written.

    Args:
        model: As for `train`.
        data: As for `train`.
        tokenizer: The tokenizer of a live model.
        config: Complete settings; keyword settings go on top.
        origins: Where the values of ``config`` came from.
        progress: As for `evaluate`.
        **settings: Any setting by its name.

    Raises:
        LorafitError: Whatever `train` would refuse before its first step.
    """
    live = pipeline.live_model(model, tokenizer)
    job = _prepared(from_call(model, data, config, origins, settings), data, live)
    wish = search.wanted(job)
    found = planning.estimate(job)
    return found if wish is None else replace(found, measured=wish.names, budget=wish.budget)


def demo(*, progress: Progress | bool = True, **settings: Unpack[SettingsKeywords]) -> Run:
    """Fine-tunes the packaged sentence encoder on the packaged movie reviews, offline.

    Args:
        progress: As for `train`.
        **settings: Any setting by its name.

    Raises:
        ConfigError: The packages of ``requirements-demo.txt`` are not installed.
    """
    given: dict[str, Any] = {**packaged.SETTINGS, **settings}
    return train(packaged.MODEL, packaged.DATA, progress=progress, **given)


def _entered(
    settings: Settings, methods: Sequence[str] | str, data: Any, live: Live | None
) -> tuple[Problem, Field]:
    """What is to be learned, and the methods that take part in a comparison."""
    asked = fitting.names_of(methods)
    fitting.check_left_to_compare(settings)
    find_device(settings.config.train.device)
    problem = pipeline.pose(data, settings.config, live)
    return problem, fitting.enter(problem, settings, asked, live)


def _resumed(
    run: RunWriter, data: Any, live: Live | None, progress: Progress, trust: Trust
) -> RunWriter:
    """Goes on with a run, from wherever it is; its model is loaded as the caller allows."""
    if run.status == "done":
        finished = closing.finish(run)
        if not finished:
            raise RunError(f'"{run.path}" is finished; there is nothing to resume.')
        log.info('"%s" was done but for its last files: %s', run.path, ", ".join(finished))
        return run
    if run.delivered:  # stopped between its last two files
        with _reported(run):
            pass
        return run
    _check_given(run, live, data)
    whole = _as_begun(run, live, trust)
    check_trackers(whole.config.train.report_to)
    job = _prepared(whole, data, live, run)
    make_room(job.subject, job.config.train)
    return _trained(job, search.wanted(job), progress, resume=True)


def _trained(
    job: Job, wish: search.Wanted | None, progress: Progress, *, resume: bool = False
) -> RunWriter:
    """Trains what is prepared, in its folder, to the end."""
    with _reported(job.folder):
        versions = _recorded(job)
        record_choices(job)
        found = search.trained(job, wish, progress, resume=resume)
        job = replace(job, settings=found.settings)
        choices = record_choices(job, found.choices, found.extra)
        finishing.finish(job, found.result, choices, versions)
        search.keep_lesson(job, found.lesson)
    return job.folder


def _check_given(run: RunWriter, live: Live | None, data: Any) -> None:
    """Asks for what a run was made from that is in no file, if it is not given again."""
    config = run.config
    if config.model.name_or_path == LIVE and live is None:
        raise ConfigError(f'"{run.path}" was made from a live model; pass it again to resume.')
    if config.data.path == LIVE and data is None:
        raise ConfigError(f'"{run.path}" was made from data in memory; pass it again to resume.')


def _trust(settings: Settings) -> Trust:
    """What the caller allows, by settings in which no file can have said so."""
    model = settings.config.model
    return Trust(model.trust_remote_code, model.attn_implementation)


def _as_begun(run: RunWriter, live: Live | None, trust: Trust) -> Settings:
    """The settings that a run began with; its model is loaded as the caller allows."""
    config = run.config
    check_same(config.model, trust, str(run.path))
    if live is None:
        config.model = granted(config.model, trust)
    return Settings(config, run.origins)


def _prepared(
    settings: Settings, data: Any, live: Live | None, run: RunWriter | None = None
) -> Job:
    """Everything up to the first step: the problem, and what is to learn it.

    Args:
        settings: Of the run.
        data: What was passed as data; ``None``: what the settings name.
        live: The model; ``None``: the one that the settings name.
        run: The run to go on with.
    """
    find_device(settings.config.train.device)  # before anything is read
    problem = pipeline.pose(data, settings.config, live)
    if run is not None:
        again = "Bring the old rows back to resume it, or start a new run."
        unchanged.check_unchanged(run, problem.splits, again)
    base = identified(settings.config.model, live)  # before there are adapters on a live one
    if run is not None:
        unchanged.check_base(run, settings.config.model.name_or_path, base)
    start = None if run is None else run.path / pipeline.START
    subject = pipeline.prepare(problem, settings.config, live, start=start)
    return Job(problem, subject, settings, run, base or identified(settings.config.model, live))


@contextmanager
def _reported(run: RunWriter) -> Iterator[None]:
    """Works on a run, and draws its report whether that comes to an end or to an error."""
    with run.lock():
        try:
            with run.working():
                yield
        except LorafitError:
            with suppress(Exception):  # the disk may be full: the first error is the one to show
                write_report(run.path)
            raise
        closing.finish(run)


def _recorded(job: Job) -> dict[str, str | None]:
    """Writes what the job begins with; returns the versions of packages."""
    data = fingerprint(job.problem.splits)
    facts = {"seed": job.config.seed, "data": data, unchanged.BASE: job.base}
    environment = job.folder.write_environment(**facts)
    seen.keep(job.folder, job.problem.splits["train"], job.problem.task)
    job.folder.write_json("data.json", pipeline.data_record(job.subject, job.task))
    return environment["versions"]


def _lora_folder(source: str | Path | RunFolder) -> str | Path:
    """The adapter of a run, or of its folder; anything else is an adapter already."""
    if isinstance(source, RunFolder):
        return source.adapter
    is_run = (Path(source) / "config.yaml").is_file()
    return RunFolder.open(source).adapter if is_run else source


def _told(run: RunFolder) -> Run:
    """The finished run, whose result is said."""
    found = Run(run.path)
    for line in result_lines(found):
        logging.getLogger(RESULT).info("%s", line)
    return found
