"""A phrase grammar of German and English with known log p(y|x).

A German sentence has one reading and many English translations. They
differ in three ways:

  here        synonyms ("now", "right now"), optional words, the place of an
              adverbial ("Today, the man ..." or "... today")
  register    formal or casual, once a sentence: "does not" or "doesn't", and
              the odds of "purchase" and "buy", of "children" and "kids"
  agreement   what German does not say and English must say the same way
              throughout: simple or progressive, past or perfect, and whether
              a child is he, she or it

The last two make distant words depend on each other. A model whose positions
are independent given the source cannot have the true distribution.
"""

from collections.abc import Sequence
import functools
import math
import re

import numpy as np

from latentnmt.data.corpora import SPLITS, Corpus
from latentnmt.data.grammar import lexicon
from latentnmt.data.grammar.synchronous import (
  Agree,
  Choice,
  Expression,
  Grammar,
  Rule,
  Words,
  sequence,
)

# Drawn once a sentence, whatever looks at them: see `Agree`.
_VARIABLES = {
  "register": {"formal": 0.4, "casual": 0.6},
  "present": {"simple": 0.6, "progressive": 0.4},
  "past": {"simple": 0.7, "perfect": 0.3},
  "child": {"m": 0.4, "f": 0.4, "it": 0.2},
}
_EMPTY = Words(())
# Weights of sentences by the subject's gender ("p": plural), by tense, and by
# whether a reason follows.
_GENDERS = {"m": 3, "f": 3, "n": 2, "p": 2}
_TENSES = {"present": 6, "past": 4}
_ALONE, _WITH_REASON = 7, 3
# Orders of a German main clause; in the past tense the verb goes to the end
# and an auxiliary takes its place.
_ORDERS = {
  "subject verb frequency rest place": 5,  # "Der Mann singt oft im Park."
  "time verb subject frequency rest place": 3,  # "Heute singt der Mann."
  "subject verb time frequency rest place": 2,
}


@functools.cache
def _either(notation: str, form: int | None = None) -> Expression:
  """Reads a notation of `lexicon`.

  Args:
    notation: alternatives with their weights.
    form: number of the form of a verb, where "/" separates them.
  """
  words, weights = [], []
  for alternative in notation.split(" | "):
    text, formal, casual = re.fullmatch(
      r"(.+?)(?: ([\d.]+))?(?: ([\d.]+))?", alternative
    ).groups("")
    text = text if form is None else text.split("/")[form]
    words.append(Words(tuple(text.split())))
    weights.append((float(formal or 1), float(casual or formal or 1)))
  if len(words) == 1:  # nothing to choose
    return words[0]
  formal, casual = (
    Choice(tuple((w / sum(side), e) for w, e in zip(side, words, strict=True)))
    for side in zip(*weights, strict=True)
  )
  if formal == casual:  # one weight each: the register does not matter
    return formal
  return Agree("register", {"formal": formal, "casual": casual})


def _referent(words: dict[str, str], gender: str) -> Expression:
  """Returns a subject's pronoun or possessive, by what a child is taken for."""
  if gender != "n":
    return Words((words[gender],))
  cases = {value: Words((words[value],)) for value in _VARIABLES["child"]}
  return Agree("child", cases)


def _verb_phrase(
  verb: str, plural: bool, tense: str, negated: bool, frequency: Expression
) -> Expression:
  """Returns a verb with auxiliary, negation and, in the middle, an adverb."""
  # All verbs of a sentence agree in aspect; synonyms are chosen for each.
  base, third, ing, past, participle = (_either(verb, k) for k in range(5))
  if tense == "past":
    do, finite = "did", past
    auxiliary, form = "have" if plural else "has", participle
    compound = "perfect"
  else:
    do, finite = ("do", base) if plural else ("does", third)
    auxiliary, form = "are" if plural else "is", ing
    compound = "progressive"
  if negated:  # "does not often sing", "is not often singing"
    simple = sequence(_not(do), frequency, base)
    auxiliary = _not(auxiliary)
  else:
    simple = sequence(frequency, finite)
  cases = {"simple": simple, compound: sequence(auxiliary, frequency, form)}
  return Agree(tense, cases)


def _not(auxiliary: str) -> Expression:
  # The register shows here most clearly: 19 to 1 for "does not", or against.
  return _either(f"{auxiliary} not 19 1 | {auxiliary}n't 1 19")


def _order(
  body: Expression, place: Expression, time: Expression | None, fronted: bool
) -> Expression:
  """Puts a clause in English order, in which a time moves freely."""
  # It moves more where German starts with it: the source tells something.
  if time is None:  # a place alone stays at the end
    return sequence(body, place)
  end = sequence(place, time)  # "in the park today"
  if place != _EMPTY:
    end = Choice(((0.8, end), (0.2, sequence(time, place))))
  front = 0.6 if fronted else 0.15
  return Choice(
    (
      (front * 0.75, sequence(time, ",", body, place)),  # "Today, the man"
      (front * 0.25, sequence(time, body, place)),
      (1 - front, sequence(body, end)),
    )
  )


