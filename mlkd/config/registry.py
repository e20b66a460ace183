"""The schemas that YAML options name, by group: what Hydra calls its config store."""

from __future__ import annotations

import functools
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.config.mine_schema import MineConfig
from mlkd.config.train_schema import TrainConfig
from mlkd.data.corpora.embedded import EmbeddedCorpus
from mlkd.data.corpora.files import JsonlCorpus, MosesCorpus, ParquetCorpus, TsvCorpus
from mlkd.data.corpora.hub import HubCorpus
from mlkd.data.corpora.tmx import TmxCorpus
from mlkd.losses.feature import FeatureTerm
from mlkd.losses.mix import LossMix
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.losses.ranking.triplet import TripletRanking
from mlkd.models.students.pretrained import PretrainedStudent
from mlkd.models.students.teacher_layers import TeacherLayersStudent
from mlkd.models.students.thin_deep import ThinDeepStudent
from mlkd.optim.optimizer import Optim
from mlkd.runtime.devices import Hardware
from mlkd.tasks.agreement import AgreementTask
from mlkd.tasks.bucc.task import BuccTask
from mlkd.tasks.efficiency import EfficiencyTask
from mlkd.tasks.language_bias import JointStsTask, MixedPoolTask
from mlkd.tasks.mse import MseTask
from mlkd.tasks.retrieval import RetrievalTask
from mlkd.tasks.sts.task import StsTask
from mlkd.tasks.tatoeba import TatoebaTask
from mlkd.tasks.translation import TranslationTask
from mlkd.tasks.xnli.task import XnliTask
from mlkd.tasks.xsim.task import XsimTask
from mlkd.teacher.encoder import Teacher


def without_defaults(schema: type[Any], *names: str) -> DictConfig:
    """`schema` with required fields: YAML can neither take a default back nor replace it by one of another class."""
    node: DictConfig = OmegaConf.structured(schema)
    for name in names:
        OmegaConf.update(node, name, MISSING)
    return node


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
