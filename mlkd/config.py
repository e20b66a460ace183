"""The configuration: schemas of all groups, composition by Hydra, and every check that needs no file.

The only user of OmegaConf and, with the entry points, of Hydra.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue

from mlkd.bitext.settings import MineConfig
from mlkd.data.corpus import ParallelCorpus
from mlkd.data.files import JsonlCorpus, MosesCorpus, ParquetCorpus, TsvCorpus
from mlkd.data.generated import EmbeddedCorpus
from mlkd.data.hub import HubCorpus
from mlkd.data.tmx import TmxCorpus
from mlkd.errors import MlkdError, Problem, did_you_mean
from mlkd.evaluate_config import EvaluateConfig
from mlkd.losses.feature import FeatureTerm
from mlkd.losses.mix import LossMix
from mlkd.losses.ranking import AmsRanking, InfoNceRanking, TripletRanking
from mlkd.models.students import PretrainedStudent, Student
from mlkd.models.teacher_layers import TeacherLayersStudent
from mlkd.models.thin_deep import ThinDeepStudent
from mlkd.optim import Optim
from mlkd.paths import CONFIG_DIR, EXTRA_CONFIG_DIRS
from mlkd.runtime.devices import Hardware
from mlkd.search import Search
from mlkd.tasks.agreement import AgreementTask
from mlkd.tasks.base import Task
from mlkd.tasks.bucc import BuccTask
from mlkd.tasks.efficiency import EfficiencyTask
from mlkd.tasks.language_bias import JointStsTask, MixedPoolTask
from mlkd.tasks.mse import MseTask
from mlkd.tasks.retrieval import RetrievalTask
from mlkd.tasks.sts import StsTask
from mlkd.tasks.tatoeba import TatoebaTask
from mlkd.tasks.translation import TranslationTask
from mlkd.tasks.xnli import XnliTask
from mlkd.tasks.xsim import XsimTask
from mlkd.teacher.negatives import NegativeMining
from mlkd.teacher.reduction import ReductionMethod
from mlkd.teacher.targets import Teacher


@dataclass(kw_only=True, slots=True)
class Evaluation:
    """Evaluation while training.

    Args:
        every_steps: optimiser steps between evaluations; the last step is always evaluated. None: six times a run.
        metric: `task/language/metric` that chooses the best student, e.g. tatoeba/mean/accuracy. Empty takes the main
            metric of the first task.
        patience: stop after this many evaluations in a row without a new best; None never stops early.
    """

    every_steps: int | None = None
    metric: str = ""
    patience: int | None = None

    def __post_init__(self) -> None:
        problems = [
            Problem("E204", f"must be >= 1 (got {getattr(self, name)})", name)
            for name in ("every_steps", "patience")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if self.metric and self.metric.count("/") != 2:
            problems.append(Problem("E204", f"must be task/language/metric (got '{self.metric}')", "metric"))
        if problems:
            raise MlkdError(problems)


@dataclass(kw_only=True, slots=True)
class Checkpointing:
    """Training state on disk.

    Args:
        every_steps: optimiser steps between checkpoints; None: at every evaluation.
        keep: newest checkpoints kept.
    """

    every_steps: int | None = None
    keep: int = 2

    def __post_init__(self) -> None:
        problems = [
            Problem("E204", f"must be >= 1 (got {getattr(self, name)})", name)
            for name in ("every_steps", "keep")
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        if problems:
            raise MlkdError(problems)


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One training run.

    Args:
        name: names the run's folder, `<output_dir>/<name>/<time>`.
        seed: of fresh weights, dropout and the order of batches.
        dry_run: check everything, take one step on one batch, print sizes and estimated time, and stop.
        resume: continue an unfinished run of the same configuration under `<output_dir>/<name>`, or a sweep.
        log_every_steps: between lines of metrics.jsonl.
        output_dir: of runs.
        cache_dir: of tokens and teacher vectors, shared by all runs.
    """

    name: str = "run"
    teacher: Teacher
    student: Student
    data: ParallelCorpus
    optim: Optim
    loss: LossMix = field(default_factory=LossMix)
    negatives: NegativeMining = field(default_factory=NegativeMining)
    hardware: Hardware = field(default_factory=Hardware)
    task: dict[str, Task] = field(default_factory=dict)
    evaluation: Evaluation = field(default_factory=Evaluation)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    search: Search = field(default_factory=Search)
    seed: int = 1
    dry_run: bool = False
    resume: bool = True
    log_every_steps: int = 10
    output_dir: str = "outputs"
    cache_dir: str = "outputs/cache"

    def __post_init__(self) -> None:
        self.student.take_teacher(self.teacher.model, self.teacher.revision)
        problems = [*range_problems(self), *self._relations()]
        if problems:
            raise MlkdError(problems)

    @property
    def needs_teacher_target(self) -> bool:
        """Whether the teacher must encode the translations too, for the loss or for its own reduction."""
        reduces = self.teacher.reduction.dim is not None or self.loss.reduces_teacher
        return self.loss.needs_teacher_target or (reduces and self.teacher.reduction.method is ReductionMethod.dense)

    def _relations(self) -> Iterator[Problem]:
        first = self.evaluation.metric.split("/")[0]
        names = [task.name for task in self.task.values()]
        if first and first not in names:
            yield Problem(
                "E209",
                f"names task '{first}', which this run does not evaluate; its tasks: {', '.join(names) or 'none'}",
                "evaluation.metric",
            )
        if self.evaluation.patience is not None and not self.task:
            yield Problem("E209", "early stopping needs a task to watch; set task=[tatoeba]", "evaluation.patience")
        if self.hardware.processes > self.optim.batch_size:
            what = f"must be at most optim.batch_size={self.optim.batch_size} (got {self.hardware.processes})"
            yield Problem("E204", what, "hardware.processes")
        if self.loss.alpha > 0 and self.optim.batch_size < 2:
            yield Problem("E209", "a ranking loss needs negatives: batch_size must be >= 2 (got 1)", "optim.batch_size")
        keeps_dropout = self.student.dropout is None and isinstance(self.student, PretrainedStudent)
        if self.loss.needs_second_pass and not (self.student.dropout or keeps_dropout):
            what = "against=dropout ranks two dropout passes, which are equal without dropout"
            yield Problem("E209", what, "student.dropout", "set student.dropout=0.1")
        if len(set(names)) != len(names):
            yield Problem("E209", f"two tasks share a name: {', '.join(names)}; set task.<key>.name", "task")