def _lexicon(table: dict[str, str]) -> list[Rule]:
  """Returns a rule for each entry, all of one weight."""
  return [
    Rule(1, tuple(german.split()), functools.partial(_either, english))
    for german, english in table.items()
  ]


def _optional(symbol: str, share: float) -> list[Rule]:
  return [
    Rule(1 - share, (), lambda: _EMPTY),
    Rule(share, (symbol,), lambda e: e),
  ]


def _words(rules: dict):
  """Adds symbols frequency[?], place[?], time, adjective.*, verb.*.*."""
  rules["frequency"] = _lexicon(lexicon.FREQUENCIES)
  rules["frequency?"] = _optional("frequency", 0.15)
  rules["place"] = _lexicon(lexicon.PLACES)
  rules["place?"] = _optional("place", 0.3)
  rules["time"] = _lexicon(lexicon.TIMES)
  for ending in lexicon.ADJECTIVE_ENDINGS:
    rules[f"adjective.{ending}"] = _lexicon(
      {stem + ending: english for stem, english in lexicon.ADJECTIVES.items()}
    )
  verbs = {"t": lexicon.TRANSITIVE, "i": lexicon.INTRANSITIVE}
  for kind, table in verbs.items():
    for k, form in enumerate(("singular", "plural", "participle")):
      rules[f"verb.{kind}.{form}"] = [
        # The notation itself: only the clause knows which form it needs.
        Rule(1, (german.split()[k],), functools.partial(str, english))
        for german, english in table.items()
      ]


def _noun_phrases(rules: dict, name: str, case: str, nouns: dict):
  """Adds symbols name.gender: article, adjective or none, noun."""
  for gender, table in nouns.items():
    noun = f"noun.{name}.{gender}"
    rules[noun] = _lexicon(table)
    rules[f"{name}.{gender}"] = phrases = []
    for (english, its_case), articles in lexicon.ARTICLES.items():
      if its_case == case and gender in articles:
        # Weak, strong or mixed: the article says how an adjective ends.
        article, ending = articles[gender].split()
        target = functools.partial(sequence, english)
        adjective = f"adjective.{ending}"
        phrases.append(Rule(2, (article, noun), target))
        phrases.append(Rule(1, (article, adjective, noun), target))


def _rests(rules: dict, gender: str):
  """Adds symbols rest.{t,i}.gender: (what follows the verb, negated or not)."""
  # Objects and companions can be the subject's own, "seinen Hund": so there
  # are symbols for each gender of it, and "his", "her" or "its" agrees.
  stem = lexicon.POSSESSIVES[gender]
  own = functools.partial(
    sequence, _referent(lexicon.ENGLISH_POSSESSIVES, gender)
  )
  with_own = functools.partial(
    sequence,
    _either(lexicon.WITH),
    _referent(lexicon.ENGLISH_POSSESSIVES, gender),
  )
  rules[f"object.{gender}"] = [
    Rule(3, (f"thing.{g}",), lambda e: e) for g in lexicon.THINGS
  ] + [
    Rule(1, (stem + ending, f"noun.thing.{g}"), own)
    for g, ending in lexicon.POSSESSIVE_ENDINGS.items()
  ]
  rules[f"companion.{gender}"] = [
    Rule(6, (), lambda: _EMPTY),
    Rule(1, ("mit", f"{stem}em", "Bruder"), lambda: with_own("brother")),
    Rule(1, ("mit", f"{stem}er", "Freundin"), lambda: with_own("friend")),
  ]
  rules[f"rest.t.{gender}"] = [
    Rule(4, (f"object.{gender}",), lambda e: (e, False)),
    Rule(1, (f"object.{gender}", "nicht"), lambda e: (e, True)),
  ]
  rules[f"rest.i.{gender}"] = [
    Rule(3, (f"companion.{gender}",), lambda e: (e, False)),
    Rule(1, ("nicht",), lambda: (_EMPTY, True)),
  ]


def _verb_symbols(kind: str, gender: str, tense: str) -> tuple[str, str]:
  """Returns the inflected verb or auxiliary, and the verb at the end."""
  if tense == "past":
    # All verbs here form the perfect tense with "haben".
    auxiliary = "haben" if gender == "p" else "hat"
    return auxiliary, f"verb.{kind}.participle"
  return f"verb.{kind}.{'plural' if gender == 'p' else 'singular'}", ""


