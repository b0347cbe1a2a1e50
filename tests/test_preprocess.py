import pytest

from latentnmt import data


def test_the_embedded_corpus(binary, tmp_path):
  out = tmp_path / "data"
  done = binary(
    "preprocess", "--corpus=embedded", "--vocab_size=2000", f"--out={out}"
  )
  assert done.status == 0, done.stderr
  assert "train: 6,695 pairs" in done.stdout
  assert data.PreparedData.open(out).tokenizer.vocab_size == 2000
  before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
  again = binary(
    "preprocess", "--corpus=embedded", "--vocab_size=2000", f"--out={out}"
  )
  assert again.status == 0
  assert again.stdout == done.stdout
  other = binary(
    "preprocess", "--corpus=embedded", "--vocab_size=2001", f"--out={out}"
  )
  assert_one_line(other, "vocab_size: 2000 -> 2001")
  assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def assert_one_line(done, message):
  assert done.status == 2
  assert done.stdout == ""
  assert done.stderr.startswith("error: ")
  assert done.stderr.count("\n") == 1
  assert message in done.stderr


def test_the_grammar(binary, tmp_path):
  out = tmp_path / "data"
  done = binary(
    "preprocess",
    "--corpus=grammar",
    "--sizes=200,5,10",
    "--seed=3",
    "--vocab_size=200",
    f"--out={out}",
  )
  assert done.status == 0, done.stderr
  prepared = data.PreparedData.open(out)
  expected = data.grammar_corpus((200, 5, 10), 3)
  assert prepared.targets("test") == expected.splits["test"][1]
  assert len(prepared.log_probs("train")) == 200


@pytest.fixture
def files(tmp_path):
  """Parallel files of 30 lines a split."""
  for split in data.SPLITS:
    for language in ("de", "en"):
      lines = [f"{language} {split} {i} &amp;\n" for i in range(30)]
      (tmp_path / f"{split}.{language}").write_text("".join(lines))
  return tmp_path


def file_flags(folder):
  source = ",".join(str(folder / f"{split}.de") for split in data.SPLITS)
  return f"--source={source}", f"--target={source.replace('.de', '.en')}"


def test_a_folder_and_six_files_are_the_same(binary, files):
  flags = (
    "--vocab_size=50",
    "--swap",
    "--normalizers=unescape",
    "--train_pairs=20",
  )
  done = binary(
    "preprocess", f"--corpus={files}", *flags, f"--out={files / 'a'}"
  )
  assert done.status == 0, done.stderr
  done = binary(
    "preprocess", *file_flags(files), *flags, f"--out={files / 'b'}"
  )
  assert done.status == 0, done.stderr
  a, b = (data.PreparedData.open(files / name) for name in "ab")
  assert a.sources("test") == b.sources("test")
  assert a.sources("test")[0] == "en test 0 &"
  assert a.tokenizer == b.tokenizer
  assert len(a.store("train")) == 20


def test_a_vocabulary_of_another_corpus(binary, files):
  flags = file_flags(files)
  binary("preprocess", *flags, "--vocab_size=50", f"--out={files / 'a'}")
  vocabulary = files / "a" / "vocab.model"
  done = binary(
    "preprocess", *flags, f"--vocabulary={vocabulary}", f"--out={files / 'b'}"
  )
  assert done.status == 0, done.stderr
  a, b = (data.PreparedData.open(files / name) for name in "ab")
  assert a.tokenizer == b.tokenizer


def test_a_tab_separated_file(binary, tmp_path):
  lines = [f"hello {i}\thallo {i}\tCC\n" for i in range(100)]
  (tmp_path / "deu.txt").write_text("".join(lines))
  done = binary(
    "preprocess",
    f"--corpus={tmp_path / 'deu.txt'}",
    "--vocab_size=40",
    f"--out={tmp_path / 'data'}",
  )
  assert done.status == 0, done.stderr
  prepared = data.PreparedData.open(tmp_path / "data")
  assert prepared.sources("dev")[0].startswith("hallo")
  assert len(prepared.store("train")) == 90


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--corpus=nowhere"], "embedded, grammar, wmt14_de_en,"),
    ([], "either --corpus or --source"),
    (["--corpus=embedded", "--source=a"], "either --corpus or --source"),
    (["--source=a,b,c"], "train,dev,test files each"),
    (["--corpus=embedded", "--languages=de"], "--languages"),
    (["--corpus=grammar", "--sizes=1,2"], "--sizes"),
    (["--corpus=grammar", "--sizes=-1,2,2"], "--sizes"),
    (["--corpus=grammar", "--seed=-1"], "seed"),
    (["--corpus=embedded", "--languages=en,de"], "--swap"),
    (["--corpus=embedded", "--sizes=1,2,3"], "--sizes does not apply"),
    (["--corpus=embedded", "--downloads=a"], "--downloads does not apply"),
    (["--corpus=embedded", "--target=a,b,c"], "--target does not apply"),
    (["--source=a,b,c", "--target=a,b,c", "--seed=1"], "--seed does not"),
    (
      ["--corpus=embedded", "--vocabulary=a", "--vocab_size=9"],
      "is that of --vocabulary",
    ),
    (["--corpus=embedded", "--vocab_size=40000"], "largest possible is 38114"),
    (["--corpus=embedded", "--normalizers=x"], "Unknown normalizer 'x'"),
    (["--corpus=embedded", "--vocabulary=none"], "none: No such file"),
    (["--corpus=embedded", "surplus"], "surplus"),
  ],
)
def test_bad_flags_give_one_line(binary, tmp_path, flags, message):
  done = binary("preprocess", *flags, f"--out={tmp_path / 'data'}")
  assert_one_line(done, message)
  assert not list(tmp_path.iterdir())


def test_bad_files_give_one_line(binary, files):
  flags = *file_flags(files), f"--out={files / 'data'}"
  (files / "dev.en").write_bytes(b"fine\nna\xefve\n")
  assert_one_line(binary("preprocess", *flags), "dev.en, line 2: byte 0xef")
  (files / "dev.en").write_text("one\n")
  assert_one_line(binary("preprocess", *flags), "dev.en has 1: line n must")
  (files / "dev.en").write_text("")
  (files / "dev.de").write_text("")
  assert_one_line(binary("preprocess", *flags), "empty")
