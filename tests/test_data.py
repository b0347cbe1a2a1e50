import collections
import gzip
import importlib.resources
import lzma
import time

import numpy as np
import pytest

from latentnmt import data, text
from latentnmt.data.planning import plan_shapes
from latentnmt.errors import InputError
from latentnmt.types import EOS, PAD

PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def write(path, content: str):
  path.write_bytes(PACK.get(path.suffix, bytes)(content.encode()))
  return path


def sentences(count, seed=0):
  words = "der die Hund Katze sieht holt ein kleiner Baum und Haus".split()
  random = np.random.default_rng(seed)
  return [
    " ".join(random.choice(words, random.integers(1, 12))) for _ in range(count)
  ]


def corpus(pairs=50, **changes):
  sizes = {"train": pairs, "dev": 5, "test": 6}
  splits = {s: (sentences(n), sentences(n, 1)) for s, n in sizes.items()}
  return data.Corpus(splits | changes, ("de", "en"), "made up")


def contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


# Text files.


@pytest.mark.parametrize("suffix", PACK)
def test_lines_end_in_newline_alone(tmp_path, suffix):
  path = write(tmp_path / f"a.de{suffix}", "\ufeffa\u2028b\x85c\r\n\nd\te\n")
  assert data.read_lines(path) == ["a\u2028b\x85c", "", "d\te"]


def test_the_last_newline_may_be_missing(tmp_path):
  assert data.read_lines(write(tmp_path / "a", "a\nb")) == ["a", "b"]
  assert data.read_lines(write(tmp_path / "b", "")) == []


def test_bytes_that_are_no_utf8_name_file_and_line(tmp_path):
  (tmp_path / "a.de").write_bytes("gut\nschön\n".encode() + b"sch\xf6n\n")
  with pytest.raises(InputError, match=r"a\.de, line 3: byte 0xf6"):
    data.read_lines(tmp_path / "a.de")


@pytest.mark.parametrize("name", ["a.gz", "a.xz", "missing"])
def test_unreadable_files_are_named(tmp_path, name):
  (tmp_path / "a.gz").write_bytes(b"text")
  (tmp_path / "a.xz").write_bytes(lzma.compress(b"text" * 99)[:-8])
  with pytest.raises(InputError, match=name):
    data.read_lines(tmp_path / name)


def test_files_of_different_length_give_both_counts(tmp_path):
  x, y = write(tmp_path / "x", "a\n" * 1001), write(tmp_path / "y", "a\n" * 7)
  with pytest.raises(InputError, match=r"/x has 1,001 lines, .*/y has 7"):
    data.read_parallel(x, y)


def test_an_empty_corpus_is_refused(tmp_path):
  x, y = write(tmp_path / "x", "\n \n"), write(tmp_path / "y", "a\nb\n")
  with pytest.raises(InputError, match="empty"):
    data.read_parallel(x, y)


def test_a_folder_of_parallel_files(tmp_path):
  for split, suffix in zip(data.SPLITS, PACK, strict=True):
    write(tmp_path / f"{split}.de{suffix}", f"{split} de\n")
    write(tmp_path / f"{split}.en{suffix}", f"{split} en\n")
  found = data.read_parallel_folder(tmp_path, "de", "en")
  assert found.splits == {s: ([f"{s} de"], [f"{s} en"]) for s in data.SPLITS}
  with pytest.raises(InputError, match=r"train\.ro\[.gz\|.xz\]: no such file"):
    data.read_parallel_folder(tmp_path, "de", "ro")


def manythings(path, groups=300):
  lines = []
  for k in range(groups):
    for i in range(k % 3 + 1):
      lines.append(f"hello {k} {i // 2}\thallo {k} {(i + 1) // 2}\tCC-BY {k}")
  return write(path, "\n".join(lines) + "\n"), len(lines)


