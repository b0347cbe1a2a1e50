import itertools
import math

import numpy as np
import pytest
from scipy import stats

from latentnmt import data
from latentnmt.data.grammar import phrases, synchronous
from latentnmt.data.grammar.synchronous import (
  Agree,
  Choice,
  Rule,
  Words,
  sequence,
)


@pytest.fixture(scope="module")
def corpus():
  return data.grammar_corpus((400, 10, 150), seed=1)


# The machinery, on grammars small enough to know by heart.


def words(text):
  return Words(tuple(text.split()))


def test_agreement_is_drawn_once_a_sentence():
  either = Agree("v", {"a": words("x"), "b": words("y")})
  rules = {"S": [Rule(1, ("s",), lambda: sequence(either, "and", either))]}
  small = synchronous.Grammar(rules, {"v": {"a": 0.25, "b": 0.75}})
  assert small.translations(("s",)) == {
    ("x", "and", "x"): 0.25,
    ("y", "and", "y"): 0.75,
  }
  assert small.log_prob(("s",), ("x", "and", "y")) == -math.inf


def test_choices_that_give_the_same_words_are_summed():
  left = Choice(((0.5, words("a")), (0.5, words("a b"))))
  right = Choice(((0.2, words("b c")), (0.8, words("c"))))
  rules = {"S": [Rule(1, ("s",), lambda: sequence(left, right))]}
  small = synchronous.Grammar(rules, {})
  expected = {("a", "b", "c"): 0.5, ("a", "c"): 0.4, ("a", "b", "b", "c"): 0.1}
  assert small.translations(("s",)) == pytest.approx(expected)
  for target, probability in expected.items():
    assert math.exp(small.log_prob(("s",), target)) == pytest.approx(
      probability
    )


def test_derivations_of_one_source_are_summed():
  # "p q" is A A with 0.4 x 0.4 or B with 0.6 (of S): posterior 0.16 to 0.6.
  rules = {
    "S": [
      Rule(2, ("A", "A"), lambda a, b: sequence(a, b)),
      Rule(3, ("B",), lambda b: b),
    ],
    "A": [
      Rule(1, ("p",), lambda: words("one")),
      Rule(1, ("q",), lambda: words("two")),
    ],
    "B": [
      Rule(1, ("p", "q"), lambda: words("both")),
      Rule(1, (), lambda: words("")),
    ],
  }
  small = synchronous.Grammar(rules, {})
  pair, both = 0.4 * 0.5 * 0.5, 0.6 * 0.5
  assert small.translations(("p", "q")) == pytest.approx(
    {("one", "two"): pair / (pair + both), ("both",): both / (pair + both)}
  )
  assert small.translations(()) == {(): 1.0}
  assert small.translations(("r",)) == {}
  assert small.log_prob(("r",), ("one",)) == -math.inf


# German and English.


def test_translations_of_a_source_sum_to_one(corpus):
  for source, target, log_prob in zip(
    *corpus.splits["test"], corpus.log_probs["test"], strict=True
  ):
    found = data.grammar_translations(source)
    assert sum(found.values()) == pytest.approx(1.0)
    assert math.log(found[target]) == pytest.approx(log_prob)
    assert data.grammar_log_prob(source, target) == log_prob


def test_every_translation_has_the_probability_it_is_listed_with(corpus):
  for source in corpus.splits["test"][0][:20]:
    found = data.grammar_translations(source)
    for target, probability in itertools.islice(found.items(), 100):
      log_prob = data.grammar_log_prob(source, target)
      assert log_prob == pytest.approx(math.log(probability))


def test_a_source_has_one_derivation(corpus):
  for source in corpus.splits["train"][0]:
    assert len(phrases._grammar().derivations(phrases._read(source))) == 1


def test_samples_follow_the_probabilities():
  # One source drawn often: its short form has few translations.
  grammar, random = phrases._grammar(), np.random.default_rng(0)
  source = ("der", "Chef", "lacht", "nicht")
  (_, expression), *rest = grammar.derivations(source)
  assert not rest
  expected = grammar.translations(source)
  counts = dict.fromkeys(expected, 0)
  draws = 4000
  for _ in range(draws):
    values = {
      name: random.choice(list(cases), p=list(cases.values()))
      for name, cases in phrases._VARIABLES.items()
    }
    counts[synchronous._sample_target(expression, values, random)] += 1
  assert len(expected) == 8
  found = stats.chisquare(
    list(counts.values()), [draws * p for p in expected.values()]
  )
  assert found.pvalue > 0.001


