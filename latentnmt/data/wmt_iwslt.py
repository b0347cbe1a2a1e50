"""The corpora of the paper: WMT through TFDS, IWSLT'16 out of its archive."""

from collections.abc import Collection, Iterable, Sequence
import dataclasses
import importlib.util
import io
import pathlib
import posixpath
import re
import tarfile
from typing import BinaryIO
import zlib

from latentnmt.data.corpora import SPLITS, Corpus, decode_lines
from latentnmt.errors import InputError


@dataclasses.dataclass(frozen=True)
class Published:
  """A corpus that anyone can get, with the paper's preparation.

  Attributes:
    languages: codes of source and target.
    normalizers: names in `text.NORMALIZERS`, in order. They touch references
      too, which whoever reports BLEU has to say.
    builder: its name in TFDS, or None for IWSLT's own archive.
  """

  languages: tuple[str, str]
  normalizers: tuple[str, ...]
  builder: str | None = None


PUBLISHED: dict[str, Published] = {
  "wmt14_de_en": Published(
    ("de", "en"), ("unescape",), "wmt_t2t_translate/de-en"
  ),
  "wmt16_ro_en": Published(
    ("ro", "en"),
    ("unescape", "romanian", "strip_romanian_diacritics"),
    "wmt16_translate/ro-en",
  ),
  "iwslt16_de_en": Published(("de", "en"), ("unescape",)),
}


def read_published(name: str, folder) -> Corpus:
  """Reads the corpus `name` of `PUBLISHED`.

  Args:
    name: key of `PUBLISHED`.
    folder: TFDS's data directory, into which a corpus is downloaded that is
      not there yet, or the folder with the archive of IWSLT'16.

  Raises:
    InputError: as `read_tfds` and `read_iwslt16`.
  """
  published = PUBLISHED[name]
  if published.builder is None:
    return read_iwslt16(folder)
  return read_tfds(published.builder, published.languages, folder)


def read_tfds(name: str, languages: tuple[str, str], folder) -> Corpus:
  """Opens a translation data set of TFDS, downloaded and prepared if need be.

  Dev and test are TFDS's validation and test. Sentences are read from
  ArrayRecord files when they are asked for, without TensorFlow, which takes
  part in the preparation alone.

  Args:
    name: of a data set with a feature for each language, with its
      configuration: "wmt16_translate/ro-en".
    languages: codes of source and target.
    folder: TFDS's data directory.

  Raises:
    InputError: where packages are missing that this needs, and for a data set
      that was prepared in another format or could not be downloaded.
  """
  builder = _prepared_builder(name, pathlib.Path(folder).expanduser())
  records = builder.as_data_source(split=["train", "validation", "test"])
  splits = {
    split: tuple(_Column(rows, language) for language in languages)
    for split, rows in zip(SPLITS, records, strict=True)
  }
  return Corpus(splits, languages, f"TFDS {builder.info.full_name}")


class _Column(Sequence):
  """The sentences of one language of a split, read when asked for."""

  def __init__(self, records, language: str):
    self._records, self._language = records, language

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index):
    rows = range(len(self))[index]
    if isinstance(rows, range):  # a slice, which is one read
      records = self._records.__getitems__(rows)
      return [record[self._language].decode() for record in records]
    return self._records[rows][self._language].decode()


def _prepared_builder(name: str, folder: pathlib.Path):
  """Returns TFDS's builder of a data set that is on the disk."""
  try:  # here, for it takes seconds and is an extra of the installation
    import tensorflow_datasets as tfds
    import tensorflow_datasets.translate  # noqa: F401, registers WMT's
  except ImportError as error:
    raise InputError(f"{name}: {error}; {_INSTALL}") from None
  try:
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
  except ValueError as error:  # an unknown name, or another format there
    reason = str(error).strip().split("\n")[0]
    raise InputError(
      f"{name} cannot be read from {folder}: {reason}; what was prepared in"
      " another format is to be prepared again, in another folder."
    ) from None
  if builder.is_prepared():
    return builder
  # Asked before hours of download rather than after.
  if importlib.util.find_spec("tensorflow") is None:
    raise InputError(
      f"{name} is not in {folder} yet, and TFDS needs TensorFlow to prepare it;"
      f" {_INSTALL}"
    )
  try:
    builder.download_and_prepare()
  except Exception as error:  # of the network, the disk, TFDS, TensorFlow
    raise InputError(
      f"{name}: TFDS could not download and prepare it: {error}"
    ) from error
  return builder