def test_manythings_splits_share_no_sentence(tmp_path):
  path, count = manythings(tmp_path / "deu.tsv.gz")
  found = data.read_manythings(path, seed=3, held_out=20)
  sizes = {split: len(x) for split, (x, _) in found.splits.items()}
  assert sum(sizes.values()) == count
  assert 20 <= sizes["dev"] <= 22
  assert 18 <= sizes["test"] <= 22
  for side in (0, 1):
    sets = [set(found.splits[split][side]) for split in data.SPLITS]
    assert sum(map(len, sets)) == len(set.union(*sets))
  for x, y in found.splits.values():
    groups = [[line.split()[1] for line in side] for side in (x, y)]
    assert groups[0] == groups[1]
    assert x[0].startswith("hallo")
  assert found.splits == data.read_manythings(path, 3, held_out=20).splits
  assert found.splits != data.read_manythings(path, 4, held_out=20).splits


def test_manythings_names_the_line_without_a_tab(tmp_path):
  path = write(tmp_path / "a.tsv", "Hi.\tHallo.\nHi.\n")
  with pytest.raises(InputError, match=r"a\.tsv, line 2"):
    data.read_manythings(path)


def test_manythings_refuses_what_cannot_be_split(tmp_path):
  with pytest.raises(InputError, match="2 pairs are too few"):
    data.read_manythings(write(tmp_path / "a.tsv", "a\tb\nc\td\n"))
  lines = "".join(f"a\tb{i}\n" for i in range(50))
  with pytest.raises(InputError, match="share too many"):
    data.read_manythings(write(tmp_path / "b.tsv", lines))


def test_a_thinned_corpus_keeps_evenly_spaced_pairs():
  numbers = [str(i) for i in range(10)]
  made = corpus(train=(numbers, numbers[::-1]))
  truth = {"train": np.arange(10.0), "dev": np.ones(5)}
  made = data.Corpus(made.splits, made.languages, "made up", truth)
  found = data.thinned(made, 4)
  assert found.splits["train"] == (["0", "2", "5", "7"], ["9", "7", "4", "2"])
  assert found.splits["dev"] == made.splits["dev"]
  np.testing.assert_array_equal(found.log_probs["train"], [0, 2, 5, 7])
  assert len(found.log_probs["dev"]) == 5
  assert found.provenance == "made up, 4 of 10 training pairs"
  assert data.thinned(made, 10) is made


# The embedded corpus.


def test_the_embedded_corpus_and_its_licences():
  found = data.embedded_corpus()
  sizes = {split: len(x) for split, (x, _) in found.splits.items()}
  assert sizes == {"train": 6695, "dev": 300, "test": 300}
  for x, y in found.splits.values():
    assert len(x) == len(y)
    assert all(map(str.strip, x)) and all(map(str.strip, y))
  assert found.splits["train"][0][0] == "Gib den zu verfolgenden Ort ein."
  assets = importlib.resources.files("latentnmt") / "assets"
  notice = (assets / "NOTICE").read_text()
  licences = list((assets / "LICENSES").iterdir())
  assert len(licences) == 5
  assert all(f"LICENSES/{path.name}" in notice for path in licences)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
  folder = tmp_path_factory.mktemp("embedded") / "data"
  return data.prepare(data.embedded_corpus(), folder, vocab_size=4000)


def test_embedded_lines_survive_tokens(embedded):
  for split in data.SPLITS:
    for lines in (embedded.sources(split), embedded.targets(split)):
      found = embedded.tokenizer.decode(embedded.tokenizer.encode(lines))
      same = np.mean([a == b for a, b in zip(found, lines, strict=True)])
      assert same == 1.0 if split == "train" else same > 0.99


@pytest.mark.parametrize("batch_tokens", [1024, 4096, 8192])
def test_four_fifths_of_embedded_batches_are_real(embedded, batch_tokens):
  batches = data.Batches(embedded.store("train"), batch_tokens, max_length=64)
  assert len(batches.shapes) <= 8
  real, padded = np.zeros(2), np.zeros(2)
  for i in range(batches.per_epoch):
    ((x, y),) = ((part.x, part.y) for part in batches[i])
    for side, tokens in enumerate((x, y)):
      real[side] += np.sum(tokens != PAD)
      padded[side] += tokens.size
  np.testing.assert_allclose(batches.fill, real / padded)
  assert min(batches.fill) >= 0.8


def test_batches_are_gathered_fast(embedded):
  batches = data.Batches(embedded.store("train"), 4096)
  start = time.perf_counter()
  for i in range(3 * batches.per_epoch):
    batches[i]
  pairs = 3 * len(embedded.store("train"))
  assert pairs / (time.perf_counter() - start) > 100_000


