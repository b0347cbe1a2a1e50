"""A prepared corpus: a directory of tokens, text, vocabulary and `meta.json`.

  vocab.model                    the shared SentencePiece vocabulary
  meta.json                      what it was made from, and what came out
  {split}.{x,y}.tokens.npy       uint16, sentence after sentence
  {split}.{x,y}.offsets.npy      int64[n + 1], where each begins
  {split}.{src,tgt}.txt          the sentences as text; BLEU's references
  {split}.log_probs.npy          float64[n], where the truth is known

The same corpus and settings give the same bytes. Every pair of every split is
kept but for training pairs with an empty side, which are counted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

from latentnmt import text
from latentnmt.data import batches
from latentnmt.data.corpora import SPLITS, Corpus, read_lines
from latentnmt.types import InputError

_LARGEST_VOCABULARY = 1 << 16  # tokens are stored as uint16
_CHUNK = 50_000  # lines tokenised at once, to keep their lists of ids small


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

  @classmethod
  def open(cls, path) -> "PreparedData":
    """Opens what `prepare` wrote.

    Raises:
      InputError: for a directory that is none.
    """
    path = pathlib.Path(path)
    meta = _read_meta(path)
    if meta is None:
      raise InputError(
        f"{path}: no prepared corpus; make one with"
        f" `python -m experiments.preprocess --out={path}`."
      )
    return cls(path, meta)

  @property
  def languages(self) -> tuple[str, str]:
    """Codes of source and target."""
    source, target = self.meta["made_from"]["languages"]
    return source, target

  def store(self, split: str) -> batches.TokenStore:
    """Token sequences of a split, memory-mapped."""
    return batches.TokenStore(
      *(
        np.load(self._file(split, f"{side}.{kind}.npy"), mmap_mode="r")
        for side in "xy"
        for kind in ("tokens", "offsets")
      )
    )

  def sources(self, split: str) -> list[str]:
    """Source sentences of a split."""
    return read_lines(self._file(split, "src.txt"))

  def targets(self, split: str) -> list[str]:
    """Target sentences of a split: BLEU's references."""
    return read_lines(self._file(split, "tgt.txt"))

  def log_probs(self, split: str) -> np.ndarray | None:
    """float64[n]: known log p(target|source) in nats, or None."""
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
  """Normalises, finds a vocabulary on train, tokenises, writes `out`.

  The directory appears complete or not at all. One that exists and was made
  from the same is returned as it is.

  Args:
    corpus: sentence pairs.
    out: directory to write.
    vocab_size: pieces of the shared vocabulary; None with a `tokenizer`.
    normalizers: names in `text.NORMALIZERS`, applied in order to every split
      of the side whose language they are for.
    swap: translate from the corpus's target to its source.
    tokenizer: a vocabulary to take instead of finding one.
    advance: called with the number of lines just tokenised, for a progress
      bar: `tqdm(...).update`.

  Raises:
    InputError: for `out` made otherwise (names the fields that differ), a
      vocabulary size that the corpus or the store cannot carry, an unknown
      normaliser, or a split that is missing, empty or of unequal sides.
  """
  out = pathlib.Path(out)
  splits, kept = _normalized(corpus, normalizers, swap)
  if tokenizer is not None:
    vocab_size = tokenizer.vocab_size
  made_from = {
    "languages": list(corpus.languages[:: -1 if swap else 1]),
    "provenance": corpus.provenance,
    "normalizers": list(normalizers),
    "vocab_size": _checked_size(vocab_size),
    "vocabulary": _digest(tokenizer.model) if tokenizer else "trained",
    "pairs": {split: len(splits[split][0]) for split in SPLITS},
    "dropped": int(np.sum(~kept)),
    "text": _digest(*(_text(side) for s in SPLITS for side in splits[s])),
  }
  if (existing := _same(out, made_from)) is not None:
    return existing
  if tokenizer is None:
    source, target = splits["train"]
    tokenizer = text.Tokenizer.train([*source, *target], vocab_size)
  with _directory(out) as folder:
    tokenizer.save(folder / "vocab.model")
    statistics = {}
    for split in SPLITS:
      statistics[split] = {
        side: _write_side(folder, split, side, lines, tokenizer, advance)
        for side, lines in zip("xy", splits[split], strict=True)
      }
    # The known truth is that of the corpus's own direction and spelling.
    if not (swap or normalizers):
      for split, values in corpus.log_probs.items():
        values = values[kept] if split == "train" else values
        np.save(folder / f"{split}.log_probs.npy", values)
    _write_meta(folder, made_from, statistics)
  return PreparedData.open(out)


