r"""Writes a prepared data directory: vocabulary, tokens, text.

  latentnmt preprocess --corpus=embedded --vocab_size=4000 \
    --out=runs/quickstart/data

The corpora of the paper are wmt14_de_en and wmt16_ro_en, which TFDS downloads
and prepares once (`pip install '.[tfds]'`), and iwslt16_de_en, whose archive
2016-01.tgz you put into --downloads; --swap for the other direction. They are
prepared as in the paper: 32,000 pieces, entities unescaped, Romanian without
diacritics.

  latentnmt preprocess --corpus=wmt16_ro_en --swap --out=data

A corpus of your own is a folder of {train,dev,test}.{de,en}[.gz|.xz], a
tab-separated file of manythings.org (English, other language), or six files:

  latentnmt preprocess --languages=de,en --out=data \
    --source=train.de,dev.de,test.de --target=train.en,dev.en,test.en

The vocabulary is found on the training pairs alone. A directory that exists
is never overwritten: made from the same it is left as it is, made otherwise
the differing fields are named.
"""

from pathlib import Path

from absl import flags

from latentnmt import config, data, text
from latentnmt.errors import InputError
from latentnmt.experiments import app, shared_flags
from latentnmt.experiments.progress import progress

_NAMED = ("embedded", "grammar", *data.PUBLISHED)

_CORPUS = flags.DEFINE_string(
  "corpus", None, f"{', '.join(_NAMED)}, a folder or a .tsv file."
)
_SOURCE = flags.DEFINE_list(
  "source", None, "Instead of --corpus: source files of train, dev, test."
)
_TARGET = flags.DEFINE_list("target", None, "And the target files.")
_LANGUAGES = flags.DEFINE_list(
  "languages", ["de", "en"], "Codes of source and target, before --swap."
)
_SWAP = flags.DEFINE_bool("swap", False, "Translate in the other direction.")
_DOWNLOADS = flags.DEFINE_string(
  "downloads",
  "downloads",
  "TFDS's data directory, and where the archive of IWSLT'16 is.",
)
_NORMALIZERS = flags.DEFINE_list(
  "normalizers",
  None,
  f"Of {', '.join(text.NORMALIZERS)}, applied in order; by default what the"
  " paper applies to its corpora, and nothing to others.",
)
_VOCAB_SIZE = flags.DEFINE_integer(
  "vocab_size", 32_000, "Pieces of the vocabulary that both sides share.", 1
)
_VOCABULARY = flags.DEFINE_string(
  "vocabulary", None, "Take this vocab.model instead of finding one."
)
_TRAIN_PAIRS = flags.DEFINE_integer(
  "train_pairs", None, "At most so many training pairs, evenly spaced ones.", 1
)
_SIZES = flags.DEFINE_list(
  "sizes", ["20000", "500", "1000"], "grammar: pairs of train, dev and test."
)
_SEED = flags.DEFINE_integer(
  "seed", 0, "grammar: of the draw; .tsv: of the split.", 0
)
_OUT = flags.DEFINE_string("out", None, "Directory to write.", required=True)


def main(argv):
  """Reads the corpus that the flags name, prepares it, says what is there."""
  del argv
  kind = _check_flags()
  corpus = read_corpus(
    kind, _CORPUS.value, _SOURCE.value, _TARGET.value, tuple(_LANGUAGES.value),
    _DOWNLOADS.value, _SIZES.value, _SEED.value,
  )  # fmt: skip
  if _TRAIN_PAIRS.value is not None:
    corpus = data.thinned(corpus, _TRAIN_PAIRS.value)
  normalizers = _NORMALIZERS.value
  if normalizers is None:  # the paper's own for its corpora
    normalizers = getattr(data.PUBLISHED.get(kind), "normalizers", ())
  lines = sum(4 * len(sources) for sources, _ in corpus.splits.values())
  tokenizer = _VOCABULARY.value and text.Tokenizer.load(_VOCABULARY.value)
  # Every line of both sides is read once and tokenised once.
  shown = {"desc": "preprocess", "unit": "line", "delay": 1, "leave": False}
  with progress(total=lines, **shown) as bar:
    prepared = data.prepare(
      corpus,
      _OUT.value,
      vocab_size=_VOCAB_SIZE.value,
      normalizers=normalizers,
      swap=_SWAP.value,
      tokenizer=tokenizer,
      advance=bar.update,
    )
  report(prepared)


