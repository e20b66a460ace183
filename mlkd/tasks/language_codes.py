"""Two-letter language codes and the three-letter ones that the Tatoeba test sets are named by."""

from __future__ import annotations

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


def three_letters(language: str) -> str:
    """The three-letter code of `language`; a code not in the table is taken as it is.

    >>> three_letters("zh"), three_letters("kab")
    ('cmn', 'kab')
    """
    return _THREE_LETTERS.get(language, language)
