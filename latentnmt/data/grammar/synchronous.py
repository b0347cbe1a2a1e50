"""Probabilistic translation grammars whose log p(y|x) is known exactly.

A grammar draws a source by context-free rules. Each rule also says how the
targets of its parts make the target of the whole. A target is an expression:

  Words(("right", "now"))           these words
  Sequence((a, b))                  one after the other
  Choice(((0.7, a), (0.3, b)))      one of them, chosen here
  Agree("register", {"formal": a, "casual": b})
                                    one of them, chosen once a sentence

`Agree` makes distant words depend on each other: a variable has one value in a
sentence. p(y|x) is a sum over the values of the variables, over the choices
that give the same words, and over the derivations of the source. It is exact
for any pair, whatever the grammar.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import itertools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Words:
  """Some words."""

  words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Sequence:
  """Expressions one after the other."""

  parts: tuple["Expression", ...]


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of (probability, expression); the probabilities sum to one."""

  options: tuple[tuple[float, "Expression"], ...]


@dataclasses.dataclass(frozen=True)
class Agree:
  """The expression of the variable's value in this sentence."""

  variable: str
  cases: Mapping[str, "Expression"]


Expression = Words | Sequence | Choice | Agree
Values = Mapping[str, str]  # of the variables, in one sentence


def sequence(*parts: "str | Expression") -> Expression:
  """Puts expressions or plain words one after the other."""
  return Sequence(
    tuple(Words(tuple(p.split())) if isinstance(p, str) else p for p in parts)
  )


@dataclasses.dataclass(frozen=True)
class Rule:
  """One way to write a symbol.

  Attributes:
    weight: relative to the other rules of the symbol.
    source: words and symbols; a symbol is a key of the grammar's rules.
    target: from the targets of the symbols, in order, to the target of the
      whole. Parts may be any object; the start symbol's is an Expression.
  """

  weight: float
  source: tuple[str, ...]
  target: Callable


class Grammar:
  """Rules, without left recursion, and the variables of their targets.

  Args:
    rules: symbol to its rules; the first symbol is the start.
    variables: variable to its values and their probabilities.
  """

  def __init__(
    self,
    rules: Mapping[str, list[Rule]],
    variables: Mapping[str, Mapping[str, float]],
  ):
    self._rules, self._variables = rules, variables
    self._start = next(iter(rules))
    # Prepared once: a corpus draws and parses a hundred thousand symbols.
    self._cumulative = {
      symbol: np.cumsum([rule.weight for rule in alternatives])
      for symbol, alternatives in rules.items()
    }
    self._index = {
      symbol: _by_first_word(alternatives, rules)
      for symbol, alternatives in rules.items()
    }

  def sample(self, random: np.random.Generator) -> tuple[tuple, tuple]:
    """Draws the words of a source and of one of its translations."""
    source, target = self._sample_source(self._start, random)
    # Once a sentence, whether or not its target looks at all of them.
    values = {
      name: list(cases)[_draw(np.cumsum(list(cases.values())), random)]
      for name, cases in self._variables.items()
    }
    return source, _sample_target(target, values, random)

  def _sample_source(self, symbol: str, random) -> tuple[tuple, object]:
    rule = self._rules[symbol][_draw(self._cumulative[symbol], random)]
    words, parts = (), []
    for item in rule.source:
      if item in self._rules:  # a symbol; else a word
        more, part = self._sample_source(item, random)
        words += more
        parts.append(part)
      else:
        words += (item,)
    return words, rule.target(*parts)

  def derivations(self, source: tuple) -> list[tuple[float, Expression]]:
    """Returns (probability given the source, target) of each derivation."""
    parse = _Parse(self._index, source)
    whole = [
      (weight, target)
      for end, weight, target in parse.symbol(self._start, 0)
      if end == len(source)
    ]
    total = sum(weight for weight, _ in whole)  # p(source)
    return [(weight / total, target) for weight, target in whole]

  def log_prob(self, source: tuple, target: tuple) -> float:
    """Computes log p(target|source) in nats, -inf for no translation."""
    probability = 0.0
    for weight, expression in self.derivations(source):
      for share, values in self._assignments(expression):
        # Given the values, choices are independent: a sum over places where
        # each part may end, rather than over all strings.
        ends = _match(expression, values, target, {0: weight * share})
        probability += ends.get(len(target), 0.0)
    return math.log(probability) if probability else -math.inf

  def translations(self, source: tuple) -> dict[tuple, float]:
    """Returns every translation with its probability."""
    return _sum(
      (words, weight * share * probability)
      for weight, expression in self.derivations(source)
      for share, values in self._assignments(expression)
      for words, probability in _expand(expression, values).items()
    )

  def _assignments(self, expression) -> Iterator[tuple[float, Values]]:
    """Yields (probability, values) of an expression's variables."""
    # Only of those it looks at: the others sum to one.
    names = sorted(_variables(expression))
    cases = [self._variables[name].items() for name in names]
    for values in itertools.product(*cases):
      share = math.prod(probability for _, probability in values)
      chosen = (value for value, _ in values)
      yield share, dict(zip(names, chosen, strict=True))