_INSTALL = "install what it takes with `pip install 'latentnmt[tfds]'`."

_OUTER, _INNER = "2016-01.tgz", "de-en.tgz"  # the second is in the first
_DEV, _TEST = "tst2013", "tst2014"
_TAG = re.compile(
  "</?(url|keywords|speaker|talkid|title|description|reviewer|translator|doc"
  r"|transcript)\b"
)
# A sentence stands in one line; nothing else in the file is marked so.
_SEGMENT = re.compile(r"<seg\b[^>]*>(.*?)</seg>")


def read_iwslt16(folder) -> Corpus:
  """Reads IWSLT'16 De-En from its archive: 196,884 / 993 / 1,305 pairs.

  Dev is TED.tst2013 and test TED.tst2014. (The paper says 2K and 2K, without
  saying of which years.) Lines of tags, such as a talk's title, are left out
  of the training pairs; entities stay, for the normaliser "unescape".

  Args:
    folder: where 2016-01.tgz is, or de-en.tgz, which lies inside it.

  Raises:
    InputError: for a missing archive (says where it is expected), a damaged
      one, one without the files of this pair, and for sides that differ in
      length.
  """
  path = _archive(pathlib.Path(folder).expanduser())
  files = _iwslt16_files(path)
  splits = {}
  for split in SPLITS:
    read = _untagged if split == "train" else _segments  # two formats
    x, y = (read(files[split, code]) for code in ("de", "en"))
    if len(x) != len(y):
      raise InputError(
        f"{path}, {split}: {len(x):,} German and {len(y):,} English sentences."
      )
    splits[split] = x, y
  return Corpus(splits, ("de", "en"), f"IWSLT'16, dev {_DEV}, test {_TEST}")


def _archive(folder: pathlib.Path) -> pathlib.Path:
  for name in (_OUTER, _INNER):
    if (folder / name).is_file():
      return folder / name
  raise InputError(
    f"Neither {_OUTER} nor {_INNER} is in {folder}: get the first, the texts"
    " of IWSLT 2016, from https://wit3.fbk.eu/2016-01 and put it there."
  )


def _iwslt16_files(path: pathlib.Path) -> dict[tuple[str, str], list[str]]:
  """Reads the lines of the pair's files, by split and language."""
  names = {
    f"{name}.de-en.{code}{suffix}": (split, code)
    for split, name, suffix in (
      ("train", "train.tags", ""),
      ("dev", f"IWSLT16.TED.{_DEV}", ".xml"),
      ("test", f"IWSLT16.TED.{_TEST}", ".xml"),
    )
    for code in ("de", "en")
  }
  try:
    with path.open("rb") as file:
      if path.name == _OUTER:  # an archive in an archive, kept in memory
        file = io.BytesIO(_extract(file, [_INNER])[_INNER])
      contents = _extract(file, names)
  except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
    raise InputError(f"{path} cannot be read: {error}.") from None
  return {
    key: list(decode_lines(io.BytesIO(contents[name]), f"{path}: {name}"))
    for name, key in names.items()
  }


def _extract(file: BinaryIO, names: Collection[str]) -> dict[str, bytes]:
  """Reads an archive's files of these names, in whichever folder they are."""
  contents = {}
  with tarfile.open(fileobj=file) as archive:
    for member in archive:
      name = posixpath.basename(member.name)
      if member.isfile() and name in names:
        contents[name] = archive.extractfile(member).read()
      # A gzip file is read from its start: what comes after is not waited for.
      if len(contents) == len(names):
        return contents
  missing = next(name for name in names if name not in contents)
  raise tarfile.TarError(f"there is no {missing} in it")


def _untagged(lines: Iterable[str]) -> list[str]:
  """Returns the sentences of a training file, whose other lines are tags."""
  lines = map(str.strip, lines)
  return [line for line in lines if not _TAG.match(line)]


def _segments(lines: Iterable[str]) -> list[str]:
  """Returns the sentences of a file of dev or test, which is SGML."""
  return [
    segment.strip() for line in lines for segment in _SEGMENT.findall(line)
  ]
