"""Files that appear whole or not at all, and lines of JSON."""

import json
import os

import pytest

from latentnmt import files
from latentnmt.errors import InputError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
  path = tmp_path / "new" / "a.txt"
  with pytest.raises(KeyboardInterrupt):
    with files.replacing(path) as partial:
      partial.write_text("half")
      raise KeyboardInterrupt
  assert os.listdir(path.parent) == []
  assert files.write_text(path, "ein Haus\u2028\n") == path
  with pytest.raises(KeyboardInterrupt):
    with files.replacing(path) as partial:
      partial.write_text("half")
      raise KeyboardInterrupt
  assert path.read_bytes() == "ein Haus\u2028\n".encode()
  assert os.listdir(path.parent) == ["a.txt"]


def test_json_is_read_back_and_for_people(tmp_path):
  value = {"größe": [1, 2.5, None], "name": "x"}
  path = files.write_json(tmp_path / "a.json", value)
  assert files.read_json(path) == value
  assert '\n  "größe": [\n' in path.read_text("utf-8")
  assert path.read_text("utf-8").endswith("}\n")


def test_a_json_file_that_is_missing_is_none_and_a_damaged_one_is_said(
  tmp_path,
):
  assert files.read_json(tmp_path / "none.json") is None
  (tmp_path / "file").write_text("{")
  assert files.read_json(tmp_path / "file" / "below.json") is None
  with pytest.raises(InputError, match="file is damaged: .*; delete it"):
    files.read_json(tmp_path / "file")
  with pytest.raises(InputError, match="cannot be read: Is a directory"):
    files.read_json(tmp_path)
  (tmp_path / "bytes").write_bytes(b'"\xf6"')
  with pytest.raises(InputError, match="bytes is damaged"):
    files.read_json(tmp_path / "bytes")


def test_lines_cut_short_are_left_out_and_others_said(tmp_path):
  path = tmp_path / "new" / "rows.jsonl"
  assert files.read_json_lines(path) == []
  files.append_json_line(path, {"a": 1})
  with open(path, "a") as file:
    file.write('{"a": ')
  assert files.read_json_lines(path) == [{"a": 1}]
  files.append_json_line(path, {"a": 2})
  assert files.read_json_lines(path) == [{"a": 1}, {"a": 2}]
  path.write_text('{"a": \n{"a": 1}\n')
  with pytest.raises(InputError, match="line 1"):
    files.read_json_lines(path)


def test_lines_are_replaced_at_once(tmp_path):
  path, rows = tmp_path / "rows.jsonl", [{"a": 1, "b": "\u2028"}, {"a": None}]
  files.append_json_line(path, {"a": 0})
  files.write_json_lines(path, rows)
  assert files.read_json_lines(path) == rows
  assert list(map(json.loads, path.read_text().splitlines())) == rows
  files.write_json_lines(path, [])
  assert files.read_json_lines(path) == []


def test_what_was_made_from_the_same_passes():
  files.check_made_from("out", {"a": 1, "b": None}, {"a": 1}, "do something")


def test_what_was_made_otherwise_names_every_field_that_differs():
  old, new = {"a": 1, "b": "x", "c": 3}, {"a": 1, "b": "", "d": 5}
  with pytest.raises(InputError) as error:
    files.check_made_from("runs/x", old, new, "name another")
  assert str(error.value) == (
    "runs/x was made otherwise (b: x -> ''; c: 3 -> None; d: None -> 5);"
    " name another."
  )
