"""Text to tokens and back: a shared SentencePiece vocabulary, normalisers.

Ids: PAD 0, EOS 1, unknown 2, then the pieces. There is no BOS and no byte
fallback. The pieces are found by byte-pair encoding, which, unlike a unigram
vocabulary, is the same whatever the number of threads. Nothing rewrites
characters: `decode(encode(line)) == line` for a line with single spaces.
"""

from collections.abc import Callable, Iterable, Sequence
import html
import io
import pathlib
import re

import numpy as np
import sentencepiece

from latentnmt.errors import InputError
from latentnmt.types import EOS, PAD

UNK = 2

# A vocabulary of 32,000 pieces hardly changes beyond so many lines, while the
# trainer's memory grows.
_TRAINING_LINES = 1_000_000


class Tokenizer:
  """A SentencePiece vocabulary shared by source and target.

  Attributes:
    model: bytes of the SentencePiece model; two tokenizers are equal where
      these are.
    vocab_size: V, pieces including PAD, EOS and unknown.
  """

  def __init__(self, model: bytes):
    self.model = model
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.vocab_size: int = self._processor.vocab_size()

  def __repr__(self) -> str:
    return f"Tokenizer(vocab_size={self.vocab_size})"

  @classmethod
  def train(cls, lines: Iterable[str], vocab_size: int) -> "Tokenizer":
    """Finds `vocab_size` pieces in `lines`, of which each is one sentence.

    Of more than a million lines evenly spaced ones are taken. `lines` is read
    once and never held as a whole.

    Raises:
      InputError: when the lines cannot carry that many pieces, or need more
        for their characters alone; says how many are possible.
    """
    lines = _thinned(filter(str.strip, lines), _TRAINING_LINES)
    if not lines:
      raise InputError("The corpus is empty: no line to train a vocabulary on.")
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)  # the same bytes each time
    try:
      sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=1.0,
        normalization_rule_name="identity",  # decoding gives the line back
        max_sentence_length=1 << 16,  # else long lines are left out unsaid
        pad_id=PAD,
        eos_id=EOS,
        unk_id=UNK,
        bos_id=-1,  # none
        minloglevel=2,  # errors alone
      )
    except (RuntimeError, OSError) as error:  # whichever, by what is wrong
      raise InputError(_explain(vocab_size, len(lines), str(error))) from None
    return cls(model.getvalue())

  @classmethod
  def load(cls, path) -> "Tokenizer":
    """Reads what `save` wrote.

    Raises:
      InputError: for a file that is missing or holds no vocabulary.
    """
    path = pathlib.Path(path)
    try:
      return cls(path.read_bytes())
    except OSError as error:
      raise InputError(
        f"{path}: {error.strerror}; a vocabulary is written by"
        " `latentnmt preprocess`."
      ) from None
    except RuntimeError:
      raise InputError(f"{path}: not a SentencePiece model.") from None

  def save(self, path):
    """Writes the SentencePiece model to `path`."""
    pathlib.Path(path).write_bytes(self.model)

  def encode(self, lines: Iterable[str]) -> list[list[int]]:
    """Returns the ids of each line, EOS last; an empty line is EOS alone."""
    return self._processor.encode(list(lines), add_eos=True)

  def __call__(self, lines: Iterable[str]) -> np.ndarray:
    """Returns int32[B, S], ids of B lines, EOS last and padded with PAD."""
    rows = self.encode(lines)
    tokens = np.full((len(rows), max(map(len, rows), default=0)), PAD, np.int32)
    for out, row in zip(tokens, rows, strict=True):
      out[: len(row)] = row
    return tokens

  def decode(self, tokens) -> list[str]:
    """Returns the detokenised text of each row, up to its first EOS.

    Args:
      tokens: int[B, T] or a list of lists of ids; PAD is ignored.
    """
    # All at once: SentencePiece then uses several threads.
    return self._processor.decode([_sentence(row) for row in tokens])

  def __eq__(self, other) -> bool:
    """Compares pieces."""
    return isinstance(other, Tokenizer) and self.model == other.model

  def __hash__(self) -> int:
    """Hashes the model's bytes."""
    return hash(self.model)

  def __reduce__(self):
    """Pickles as the model's bytes: the processor itself cannot be."""
    return Tokenizer, (self.model,)