# Token stores and batches.


def store(pairs=200, longest=30, seed=0):
  """A store of random pairs, and the pairs as lists."""
  random = np.random.default_rng(seed)
  x, y = (
    [
      [*random.integers(2, 60_000, n).tolist(), EOS]
      for n in random.integers(0, longest, pairs)
    ]
    for _ in range(2)
  )
  return data.TokenStore.from_sequences(x, y), x, y


def rows(tokens):
  return [[int(i) for i in row if i != PAD] for row in tokens]


def test_gather_pads_rows_and_sides():
  tokens, x, y = store()
  batch = tokens.gather([3, -1, 199, 3], 32, 40)
  assert (batch.x.shape, batch.y.shape) == ((4, 32), (4, 40))
  assert batch.x.dtype == batch.y.dtype == np.int32
  assert rows(batch.x) == [x[3], [], x[199], x[3]]
  assert rows(batch.y) == [y[3], [], y[199], y[3]]
  np.testing.assert_array_equal(tokens.lengths[7], [len(x[7]), len(y[7])])


def test_gather_never_cuts():
  tokens, x, _ = store()
  with pytest.raises(ValueError, match="columns"):
    tokens.gather([0], len(x[0]) - 1, 40)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("edges", [(), ((32, 32), (16, 12), (12, 16))])
def test_an_epoch_has_every_pair_once(edges, mixed):
  tokens, x, y = store()
  batches = data.Batches(tokens, 256, edges=edges, mixed=mixed)
  for epoch in (0, 3):
    found = collections.Counter()
    for i in range(batches.per_epoch):
      for batch in batches[epoch * batches.per_epoch + i]:
        pairs = zip(rows(batch.x), rows(batch.y), strict=True)
        found.update((tuple(a), tuple(b)) for a, b in pairs if a)
    expected = zip(map(tuple, x), map(tuple, y), strict=True)
    assert found == collections.Counter(expected)


@pytest.mark.parametrize("max_shapes", [1, 3, 8])
def test_shapes_are_few_and_divisible(max_shapes):
  tokens, _, _ = store(500)
  batches = data.Batches(tokens, 512, max_shapes=max_shapes)
  assert len(batches.shapes) <= max_shapes
  found = {
    (*part.x.shape, part.y.shape[1])
    for i in range(batches.per_epoch)
    for part in batches[i]
  }
  assert found == set(batches.shapes)
  for count, source, target in found:
    assert count % 8 == source % 4 == target % 4 == 0
    assert count * max(source, target) <= 512


def test_a_batch_is_a_function_of_seed_and_step():
  tokens, _, _ = store()
  first, second = (data.Batches(tokens, 256, seed=5) for _ in range(2))
  steps = np.random.default_rng(0).permutation(3 * first.per_epoch)
  for i in steps:
    for a, b in zip(first[i], second[i], strict=True):
      np.testing.assert_array_equal(a.x, b.x)
      np.testing.assert_array_equal(a.y, b.y)


def test_epochs_and_seeds_differ():
  tokens, _, _ = store()
  one, other = (data.Batches(tokens, 256, seed=s) for s in (0, 1))

  def order(batches, epoch):
    start = epoch * batches.per_epoch
    span = range(start, start + batches.per_epoch)
    return [part.x.tobytes() for i in span for part in batches[i]]

  assert order(one, 0) != order(one, 1)
  assert order(one, 0) != order(other, 0)


def test_long_pairs_are_left_out_and_counted():
  tokens, x, y = store()
  long = sum(max(len(a), len(b)) > 20 for a, b in zip(x, y, strict=True))
  batches = data.Batches(tokens, 256, max_length=20)
  assert batches.dropped == long > 0
  pairs = sum(
    int((part.x[:, 0] != PAD).sum())
    for i in range(batches.per_epoch)
    for part in batches[i]
  )
  assert pairs == 200 - long
  with pytest.raises(InputError, match="No pair of 200 .*max_length=0"):
    data.Batches(tokens, 256, max_length=0)


