"""XNLI: the classifier equals scikit-learn's, transfers where the encoder does, and names every bad label."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.errors import MlkdError
from mlkd.tasks.xnli import classifier as xnli_classifier
from mlkd.tasks.xnli.classifier import feature_blocks, fit_classifier
from mlkd.tasks.xnli.task import LABELS, NliData, NliSet, XnliTask

Write = Callable[..., str]
HEADER = ["label", "premise", "hypothesis"]


class SignEncoder:
    """`de +3`: a vector whose first number is 3 with noise of the text; `strange` languages lose it."""

    def __init__(self, strange: str = "xx") -> None:
        self.strange = strange

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        rows = []
        for text in texts:
            language, number = text.split()[:2]
            noise = torch.randn(4, generator=torch.Generator().manual_seed(sum(text.encode())))
            rows.append(torch.cat([torch.tensor([0.0 if language == self.strange else float(number)]), 0.05 * noise]))
        return torch.stack(rows)


def _set(language: str, count: int, seed: int) -> NliSet:
    """The label is the sign of the product of both numbers: only u * v tells."""
    generator = random.Random(seed)
    numbers = [(generator.choice([-1, 1]), generator.choice([-1, 0, 1])) for _ in range(count)]
    classes = [(0 if a * b > 0 else 2) if b else 1 for a, b in numbers]
    premises = [f"{language} {a} p{n}" for n, (a, _) in enumerate(numbers)]
    return NliSet(language, premises, [f"{language} {b} h{n}" for n, (_, b) in enumerate(numbers)], classes)


def _random_pairs(count: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(count, 5, generator=generator), torch.randn(count, 5, generator=generator)
    first[:, 4] = 1.0  # does not vary
    noise = torch.randn(count, generator=generator)
    return first, second, ((first * second).sum(dim=1) + noise > 0).long() + (first[:, 0] > 1).long()


def test_features_by_hand() -> None:
    (block,) = feature_blocks(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]]))
    assert block.tolist() == [[1.0, -2.0, 3.0, 0.5, 2.0, 2.5, 3.0, -1.0]] and block.dtype == torch.float64


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("l2", [0.3, 300.0])
def test_equals_scikit_learn(l2: float) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    first, second, labels = _random_pairs()
    ours = fit_classifier(first, second, labels, num_classes=3, l2=l2)
    u, v = first.double().numpy(), second.double().numpy()
    features = StandardScaler().fit_transform(np.hstack([u, v, np.abs(u - v), u * v]))
    theirs = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(features, labels.numpy())
    np.testing.assert_allclose(ours.weight_FC.numpy().T, theirs.coef_, atol=2e-4)
    assert ours.predict(first, second).tolist() == theirs.predict(features).tolist()
    assert ours.gradient <= 1e-6 and 0 < ours.iterations < 500


def test_blocks_and_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, labels = _random_pairs()
    copies = [t.clone() for t in (first, second, labels)]
    whole = fit_classifier(first, second, labels, num_classes=3, l2=30.0)
    monkeypatch.setattr(xnli_classifier, "_BLOCK_PAIRS", 7)
    monkeypatch.setattr(xnli_classifier, "_MAX_HELD_BYTES", 0)
    blocks = fit_classifier(first, second, labels, num_classes=3, l2=30.0)
    torch.testing.assert_close(blocks.weight_FC, whole.weight_FC, atol=1e-5, rtol=0)
    assert blocks.predict(first, second).tolist() == whole.predict(first, second).tolist()
    assert all(torch.equal(a, b) for a, b in zip((first, second, labels), copies, strict=True))


def test_order_of_the_training_pairs_changes_nothing() -> None:
    first, second, labels = _random_pairs()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    expected = fit_classifier(first, second, labels, num_classes=3, l2=30.0)
    found = fit_classifier(first[order], second[order], labels[order], num_classes=3, l2=30.0)
    torch.testing.assert_close(found.weight_FC, expected.weight_FC, atol=1e-5, rtol=0)


def test_transfers_to_the_languages_that_share_the_space() -> None:
    task = XnliTask(path="p", train_path="t", languages=["en", "de", "sw"], l2=0.3)
    data = NliData(_set("en", 300, 1), [_set("en", 100, 2), _set("de", 100, 3), _set("sw", 100, 4)])
    result = task.score(data, SignEncoder(strange="sw"))
    metrics = result.as_metrics()
    assert metrics["xnli/en/accuracy"] == metrics["xnli/de/accuracy"] == 100.0
    assert metrics["xnli/sw/accuracy"] < 60
    assert metrics["xnli/mean/accuracy"] == pytest.approx((200 + metrics["xnli/sw/accuracy"]) / 3)
    assert result.protocol == "zero-shot, logistic regression on 300 en pairs, l2=0.3"
    assert [score.count for score in result.scores] == [100, 100, 100, 300]
    assert {key: items.value() for key, items in result.item_scores.items()} == {
        f"{score.language}/{score.metric}": score.value for score in result.scores
    }
    assert result.details["training_accuracy"] == 100.0
    assert task.score(data, SignEncoder(strange="sw")).as_metrics() == metrics
    assert not any("en" in text.split()[0] and "p299" in text for text in task.texts(data))
    trained_on = {*data.training.premises, *data.training.hypotheses}
    assert set(task.encoded_texts(data)) == {*task.texts(data), *trained_on} > set(task.texts(data))


def test_files(write: Write) -> None:
    rows = [["contradictory", "a", "b"], ["entailment", "c", '"d'], ["1", "NA", "e"]]
    write("train.en.tsv", HEADER, *rows)
    path = write("dev.de.tsv", ["premise", "label", "hypothesis"], ["a", "neutral", "b"])
    task = XnliTask(
        path=path.replace(".de.", ".{language}."),
        train_path=path.replace("dev.de", "train.{language}"),
        languages=["de"],
    )
    data = task.load()
    assert data.training == NliSet("en", ["a", "c", "NA"], ["b", '"d', "e"], [2, 0, 1])
    assert data.tests == [NliSet("de", ["a"], ["b"], [1])]


def test_drawn_training_pairs_depend_on_the_seed_alone(write: Write) -> None:
    rows = [[LABELS[n // 100], f"p{n}", f"h{n}"] for n in range(300)]
    write("train.en.tsv", HEADER, *rows)
    path = write("dev.de.tsv", HEADER, *rows[:3])
    paths = {"path": path, "train_path": path.replace("dev.de", "train.en"), "languages": ["de"]}
    one, same, other = (XnliTask(**paths, max_train=60, seed=seed).load().training for seed in (1, 1, 2))
    assert one == same and one.premises != other.premises and len(set(one.premises)) == 60
    assert min(one.classes.count(number) for number in range(3)) > 8
    assert all(
        row[0] == LABELS[c] for c, row in zip(one.classes, (rows[int(p[1:])] for p in one.premises), strict=True)
    )


def test_all_bad_labels_and_files_are_named_together(write: Write) -> None:
    path = write("dev.de.tsv", HEADER, ["neutral", "a", "b"], ["entails", "a", "b"], ["", "a", "b"], ["3", "a", "b"])
    paths = {"path": path.replace(".de.", ".{language}."), "train_path": path}
    with pytest.raises(MlkdError) as caught:
        XnliTask(**paths, languages=["de", "fr"]).load()
    text = str(caught.value)
    assert f"error[E314]: {path}:3: label 'entails' is none of entailment, neutral, contradiction, or 0, 1, 2" in text
    assert f"{path}:4: label ''" in text and f"{path}:5: label '3'" in text and "error[E301]" in text
    path = write("dev.es.tsv", HEADER, ["neutral", "a", "b"])
    with pytest.raises(MlkdError, match=r"E314.*training pairs hold no entailment and no contradiction"):
        XnliTask(path=path, train_path=path, languages=["es"]).load()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"E205.*path: is required: no NLI set is embedded"),
        ({"path": "a"}, r"E209.*train_path: set both"),
        ({"dataset": "a", "l2": 0.0}, r"E204.*l2: must be in \(0, inf\) \(got 0.0\)"),
        ({"dataset": "a", "max_train": 2}, r"E204.*max_train: must be >= 3 \(got 2\)"),
        ({"dataset": "a", "seed": -1}, r"E204.*seed"),
        ({"dataset": "a", "languages": ["de", "False"]}, r"E206.*languages\[1\]"),
        ({"dataset": "a", "source_language": "jp"}, r"E207.*source_language.*Did you mean 'ja'"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MlkdError, match=message):
        XnliTask(**fields)
