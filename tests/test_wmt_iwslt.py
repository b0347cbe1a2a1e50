"""The paper's corpora, on small archives of the very same format."""

import importlib.util
import io
import shutil
import sys
import tarfile

import pytest

from latentnmt import data
from latentnmt.errors import InputError

# IWSLT'16: files of tags and text in an archive in an archive.

TAGS = """<url>http://www.ted.com/talks/{code}_1</url>
<keywords>talks, {code}</keywords>
<speaker>A. Speaker</speaker>
<talkid>1</talkid>
<title>Title in {code}</title>
<description>TED Talk: title is <title></description>
"""
XML = """<?xml version="1.0" encoding="UTF-8"?>
<mteval>
<srcset setid="{name}" srclang="{code}">
<doc docid="1" genre="lectures">
<talkid>1</talkid>
<title>Title in {code}</title>
{segments}
</doc>
</srcset>
</mteval>
"""
TRAIN = {
  "de": [" Danke, Chris. ", "2 < 3 &amp; a\u2028b", "<em>Ja</em>", "", "Ende"],
  "en": ["Thank you, Chris.", "2 < 3 &amp; ab", "<em>Yes</em>", "x", "The end"],
}


def iwslt_files() -> dict[str, str]:
  files = {}
  for code, lines in TRAIN.items():
    text = TAGS.format(code=code) + "\n".join(lines)
    if code == "de":  # who translated is told on one side only
      text += '\n<translator href="a">B</translator>\n<reviewer href="c">D'
    files[f"train.tags.de-en.{code}"] = text + "\n"
    for name, count in ("tst2013", 3), ("tst2014", 4), ("tst2012", 2):
      segments = "\n".join(
        f'<seg id="{i}"> {code} {name} &quot;{i}&quot; </seg>'
        for i in range(1, count + 1)
      )
      files[f"IWSLT16.TED.{name}.de-en.{code}.xml"] = XML.format(
        name=name, code=code, segments=segments
      )
  return files


def tgz(files: dict[str, str | bytes]) -> bytes:
  packed = io.BytesIO()
  with tarfile.open(fileobj=packed, mode="w:gz") as archive:
    for name, content in files.items():
      content = content.encode() if isinstance(content, str) else content
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return packed.getvalue()


def write_pair(folder, **changes):
  """de-en.tgz, with the files whose names end in keys of `changes` changed."""
  files = iwslt_files() | changes
  packed = tgz({f"de-en/{n}": c for n, c in files.items() if c is not None})
  (folder / "de-en.tgz").write_bytes(packed)


def write_iwslt16(folder):
  pair = tgz(
    {f"de-en/._{name}": b"\0\5\26\7" for name in iwslt_files()}
    | {f"de-en/{name}": content for name, content in iwslt_files().items()}
  )
  files = {"texts/de/ar/de-ar.tgz": b"no", "texts/de/en/de-en.tgz": pair}
  (folder / "2016-01.tgz").write_bytes(
    tgz({f"2016-01/{name}": content for name, content in files.items()})
  )


@pytest.mark.parametrize("write", [write_iwslt16, write_pair])
def test_iwslt16_out_of_its_archive(tmp_path, write):
  write(tmp_path)
  found = data.read_iwslt16(tmp_path)
  assert found.languages == ("de", "en")
  assert found.splits["train"] == tuple(
    [line.strip() for line in TRAIN[code]] for code in ("de", "en")
  )
  assert [len(x) for x, _ in found.splits.values()] == [5, 3, 4]
  assert found.splits["dev"][0][0] == "de tst2013 &quot;1&quot;"
  assert found.splits["test"][1][3] == "en tst2014 &quot;4&quot;"
  assert "tst2013" in found.provenance and "tst2014" in found.provenance


def test_a_missing_archive_says_where_it_is_expected(tmp_path):
  with pytest.raises(InputError, match=f"is in {tmp_path}: .* put it there"):
    data.read_iwslt16(tmp_path)


def test_damaged_archives_are_named(tmp_path):
  write_iwslt16(tmp_path)
  archive = tmp_path / "2016-01.tgz"
  archive.write_bytes(archive.read_bytes()[:-500])
  with pytest.raises(InputError, match="2016-01.tgz cannot be read"):
    data.read_iwslt16(tmp_path)
  archive.write_bytes(b"<html>")
  with pytest.raises(InputError, match="2016-01.tgz cannot be read"):
    data.read_iwslt16(tmp_path)
  archive.write_bytes(tgz({"texts/en/de/en-de.tgz": b""}))
  with pytest.raises(InputError, match="there is no de-en.tgz in it"):
    data.read_iwslt16(tmp_path)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("train.tags.de-en.en", "a\nb\n", "train: 5 German and 2 English"),
    ("IWSLT16.TED.tst2014.de-en.de.xml", "", "test: 0 German and 4 English"),
    ("IWSLT16.TED.tst2013.de-en.en.xml", None, "no IWSLT16.TED.tst2013"),
    ("train.tags.de-en.de", b"a\n\xff\n", "de-en.de, line 2: byte 0xff"),
  ],
)
def test_unusable_files_of_an_archive_are_named(
  tmp_path, name, content, message
):
  write_pair(tmp_path, **{name: content})
  with pytest.raises(InputError, match=message):
    data.read_iwslt16(tmp_path)


