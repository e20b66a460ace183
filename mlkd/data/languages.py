"""Language codes and the scripts they are written in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlkd.errors import Problem, did_you_mean

# Parts of ISO 639 with codes: two letters, three (bibliographic, terminological, every language), and families.
_PARTS = ("pt1", "pt2b", "pt2t", "pt3", "pt5")
# Withdrawn codes that published corpora still use.
_WITHDRAWN = frozenset({"ajp", "bh", "kzj", "mol", "sh"})
# Countries and old names that are often taken for language codes.
_CONFUSED = {
    "jp": "ja",
    "cn": "zh",
    "cz": "cs",
    "dk": "da",
    "gr": "el",
    "kp": "ko",
    "ua": "uk",
    "iw": "he",
}
# A script, a region or a UN area number may follow, and a variant: zh-cn, deu_Latn, es-419, sr-Latn-RS,
# oci_Latn_aran1260.
_CODE = re.compile(r"(?P<base>[a-z]{2,3})([-_]([A-Za-z]{4}|[A-Za-z]{2}|[0-9]{3})){0,2}([-_][a-z0-9]{5,8})?")
_PRIVATE = re.compile(r"x-[a-z0-9]+")
_BOOLEANS = {"false": '"no"', "true": '"yes" or "on"'}

_SCRIPT_LANGUAGES = {
    "Latin": "af ca cs cy da de en eo es et eu fi fr fy ga gd gl hr ht hu id is it jv la lb lt lv mg mi mt nb nl nn no "
    "pl pt qu rm ro rw sk sl sm sn so sq st su sv sw tl tr vi xh yo zu deu eng fra spa ita por nld tur vie pol ces",
    "Cyrillic": "ab ba be bg ce cv ky mk os ru tt uk rus ukr bul bel mkd",
    "Arabic": "ar arb arz ary ckb fa ps sd ug ur ara pes urd",
    "Greek": "el ell",
    "Hebrew": "he yi heb",
    "Armenian": "hy hye",
    "Georgian": "ka kat",
    "Devanagari": "hi mr ne sa hin mar npi bho mai",
    "Bengali": "as bn ben asm",
    "Gurmukhi": "",
    "Gujarati": "gu guj",
    "Oriya": "or ory",
    "Tamil": "ta tam",
    "Telugu": "te tel",
    "Kannada": "kn kan",
    "Malayalam": "ml mal",
    "Sinhala": "si sin",
    "Thai": "th tha",
    "Lao": "lo lao",
    "Tibetan": "bo dz bod",
    "Burmese": "my mya",
    "Ethiopic": "am ti amh tir",
    "Khmer": "km khm",
    "Han": "zh cmn yue wuu lzh zho",
    "Japanese": "ja jpn",
    "Hangul": "ko kor",
}
_SCRIPT_OF = {language: script for script, languages in _SCRIPT_LANGUAGES.items() for language in languages.split()}
# First and last code point of the letters that tell scripts apart.
_RANGES = (
    (0x0041, 0x024F, "Latin"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x0370, 0x03FF, "Greek"),
    (0x1F00, 0x1FFF, "Greek"),
    (0x0400, 0x052F, "Cyrillic"),
    (0x0530, 0x058F, "Armenian"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0600, 0x077F, "Arabic"),
    (0x08A0, 0x08FF, "Arabic"),
    (0xFB50, 0xFDFF, "Arabic"),
    (0xFE70, 0xFEFF, "Arabic"),
    (0x0900, 0x097F, "Devanagari"),
    (0x0980, 0x09FF, "Bengali"),
    (0x0A00, 0x0A7F, "Gurmukhi"),
    (0x0A80, 0x0AFF, "Gujarati"),
    (0x0B00, 0x0B7F, "Oriya"),
    (0x0B80, 0x0BFF, "Tamil"),
    (0x0C00, 0x0C7F, "Telugu"),
    (0x0C80, 0x0CFF, "Kannada"),
    (0x0D00, 0x0D7F, "Malayalam"),
    (0x0D80, 0x0DFF, "Sinhala"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x0E80, 0x0EFF, "Lao"),
    (0x0F00, 0x0FFF, "Tibetan"),
    (0x1000, 0x109F, "Burmese"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1200, 0x139F, "Ethiopic"),
    (0x1780, 0x17FF, "Khmer"),
    (0x3040, 0x30FF, "Kana"),
    (0x3400, 0x9FFF, "Han"),
    (0xAC00, 0xD7AF, "Hangul"),
    (0x1100, 0x11FF, "Hangul"),
)


def check_languages(codes: Sequence[object], where: str) -> list[Problem]:
    """Problems of a list of language codes: E206 for a YAML boolean, E207 for an unknown code or one given twice.

    A code is ISO 639-1 or 639-3, optionally with script and region (`zh-cn`, `pt-BR`, `deu_Latn`), or `x-` and a
    name of one's own.
    """
    problems = []
    for index, code in enumerate(codes):
        problem = check_language(code, f"{where}[{index}]")
        if problem:
            problems.append(problem)
        elif code in codes[:index]:
            problems.append(Problem("E207", f"language '{code}' is listed twice", f"{where}[{index}]"))
    return problems


def check_language(code: object, where: str) -> Problem | None:
    """E206 or E207 for a code that names no language."""
    text = str(code)
    if text.lower() in _BOOLEANS:
        value = text.capitalize()
        what = f"is the boolean {value}. YAML reads no/on/yes as booleans"
        return Problem("E206", what, where, f"write {_BOOLEANS[text.lower()]} in quotes")
    if is_language_code(text) or _PRIVATE.fullmatch(text):
        return None
    remedy = "use an ISO 639 code such as de, zh-cn or deu; for a code of your own write x-NAME"
    return Problem("E207", f"unknown language '{text}'.{_suggestion(text)}", where, remedy)


def is_language_code(text: str) -> bool:
    """Whether `text` starts with a code of ISO 639 (any part of it) and goes on as a language tag may.

    >>> is_language_code("brx_Deva"), is_language_code("qq")
    (True, False)
    """
    match = _CODE.fullmatch(text)
    return match is not None and _is_iso_639(match["base"])


def _is_iso_639(code: str) -> bool:
    # Its tables take 30 ms to load.
    from iso639 import is_language

    return code in _WITHDRAWN or is_language(code, _PARTS)


def _suggestion(text: str) -> str:
    """The code that was meant: of a country, in capitals, by an English name, or the nearest of two letters."""
    from iso639 import Lang, is_language, iter_langs

    meant = _CONFUSED.get(text)
    if meant is None and is_language_code(text.lower()):
        meant = text.lower()
    if meant is None and is_language(text.title(), "name"):
        named = Lang(text.title())
        meant = named.pt1 or named.pt3
    if meant is not None:
        return f" Did you mean '{meant}'?"
    return did_you_mean(text, [language.pt1 for language in iter_langs() if language.pt1])


def expected_script(language: str) -> str | None:
    """The script a language is written in; None where there are several or we do not know."""
    base, *parts = re.split("[-_]", language)
    if any(len(part) == 4 for part in parts):
        return None
    return _SCRIPT_OF.get(base)


def script_of(text: str) -> str | None:
    """The script of most letters of `text`; Japanese for Han with kana; None where there are no letters.

    >>> script_of("Привет, John!"), script_of("日本です"), script_of("42")
    ('Cyrillic', 'Japanese', None)
    """
    counts: dict[str, int] = {}
    for character in text:
        if not character.isalpha():
            continue
        code_point = ord(character)
        script = next((name for first, last, name in _RANGES if first <= code_point <= last), "other")
        counts[script] = counts.get(script, 0) + 1
    if not counts:
        return None
    kana, han = counts.get("Kana", 0), counts.get("Han", 0)
    most = max(counts, key=lambda script: counts[script])
    return "Japanese" if kana and most in ("Kana", "Han") and 10 * kana >= han else most
