"""Verb phrases of the grammar: a verb with each complement it takes, in five languages."""

from __future__ import annotations

from functools import cache

from mlkd.demo_data import inflection
from mlkd.demo_data.lexicon import PERSONS, Entry, Forms, entries, function_words
from mlkd.demo_data.tables import read_table

_CLITICS = {"1s": "me", "2s": "te", "3s": "se", "1p": "nos", "3p": "se"}
_GENDERS = ("m", "f", "p")


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _plain(cell: str) -> list[str]:
    return [word.replace("_", " ") for word in cell.split(" ")]


def _english(cell: str, complement: str) -> Forms:
    base, third, past, participle, gerund = (_join(word, complement) for word in _plain(cell))
    forms = {"nom": base, "past": past, "pp": participle, "ing": gerund}
    return forms | {f"pres.{person}": third if person == "3s" else base for person in PERSONS}


def _german(cell: str, complement: str, negated: str) -> Forms:
    """`negated` is the complement with its negation, "~" where "noch" goes."""
    words = cell.split(" ")
    *adverb, infinitive, first, second, third, participle, auxiliary = words
    own = " ".join(adverb).replace("_", " ")
    complement = _join(complement, own)
    prefix, _, stem = infinitive.rpartition("+")
    participle = participle.replace("_", " ")
    gap = " " if prefix == "spazieren" else ""
    whole = f"{prefix}{gap}{stem}"
    finite = dict(zip(PERSONS, (first, second, third, stem, stem), strict=True))
    if own:
        negated = f"{own} ~nicht" if own.startswith(("die ", "das ")) else f"~nicht {own}"
    not_, not_yet = negated.replace("~", ""), negated.replace("~", "noch ")
    to_infinitive = f"{prefix} zu {stem}" if gap else f"{prefix}zu{stem}" if prefix else f"zu {stem}"
    before, _, after = negated.partition("~")
    auxiliaries = function_words()["de"]["haben" if auxiliary == "h" else "sein"]
    forms = {
        "rest": _join(complement, prefix), "inf": _join(complement, whole), "zu": _join(complement, to_infinitive),
        "perf": _join(complement, participle), "neginf": _join(not_, whole), "negpre": before.strip(),
        "negpostinf": _join(after, whole), "negpostperf": _join(after, participle),
        "yetperf": _join(not_yet, participle), "polite": _join(stem, "Sie", complement, prefix),
        "politeneg": _join(stem, "Sie", not_, prefix), "nie": _join(_instead(negated, complement, "nie"), prefix),
        "nichtgern": _join(_instead(negated, complement, "nicht gern"), prefix),
        "schonperf": _join(_instead(negated, complement, "schon"), participle),
    }  # fmt: skip
    for person in PERSONS:
        forms[f"fin.{person}"] = finite[person]
        forms[f"sub.{person}"] = _join(complement, f"{prefix}{gap}{finite[person]}")
        forms[f"aux.{person}"] = auxiliaries[person]
    return forms


def _instead(negated: str, complement: str, adverb: str) -> str:
    """The complement with `adverb` where "nicht" would stand, or before a noun that "kein" would negate."""
    return negated.replace("~nicht", adverb) if "~nicht" in negated else _join(adverb, complement)


def _spanish(cell: str, complement: str) -> Forms:
    infinitive, present, preterite, others = (part.replace("_", "~") for part in cell.split(";"))
    forms = {}
    for person in PERSONS:
        forms[f"inf.{person}"] = inflection.spanish_infinitive(infinitive.replace("~", " "), _CLITICS[person])
    forms |= {f"pres.{key}": value for key, value in zip(PERSONS, present.split(" "), strict=True)}
    forms |= {f"pret.{key}": value for key, value in zip(("1s", "3s", "1p", "3p"), preterite.split(" "), strict=True)}
    forms |= dict(zip(("ger", "part", "imp"), others.split(" "), strict=True))
    return {key: _join(value.replace("~", " "), complement) for key, value in forms.items()}


def _russian(cell: str, complement: str) -> Forms:
    infinitives, present, imperfective, past, future, imperatives = (part.split(" ") for part in cell.split(";"))
    forms = dict(zip(("infi", "infp", "infneg"), infinitives, strict=True)) | dict(
        zip(("impi", "impp"), imperatives, strict=True)
    )
    forms |= {f"pres.{key}": value for key, value in zip(PERSONS, present, strict=True)}
    forms |= {f"fut.{key}": value for key, value in zip(PERSONS, future, strict=True)}
    forms |= {f"pasti.{key}": value for key, value in zip(_GENDERS, imperfective, strict=True)}
    forms |= {f"past.{key}": value for key, value in zip(_GENDERS, past, strict=True)}
    return {key: _join(value.replace("_", " "), complement) for key, value in forms.items()}


def _object_forms(entry: Entry, determiner: str) -> dict[str, Forms]:
    """What the patterns of a verb can name: o in English, Spanish and Chinese, the cases in German and Russian."""
    english, german, spanish, russian, chinese = (entry.forms[name] for name in ("en", "de", "es", "ru", "zh"))
    key = "a" if determiner == "nat" else "the"
    acc = german[f"{key}.acc"]
    mass = english["a"] == english["sg"]
    return {
        "en": {"o": english[key]},
        "de": {"acc": acc, "dat": german["the.dat"], "neg": f"~{german['no.acc']}" if key == "a" else ""},
        "es": {"o": spanish[key]},
        "ru": {"acc": russian["acc"], "dat": russian["dat"], "with": russian["with"]},
        "zh": {"o": chinese["n"] if key == "the" or mass else chinese["a"]},
    }