def test_given_shapes_are_those_of_any_corpus():
  edges = ((16, 12), (32, 32))
  few, many = (data.Batches(store(n)[0], 256, edges=edges) for n in (90, 300))
  assert few.shapes == many.shapes == ((16, 16, 12), (8, 32, 32))
  with pytest.raises(InputError, match=r"fits none of the shapes \[\[16, 12"):
    data.Batches(store()[0], 256, edges=edges[:1])
  with pytest.raises(InputError, match=r"\(16, 10\) is no .* multiples of 4"):
    data.Batches(store()[0], 256, edges=((16, 10), (32, 32)))


@pytest.mark.parametrize("batch_tokens", [1024, 4096])
def test_every_mixed_batch_has_all_lengths(batch_tokens):
  tokens, _, _ = store(2000)
  batches = data.Batches(tokens, batch_tokens, max_shapes=4, mixed=True)
  (kind,) = batches.kinds
  assert kind == batches.shapes and len(kind) > 1
  assert sum(count * max(edges) for count, *edges in kind) <= batch_tokens
  real = []
  for i in range(batches.per_epoch):
    parts = batches[i]
    assert tuple((*p.x.shape, p.y.shape[1]) for p in parts) == kind
    real.append([(p.x[:, 0] != PAD).sum() for p in parts])
  assert np.sum(real) == (tokens.lengths[:, 0] > 0).sum()
  # Each batch has its share of every shape.
  assert np.ptp(real, axis=0).max() <= 1


def test_pairs_of_one_length_leave_no_padding():
  rows = [[2] * 7 + [EOS]] * 64
  batches = data.Batches(data.TokenStore.from_sequences(rows, rows), 256)
  assert batches.shapes == ((32, 8, 8),)
  assert (batches.per_epoch, batches.fill) == (2, (1.0, 1.0))