# Flags on how to read a corpus, and which corpora take them.
_TAKEN_BY = {
  "languages": ("a folder", "a .tsv file", "files"),
  "sizes": ("grammar",),
  "seed": ("grammar", "a .tsv file"),
  "target": ("files",),
  "downloads": tuple(data.PUBLISHED),
}


def _check_flags() -> str:
  """Returns the kind of corpus; refuses flags that do not go with it."""
  if _VOCABULARY.value:
    shared_flags.refuse(["vocab_size"], "is that of --vocabulary; leave it out")
  if (_CORPUS.value is None) == (_SOURCE.value is None):
    raise InputError("Give either --corpus or --source and --target.")
  kind = "files" if _CORPUS.value is None else _kind(_CORPUS.value)
  for flag, kinds in _TAKEN_BY.items():
    if kind not in kinds:
      remedy = "; --swap turns it around" if flag == "languages" else ""
      shared_flags.refuse([flag], f"does not apply to {kind}{remedy}")
  if len(_LANGUAGES.value) != 2:
    raise InputError("--languages: give two, for example de,en.")
  return kind


def _kind(corpus: str) -> str:
  """Returns one of `_NAMED`, "a folder" or "a .tsv file"."""
  if corpus in _NAMED:
    return corpus
  path = Path(corpus)
  if path.is_dir():
    return "a folder"
  if ".tsv" in path.suffixes or path.is_file():
    return "a .tsv file"
  raise InputError(
    f"--corpus={path}: neither a folder nor a file; the corpora with a name are"
    f" {', '.join(_NAMED)}."
  )


def read_corpus(
  kind: str, corpus, sources, targets, languages, downloads, sizes, seed
) -> data.Corpus:
  """Reads a corpus of a kind; the values are those of the flags."""
  match kind:
    case "files":
      return _files(sources, targets or [], languages)
    case "embedded":
      return data.embedded_corpus()
    case "grammar":
      return data.grammar_corpus(_numbers(sizes), seed)
    case name if name in data.PUBLISHED:
      return data.read_published(name, downloads)
    case "a folder":
      return data.read_parallel_folder(corpus, *languages)
  return data.read_manythings(corpus, seed, languages=languages)


def _files(sources, targets, languages: tuple[str, str]) -> data.Corpus:
  if len(sources) != 3 or len(targets) != 3:
    raise InputError("--source and --target: give train,dev,test files each.")
  files = zip(data.SPLITS, sources, targets, strict=True)
  splits = {split: data.read_parallel(x, y) for split, x, y in files}
  names = ", ".join(Path(path).name for path in (*sources, *targets))
  return data.Corpus(splits, languages, f"parallel files {names}")


def _numbers(sizes: list[str]) -> tuple[int, ...]:
  if len(sizes) != 3 or not all(n.isdecimal() and int(n) for n in sizes):
    raise InputError("--sizes: give train,dev,test, three numbers above 0.")
  return tuple(map(int, sizes))


def report(prepared: data.PreparedData):
  """Prints pairs, tokens and the longest sentence of each split."""
  source, target = prepared.languages
  print(
    f"{prepared.path}: {source}-{target},"
    f" {prepared.tokenizer.vocab_size:,} pieces, {prepared.fingerprint}"
  )
  made_from = prepared.meta["made_from"]
  if prepared.reference_normalizers:
    print(f"references: {', '.join(prepared.reference_normalizers)}")
  for split, sides in prepared.meta["statistics"].items():
    pairs = made_from["pairs"][split]
    tokens, longest, unknown = (
      " / ".join(f"{sides[side][name]:,}" for side in "xy")
      for name in ("tokens", "longest", "unknown")
    )
    print(
      f"{split:>5}: {pairs:,} pairs, tokens {tokens}, longest {longest},"
      f" unknown {unknown}"
    )
  limit = config.TrainConfig().max_length
  long = int((prepared.store("train").lengths.max(axis=1) > limit).sum())
  print(
    f"{long:,} training pairs are longer than {limit} tokens, which training"
    f" leaves out by default; {made_from['dropped']:,} had an empty side and"
    " were dropped."
  )


if __name__ == "__main__":
  app.run(main)