def _complement_forms() -> list[tuple[str, dict[str, Forms]]]:
    _, rows = read_table("complements.tsv")
    result = []
    for name, english, german, spanish, russian, chinese in rows:
        plain = german.replace("~nicht ", "").replace(" ~nicht", "").replace("~kein Frühstück", "Frühstück")
        plain = plain.replace("~keinen ", "einen ").replace("~keine ", "eine ")
        # Mass nouns and names of subjects have no article where "kein" is not said.
        if name in ("meal", "study") or english in ("music", "the radio"):
            plain = plain.replace("~kein ", "").replace("eine ", "")
        plain = plain.replace("~kein ", "ein ")
        base, _, past = chinese.partition("/")
        forms: dict[str, Forms] = {
            "en": {"o": english}, "de": {"acc": plain, "neg": german}, "es": {"o": spanish},
            "ru": {"acc": russian}, "zh": {"o": base, "p": past or base},
        }  # fmt: skip
        result.append((name, forms))
    return result


def _complements(objects: str) -> list[tuple[bool, dict[str, Forms]]]:
    """(negates simply, forms) of each complement the cell names."""
    kind, _, names = objects.partition(":")
    wanted = set(names.split(","))
    if kind == "-":
        empty: dict[str, Forms] = {"en": {"o": ""}, "de": {"acc": "", "neg": "~nicht"}, "es": {"o": ""}}
        return [(True, empty | {"ru": {"acc": ""}, "zh": {"o": ""}})]
    if kind == "phr":
        return [(not f["en"]["o"].startswith(("a ", "an ")), f) for name, f in _complement_forms() if name in wanted]
    if kind in ("at", "to"):
        return [(True, _place_forms(entry, kind)) for entry in entries() if _is_place(entry, kind, wanted)]
    if kind == "person":
        return [(True, _object_forms(entry, "def")) for entry in entries() if "other" in entry.classes]
    nouns = [entry for entry in entries() if entry.classes & wanted and "pres" not in entry.forms["en"]]
    mass = [entry.forms["en"].get("a") == entry.forms["en"].get("sg") for entry in nouns]
    return [(kind == "def" or is_mass, _object_forms(entry, kind)) for entry, is_mass in zip(nouns, mass, strict=True)]


def _is_place(entry: Entry, kind: str, wanted: set[str]) -> bool:
    if "city" in wanted:
        return "city" in entry.classes
    return (
        "place" in entry.classes and bool(entry.classes & wanted) and (kind == "at" or entry.forms["en"]["to"] != "-")
    )


def _place_forms(entry: Entry, kind: str) -> dict[str, Forms]:
    if "city" in entry.classes:
        english, german, spanish, russian, chinese = (entry.forms[name]["b"] for name in ("en", "de", "es", "ru", "zh"))
        texts = (f"to {english}", f"nach {german}", f"a {spanish}", f"в {russian}", chinese)
    else:
        key = "nom" if kind == "at" else "to"
        texts = tuple(entry.forms[name][key] for name in ("en", "de", "es", "ru"))  # type: ignore[assignment]
        texts = (*texts[:4], entry.forms["zh"]["n"])
    english, german, spanish, russian, chinese = texts
    return {
        "en": {"o": english}, "de": {"acc": german, "neg": f"~nicht {german}"}, "ru": {"acc": russian},
        "es": {"o": spanish, "por": spanish.replace("en ", "por ", 1)}, "zh": {"o": chinese},
    }  # fmt: skip


@cache
def verb_phrases() -> tuple[Entry, ...]:
    """Each verb of the table with each complement, in the order of the tables.

    Classes: "vp", the letters of the table (h habit, f future and modals, p past, g in progress, w "where can I",
    i requests, a with company, k perfective past, l perfective future, y perfect), and by the complement n (negation
    sounds natural) and d (the same, and not a mass noun).
    """
    _, rows = read_table("verbs.tsv")
    phrases = []
    for tags, objects, english, german, spanish, russian, chinese, patterns in rows:
        pattern = {"en": "{o}", "de": "{acc}", "es": "{o}", "ru": "{acc}"}
        pattern |= dict(pair.split("=") for pair in patterns.split(";") if pair)
        base, past = chinese.split(" ")
        for negates, forms in _complements(objects):
            text = {language: template.format(**forms[language]) for language, template in pattern.items()}
            negated = forms["de"].get("neg") or ""
            if not negated:
                negated = f"~nicht {text['de']}" if text["de"].startswith("auf ") else f"{text['de']} ~nicht"
            classes = {"vp", *tags} | ({"n"} if negates else set())
            if negates and "~kein" not in negated:
                classes.add("d")
            verb_forms = {
                "en": _english(english, text["en"]),
                "de": _german(german, text["de"], negated),
                "es": _spanish(spanish, text["es"]),
                "ru": _russian(russian, text["ru"]),
                "zh": {"nom": base.format(**forms["zh"]), "past": past.format(**forms["zh"])},
            }
            phrases.append(Entry(frozenset(classes), verb_forms))
    return tuple(phrases)
