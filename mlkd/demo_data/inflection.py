"""Articles, endings and contractions: what follows from gender and case by rule."""

from __future__ import annotations

import re

# German articles by gender: nominative, accusative, dative.
_CASES = ("nom", "acc", "dat")
_DER = {"m": ("der", "den", "dem"), "f": ("die", "die", "der"), "n": ("das", "das", "dem")}
_EIN_ENDINGS = {"m": ("", "en", "em"), "f": ("e", "e", "er"), "n": ("", "", "em")}
_DIESER_ENDINGS = {"m": ("er", "en", "em"), "f": ("e", "e", "er"), "n": ("es", "es", "em")}
_IRREGULAR_GENITIVES = {"Arzt": "Arztes", "Zahnarzt": "Zahnarztes", "Sohn": "Sohnes", "Freund": "Freundes"}
_VOWEL_SOUND_EXCEPTIONS = ("uni", "use", "euro", "one")


def english_article(word: str) -> str:
    """
    >>> english_article("apple"), english_article("university")
    ('an', 'a')
    """
    return "an" if word[0] in "aeiou" and not word.startswith(_VOWEL_SOUND_EXCEPTIONS) else "a"


def english_possessive(person: str) -> str:
    return f"{person}'" if person.endswith("s") else f"{person}'s"


def german_noun_phrases(gender: str, singular: str, oblique: str) -> dict[str, str]:
    """`{determiner}.{case}` forms; `oblique` is the accusative and dative of weak nouns, else the singular."""
    forms = {}
    for index, case in enumerate(_CASES):
        noun = singular if case == "nom" else oblique
        ein, dieser = _EIN_ENDINGS[gender][index], _DIESER_ENDINGS[gender][index]
        forms[f"the.{case}"] = f"{_DER[gender][index]} {noun}"
        forms[f"ein.{case}"] = f"ein{ein}"
        forms[f"this.{case}"] = f"dies{dieser} {noun}"
        for key, stem in (("a", "ein"), ("my", "mein"), ("dein", "dein"), ("no", "kein")):
            forms[f"{key}.{case}"] = f"{stem}{ein} {noun}"
    return forms


def german_genitive(gender: str, singular: str, oblique: str) -> str:
    """The noun alone in the genitive singular."""
    if gender == "f":
        return singular
    if oblique != singular:
        return oblique
    if singular in _IRREGULAR_GENITIVES:
        return _IRREGULAR_GENITIVES[singular]
    return singular + ("es" if singular[-1] in "sßzx" else "s")


def german_dative_plural(plural: str) -> str:
    return plural if plural[-1] in "ns" else plural + "n"


def german_weak_endings(stem: str) -> dict[str, str]:
    """The adjective after "ein" in the accusative, by gender."""
    return {"m": f"{stem}en", "f": f"{stem}e", "n": f"{stem}es"}


def spanish_plural(word: str) -> str:
    """Of adjectives.

    >>> spanish_plural("joven"), spanish_plural("amable"), spanish_plural("feliz")
    ('jóvenes', 'amables', 'felices')
    """
    if word == "joven":
        return "jóvenes"
    if word.endswith("z"):
        return f"{word[:-1]}ces"
    return f"{word}s" if word[-1] in "aeiou" else f"{word}es"


def spanish_infinitive(infinitive: str, clitic: str) -> str:
    """
    >>> spanish_infinitive("levantarse temprano", "me")
    'levantarme temprano'
    """
    head, *rest = infinitive.split(" ")
    head = head[:-2] + clitic if head.endswith("rse") else head
    return " ".join([head, *rest])


def finish(language: str, sentence: str) -> str:
    """Contractions, single spaces and the capital letter at the start."""
    if language == "zh":
        return sentence.replace("正在在", "正在")
    sentence = re.sub(r" {2,}", " ", sentence).strip()
    if language == "es":
        sentence = re.sub(r"\b(de|[Aa]) el ", lambda match: f"{match[1]}l ", sentence).replace("¿ ", "¿")
    elif language == "de":
        sentence = re.sub(r"\b([Ii])n dem\b", r"\1m", sentence)
    sentence = re.sub(r" ([.?!,])", r"\1", sentence)
    start = 1 if sentence[0] in "¿¡" else 0
    return sentence[:start] + sentence[start].upper() + sentence[start + 1 :]
