"""A prepared corpus: a directory of tokens, text, vocabulary and `meta.json`.

  vocab.model                    the shared SentencePiece vocabulary
  meta.json                      what it was made from, and what came out
  {split}.{x,y}.tokens.npy       uint16, sentence after sentence
  {split}.{x,y}.offsets.npy      int64[n + 1], where each begins
  {split}.{src,tgt}.txt          the sentences as text; BLEU's references
  {split}.log_probs.npy          float64[n], where the truth is known

The same corpus and settings give the same bytes. Every pair of every split is
kept but for training pairs with an empty side, which are counted. Text goes
from the corpus to its files, and from there to the vocabulary and to tokens, a
chunk at a time: no corpus is ever held as a whole.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import copy
import hashlib
import io
import itertools
import json
import os
import pathlib
import shutil
import tempfile
from typing import BinaryIO

import numpy as np

from latentnmt import files, text
from latentnmt.data.corpora import SPLITS, Corpus, read_lines, stream_lines
from latentnmt.data.token_store import TokenStore, flatten
from latentnmt.errors import InputError

_LARGEST_VOCABULARY = 1 << 16  # tokens are stored as uint16
_CHUNK = 50_000  # lines read or tokenised at once
_TEXT = {"x": "src.txt", "y": "tgt.txt"}


class PreparedData:
  """A prepared corpus, opened for reading.

  Attributes:
    path: the directory.
    meta: contents of `meta.json`; under "made_from" what a second preparation
      must agree in.
    fingerprint: hash of everything the corpus was made from.
    tokenizer: the shared vocabulary.
  """

  def __init__(self, path: pathlib.Path, meta: dict):
    self.path, self.meta = path, meta
    self.fingerprint: str = meta["fingerprint"]
    self.tokenizer = text.Tokenizer.load(path / "vocab.model")

  def __repr__(self) -> str:
    pairs = " / ".join(
      f"{n:,}" for n in self.meta["made_from"]["pairs"].values()
    )
    languages = "-".join(self.languages)
    return f"PreparedData('{self.path}', {languages}, {pairs} pairs)"

  @classmethod
  def open(cls, path) -> "PreparedData":
    """Opens what `prepare` wrote.

    Raises:
      InputError: for a directory that is none.
    """
    path = pathlib.Path(path)
    meta = files.read_json(path / "meta.json")
    if meta is None:
      raise InputError(
        f"{path}: no prepared corpus; make one with"
        f" `latentnmt preprocess --out={path}`."
      )
    return cls(path, meta)

  @property
  def languages(self) -> tuple[str, str]:
    """Returns the codes of source and target."""
    source, target = self.meta["made_from"]["languages"]
    return source, target

  @property
  def reference_normalizers(self) -> list[str]:
    """Returns the normalisers of the targets, and so of BLEU's references."""
    names = self.meta["made_from"]["normalizers"]
    return text.normalizers_of(self.languages[1], names)

  def store(self, split: str) -> TokenStore:
    """Opens the token sequences of a split, memory-mapped."""
    return TokenStore(
      *(
        np.load(self._file(split, f"{side}.{kind}.npy"), mmap_mode="r")
        for side in "xy"
        for kind in ("tokens", "offsets")
      )
    )

  def sources(self, split: str) -> list[str]:
    """Reads the source sentences of a split."""
    return read_lines(self._file(split, _TEXT["x"]))

  def targets(self, split: str) -> list[str]:
    """Reads the target sentences of a split: BLEU's references."""
    return read_lines(self._file(split, _TEXT["y"]))

  def log_probs(self, split: str) -> np.ndarray | None:
    """Reads known log p(target|source), float64[n] nats, or None."""
    path = self.path / f"{split}.log_probs.npy"
    return np.load(path) if path.exists() else None

  def _file(self, split: str, name: str) -> pathlib.Path:
    if split not in SPLITS:
      raise InputError(
        f"Unknown split {split!r}; valid are: {', '.join(SPLITS)}."
      )
    return self.path / f"{split}.{name}"