def range_problems(config: Any) -> Iterator[Problem]:
    """What is wrong with the root's own fields, of a TrainConfig or of the DictConfig that is to become one."""
    if config.log_every_steps < 1:
        yield Problem("E204", f"must be >= 1 (got {config.log_every_steps})", "log_every_steps")
    if not 0 <= config.seed < 2**63:
        yield Problem("E204", f"must be in [0, 2^63) (got {config.seed})", "seed")
    if not config.name or "/" in config.name or config.name.startswith("."):
        yield Problem("E204", f"must be a folder name (got '{config.name}')", "name")


def without_defaults(schema: type[Any], *names: str) -> DictConfig:
    """`schema` with required fields: YAML can neither take a default back nor replace it by one of another class."""
    node: DictConfig = OmegaConf.structured(schema)
    for name in names:
        OmegaConf.update(node, name, MISSING)
    return node


Config = TypeVar("Config", TrainConfig, EvaluateConfig, MineConfig)
SCHEMAS: dict[str, dict[str, Any]] = {
    "": {
        "train_schema": without_defaults(TrainConfig, "loss.ranking"),
        "evaluate_schema": EvaluateConfig,
        "mine_schema": MineConfig,
    },
    "teacher": {"teacher_schema": Teacher},
    "student": {
        "pretrained_student": without_defaults(PretrainedStudent, "model"),
        "thin_deep_student": ThinDeepStudent,
        "teacher_layers_student": TeacherLayersStudent,
    },
    "loss": {"loss_mix": without_defaults(LossMix, "ranking")},
    "loss/ranking": {"ams_ranking": AmsRanking, "info_nce_ranking": InfoNceRanking, "triplet_ranking": TripletRanking},
    "loss/feature": {"feature_term": FeatureTerm},
    "data": {
        "embedded_corpus": EmbeddedCorpus,
        "tsv_corpus": TsvCorpus,
        "moses_corpus": MosesCorpus,
        "jsonl_corpus": JsonlCorpus,
        "parquet_corpus": ParquetCorpus,
        "hub_corpus": HubCorpus,
        "tmx_corpus": TmxCorpus,
    },
    "hardware": {"hardware_schema": Hardware},
    "optim": {"optim_schema": Optim},
    "task": {
        "sts_schema": StsTask,
        "tatoeba_schema": TatoebaTask,
        "bucc_schema": BuccTask,
        "mse_schema": MseTask,
        "translation_schema": TranslationTask,
        "xnli_schema": XnliTask,
        "agreement_schema": AgreementTask,
        "sts_file_schema": without_defaults(StsTask, "path", "pairs"),
        "tatoeba_file_schema": without_defaults(TatoebaTask, "path", "languages"),
        "bucc_file_schema": without_defaults(BuccTask, "path", "pairs"),
        "retrieval_schema": RetrievalTask,
        "retrieval_file_schema": without_defaults(RetrievalTask, "path", "languages"),
        "xsim_schema": XsimTask,
        "xsim_file_schema": without_defaults(XsimTask, "path", "languages"),
        "sts_joint_schema": JointStsTask,
        "sts_joint_file_schema": without_defaults(JointStsTask, "path", "pairs"),
        "mixed_pool_schema": MixedPoolTask,
        "mixed_pool_file_schema": without_defaults(MixedPoolTask, "path", "languages"),
        "efficiency_schema": EfficiencyTask,
        "mse_file_schema": without_defaults(MseTask, "path", "languages"),
        "translation_file_schema": without_defaults(TranslationTask, "path", "languages"),
        "xnli_file_schema": without_defaults(XnliTask, "path", "train_path"),
        "agreement_file_schema": without_defaults(AgreementTask, "path", "pairs"),
    },
}


