"""Language codes and the scripts they are written in."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlkd.errors import Problem, did_you_mean

# ISO 639-1.
_TWO_LETTERS = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv "
    "ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne "
    "ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss "
    "st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
# ISO 639-3: the languages of Tatoeba, FLORES-200, NLLB, LASER3, JW300 and UD, and the three-letter form of the above.
_THREE_LETTERS = (
    "aar abk ace acm acq aeb afr ajp aka alb als amh ang apc ara arb arg arm arq ars ary arz asm ast ava awa ayr aym "
    "azb aze azj bak bam ban baq bar bel bem ben ber bho bjn bod bos bre bug bul bur cat cbk ceb ces cha che chi chr "
    "chv cjk ckb cmn cor cos crh csb cym cze dan deu dik din div diq doi dsb dtp dut dyu dzo egl ell eng epo est eus "
    "ewe ext fao fas fij fil fin fon fra fre frp fry fuc fuf ful fur fuv gaz ger geo gla gle glg glv gom gre grn gsw "
    "guj hat hau haw hbo heb hil hin hne hrv hsb hun hye iba ibo ice ido iii ike ile ilo ina ind isl ita jam jav jbo "
    "jpn kab kac kal kam kan kas kat kau kaz kbp kea khk khm kik kin kir kmb kmr knc kon kor kua kur kzj lad lao lat "
    "lav lfn lij lim lin lit lld lmo ltg ltz lua lug luo lus luy lvs lzh mac mad mag mah mai mal mao mar max may mhr "
    "min mkd mlg mlt mni mol mon mos mri msa mus mwl mya myv nah nap nau nav nbl nde ndo nds nep new nia nld nno nnb "
    "nob nor nov npi nqo nso nus nya nyn oci oji ori orm orv ory oss pag pam pan pap pbt pcd pcm per pes plt pms pol "
    "por prs pus que quy roh rom ron rum run rus sag sah san sat scn sco sei shn shs sin slk slo slv sme smo sna snd "
    "som sot spa sqi srd srn srp ssw sun swa swe swg swh szl tah tam taq tat tel tet tgk tgl tha tib tir tlh tmh ton "
    "tpi tsn tso tuk tum tur twi tyv tzl tzm uig ukr umb urd uzb uzn vec ven vie vol vro war wel wol wln wuu xal xho "
    "ydd yid yor yue zgh zha zho zsm zul zza"
)
_CODES = frozenset(f"{_TWO_LETTERS} {_THREE_LETTERS}".split())
# A script, a region, or a UN area number may follow: zh-cn, pt-BR, deu_Latn, es-419, sr-Latn-RS.
_CODE = re.compile(r"(?P<base>[a-z]{2,3})(?P<parts>([-_]([A-Za-z]{4}|[A-Za-z]{2}|[0-9]{3})){0,2})")
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
    match = _CODE.fullmatch(text)
    if (match and match["base"] in _CODES) or _PRIVATE.fullmatch(text):
        return None
    # Countries and old names that are often taken for language codes.
    confused = {
        "jp": "ja",
        "cn": "zh",
        "cz": "cs",
        "dk": "da",
        "gr": "el",
        "kp": "ko",
        "se": "sv",
        "ua": "uk",
        "iw": "he",
    }
    suggestion = f" Did you mean '{confused[text]}'?" if text in confused else did_you_mean(text, _TWO_LETTERS.split())
    remedy = "use an ISO 639 code such as de, zh-cn or deu; for a code of your own write x-NAME"
    return Problem("E207", f"unknown language '{text}'.{suggestion}", where, remedy)


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
