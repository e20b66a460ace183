"""The held-out set: reproducible, disjoint, and blind to the order of a file."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mlkd.data.overlap import match_key
from mlkd.data.split import Split, split_pairs

WORDS = st.text("aAbB.! ", min_size=1, max_size=4).filter(lambda text: bool(text.strip()))
PAIRS = st.dictionaries(st.sampled_from(["de", "fr", "zh"]), st.lists(st.tuples(WORDS, WORDS), unique=True), min_size=1)


def split(pairs: dict[str, list[tuple[str, str]]], **options: object) -> dict[str, Split]:
    defaults = {"dev_pairs": 3, "max_dev_share": 0.5, "max_train_pairs": None, "seed": 0}
    return split_pairs(pairs, **(defaults | options))  # type: ignore[arg-type]


def numbered(count: int, suffix: str = "") -> list[tuple[str, str]]:
    return [(f"sentence {index}", f"Satz {index}{suffix}") for index in range(count)]


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.integers(0, 5), st.sampled_from([None, 2]))
def test_no_text_of_the_development_set_is_left_in_training(
    pairs: dict[str, list[tuple[str, str]]], dev_pairs: int, limit: int | None
) -> None:
    splits = split(pairs, dev_pairs=dev_pairs, max_train_pairs=limit)
    dev_sources = {match_key(source) for one in splits.values() for source, _ in one.dev}
    for language, one in splits.items():
        assert len(one.train) + len(one.dev) + one.dropped.total() == len(pairs[language])
        assert len(one.dev) == min(dev_pairs, len(pairs[language]) // 2)
        assert limit is None or len(one.train) <= limit
        dev_targets = {match_key(target) for _, target in one.dev}
        for source, target in one.train:
            assert match_key(source) not in dev_sources
            assert match_key(target) not in dev_targets


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.randoms(use_true_random=False), st.sampled_from([None, 2]))
def test_the_order_of_a_file_does_not_matter(
    pairs: dict[str, list[tuple[str, str]]], rng: random.Random, limit: int | None
) -> None:
    shuffled = {language: rng.sample(rows, len(rows)) for language, rows in pairs.items()}
    for language, one in split(pairs, max_train_pairs=limit).items():
        other = split(shuffled, max_train_pairs=limit)[language]
        assert sorted(one.dev) == sorted(other.dev)
        assert sorted(one.train) == sorted(other.train)


def test_the_order_of_the_file_is_kept() -> None:
    one = split({"de": numbered(200)}, max_train_pairs=50)["de"]
    position = {pair: index for index, pair in enumerate(numbered(200))}
    for rows in (one.train, one.dev):
        assert [position[pair] for pair in rows] == sorted(position[pair] for pair in rows)
    assert one.dropped == {"over_limit": 147}


def test_languages_with_the_same_sources_hold_out_the_same() -> None:
    splits = split({"de": numbered(100), "fr": numbered(100, " f")}, dev_pairs=10, max_train_pairs=40)
    for part in ("train", "dev"):
        sources = [[source for source, _ in getattr(one, part)] for one in splits.values()]
        assert sources[0] == sources[1]
    assert splits["de"].dropped == {"over_limit": 50}


def test_a_source_held_out_in_one_language_leaves_the_others() -> None:
    shared = ("only here", "nur hier")
    splits = split(
        {"de": [shared], "fr": [*numbered(10), ("Only here!", "seulement ici")]}, dev_pairs=1, max_dev_share=1
    )
    assert splits["de"].dev == [shared]
    assert splits["fr"].dropped["held_out_source"] + (("Only here!", "seulement ici") in splits["fr"].dev) == 1


def test_another_seed_holds_out_others() -> None:
    first, second = (split({"de": numbered(200)}, dev_pairs=20, seed=seed)["de"].dev for seed in (0, 1))
    assert first != second
    assert first == split({"de": numbered(200)}, dev_pairs=20)["de"].dev


def test_the_choice_is_pinned() -> None:
    """A change of the hash would silently move sentences between training and development."""
    assert [source for source, _ in split({"de": numbered(20)})["de"].dev] == [
        "sentence 4",
        "sentence 6",
        "sentence 17",
    ]