@functools.cache
def register_schemas() -> None:
    """Make every schema known to Hydra under `<group>/<name>`."""
    store = ConfigStore.instance()
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=group or None, name=name, node=schema)


def compose_config(primary: str, overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose `primary` (train, evaluate or mine) outside of a Hydra application, `with_hydra` its own node too.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: at the first override that does not fit.
    """
    register_schemas()
    if GlobalHydra.instance().is_initialized():
        return compose(primary, list(overrides), return_hydra_config=with_hydra)
    folders = ",".join(f"'file://{folder}'" for folder in EXTRA_CONFIG_DIRS)
    searched = [f"hydra.searchpath=[{folders}]"] if folders else []
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return compose(primary, [*overrides, *searched], return_hydra_config=with_hydra)


def build_config(cfg: DictConfig, kind: type[Config]) -> Config:
    """Turn a composed configuration into live objects.

    Raises:
        MlkdError: all problems of all nodes together, each with its full key.
    """
    problems = [
        Problem("E205", f"is required and not set. Example: {key}=...", key)
        for key in sorted(OmegaConf.missing_keys(cfg))
    ]
    _check_node(cfg, "", problems)
    if problems:
        raise MlkdError(problems)
    result = OmegaConf.to_object(cfg)
    assert isinstance(result, kind)
    return result


def _check_node(node: DictConfig, path: str, problems: list[Problem]) -> bool:
    """Convert nodes from the leaves up, so that one bad node hides no other; returns whether all went well.

    A bad child is replaced by its schema's default (or left out of a dict) to judge the rest of its parent; what
    would relate to that child (E209) is then not judged. The root has required children: its own ranges are judged
    without building it.
    """
    bad = []
    unknown = _unknown_keys(node)
    problems.extend(Problem("E201", f"unknown key.{did_you_mean(k, names)}", f"{path}{k}") for k, names in unknown)
    node = _without(node, [key for key, _ in unknown])
    for key in map(str, node):
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not _check_node(child, f"{path}{key}.", problems):
            bad.append(key)
    if bad and OmegaConf.get_type(node) is TrainConfig:
        problems.extend(range_problems(node))
        return False
    if bad:
        node = _with_defaults(node, bad)
    try:
        OmegaConf.to_object(node)
    except MlkdError as error:
        found = [p for p in error.problems if not (bad and (p.code == "E209" or p.where in bad))]
        problems.extend(dataclasses.replace(p, where=_full_key(path, p.where)) for p in found)
        return False
    except MissingMandatoryValue:
        return False
    return not (bad or unknown)


def _unknown_keys(node: DictConfig) -> list[tuple[str, list[str]]]:
    """Keys that were added (`+key=value`) to a node whose schema has no such field, each with the names it has."""
    schema = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(schema):
        return []
    names = [f.name for f in dataclasses.fields(schema)]
    return [(key, names) for key in map(str, node) if key not in names]


def _without(node: DictConfig, keys: Sequence[str]) -> DictConfig:
    if not keys:
        return node
    copy: DictConfig = node.copy()
    OmegaConf.set_struct(copy, False)
    for key in keys:
        copy._content.pop(key)  # type: ignore[union-attr]  # a structured node refuses `del`
    return copy


def _with_defaults(node: DictConfig, keys: Sequence[Any]) -> DictConfig:
    copy: DictConfig = node.copy()
    schema = OmegaConf.get_type(node)
    with open_dict(copy):
        for key in keys:
            if dataclasses.is_dataclass(schema):
                copy[key] = OmegaConf.structured(schema)[key]
            else:
                del copy[key]
    return copy


def _full_key(path: str, where: str) -> str:
    # Relations between groups carry their full key already.
    return f"{path}{where}" if where else path.rstrip(".")


def as_yaml(config: TrainConfig | EvaluateConfig) -> str:
    """Every value of a configuration as YAML, enums by name."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def as_flat_dict(yaml: str) -> dict[str, Any]:
    """`{"optim.lr": 1e-3, ...}` of what `as_yaml` wrote."""

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for key, item in value.items():
                yield from walk(item, f"{path}.{key}" if path else str(key))
        else:
            yield path, value

    return dict(walk(OmegaConf.to_container(OmegaConf.create(yaml)), ""))