def prepare(
  corpus: Corpus,
  out,
  *,
  vocab_size: int | None = None,
  normalizers: Sequence[str] = (),
  swap: bool = False,
  tokenizer: text.Tokenizer | None = None,
  advance: Callable[[int], object] = lambda lines: None,
) -> PreparedData:
  """Writes a corpus normalised and tokenised, with a vocabulary from train.

  The directory appears complete or not at all. One that exists and was made
  from the same is returned as it is.

  Args:
    corpus: sentence pairs.
    out: directory to write.
    vocab_size: pieces of the shared vocabulary; None with a `tokenizer`.
    normalizers: names in `text.NORMALIZERS`, applied in order to every split
      of the side whose language they are for.
    swap: whether to translate from the corpus's target to its source.
    tokenizer: a vocabulary to take instead of finding one.
    advance: called with the number of lines just read or just tokenised, for
      a progress bar, `tqdm(...).update`: every line counts twice.

  Raises:
    InputError: for `out` made otherwise (names the fields that differ), a
      vocabulary size that the corpus or the store cannot carry, an unknown
      normaliser, or a split that is missing, empty or of unequal sides.
  """
  out = pathlib.Path(out)
  if tokenizer is not None:
    vocab_size = tokenizer.vocab_size
  made_from = {
    "languages": list(corpus.languages[:: -1 if swap else 1]),
    "provenance": corpus.provenance,
    "normalizers": list(normalizers),
    "vocab_size": _checked_size(vocab_size),
    # Of one that is found, the text below and the size say all.
    "vocabulary": _digest(tokenizer.model) if tokenizer else "trained",
  }
  with _workspace(out) as folder:
    kept = {
      split: _write_pairs(corpus, split, folder, normalizers, swap, advance)
      for split in SPLITS
    }
    made_from["pairs"] = {s: int(np.sum(kept[s])) for s in SPLITS}
    made_from["dropped"] = int(np.sum(~kept["train"]))
    made_from["text"] = _digest(
      *(path for split in SPLITS for path in _text_files(folder, split))
    )
    # Only now: what it is made from has the hash of the text in it.
    if (existing := _same(out, made_from)) is not None:
      return existing
    if tokenizer is None:
      lines = itertools.chain(*map(stream_lines, _text_files(folder, "train")))
      tokenizer = text.Tokenizer.train(lines, vocab_size)
    tokenizer.save(folder / "vocab.model")
    statistics = {
      split: {
        side: _write_tokens(folder, split, side, tokenizer, advance)
        for side in _TEXT
      }
      for split in SPLITS
    }
    # The known truth is that of the corpus's own direction and spelling.
    if not (swap or normalizers):
      for split, values in corpus.log_probs.items():
        np.save(folder / f"{split}.log_probs.npy", values[kept[split]])
    _write_meta(folder, made_from, statistics)
    os.replace(folder, out)  # complete, in one step
  return PreparedData.open(out)


def with_targets(
  prepared: PreparedData,
  out,
  targets: Sequence[str],
  provenance: Mapping[str, object],
  about: Mapping[str, object] | None = None,
) -> PreparedData:
  """Copies a corpus with other training targets, such as a teacher's.

  Dev, test and vocabulary stay as they are.

  Args:
    prepared: the corpus whose training sources were translated.
    out: directory to write.
    targets: one for each training source, in order.
    provenance: what made them (run, step, method, ...), for `meta.json`; part
      of the fingerprint.
    about: what else is to be said of them there (date, speed, ...).

  Raises:
    InputError: for another number of targets than of sources, and for `out`
      made otherwise (names the fields that differ).
  """
  out = pathlib.Path(out)
  made_from = dict(prepared.meta["made_from"])
  if len(targets) != made_from["pairs"]["train"]:
    raise InputError(
      f"{len(targets):,} targets for the {made_from['pairs']['train']:,}"
      f" training sources of {prepared.path}."
    )
  made_from["targets"] = dict(provenance)
  with _workspace(out) as folder:
    file = folder / f"train.{_TEXT['y']}"
    with file.open("wb") as opened:
      _write_lines(opened, targets)
    # Of the text before, and what changes in it.
    made_from["text"] = _digest(made_from["text"].encode(), file)
    if (existing := _same(out, made_from)) is not None:
      return existing
    # A known truth is that of the old targets, and goes with them.
    for file in prepared.path.iterdir():
      if not file.name.startswith(("train.y.", "train.tgt", "train.log")):
        shutil.copyfile(file, folder / file.name)
    statistics = copy.deepcopy(prepared.meta["statistics"])
    statistics["train"]["y"] = _write_tokens(
      folder, "train", "y", prepared.tokenizer
    )
    _write_meta(folder, made_from, statistics, targets=dict(about or {}))
    os.replace(folder, out)
  return PreparedData.open(out)


def _checked_size(vocab_size: int | None) -> int:
  if vocab_size is None or not 0 < vocab_size <= _LARGEST_VOCABULARY:
    raise InputError(
      f"vocab_size={vocab_size}; give one from 1 to {_LARGEST_VOCABULARY:,},"
      " the most that a token store can number."
    )
  return vocab_size