def _by_first_word(alternatives: list[Rule], rules) -> dict:
  """Sorts (probability, rule) by first word, None for a symbol or nothing."""
  # Most rules are words of the lexicon, of which nearly all need no trial.
  total = sum(rule.weight for rule in alternatives)
  index = {None: []}
  for rule in alternatives:
    first = rule.source[0] if rule.source else None
    key = None if first in rules else first
    index.setdefault(key, []).append((rule.weight / total, rule))
  return index


class _Parse:
  """Parses one source from the top, each symbol at each place once."""

  def __init__(self, index: dict, words: tuple):
    self._index, self._words = index, words
    # Without it the time would be exponential in what rules share.
    self.symbol = functools.cache(self._symbol)

  def _symbol(self, symbol: str, start: int) -> list[tuple[int, float, object]]:
    """Returns (end, probability, target) of each way to read a symbol."""
    index = self._index[symbol]
    rules = index[None]
    if start < len(self._words):
      rules = rules + index.get(self._words[start], [])
    return [
      (end, share * weight, rule.target(*parts))
      for share, rule in rules
      for end, weight, parts in self._items(rule.source, start)
    ]

  def _items(self, items: tuple, start: int) -> list[tuple[int, float, tuple]]:
    """Returns (end, probability, targets) of each way to read all items."""
    states = [(start, 1.0, ())]
    for item in items:
      if not states:  # nothing has fitted so far
        break
      if item in self._index:
        states = [
          (end, weight * more, (*parts, part))
          for begin, weight, parts in states
          for end, more, part in self.symbol(item, begin)
        ]
      else:
        states = [
          (begin + 1, weight, parts)
          for begin, weight, parts in states
          if self._words[begin : begin + 1] == (item,)
        ]
    return states


def _draw(cumulative: np.ndarray, random: np.random.Generator) -> int:
  """Draws an index, by cumulative weights; much quicker than `choice`."""
  return int(
    np.searchsorted(cumulative, random.random() * cumulative[-1], "right")
  )


def _sample_target(expression, values: Values, random) -> tuple:
  """Draws words, given the variables."""
  match expression:
    case Words(words):
      return words
    case Sequence(parts):
      return sum((_sample_target(p, values, random) for p in parts), ())
    case Choice(options):
      k = _draw(np.cumsum([share for share, _ in options]), random)
      return _sample_target(options[k][1], values, random)
    case Agree(variable, cases):
      return _sample_target(cases[values[variable]], values, random)


def _match(expression, values: Values, words: tuple, starts: dict) -> dict:
  """Computes the probability of ending at each place from that of starts."""
  match expression:
    case Words(own):
      return {
        start + len(own): share
        for start, share in starts.items()
        if words[start : start + len(own)] == own
      }
    case Sequence(parts):
      for part in parts:
        if not starts:  # none fits so far
          break
        starts = _match(part, values, words, starts)
      return starts
    case Choice(options):
      ends = {}
      for share, option in options:
        for end, more in _match(option, values, words, starts).items():
          ends[end] = ends.get(end, 0.0) + share * more
      return ends
    case Agree(variable, cases):
      return _match(cases[values[variable]], values, words, starts)


def _expand(expression, values: Values) -> dict[tuple, float]:
  """Returns every string with its probability, given the variables."""
  match expression:
    case Words(words):
      return {words: 1.0}
    case Sequence(parts):
      strings = {(): 1.0}
      for part in parts:
        strings = _sum(
          (left + right, p * q)
          for right, q in _expand(part, values).items()
          for left, p in strings.items()
        )
      return strings
    case Choice(options):
      return _sum(
        (words, share * p)
        for share, option in options
        for words, p in _expand(option, values).items()
      )
    case Agree(variable, cases):
      return _expand(cases[values[variable]], values)


def _sum(items) -> dict[tuple, float]:
  """Adds up the probabilities of equal strings."""
  total = {}
  for words, probability in items:
    total[words] = total.get(words, 0.0) + probability
  return total


def _variables(expression) -> set[str]:
  """Returns the variables that an expression looks at."""
  match expression:
    case Words():
      return set()
    case Sequence(parts):
      return set().union(*map(_variables, parts))
    case Choice(options):
      return set().union(*(_variables(option) for _, option in options))
    case Agree(variable, cases):
      return {variable}.union(*map(_variables, cases.values()))