def test_preparing_iwslt16_as_the_paper(binary, tmp_path):
  write_iwslt16(tmp_path)
  done = binary(
    "preprocess",
    "--corpus=iwslt16_de_en",
    f"--downloads={tmp_path}",
    "--vocab_size=40",
    f"--out={tmp_path / 'data'}",
  )
  assert done.status == 0, done.stderr
  prepared = data.PreparedData.open(tmp_path / "data")
  assert prepared.sources("train")[1] == "2 < 3 & a\u2028b"
  assert prepared.targets("test")[0] == 'en tst2014 "1"'
  assert prepared.meta["made_from"]["normalizers"] == ["unescape"]
  assert prepared.meta["made_from"]["dropped"] == 1


# WMT, by TFDS: prepared as ArrayRecord, which takes no TensorFlow.


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
  """TFDS's data directory with a small WMT'16 Ro-En."""
  import tensorflow_datasets as tfds

  sizes = {"train": 60, "validation": 3, "test": 4}

  class Wmt16Translate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="ro-en")]

    def _info(self):
      features = tfds.features.Translation(languages=("ro", "en"))
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {
        split: self._generate_examples(split, n) for split, n in sizes.items()
      }

    def _generate_examples(self, split, count):
      for i in range(count):
        romanian = f"{split} {i} &quot;Ştiinţă și țară&quot; În"
        yield i, {"ro": romanian, "en": f"{split} {i} R&amp;D ță"}

  folder = tmp_path_factory.mktemp("downloads")
  builder = Wmt16Translate(data_dir=folder, file_format="array_record")
  builder.download_and_prepare()
  return folder


def test_wmt_is_read_without_tensorflow(downloads, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  found = data.read_published("wmt16_ro_en", downloads)
  assert found.languages == ("ro", "en")
  assert found.provenance == "TFDS wmt16_translate/ro-en/1.0.0"
  assert [len(x) for x, _ in found.splits.values()] == [60, 3, 4]
  x, y = found.splits["train"]
  assert sorted(y[:]) == sorted(f"train {i} R&amp;D ță" for i in range(60))
  assert [line.split()[1] for line in x[:]] == [
    line.split()[1] for line in y[:]
  ]
  assert x[7] == x[5:10][2] == list(x)[7] == x[-53]
  assert list(found.splits["dev"][1]) == found.splits["dev"][1][:]


@pytest.mark.parametrize("swap", [False, True])
def test_preparing_wmt16_as_the_paper(binary, downloads, tmp_path, swap):
  done = binary(
    "preprocess",
    "--corpus=wmt16_ro_en",
    f"--swap={swap}",
    f"--downloads={downloads}",
    "--vocab_size=60",
    f"--out={tmp_path / 'data'}",
  )
  assert done.status == 0, done.stderr
  prepared = data.PreparedData.open(tmp_path / "data")
  assert prepared.languages == (("en", "ro") if swap else ("ro", "en"))
  sides = prepared.sources("test"), prepared.targets("test")
  romanian, english = sides[:: -1 if swap else 1]
  i = english[0].split()[1]
  assert romanian[0] == f'test {i} "Stiinta si tara" In'
  assert english[0] == f"test {i} R&D ță"  # English keeps what it has
  assert prepared.meta["made_from"]["normalizers"] == [
    "unescape",
    "romanian",
    "strip_romanian_diacritics",
  ]
  assert prepared.reference_normalizers == (
    prepared.meta["made_from"]["normalizers"] if swap else ["unescape"]
  )
  assert ("strip_romanian_diacritics" in done.stdout) == swap


def test_normalizers_asked_for_replace_the_papers(binary, downloads, tmp_path):
  done = binary(
    "preprocess",
    "--corpus=wmt16_ro_en",
    "--normalizers=",
    f"--downloads={downloads}",
    "--vocab_size=60",
    f"--out={tmp_path / 'data'}",
  )
  assert done.status == 0, done.stderr
  prepared = data.PreparedData.open(tmp_path / "data")
  assert "Ştiinţă și țară&quot;" in prepared.sources("dev")[0]


def test_another_format_is_named(downloads, tmp_path):
  shutil.copytree(downloads, tmp_path, dirs_exist_ok=True)
  info = tmp_path / "wmt16_translate/ro-en/1.0.0/dataset_info.json"
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  with pytest.raises(InputError, match=r"TFRECORD.* in another folder"):
    data.read_published("wmt16_ro_en", tmp_path)


def test_a_failing_download_is_one_error(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda *name: True)
  monkeypatch.setattr(
    "tensorflow_datasets.core.DatasetBuilder.download_and_prepare",
    lambda builder: (tmp_path / "none").read_text(),
  )
  with pytest.raises(InputError, match="wmt_t2t.*/de-en: TFDS could not"):
    data.read_published("wmt14_de_en", tmp_path)


def test_what_is_missing_to_prepare_is_named(tmp_path, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *rest: None if name == "tensorflow" else find(name, *rest),
  )
  with pytest.raises(InputError, match=r"is not in .*latentnmt\[tfds\]"):
    data.read_published("wmt14_de_en", tmp_path)
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(InputError, match=r"translate.*latentnmt\[tfds\]"):
    data.read_published("wmt14_de_en", tmp_path)
