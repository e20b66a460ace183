"""The words of the grammar: one entry is one meaning with the inflected forms of five languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from mlkd.demo_data import inflection
from mlkd.demo_data.tables import read_table

PERSONS = ("1s", "2s", "3s", "1p", "3p")
TEXT_LANGUAGES = ("en", "de", "es", "ru", "zh")
Forms = dict[str, str]
"""Forms by key. "nom" is the plain form; "p" (person) and "g" (gender) are what other words agree with."""


@dataclass(slots=True)
class Entry:
    """One meaning. `classes` are the slots it can fill."""

    classes: frozenset[str]
    forms: dict[str, Forms] = field(default_factory=dict)


def _cells(name: str) -> list[tuple[frozenset[str], dict[str, str]]]:
    header, rows = read_table(name)
    return [(frozenset(row[0].split(",")), dict(zip(header[1:], row[1:], strict=True))) for row in rows]


def _words(cell: str) -> list[str]:
    return [word.replace("_", " ") for word in cell.split(" ")]


def _keyed(prefix: str, values: list[str], keys: tuple[str, ...] = PERSONS) -> Forms:
    return {f"{prefix}{key}": value for key, value in zip(keys, values, strict=True)}


def _noun(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    return Entry(
        classes,
        {
            "en": _english_noun(_words(cells["en"])),
            "de": _german_noun(_words(cells["de"]), mass=" " not in cells["en"]),
            "es": _spanish_noun(_words(cells["es"]), mass=" " not in cells["en"]),
            "ru": _russian_noun(_words(cells["ru"])),
            "zh": _chinese_noun(_words(cells["zh"]), hat="hat" in classes),
        },
    )


def _english_noun(words: list[str]) -> Forms:
    singular = words[0]
    indefinite = singular if len(words) == 1 else f"{inflection.english_article(singular)} {singular}"
    the = f"the {singular}"
    return {
        "sg": singular, "pl": words[-1], "a": indefinite, "the": the, "nom": the, "obj": the, "p": "3s",
        "poss": inflection.english_possessive(the),
    }  # fmt: skip


def _german_noun(words: list[str], *, mass: bool) -> Forms:
    gender, singular, *rest = words
    plural = rest[0] if rest else singular
    oblique = rest[1] if len(rest) > 1 else singular
    forms = inflection.german_noun_phrases(gender, singular, oblique)
    if mass:
        for case in ("nom", "acc"):
            forms[f"a.{case}"] = singular
    genitive = inflection.german_genitive(gender, singular, oblique)
    article = "der" if gender == "f" else "des"
    preposition = "zur" if gender == "f" else "zum"
    mine = {"m": "er", "f": "e", "n": "s"}[gender]
    return forms | {
        "g": gender, "p": "3s", "sg": singular, "pl": plural, "pldat": inflection.german_dative_plural(plural),
        "nom": forms["the.nom"], "acc": forms["the.acc"], "dat": forms["the.dat"], "gen": f"{article} {genitive}",
        "genitive": genitive, "zu": f"{preposition} {oblique}", "mine": f"mein{mine}", "yours": f"dein{mine}",
        "art": {"m": "der", "f": "die", "n": "das"}[gender],
    }  # fmt: skip


def _spanish_noun(words: list[str], *, mass: bool) -> Forms:
    gender, singular, *rest = words
    plural = rest[0] if rest else singular
    # "el agua", "este aula", but feminine adjectives: a stressed a- takes the masculine article el and un.
    stressed_a = gender.endswith("*")
    gender = gender[0]
    masculine = gender == "m"
    the = f"{'el' if masculine or stressed_a else 'la'} {singular}"
    indefinite = singular if mass else f"{'un' if masculine or stressed_a else 'una'} {singular}"
    este = "este" if masculine else "esta"
    return {
        "g": gender, "p": "3s", "sg": singular, "pl": plural, "the": the, "nom": the, "a": indefinite,
        "thepl": f"{'los' if masculine else 'las'} {plural}", "este": este, "this": f"{este} {singular}",
        "mine": "el mío" if masculine else "la mía", "yours": "el tuyo" if masculine else "la tuya", "full": the,
    }  # fmt: skip


def _russian_noun(words: list[str]) -> Forms:
    kind, *cases = words
    forms = _keyed("", cases[:6], ("nom", "gen", "dat", "acc", "ins", "prep"))
    gender = kind[0]
    preposition = "на" if forms["nom"] == "кухня" else "в"
    forms |= {"g": gender, "p": "3p" if gender == "p" else "3s", "at": f"{preposition} {forms['prep']}"}
    if len(cases) > 6:
        forms |= {"pl": cases[6], "genpl": cases[7], "cnt.few": forms["gen"], "cnt.many": cases[7]}
    return forms | {"u": f"у {forms['gen']}", "with": _with(forms["ins"])}


def _with(instrumental: str) -> str:
    cluster = instrumental[0] in "сзшж" and instrumental[1] not in "аеёиоуыэюя"
    return f"{'со' if cluster else 'с'} {instrumental}"


def _chinese_noun(words: list[str], *, hat: bool) -> Forms:
    noun = words[0]
    measure = words[1] if len(words) > 1 and words[1] else ""
    one = f"一{measure}" if measure else ""
    return {
        "nom": noun, "n": noun, "mw": measure, "a": f"{one}{noun}", "one": one, "this": f"这{measure}{noun}",
        "wear": "戴" if hat else "穿",
    }  # fmt: skip


_MY_RUSSIAN = {
    "m": ("мой", "моего", "моему", "моего", "моим", "моём"),
    "f": ("моя", "моей", "моей", "мою", "моей", "моей"),
}


def _relative(noun: Entry) -> Entry:
    """The noun of a relative or friend with "my" before it."""
    english, german, spanish, russian, chinese = (dict(noun.forms[language]) for language in TEXT_LANGUAGES)
    mine = f"my {english['sg']}"
    english |= {"nom": mine, "obj": mine, "poss": inflection.english_possessive(mine)}
    article = "meiner" if german["g"] == "f" else "meines"
    german |= {case: german[f"my.{case}"] for case in ("nom", "acc", "dat")}
    german["gen"] = f"{article} {german['genitive']}"
    spanish |= {"nom": f"mi {spanish['sg']}", "full": f"mi {spanish['sg']}"}
    for case, pronoun in zip(("nom", "gen", "dat", "acc", "ins", "prep"), _MY_RUSSIAN[russian["g"]], strict=True):
        russian[case] = f"{pronoun} {russian[case]}"
    russian |= {"u": f"у {russian['gen']}", "with": _with(russian["ins"])}
    chinese["nom"] = f"我{chinese['n']}"
    classes = noun.classes | {"kin", "subj", "subj3", "who"}
    return Entry(classes, {"en": english, "de": german, "es": spanish, "ru": russian, "zh": chinese})


def _person(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    english = _keyed("", _words(cells["en"]), ("p", "nom", "obj", "poss"))
    german = _keyed("", _words(cells["de"]), ("p", "nom", "acc", "dat"))
    german["gen"] = f"{german['nom']}s"
    person, gender, spanish_nom, full = _words(cells["es"])
    spanish = {"p": person, "g": gender, "nom": spanish_nom.strip(), "full": full}
    russian = _keyed("", _words(cells["ru"]), ("p", "g", "nom", "gen", "dat", "acc", "with"))
    russian["u"] = f"у {russian['gen']}"
    return Entry(
        classes,
        {"en": english, "de": german, "es": spanish, "ru": russian, "zh": {"nom": cells["zh"], "n": cells["zh"]}},
    )


def _add_gusta(person: Entry) -> None:
    forms = person.forms["es"]
    clitic = {"1s": "me", "1p": "nos", "3s": "le", "3p": "les"}[forms["p"]]
    who = "" if forms["p"][0] == "1" else f"a {forms['full']}"
    forms |= {"gusta": f"{who} {clitic}".strip(), "nogusta": f"{who} no {clitic}".strip()}


def _adjective(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    base, comparative, superlative = _words(cells["en"])
    german_base, stem, german_comparative, german_superlative = _words(cells["de"])
    verb, masculine, feminine = _words(cells["es"])
    plural = inflection.spanish_plural(masculine)
    russian = _words(cells["ru"])
    predicate, attribute = _words(cells["zh"])
    agreeing = {"m": masculine, "f": feminine, "mp": plural}
    cases = ("m", "f", "n", "p", "accf", "insm", "insf", "prepm", "prepf", "comp")
    slavic = _keyed("", russian, cases)
    slavic |= {"nom": slavic["m"], "acc.m": slavic["m"], "acc.f": slavic["accf"], "acc.n": slavic["n"]}
    slavic |= {"acc.p": slavic["p"], "ins.m": slavic["insm"], "ins.n": slavic["insm"], "ins.f": slavic["insf"]}
    slavic |= {"prep.m": slavic["prepm"], "prep.n": slavic["prepm"], "prep.f": slavic["prepf"]}
    slavic |= {f"nom.{gender}": slavic[gender] for gender in "mfnp"}
    article = inflection.english_article(base)
    return Entry(
        frozenset(f"a_{name}" for name in classes),
        {
            "en": {"nom": base, "a": f"{article} {base}", "comp": comparative, "sup": superlative},
            "de": {"nom": german_base, "comp": german_comparative, "sup": german_superlative}
            | {f"ind.{gender}": form for gender, form in inflection.german_weak_endings(stem).items()},
            "es": {f"nom.{gender}": form for gender, form in agreeing.items()}
            | {"cop": "es" if verb == "es" else "está"},
            "ru": slavic,
            "zh": {"nom": predicate, "bare": predicate.removeprefix("很"), "attr": attribute},
        },
    )


def _state(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    words = function_words()
    german_verb, german_text = _words(cells["de"])
    spanish_verb, masculine, feminine = _words(cells["es"])
    plural = masculine if spanish_verb in ("tener", "llegar") else inflection.spanish_plural(masculine)
    russian = _words(cells["ru"])
    by_gender = dict(zip(("m", "f", "p"), russian[-3:], strict=True))
    persons = {"1s.m": russian[0], "3s.m": by_gender["m"], "3s.f": by_gender["f"], "3p.p": by_gender["p"]}
    persons["1p.p"] = russian[1] if len(russian) == 5 else by_gender["p"]
    return Entry(
        classes,
        {
            "en": {"nom": cells["en"]},
            "de": {"nom": german_text} | {f"cop.{person}": words["de"][german_verb][person] for person in PERSONS},
            "es": {"nom.m": masculine, "nom.f": feminine, "nom.mp": plural}
            | {f"cop.{person}": words["es"][spanish_verb][person] for person in PERSONS},
            "ru": {f"nom.{key}": value for key, value in persons.items()},
            "zh": {"nom": cells["zh"], "bare": cells["zh"].removeprefix("很")},
        },
    )


def _number(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    masculine, feminine, count = _words(cells["ru"])
    forms: dict[str, Forms] = {language: {"nom": cells[language]} for language in ("en", "de", "es", "zh")}
    forms["ru"] = {"nom.m": masculine, "nom.n": masculine, "nom.f": feminine, "p": count}
    return Entry(classes, forms)


def _weather(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    english = _keyed("", _words(cells["en"]), ("nom", "past", "fut", "often"))
    german = [word.strip("-") for word in _words(cells["de"])]
    spanish = _keyed("", _words(cells["es"]), ("nom", "past", "fut"))
    russian = _keyed("", _words(cells["ru"]), ("nom", "past", "fut", "often"))
    chinese = _keyed("", _words(cells["zh"]), ("nom", "past"))
    keyed = _keyed("", german, ("nom", "b", "pasta", "pastb", "futa", "futb"))
    return Entry(classes, {"en": english, "de": keyed, "es": spanish, "ru": russian, "zh": chinese})


def _phrase(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    """Fixed text; after "/" a second form "b" (direction, accusative, past)."""
    forms = {}
    for language, cell in cells.items():
        first, _, second = cell.partition("/")
        forms[language] = {"nom": first, "b": second or first, "past": second or first}
    return Entry(classes, forms)


def _favourite(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    forms = {}
    for language, cell in cells.items():
        kind, _, value = cell.partition(": ")
        forms[language] = {"nom": kind, "b": value}
    mark = forms["de"]["nom"][0]
    forms["de"] |= {"nom": forms["de"]["nom"].lstrip("~="), "art": {"~": "die", "=": "der"}.get(mark, "das")}
    forms["es"]["art"] = "la" if forms["es"]["nom"].endswith("favorita") else "el"
    return Entry(classes, forms)


def _place(classes: frozenset[str], cells: dict[str, str]) -> Entry:
    forms = {}
    for language, cell in cells.items():
        at, _, to = cell.partition("/")
        forms[language] = {"nom": at, "to": to, "n": at}
    return Entry(classes | {"place"}, forms)


@cache
def function_words() -> dict[str, dict[str, Forms]]:
    """Auxiliaries and other closed-class words by language and name; forms by person or gender."""
    _, rows = read_table("words.tsv")
    words: dict[str, dict[str, Forms]] = {language: {} for language in TEXT_LANGUAGES}
    for language, word, cell in rows:
        if "=" in cell:
            words[language][word] = dict(pair.split("=") for pair in cell.split(" "))
        else:
            words[language][word] = _keyed("", cell.split(" "))
    return words


@cache
def entries() -> tuple[Entry, ...]:
    """Every entry except the verb phrases, in the order of the tables."""
    lexicon = [_noun(*row) for row in _cells("nouns.tsv")]
    for index, noun in enumerate(lexicon):
        if "family" in noun.classes:
            lexicon[index] = _relative(noun)
        elif "job" in noun.classes:
            noun.classes |= {"subj", "subj3", "who"}
        if "pl" in noun.forms["ru"] and noun.forms["ru"]["g"] != "p":
            noun.classes |= {f"{name}.count" for name in noun.classes}
    lexicon += [_person(*row) for row in _cells("people.tsv")]
    for entry in lexicon:
        if entry.classes & {"subj", "kid"}:
            _add_gusta(entry)
    lexicon += [_adjective(*row) for row in _cells("adjectives.tsv")]
    lexicon += [_state(*row) for row in _cells("states.tsv")]
    lexicon += [_number(*row) for row in _cells("numbers.tsv")]
    lexicon += [_weather(*row) for row in _cells("weather.tsv")]
    lexicon += [_place(*row) for row in _cells("places.tsv")]
    lexicon += [(_favourite if "fav" in row[0] else _phrase)(*row) for row in _cells("phrases.tsv")]
    return tuple(lexicon)
