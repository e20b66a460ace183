"""The embedded corpus as a corpus."""

import pytest

from mlkd.data.corpora.embedded import EmbeddedCorpus
from mlkd.demo_data import LANGUAGES
from mlkd.errors import MlkdError


def test_all_languages_by_default() -> None:
    corpus = EmbeddedCorpus(pairs_per_language=300)
    assert corpus.languages == list(LANGUAGES)
    loaded = corpus.load()
    assert [pair.target_language for pair in loaded.train] == list(LANGUAGES)
    for report in loaded.report.languages.values():
        assert report.read == 300
        assert report.dev > 0 and report.train > 200


def test_the_seed_decides() -> None:
    first, same, other = (
        EmbeddedCorpus(languages=["de"], pairs_per_language=200, seed=seed).load().report.fingerprint
        for seed in (1, 1, 2)
    )
    assert first == same != other


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"languages": ["de", "fr"]}, "E207", "languages[1]: the embedded corpus has no 'fr'"),
        ({"pairs_per_language": 0}, "E204", "pairs_per_language: must be >= 1 (got 0)"),
        ({"source_language": "fr"}, "E207", "must be en here"),
    ],
)
def test_bad_fields(options: dict[str, object], code: str, words: str) -> None:
    with pytest.raises(MlkdError) as caught:
        EmbeddedCorpus(**options)  # type: ignore[arg-type]
    assert [problem.code for problem in caught.value.problems] == [code]
    assert words in str(caught.value)
