"""Parallel text from files: one sentence a line, line n translates line n."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import gzip
import importlib.resources
import lzma
import pathlib
import zlib

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from latentnmt.errors import InputError

SPLITS = ("train", "dev", "test")

_OPENERS = {".gz": gzip.open, ".xz": lzma.open}


@dataclasses.dataclass(frozen=True)
class Corpus:
  """Sentence pairs of train, dev and test.

  Attributes:
    splits: "train", "dev" and "test" to (sources, targets), of equal length:
      lists, or sequences that read their sentences when asked for them.
    languages: codes of source and target.
    provenance: where the pairs come from, one line.
    log_probs: for a corpus whose truth is known, log p(target|source) in nats
      of each pair of each split, float64[n].
  """

  splits: Mapping[str, tuple[Sequence[str], Sequence[str]]]
  languages: tuple[str, str]
  provenance: str
  log_probs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def thinned(corpus: Corpus, pairs: int) -> Corpus:
  """Returns a corpus of at most `pairs` training pairs, evenly spaced ones."""
  x, y = corpus.splits["train"]
  if len(x) <= pairs:
    return corpus
  ids = np.arange(pairs) * len(x) // pairs
  train = [x[i] for i in ids], [y[i] for i in ids]
  truth = {
    s: v[ids] if s == "train" else v for s, v in corpus.log_probs.items()
  }
  return Corpus(
    {**corpus.splits, "train": train},
    corpus.languages,
    f"{corpus.provenance}, {pairs:,} of {len(x):,} training pairs",
    truth,
  )


def read_lines(path) -> list[str]:
  r"""Reads the lines of a plain, .gz or .xz file of UTF-8 text.

  Lines end in "\n" alone ("\r\n" is taken as such): U+0085 and U+2028 stand
  inside sentences of real corpora, and splitting there would misalign them.

  Raises:
    InputError: for a file that cannot be read, or bytes that are no UTF-8
      (names the line).
  """
  return list(stream_lines(path))


def stream_lines(path) -> Iterator[str]:
  """Yields what `read_lines` reads, one line at a time."""
  path = pathlib.Path(path)
  try:
    with _OPENERS.get(path.suffix, open)(path, "rb") as file:
      yield from decode_lines(file, path)
  except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
    reason = getattr(error, "strerror", None) or f"cannot be read: {error}"
    raise InputError(f"{path}: {reason}.") from None


def decode_lines(lines: Iterable[bytes], name) -> Iterator[str]:
  """Yields the lines of a binary file called `name`; see `read_lines`."""
  for number, line in enumerate(lines, 1):
    try:
      decoded = line.decode()
    except UnicodeDecodeError as error:
      raise InputError(
        f"{name}, line {number}: byte 0x{line[error.start]:02x} is no UTF-8;"
        " convert the file first."
      ) from None
    if number == 1:  # a byte order mark would be part of the first word
      decoded = decoded.removeprefix("\ufeff")
    yield decoded.removesuffix("\n").removesuffix("\r")


def read_parallel(source_path, target_path) -> tuple[list[str], list[str]]:
  """Reads sources and targets from two files whose lines correspond.

  Raises:
    InputError: for files of different length (both counts), for empty ones,
      and as `read_lines`.
  """
  sources, targets = read_lines(source_path), read_lines(target_path)
  if len(sources) != len(targets):
    raise InputError(
      f"{source_path} has {len(sources):,} lines, {target_path} has"
      f" {len(targets):,}: line n must translate line n."
    )
  if not any(map(str.strip, sources)) or not any(map(str.strip, targets)):
    raise InputError(f"{source_path}, {target_path}: the corpus is empty.")
  return sources, targets


def read_parallel_folder(folder, source: str, target: str) -> Corpus:
  """Reads {train,dev,test}.{source,target}[.gz|.xz] in `folder`.

  Raises:
    InputError: for a missing file (names it), and as `read_parallel`.
  """
  folder = pathlib.Path(folder)
  splits = {
    split: read_parallel(
      _find(folder / f"{split}.{source}"), _find(folder / f"{split}.{target}")
    )
    for split in SPLITS
  }
  return Corpus(splits, (source, target), f"parallel files {folder.name}")


def _find(path: pathlib.Path) -> pathlib.Path:
  for suffix in ("", *_OPENERS):
    candidate = path.with_name(path.name + suffix)
    if candidate.is_file():
      return candidate
  raise InputError(f"{path}[.gz|.xz]: no such file.")


def read_manythings(
  path,
  seed: int = 0,
  *,
  languages: tuple[str, str] = ("de", "en"),
  held_out: int = 2000,
) -> Corpus:
  """Reads a manythings.org/anki file: English, other language, attribution.

  The other language is the source. A sentence with several translations stands
  on several lines. Pairs that share a sentence, on either side and over any
  number of steps, stay in one split.

  Args:
    path: tab-separated file, plain, .gz or .xz.
    seed: of the split.
    languages: codes of the second and the first column.
    held_out: pairs in dev and in test, at most a twentieth of all each.

  Raises:
    InputError: for a line with fewer than two columns (names it), for too
      few pairs to split, and as `read_lines`.
  """
  pairs = dict.fromkeys(_columns(path))  # each once, in the order of the file
  if len(pairs) < 20:
    raise InputError(f"{path}: {len(pairs):,} pairs are too few to split.")
  sources, targets = map(list, zip(*pairs, strict=True))
  held_out = min(held_out, len(pairs) // 20)  # of a small file most trains
  splits = {
    split: ([sources[i] for i in ids], [targets[i] for i in ids])
    for split, ids in _split_ids(sources, targets, held_out, seed).items()
  }
  if not all(sources for sources, _ in splits.values()):
    raise InputError(f"{path}: the pairs share too many sentences to be split.")
  name = pathlib.Path(path).name
  return Corpus(splits, languages, f"manythings {name}, split seed {seed}")


def _columns(path):
  for number, line in enumerate(read_lines(path), 1):
    if not line:  # the file may end in one
      continue
    english, tab, rest = line.partition("\t")  # then attribution, or nothing
    other = rest.partition("\t")[0]
    if not (tab and english.strip() and other.strip()):
      raise InputError(
        f"{path}, line {number}: not of the form English<tab>other."
      )
    yield other, english


def _split_ids(sources, targets, held_out: int, seed: int) -> dict:
  """Draws row ids of each split: whole groups of connected pairs."""
  # "Hello." has several translations, and those again several sources: were
  # pairs split one by one, the test set would repeat the training set.
  group = _connected(sources, targets)
  sizes = np.bincount(group)
  order = np.random.default_rng(seed).permutation(len(sizes))
  # A group of common phrases can hold thousands of pairs: such ones train.
  order = order[sizes[order] <= max(1, held_out // 20)]
  # Dev takes groups until it has `held_out` pairs, test the next ones.
  end = np.searchsorted(np.cumsum(sizes[order]), [held_out, 2 * held_out])
  split = np.zeros(len(sizes), np.int8)  # of each group: 0 is train
  split[order[: end[0] + 1]] = 1
  split[order[end[0] + 1 : end[1] + 1]] = 2
  return {
    name: np.flatnonzero(split[group] == k).tolist()
    for k, name in enumerate(SPLITS)
  }


def _connected(sources: list[str], targets: list[str]) -> np.ndarray:
  """Numbers the connected component of each pair: int[n]."""
  # A graph of sentences, sources numbered before targets, with pairs as edges.
  x = np.unique(sources, return_inverse=True)[1]
  # One list of both sides would join a source and a target spelt the same.
  y = np.unique(targets, return_inverse=True)[1] + x.max() + 1
  size = y.max() + 1
  edges = sparse.coo_array((np.ones(len(x), bool), (x, y)), (size, size))
  return csgraph.connected_components(edges, directed=False)[1][x]


def embedded_corpus() -> Corpus:
  """Reads the De-En corpus inside the package: 6,695 / 300 / 300 pairs.

  Interface texts and everyday sentences out of five open-source projects;
  `assets/NOTICE` names them and their licences.
  """
  asset = importlib.resources.files("latentnmt") / "assets/embedded_deen.tsv.xz"
  splits = {split: ([], []) for split in SPLITS}
  text = lzma.decompress(asset.read_bytes()).decode()
  for line in text.rstrip("\n").split("\n"):
    split, german, english = line.split("\t")
    splits[split][0].append(german)
    splits[split][1].append(english)
  return Corpus(splits, ("de", "en"), "embedded De-En corpus of latentnmt")