def test_the_plan_finds_the_best_pair_of_shapes():
  # Brute force over all S = T edges, counted as the plan counts.
  random = np.random.default_rng(1)
  side = random.choice([3, 4, 7, 15, 16, 30, 32], 400)
  lengths = np.stack([side, side], axis=1)

  def padded(edges):
    total = 0
    for low, high in zip([0, *edges], edges, strict=False):
      pairs = int(((side > low) & (side <= high)).sum())
      batches = -(-pairs // (256 // high // 8 * 8))
      total += batches * (-(-pairs // (batches * 8)) * 8) * high if pairs else 0
    return total

  best = min(padded([edge, 32]) for edge in range(4, 32, 4))
  plan = plan_shapes(lengths, 256, 2)
  np.testing.assert_array_equal(plan.padded, [best, best])


def test_length_batches_cover_everything_once():
  _, x, y = store(77)
  found = data.length_batches(x, y, batch_tokens=256)
  seen = np.concatenate([ids for ids, _ in found])
  assert sorted(seen[seen >= 0]) == list(range(77))
  assert len({batch.x.shape + batch.y.shape for _, batch in found}) <= 8
  for ids, batch in found:
    assert ids.dtype == np.int64
    for side, sequences in ((batch.x, x), (batch.y, y)):
      assert rows(side) == [sequences[i] if i >= 0 else [] for i in ids]


def test_sorted_by_length_most_of_a_corpus_is_real():
  rng = np.random.default_rng(0)
  lengths = 2 + rng.gamma(6.0, 4.0, 2000).astype(int)  # 26 in the mean
  found = data.length_batches([[3] * n for n in lengths], batch_tokens=4096)
  assert lengths.sum() / sum(tokens.size for _, tokens in found) > 0.85


def test_length_batches_of_sources_alone():
  _, x, _ = store(77)
  found = data.length_batches(x, batch_tokens=256, max_shapes=3)
  assert len({tokens.shape for _, tokens in found}) <= 3
  lengths = []
  for ids, tokens in found:
    assert rows(tokens) == [x[i] if i >= 0 else [] for i in ids]
    lengths += [len(x[i]) for i in ids if i >= 0]
  assert lengths == sorted(map(len, x))
  assert data.length_batches([], batch_tokens=256) == []


# Prepared directories.


def test_a_prepared_directory(tmp_path):
  made = corpus(train=(["a b", "", "c", "d"], ["a", "b", " ", "d e"]))
  prepared = data.prepare(made, tmp_path / "new/data", vocab_size=12)
  assert prepared.sources("train") == ["a b", "d"]
  assert prepared.targets("train") == ["a", "d e"]
  assert prepared.meta["made_from"]["dropped"] == 2
  assert prepared.targets("test") == made.splits["test"][1]
  assert prepared.log_probs("test") is None
  assert prepared.languages == ("de", "en")
  again = data.PreparedData.open(tmp_path / "new/data")
  assert again.fingerprint == prepared.fingerprint
  tokens = again.store("dev")
  ids = range(len(tokens))
  batch = tokens.gather(ids, *tokens.lengths.max(axis=0))
  np.testing.assert_array_equal(batch.x, again.tokenizer(again.sources("dev")))
  np.testing.assert_array_equal(batch.y, again.tokenizer(again.targets("dev")))
  with pytest.raises(InputError, match="'valid'; valid are: train, dev, test"):
    again.store("valid")


def test_the_vocabulary_knows_the_training_pairs_only(tmp_path):
  made = corpus(dev=(["Ж"], ["Ж"]))
  prepared = data.prepare(made, tmp_path / "data", vocab_size=60)
  assert prepared.meta["statistics"]["dev"]["x"]["unknown"] == 1
  assert prepared.meta["statistics"]["train"]["x"]["unknown"] == 0


def test_the_same_corpus_gives_the_same_bytes(tmp_path):
  for name in "ab":
    data.prepare(corpus(), tmp_path / name, vocab_size=60)
  assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_preparing_again_changes_nothing(tmp_path):
  out = tmp_path / "data"
  data.prepare(corpus(), out, vocab_size=60)
  before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
  data.prepare(corpus(), out, vocab_size=60)
  assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}


@pytest.mark.parametrize(
  ("changes", "field"),
  [
    ({"vocab_size": 61}, "vocab_size: 60 -> 61"),
    ({"swap": True}, r"languages: \['de', 'en'\] -> \['en', 'de'\]"),
    ({"normalizers": ["unescape"]}, r"normalizers: \[\] -> \['unescape'\]"),
    ({"corpus": corpus(49)}, "pairs: .*'train': 49"),
  ],
)
def test_a_directory_made_otherwise_stays(tmp_path, changes, field):
  out = tmp_path / "data"
  settings = {"corpus": corpus(), "vocab_size": 60}
  data.prepare(**settings, out=out)
  before = contents(out)
  with pytest.raises(InputError, match=field):
    data.prepare(**(settings | changes), out=out)
  assert contents(out) == before


def test_a_foreign_directory_stays(tmp_path):
  write(tmp_path / "thesis.txt", "a")
  with pytest.raises(InputError, match="no prepared corpus"):
    data.prepare(corpus(), tmp_path, vocab_size=60)
  with pytest.raises(InputError, match="preprocess --out"):
    data.PreparedData.open(tmp_path)
  assert contents(tmp_path) == {"thesis.txt": b"a"}


def test_a_failure_leaves_nothing_behind(tmp_path):
  def fail(lines):
    raise KeyboardInterrupt

  with pytest.raises(InputError, match="largest possible"):
    data.prepare(corpus(), tmp_path / "data", vocab_size=9999)
  with pytest.raises(KeyboardInterrupt):
    data.prepare(corpus(), tmp_path / "data", vocab_size=60, advance=fail)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vocab_size", [None, 0, 65_537])
def test_sizes_that_no_store_can_number(tmp_path, vocab_size):
  with pytest.raises(InputError, match=f"vocab_size={vocab_size}"):
    data.prepare(corpus(), tmp_path / "data", vocab_size=vocab_size)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"train": ([""], ["a"])}, "train split is empty"),
    ({"dev": ([], [])}, "dev split is empty"),
    ({"test": (["a", "b"], ["a"])}, "test: 2 sources and 1 targets"),
    ({"test": (["a", "b"], ["a", "b\n"])}, "a line break in it: .b.n"),
  ],
)
def test_unusable_splits_are_named(tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    data.prepare(corpus(**changes), tmp_path / "data", vocab_size=60)


def test_swap_exchanges_the_sides(tmp_path):
  prepared = data.prepare(corpus(), tmp_path / "a", vocab_size=60, swap=True)
  assert prepared.sources("dev") == corpus().splits["dev"][1]
  assert prepared.targets("dev") == corpus().splits["dev"][0]
  assert prepared.languages == ("en", "de")


def test_a_vocabulary_can_be_given(tmp_path):
  tokenizer = text.Tokenizer.train(sentences(30), 50)
  prepared = data.prepare(corpus(), tmp_path / "a", tokenizer=tokenizer)
  assert prepared.tokenizer == tokenizer
  with pytest.raises(InputError, match="vocabulary: .* -> trained"):
    data.prepare(corpus(), tmp_path / "a", vocab_size=50)


def test_romanian_is_normalized_on_its_own_side(tmp_path):
  dev = (["château"], ["câmp"])
  made = data.Corpus(corpus(dev=dev).splits, ("fr", "ro"), "made up")
  prepared = data.prepare(
    made,
    tmp_path / "a",
    vocab_size=60,
    normalizers=["strip_romanian_diacritics"],
  )
  assert prepared.sources("dev") == ["château"]
  assert prepared.targets("dev") == ["camp"]


def test_known_truth_is_stored_where_it_still_holds(tmp_path):
  made = corpus()
  made = data.Corpus(
    made.splits, made.languages, "", {"dev": np.arange(5.0), "test": np.ones(6)}
  )
  kept = data.prepare(made, tmp_path / "a", vocab_size=60)
  np.testing.assert_array_equal(kept.log_probs("dev"), np.arange(5.0))
  swapped = data.prepare(made, tmp_path / "b", vocab_size=60, swap=True)
  assert swapped.log_probs("dev") is None


def test_a_dropped_pair_takes_its_truth_along(tmp_path):
  splits = corpus(train=(["a b", "", "c", "d"], ["a", "b", " ", "d e"])).splits
  truth = {"train": np.arange(4.0)}
  made = data.Corpus(splits, ("de", "en"), "", truth)
  prepared = data.prepare(made, tmp_path / "a", vocab_size=12)
  np.testing.assert_array_equal(prepared.log_probs("train"), [0.0, 3.0])


def test_an_escaped_line_break_keeps_lines_aligned(tmp_path):
  made = corpus(dev=(["a&#10;b", "c"], ["a &amp;", "c&#13;"]))
  prepared = data.prepare(
    made, tmp_path / "a", vocab_size=60, normalizers=["unescape"]
  )
  assert prepared.sources("dev") == ["a b", "c"]
  assert prepared.targets("dev") == ["a &", "c "]


def test_other_training_targets(tmp_path):
  prepared = data.prepare(corpus(), tmp_path / "a", vocab_size=60)
  targets = [f"der {line}" for line in prepared.targets("train")]
  provenance = {"teacher": "runs/a", "step": 7, "sizes": (4, 2)}
  distilled = data.with_targets(prepared, tmp_path / "b", targets, provenance)
  assert distilled.targets("train") == targets
  assert distilled.sources("train") == prepared.sources("train")
  assert distilled.targets("test") == prepared.targets("test")
  assert distilled.tokenizer == prepared.tokenizer
  assert distilled.fingerprint != prepared.fingerprint
  assert distilled.meta["made_from"]["targets"]["step"] == 7
  tokens = distilled.store("train")
  batch = tokens.gather([3], *tokens.lengths[3])
  assert distilled.tokenizer.decode(batch.y) == [targets[3]]
  again = data.with_targets(prepared, tmp_path / "b", targets, provenance)
  assert again.fingerprint == distilled.fingerprint
  with pytest.raises(InputError, match="targets: .* -> .*"):
    data.with_targets(prepared, tmp_path / "b", targets, {"step": 8})
  with pytest.raises(InputError, match="3 targets for the 50"):
    data.with_targets(prepared, tmp_path / "c", targets[:3], provenance)


def test_reprs_are_one_line(tmp_path):
  prepared = data.prepare(corpus(), tmp_path / "a", vocab_size=60)
  sizes = f"{len(prepared.sources('dev'))} / {len(prepared.sources('test'))}"
  expected = f"PreparedData('{tmp_path}/a', de-en, 50 / {sizes} pairs)"
  assert repr(prepared) == expected
  batches = data.Batches(prepared.store("train"), 64, edges=[(32, 32)])
  assert repr(batches) == "Batches(7 an epoch, shapes 8x32x32)"