def with_targets(
  prepared: PreparedData,
  out,
  targets: Sequence[str],
  provenance: Mapping[str, object],
) -> PreparedData:
  """A copy with other training targets, such as a teacher's translations.

  Dev, test and vocabulary stay as they are.

  Args:
    prepared: the corpus whose training sources were translated.
    out: directory to write.
    targets: one for each training source, in order.
    provenance: what made them (run, step, method, ...), for `meta.json`.

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
  made_from["text"] = _digest(made_from["text"].encode(), _text(targets))
  if (existing := _same(out, made_from)) is not None:
    return existing
  with _directory(out) as folder:
    for file in prepared.path.iterdir():
      if not file.name.startswith(("train.y.", "train.tgt", "train.log")):
        shutil.copyfile(file, folder / file.name)
    statistics = json.loads(json.dumps(prepared.meta["statistics"]))
    statistics["train"]["y"] = _write_side(
      folder, "train", "y", targets, prepared.tokenizer
    )
    _write_meta(folder, made_from, statistics)
  return PreparedData.open(out)


def _normalized(
  corpus: Corpus, normalizers, swap: bool
) -> tuple[dict, np.ndarray]:
  """The pairs as they are stored, and which of train they are: bool[n]."""
  splits = {}
  for split in SPLITS:
    sides = corpus.splits.get(split, ((), ()))
    if len(sides[0]) != len(sides[1]):
      raise InputError(
        f"{split}: {len(sides[0]):,} sources and {len(sides[1]):,} targets."
      )
    pairs = list(
      zip(
        *(
          text.normalize(side, normalizers, language)
          for side, language in zip(sides, corpus.languages, strict=True)
        ),
        strict=True,
      )
    )
    if split == "train":
      kept = np.array([bool(x.strip() and y.strip()) for x, y in pairs], bool)
      pairs = [pair for pair, keep in zip(pairs, kept, strict=True) if keep]
    if not pairs:
      raise InputError(f"{corpus.provenance}: the {split} split is empty.")
    source, target = map(list, zip(*pairs, strict=True))
    splits[split] = (target, source) if swap else (source, target)
  return splits, kept


def _checked_size(vocab_size: int | None) -> int:
  if vocab_size is None or not 0 < vocab_size <= _LARGEST_VOCABULARY:
    raise InputError(
      f"vocab_size={vocab_size}; give one from 1 to {_LARGEST_VOCABULARY:,},"
      " the most that a token store can number."
    )
  return vocab_size


def _write_side(
  folder,
  split: str,
  side: str,
  lines: Sequence[str],
  tokenizer: text.Tokenizer,
  advance: Callable[[int], object] = lambda lines: None,
) -> dict:
  """Writes text and tokens of one side of a split; returns its statistics."""
  parts = []
  for start in range(0, len(lines), _CHUNK):
    chunk = lines[start : start + _CHUNK]
    parts.append(batches.flatten(tokenizer.encode(chunk)))
    advance(len(chunk))
  tokens = np.concatenate([flat for flat, _ in parts])
  lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
  offsets = np.concatenate([[0], np.cumsum(lengths)])
  np.save(folder / f"{split}.{side}.tokens.npy", tokens)
  np.save(folder / f"{split}.{side}.offsets.npy", offsets)
  name = {"x": "src", "y": "tgt"}[side]
  (folder / f"{split}.{name}.txt").write_bytes(_text(lines))
  return {
    "tokens": len(tokens),
    "longest": int(lengths.max()),
    "unknown": int(np.sum(tokens == text.UNK)),
  }


def _text(lines: Sequence[str]) -> bytes:
  for number, line in enumerate(lines, 1):
    if "\n" in line:
      raise InputError(f"Sentence {number} has a line break in it: {line!r}.")
  return "".join(f"{line}\n" for line in lines).encode()


def _digest(*parts: bytes) -> str:
  digest = hashlib.sha256()
  for part in parts:
    digest.update(len(part).to_bytes(8, "little") + part)
  return digest.hexdigest()[:16]


def _write_meta(folder, made_from: dict, statistics: dict):
  fingerprint = _digest(json.dumps(made_from, sort_keys=True).encode())
  meta = {
    "fingerprint": fingerprint,
    "made_from": made_from,
    "statistics": statistics,
  }
  (folder / "meta.json").write_text(
    json.dumps(meta, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
  )


def _read_meta(path: pathlib.Path) -> dict | None:
  try:
    return json.loads((path / "meta.json").read_text(encoding="utf-8"))
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise InputError(f"{path}/meta.json cannot be read: {error}.") from None


def _same(out: pathlib.Path, made_from: dict) -> PreparedData | None:
  """The corpus at `out` if it is made from the same, None if there is none."""
  if not out.exists():
    return None
  if (meta := _read_meta(out)) is None:
    if out.is_dir() and not any(out.iterdir()):
      return None
    raise InputError(f"{out} exists and is no prepared corpus; name another.")
  old, made_from = meta["made_from"], json.loads(json.dumps(made_from))
  differ = [
    f"{name}: {old.get(name)} -> {made_from.get(name)}"
    for name in {**old, **made_from}
    if old.get(name) != made_from.get(name)
  ]
  if differ:
    raise InputError(
      f"{out} was made otherwise ({'; '.join(differ)}); name another or"
      " remove it."
    )
  return PreparedData(out, meta)


@contextlib.contextmanager
def _directory(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """A sibling of `out` to write into, which then becomes `out`."""
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=out.parent, prefix=f".{out.name}."
  ) as temporary:
    folder = pathlib.Path(temporary) / "data"
    folder.mkdir()
    yield folder
    os.replace(folder, out)