def test_the_log_probabilities_are_those_of_the_draws(corpus):
  # E[-log p(y|x)] over draws of y is the entropy of p(.|x).
  surprise, entropy = [], []
  for source, log_prob in zip(
    corpus.splits["test"][0], corpus.log_probs["test"], strict=True
  ):
    p = np.array(list(data.grammar_translations(source).values()))
    surprise.append(-log_prob)
    entropy.append(-np.sum(p * np.log(p)))
  difference = np.subtract(surprise, entropy)
  assert abs(difference.mean()) < 4 * stats.sem(difference)
  assert 2 < np.mean(entropy) < 5


def joint(source, *features):
  """P(all features) and the product of each alone, over the translations."""
  found = data.grammar_translations(source).items()
  each = [sum(p for y, p in found if feature in y) for feature in features]
  both = sum(p for y, p in found if all(f in y for f in features))
  return both, math.prod(each)


def test_register_ties_distant_words_together():
  source = "Die Kinder finden das Auto nicht."
  both, independent = joint(source, "kids", "n't")
  assert both > 1.3 * independent
  both, independent = joint(source, "kids", "automobile")
  assert both < 0.7 * independent


def test_what_a_child_is_called_never_changes_within_a_sentence():
  source = "Das Kind sucht seinen Hund, weil es seinen Brief holt."
  found = data.grammar_translations(source)
  for target in found:
    used = [w for w in target.replace(".", "").split() if w in PRONOUNS]
    assert len(used) == 3 and len({PRONOUNS[w] for w in used}) == 1
  assert sum(p for y, p in found.items() if " she " in y) == pytest.approx(0.4)


PRONOUNS = dict(zip("he his she her it its".split(), "mmffnn", strict=True))


def test_both_verbs_have_the_same_aspect():
  found = data.grammar_translations("Die Frau malt ein Haus, weil sie wartet.")
  assert {target.split().count("is") for target in found} == {0, 2}
  progressive = sum(p for y, p in found.items() if " is " in y)
  assert progressive == pytest.approx(0.4)


@pytest.mark.parametrize(
  "target",
  [
    "An old man is laughing.",
    "A old man laughs.",
    "an old man laughs.",
    "An old man laughs",
    "An old man  laughs.",
    "An old man laughs today.",
    "",
  ],
)
def test_only_translations_have_probability(target):
  source = "Ein alter Mann lacht."
  assert math.isfinite(data.grammar_log_prob(source, "An old man laughs."))
  found = data.grammar_log_prob(source, target)
  assert math.isfinite(found) == (target == "An old man is laughing.")


@pytest.mark.parametrize("source", ["", "Hallo.", "ein alter Mann lacht."])
def test_other_sources_have_no_translations(source):
  assert data.grammar_translations(source) == {}
  assert data.grammar_log_prob(source, "An old man laughs.") == -math.inf


def test_the_corpus_is_a_function_of_its_seed(corpus):
  again = data.grammar_corpus((400, 10, 150), seed=1)
  assert again.splits == corpus.splits
  np.testing.assert_array_equal(
    again.log_probs["train"], corpus.log_probs["train"]
  )
  assert data.grammar_corpus((400, 10, 150), seed=2).splits != corpus.splits


def test_sentences_look_like_sentences(corpus):
  sizes = {split: len(x) for split, (x, _) in corpus.splits.items()}
  assert sizes == {"train": 400, "dev": 10, "test": 150}
  for side in (0, 1):
    lines = corpus.splits["train"][side]
    assert all(y[0].isupper() and y.endswith(".") for y in lines)
    assert 7 < np.mean([len(line.split()) for line in lines]) < 11


@pytest.mark.parametrize("vocab_size", [300, 500])
def test_a_small_vocabulary_writes_the_grammar(corpus, tmp_path, vocab_size):
  prepared = data.prepare(corpus, tmp_path / "data", vocab_size=vocab_size)
  lines = [*prepared.sources("test"), *prepared.targets("test")]
  tokenizer = prepared.tokenizer
  assert tokenizer.decode(tokenizer.encode(lines)) == lines
  np.testing.assert_array_equal(
    prepared.log_probs("test"), corpus.log_probs["test"]
  )