def _main_clauses(rules: dict, gender: str, tense: str):
  """Adds main.tense.gender: a clause with the finite verb in second place."""

  def target(roles: list[str], *parts) -> Expression:
    part = dict(zip(roles, parts, strict=True))
    rest, negated = part["rest"]
    verb = _verb_phrase(
      part["verb"], gender == "p", tense, negated, part["frequency"]
    )
    body = sequence(part["subject"], verb, rest)
    return _order(body, part["place"], part.get("time"), roles[0] == "time")

  rules[f"main.{tense}.{gender}"] = clauses = []
  for kind in "ti":
    finite, last = _verb_symbols(kind, gender, tense)
    symbols = {
      "subject": f"person.{gender}",
      "verb": finite,
      "time": "time",
      "frequency": "frequency?",
      "rest": f"rest.{kind}.{gender}",
      "place": "place?",
    }
    for order, weight in _ORDERS.items():
      roles = order.split()
      source = tuple(symbols[role] for role in roles)
      if last:  # the auxiliary is a word and has no target; the verb is last
        roles = [role for role in roles if role != "verb"] + ["verb"]
        source += (last,)
      clauses.append(Rule(weight, source, functools.partial(target, roles)))


def _reasons(rules: dict, gender: str, tense: str):
  """Adds reason.tense.gender: "weil", a pronoun, the verb last."""
  because = _either(lexicon.BECAUSE)
  pronoun = _referent(lexicon.ENGLISH_PRONOUNS, gender)

  def target(frequency, rest, verb) -> Expression:
    rest, negated = rest
    verb = _verb_phrase(verb, gender == "p", tense, negated, frequency)
    return sequence(because, pronoun, verb, rest)

  rules[f"reason.{tense}.{gender}"] = clauses = []
  for kind in "ti":
    finite, last = _verb_symbols(kind, gender, tense)
    verb = (last, finite) if last else (finite,)
    # A subordinate clause, and its reason is always the subject's own.
    start = (",", "weil", lexicon.PRONOUNS[gender])
    rest = f"rest.{kind}.{gender}"
    clauses.append(Rule(1, (*start, "frequency?", rest, *verb), target))


@functools.cache
def _grammar() -> Grammar:
  """Returns the grammar; symbols of the same subject and tense go together."""
  rules = {"sentence": []}  # the first symbol is the start
  for gender, weight in _GENDERS.items():
    _rests(rules, gender)
    for tense, share in _TENSES.items():
      _main_clauses(rules, gender, tense)
      _reasons(rules, gender, tense)
      main, reason = f"main.{tense}.{gender}", f"reason.{tense}.{gender}"
      rules["sentence"] += [
        Rule(weight * share * _ALONE, (main,), sequence),
        Rule(weight * share * _WITH_REASON, (main, reason), sequence),
      ]
  _noun_phrases(rules, "person", "nominative", lexicon.PERSONS)
  _noun_phrases(rules, "thing", "accusative", lexicon.THINGS)
  _words(rules)
  return Grammar(rules, _VARIABLES)


def _write(words: Sequence[str]) -> str:
  """Writes words as a sentence: "an", commas, a capital and a full stop."""
  following = [*words[1:], ""]
  words = [
    "an" if word == "a" and after[:1] in tuple("aeiou") else word
    for word, after in zip(words, following, strict=True)
  ]
  sentence = " ".join(words).replace(" ,", ",")
  return f"{sentence[:1].upper()}{sentence[1:]}."


def _read(sentence: str) -> tuple[str, ...] | None:
  """Reads the words of a sentence, None for what `_write` cannot write."""
  body = sentence[:1].lower() + sentence[1:].removesuffix(".")
  words = tuple(
    "a" if word == "an" else word for word in body.replace(",", " ,").split(" ")
  )
  # Written again: who spells otherwise has written another sentence.
  return words if _write(words) == sentence else None


def grammar_corpus(
  sizes: tuple[int, int, int] = (20_000, 500, 1_000), seed: int = 0
) -> Corpus:
  """Draws sentence pairs from the grammar, with log p(target|source).

  Args:
    sizes: pairs of train, dev and test, all from the same distribution.
    seed: of the draw.
  """
  # Sizes too: a larger corpus is not to contain a smaller one's test set.
  random = np.random.default_rng([seed, *sizes])
  splits, log_probs = {}, {}
  for split, size in zip(SPLITS, sizes, strict=True):
    pairs = [_grammar().sample(random) for _ in range(size)]
    sources, targets = (
      [_write(pair[side]) for pair in pairs] for side in (0, 1)
    )
    splits[split] = sources, targets
    log_probs[split] = np.array([_grammar().log_prob(*pair) for pair in pairs])
  return Corpus(splits, ("de", "en"), f"phrase grammar, seed {seed}", log_probs)


def grammar_log_prob(source: str, target: str) -> float:
  """Computes log p(target|source) in nats, exactly, for any pair.

  It is -inf where the grammar cannot produce the source or this translation.
  """
  words = _read(source), _read(target)
  if None in words:
    return -math.inf
  return _grammar().log_prob(*words)


def grammar_translations(source: str) -> dict[str, float]:
  """Returns every translation of a source with its probability.

  They sum to one. There are none for a source that the grammar does not have.
  """
  words = _read(source)
  if words is None:
    return {}
  return {
    _write(target): probability
    for target, probability in _grammar().translations(words).items()
  }
