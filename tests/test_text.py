import pickle
import re

import numpy as np
import pytest

from latentnmt import text
from latentnmt.errors import InputError
from latentnmt.types import EOS, PAD

LINES = [
  "Guten Morgen, wie geht es dir?",
  "Good morning, how are you?",
  "Das ist ein guter Morgen … für ½ Tag.",
  "That is a good morning for you.",
] * 3


@pytest.fixture(scope="module")
def tokenizer():
  return text.Tokenizer.train(LINES, 60)


def test_every_line_ends_in_the_only_eos(tokenizer):
  assert tokenizer.vocab_size == 60
  for row in tokenizer.encode([*LINES, ""]):
    assert row[-1] == EOS
    assert not {EOS, PAD} & set(row[:-1])
  assert tokenizer.encode([""]) == [[EOS]]


def test_rows_are_padded(tokenizer):
  tokens = tokenizer(["Guten Morgen.", "Good"])
  assert tokens.dtype == np.int32
  for row, line in zip(tokens, ["Guten Morgen.", "Good"], strict=True):
    own = tokenizer.encode([line])[0]
    assert row.tolist() == own + [PAD] * (tokens.shape[1] - len(own))
  assert tokenizer([]).shape == (0, 0)


def test_decode_gives_the_text_back(tokenizer):
  assert tokenizer.decode(tokenizer.encode(LINES)) == LINES
  assert tokenizer.decode(tokenizer(LINES)) == LINES


def test_decode_stops_at_eos_and_ignores_padding(tokenizer):
  good, morning = (tokenizer.encode([w])[0][:-1] for w in ("Good", "morning"))
  rows = [good + [EOS] + morning + [EOS], [PAD] + good + [PAD] + morning, [EOS]]
  assert tokenizer.decode(rows) == ["Good", "Good morning", ""]


def test_unknown_characters_are_one_id(tokenizer):
  row = tokenizer.encode(["ж"])[0]
  assert text.UNK in row


def test_the_same_lines_give_the_same_vocabulary(tokenizer, tmp_path):
  again = text.Tokenizer.train(iter(LINES), 60)
  again.save(tmp_path / "vocab.model")
  loaded = text.Tokenizer.load(tmp_path / "vocab.model")
  copied = pickle.loads(pickle.dumps(tokenizer))
  assert tokenizer == again == loaded == copied
  assert len({tokenizer, again, loaded, copied}) == 1
  assert tokenizer != text.Tokenizer.train(LINES, 61)
  assert copied.encode(LINES) == tokenizer.encode(LINES)


def test_a_vocabulary_too_large_names_the_largest():
  with pytest.raises(InputError, match=r"largest possible is \d+\.$") as error:
    text.Tokenizer.train(LINES, 5000)
  largest = int(re.search(r"is (\d+)\.$", str(error.value))[1])
  assert text.Tokenizer.train(LINES, largest).vocab_size == largest
  with pytest.raises(InputError, match=f"largest possible is {largest}"):
    text.Tokenizer.train(LINES, largest + 1)


def test_a_vocabulary_too_small_names_the_smallest():
  with pytest.raises(InputError, match=r"smallest possible is \d+") as error:
    text.Tokenizer.train(LINES, 5)
  smallest = int(re.search(r"is (\d+),", str(error.value))[1])
  assert text.Tokenizer.train(LINES, smallest).vocab_size == smallest


def test_an_empty_corpus_is_refused():
  with pytest.raises(InputError, match="empty"):
    text.Tokenizer.train(["", "  "], 60)


def test_unreadable_vocabularies_are_named(tmp_path):
  with pytest.raises(InputError, match=r"none\.model.*preprocess"):
    text.Tokenizer.load(tmp_path / "none.model")
  (tmp_path / "bad.model").write_bytes(b"text")
  with pytest.raises(InputError, match=r"bad\.model"):
    text.Tokenizer.load(tmp_path / "bad.model")


@pytest.mark.parametrize(
  ("name", "line", "expected"),
  [
    ("unescape", "&quot;A &amp; B&quot; &#39;", '"A & B" \''),
    ("romanian", "Şi ţara ş Ţ", "Și țara ș Ț"),
    (
      "strip_romanian_diacritics",
      "Şi țară în câmp, ÎĂÂ",
      "Si tara in camp, IAA",
    ),
  ],
)
def test_normalizers(name, line, expected):
  assert text.NORMALIZERS[name](line) == expected
  assert text.normalize([line], [name], "ro") == [expected]


def test_romanian_normalizers_leave_other_languages_alone():
  names = ["unescape", "strip_romanian_diacritics"]
  assert text.normalize(["Château &lt;"], names, "en") == ["Château <"]
  assert text.normalize(["Château &lt;"], names, "ro") == ["Chateau <"]


def test_an_unknown_normalizer_lists_the_valid_ones():
  with pytest.raises(InputError, match="'nfkc'.*unescape, romanian"):
    text.normalize(["a"], ["nfkc"], "de")


def test_a_vocabulary_takes_evenly_spaced_lines_of_many(monkeypatch):
  lines = [f"{word} und {word}" for word in map(str, range(1000, 1100))]
  expected = text.Tokenizer.train(lines[::16], 20)
  monkeypatch.setattr(text, "_TRAINING_LINES", 10)
  assert text.Tokenizer.train(iter(lines), 20) == expected
  monkeypatch.undo()
  assert text.Tokenizer.train(lines, 20) != expected


def test_the_repr_is_one_line(tokenizer):
  assert repr(tokenizer) == "Tokenizer(vocab_size=60)"