def _thinned(lines: Iterable[str], most: int) -> list[str]:
  """Returns every k-th line, k the least power of 2 that leaves `most`."""
  kept, step = [], 1
  for number, line in enumerate(lines):
    if number % step == 0:
      kept.append(line)
    if len(kept) > most:  # k doubles, as nobody knows how many there will be
      kept, step = kept[::2], 2 * step
  return kept


def _sentence(row) -> list[int]:
  """Returns the ids before the first EOS, without padding."""
  ids = np.asarray(row).tolist()  # SentencePiece takes Python's numbers
  if EOS in ids:
    ids = ids[: ids.index(EOS)]
  return [token for token in ids if token != PAD]


def _explain(vocab_size: int, lines: int, error: str) -> str:
  """Says what SentencePiece's error means; it has no codes, only words."""
  asked = f"vocab_size={vocab_size} is not possible on these {lines:,} lines: "
  if most := re.search(r"value <= (\d+)", error):
    return f"{asked}the largest possible is {most[1]}."
  if least := re.search(r"required_chars\. \d+ vs (\d+)", error):
    return (
      f"{asked}the smallest possible is {least[1]}, their characters alone."
    )
  return asked + " ".join(error.split())  # in one line


def unescape(line: str) -> str:
  """Writes SGML entities as their characters, line breaks as spaces."""
  # "&#10;" is one, and would make two sentences of one.
  return re.sub("[\r\n]", " ", html.unescape(line))


# Old encodings have no comma below; corpora mix both.
_CEDILLA_TO_COMMA = str.maketrans("ŞşŢţ", "ȘșȚț")
_ROMANIAN_TO_ASCII = str.maketrans("ȘșȚțĂÂăâÎî", "SsTtAAaaIi")


def normalize_romanian(line: str) -> str:
  """Writes s and t with a comma below where a cedilla was typed."""
  return line.translate(_CEDILLA_TO_COMMA)


def strip_romanian_diacritics(line: str) -> str:
  """Writes Romanian in ASCII letters (Sennrich et al. 2016)."""
  # Normalised first, since a letter may have a comma or a cedilla.
  return normalize_romanian(line).translate(_ROMANIAN_TO_ASCII)


# By the names that `preprocess --normalizers` takes.
NORMALIZERS: dict[str, Callable[[str], str]] = {
  "unescape": unescape,
  "romanian": normalize_romanian,
  "strip_romanian_diacritics": strip_romanian_diacritics,
}

# The one language that a normaliser is right for.
_LANGUAGE_OF = {"romanian": "ro", "strip_romanian_diacritics": "ro"}


def normalize(
  lines: Iterable[str], names: Sequence[str], language: str
) -> list[str]:
  """Applies normalisers in order, those of another language left out.

  Args:
    lines: sentences in `language`.
    names: keys of `NORMALIZERS`.
    language: code such as "de"; the Romanian normalisers touch "ro" only.

  Raises:
    InputError: for an unknown name; the valid ones are listed.
  """
  lines = list(lines)  # gone through once for each normaliser
  for name in normalizers_of(language, names):
    lines = [NORMALIZERS[name](line) for line in lines]
  return lines


def normalizers_of(language: str, names: Sequence[str]) -> list[str]:
  """Returns those of the normalisers `names` that touch `language`.

  Raises:
    InputError: for an unknown name; the valid ones are listed.
  """
  for name in names:
    if name not in NORMALIZERS:
      raise InputError(
        f"Unknown normalizer {name!r}; valid are: {', '.join(NORMALIZERS)}."
      )
  return [n for n in names if _LANGUAGE_OF.get(n, language) == language]
