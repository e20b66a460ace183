"""Language codes of the Tatoeba test sets: two letters and three, and the published selections by name."""

from __future__ import annotations

from collections.abc import Sequence

# Where ISO 639-3 has a macrolanguage, the test sets name one member: cmn, pes, swh, lvs, zsm, nob, sqi.
_PAIRS = (
    "af:afr am:amh ar:ara az:aze be:bel bg:bul bn:ben br:bre bs:bos ca:cat cs:ces cy:cym da:dan de:deu el:ell "
    "en:eng eo:epo es:spa et:est eu:eus fa:pes fi:fin fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg he:heb hi:hin "
    "hr:hrv hu:hun hy:hye id:ind is:isl it:ita ja:jpn jv:jav ka:kat kk:kaz km:khm ko:kor ku:kur la:lat lt:lit "
    "lv:lvs mk:mkd ml:mal mn:mon mr:mar ms:zsm nb:nob nl:nld nn:nno no:nob oc:oci pl:pol pt:por ro:ron ru:rus "
    "sk:slk sl:slv sq:sqi sr:srp sv:swe sw:swh ta:tam te:tel th:tha tk:tuk tl:tgl tr:tur tt:tat ug:uig uk:ukr "
    "ur:urd uz:uzb vi:vie xh:xho yi:yid zh:cmn"
)
_THREE_LETTERS = dict(pair.split(":") for pair in _PAIRS.split())

# https://github.com/facebookresearch/LASER/tree/fec5c7d63daa2bea9d127e8252b10e87278586c0/data/tatoeba/v1: 112 files,
# and of each language the two-letter code where it has one.
_LASER = (
    "af am ang ar arq arz ast awa az be bn ber bs br bg ca cbk ceb cs cha zh cor csb cy da de dsb dtp el eo et eu fo "
    "fi fr fy gd ga gl gsw he hi hr hsb hu hy ido ile ina id is it jv ja kab ka kk km ko ku kzj la lfn lt lv ml mr "
    "max mhr mk mn nds nl nn nb nov oc orv pam fa pms pl pt ro ru sk sl es sq sr sv swg sw ta tt te tl th tk tr tzl "
    "ug uk ur uz vi war wuu xh yi yue ms"
)
# Hu et al. 2020, "XTREME: A Massively Multilingual Multi-task Benchmark": the languages of its Tatoeba task.
_XTREME = "ar he vi id jv tl eu ml te af nl de el bn hi mr ur ta fr it pt es bg ru ja ka ko th sw zh kk tr et fi hu fa"
LANGUAGE_SETS = {"all": tuple(_LASER.split()), "xtreme": tuple(_XTREME.split())}


def three_letters(language: str) -> str:
    """The three-letter code of `language`; a code not in the table is taken as it is.

    >>> three_letters("zh"), three_letters("kab")
    ('cmn', 'kab')
    """
    return _THREE_LETTERS.get(language, language)


def expand_sets(languages: Sequence[str]) -> list[str]:
    """`languages` with the names of LANGUAGE_SETS replaced by their languages.

    >>> len(expand_sets(["all"])), len(expand_sets(["xtreme", "kab"]))
    (112, 37)
    """
    return [code for language in languages for code in LANGUAGE_SETS.get(language, (language,))]