def _text_files(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
  return [folder / f"{split}.{name}" for name in _TEXT.values()]


def _write_pairs(
  corpus: Corpus,
  split: str,
  folder: pathlib.Path,
  normalizers: Sequence[str],
  swap: bool,
  advance: Callable[[int], object],
) -> np.ndarray:
  """Writes a split's text, normalised, and returns which pairs, bool[n]."""
  sides = corpus.splits.get(split, ((), ()))
  if len(sides[0]) != len(sides[1]):
    raise InputError(
      f"{split}: {len(sides[0]):,} sources and {len(sides[1]):,} targets."
    )
  kept = np.ones(len(sides[0]), bool)
  with contextlib.ExitStack() as stack:
    opened = [
      stack.enter_context(path.open("wb"))
      for path in _text_files(folder, split)[:: -1 if swap else 1]
    ]
    for start in range(0, len(kept), _CHUNK):  # TFDS reads slices quickly
      chunk = slice(start, start + _CHUNK)
      lines = [
        text.normalize(side[chunk], normalizers, language)
        for side, language in zip(sides, corpus.languages, strict=True)
      ]
      if split == "train":  # of the others, references stay as published
        pairs = zip(*lines, strict=True)
        kept[chunk] = [bool(x.strip() and y.strip()) for x, y in pairs]
      for file, side in zip(opened, lines, strict=True):
        _write_lines(file, itertools.compress(side, kept[chunk]))
        advance(len(side))
  if not kept.any():
    raise InputError(f"{corpus.provenance}: the {split} split is empty.")
  return kept


def _write_lines(file: BinaryIO, lines: Iterable[str]):
  for line in lines:
    if "\n" in line:  # it would shift every line below
      raise InputError(f"A sentence has a line break in it: {line!r}.")
    file.write(f"{line}\n".encode())


def _write_tokens(
  folder: pathlib.Path,
  split: str,
  side: str,
  tokenizer: text.Tokenizer,
  advance: Callable[[int], object] = lambda lines: None,
) -> dict:
  """Writes the tokens of one side of a split, and returns its statistics."""
  lines = stream_lines(folder / f"{split}.{_TEXT[side]}")
  parts = []
  while chunk := list(itertools.islice(lines, _CHUNK)):
    parts.append(flatten(tokenizer.encode(chunk)))
    advance(len(chunk))
  tokens = np.concatenate([flat for flat, _ in parts])
  lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  np.save(folder / f"{split}.{side}.tokens.npy", tokens)
  np.save(folder / f"{split}.{side}.offsets.npy", offsets)
  return {
    "tokens": len(tokens),
    "longest": int(lengths.max()),
    "unknown": int(np.sum(tokens == text.UNK)),
  }


def _digest(*parts: bytes | pathlib.Path) -> str:
  """Hashes bytes and contents of files, in this order."""
  digest = hashlib.sha256()
  for part in parts:
    whole = isinstance(part, bytes)  # else a file, never held as a whole
    with io.BytesIO(part) if whole else part.open("rb") as file:
      size = file.seek(0, io.SEEK_END)
      file.seek(0)
      # Sizes too: else "ab", "c" would be the same as "a", "bc".
      digest.update(size.to_bytes(8, "little"))
      while block := file.read(1 << 20):
        digest.update(block)
  return digest.hexdigest()[:16]


def _write_meta(folder, made_from: dict, statistics: dict, **more):
  # Of what it is made from: the rest of it follows.
  fingerprint = _digest(json.dumps(made_from, sort_keys=True).encode())
  meta = {
    "fingerprint": fingerprint,
    "made_from": made_from,
    "statistics": statistics,
    **more,
  }
  files.write_json(folder / "meta.json", meta)


def _same(out: pathlib.Path, made_from: dict) -> PreparedData | None:
  """Returns the corpus at `out` if made from the same, None for no corpus."""
  if not out.exists():
    return None
  if (meta := files.read_json(out / "meta.json")) is None:
    if out.is_dir() and not any(out.iterdir()):
      return None
    raise InputError(f"{out} exists and is no prepared corpus; name another.")
  # By way of JSON, as the old one went: it has no tuples.
  made_from, old = json.loads(json.dumps(made_from)), meta["made_from"]
  files.check_made_from(out, old, made_from, "name another or remove it")
  return PreparedData(out, meta)


@contextlib.contextmanager
def _workspace(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """Makes a folder to write into, gone in the end unless moved away."""
  out.parent.mkdir(parents=True, exist_ok=True)
  # Beside `out`: on one file system to move it takes no time and never fails
  # half-way.
  with tempfile.TemporaryDirectory(
    dir=out.parent, prefix=f".{out.name}."
  ) as temporary:
    folder = pathlib.Path(temporary) / "data"
    folder.mkdir()
    yield folder
