"""Replies on the disk: resumed, joined, never mixed."""

import json
import logging

import numpy as np
import pytest

from lad_eval.errors import EvidenceError
from lad_eval.evidence.replies import Decoding, Reply
from lad_eval.evidence.replies_store import ReplyStore, read_replies
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task

PRINT, TASK, GREEDY = {"model": "m"}, {"task": "t"}, Decoding()


@pytest.fixture(scope="module")
def requests():
    return {request.key: request for request in plan(load_task("scenes_random_n4"), limit=2).requests}


def replies(keys, text="2"):
    return [Reply(key, (text,), 2, 0.5) for key in keys]


def store(folder, fingerprint=PRINT, decoding=GREEDY, rank=None):
    return ReplyStore(folder, decoding, fingerprint, task=TASK, rank=rank).open()


def test_rows_come_back_with_all_that_deciding_needs(tmp_path, requests):
    keys = list(requests)
    made = store(tmp_path)
    assert made.append(requests, replies(keys)) == 10
    assert made.append(requests, replies(keys, "3")) == 0
    back = read_replies(tmp_path, GREEDY).select_keys(keys[::-1])
    assert back.texts == (("2",),) * 10
    assert back.sample_id.tolist() == [requests[key].sample_id for key in keys[::-1]]
    assert back.perm.tolist() == [list(requests[key].permutation.order) for key in keys[::-1]]
    assert back.gold_position.tolist() == [requests[key].gold_position for key in keys[::-1]]
    assert set(back.identifiers) == {("1", "2", "3", "4")}
    assert back.fingerprint == PRINT
    np.testing.assert_array_equal(back.forward_passes, 2)
    with pytest.raises(EvidenceError, match="1 of 2 requests have no reply yet"):
        back.select_keys([keys[0], "none"])


@pytest.mark.parametrize("cut", [2, 5, 60])
def test_a_line_that_was_cut_off_is_asked_again(tmp_path, requests, cut, caplog):
    keys = list(requests)
    made = store(tmp_path)
    made.append(requests, replies(keys))
    whole = made.path.read_bytes()
    made.path.write_bytes(whole[:-cut])
    logging.getLogger("lad_eval").propagate = True
    again = store(tmp_path)
    assert again.keys() == set(keys[:-1])
    assert f"line {len(keys) + 1} is damaged and left out; the requests are run again" in caplog.text
    assert again.append(requests, replies(keys)) == 1
    assert again.path.read_bytes() == whole


def test_a_whole_last_row_without_its_line_break_is_not_asked_again(tmp_path, requests):
    made = store(tmp_path)
    made.append(requests, replies(list(requests)))
    whole = made.path.read_bytes()
    made.path.write_bytes(whole[:-1])
    again = store(tmp_path)
    assert again.keys() == set(requests)
    assert again.path.read_bytes() == whole


def test_a_damaged_line_is_left_out_and_a_file_with_a_damaged_header_set_aside(tmp_path, requests, caplog):
    keys = list(requests)
    made = store(tmp_path)
    made.append(requests, replies(keys))
    lines = made.path.read_bytes().split(b"\n")
    made.path.write_bytes(b"\n".join([*lines[:3], b"{nothing", *lines[4:]]))
    assert store(tmp_path).keys() == set(keys) - {keys[2]}
    made.path.write_bytes(b"\n".join(lines[1:]))
    with pytest.raises(EvidenceError, match="its first line, which says what produced the rows, is damaged"):
        read_replies(tmp_path, GREEDY)
    assert store(tmp_path).keys() == set()
    assert "it is set aside as replies.greedy-16.jsonl.damaged, and its requests are run again" in caplog.text


def test_a_changed_reply_is_left_out_reported_once_and_gone_when_the_run_is_finished(tmp_path, requests, caplog):
    keys = list(requests)
    made = store(tmp_path)
    made.append(requests, replies(keys))
    whole = made.path.read_bytes()
    made.path.write_bytes(whole.replace(b'"texts": ["2"]', b'"texts": ["3"]', 1))
    again = store(tmp_path)
    assert again.keys() == set(keys[1:])
    assert "line 2 is damaged and left out; the requests are run again" in caplog.text
    again.append(requests, replies(keys))
    again.finish()
    caplog.clear()
    assert set(read_replies(tmp_path, GREEDY).texts) == {("2",)}
    assert caplog.text == ""


def test_replies_without_checksums_as_earlier_versions_wrote_them_are_read(tmp_path, requests):
    keys = list(requests)
    made = store(tmp_path)
    made.append(requests, replies(keys[:4]))
    documents = [json.loads(line) for line in made.path.read_text().splitlines()]
    old = [{name: value for name, value in document.items() if name != "checksum"} for document in documents]
    old[2]["perm"] = [0, 0, 1, 2]
    old[3]["gold_position"] = 4
    made.path.write_text("".join(f"{json.dumps(document)}\n" for document in old))
    again = store(tmp_path)
    assert again.keys() == {keys[0], keys[3]}
    again.append(requests, replies(keys))
    again.finish()
    assert len(read_replies(tmp_path, GREEDY)) == len(keys)


def test_replies_of_another_model_are_refused_and_of_another_decoding_kept_apart(tmp_path, requests):
    keys = list(requests)
    store(tmp_path).append(requests, replies(keys))
    with pytest.raises(EvidenceError, match=r"was made under other conditions: fingerprint is .* Choose another folder"):
        store(tmp_path, {"model": "n"})
    drawn = Decoding(samples=2, temperature=0.7, max_new_tokens=8)
    assert drawn.slug == "sampled-2-t0.7-8-s42"
    assert not store(tmp_path, decoding=drawn).keys()
    with pytest.raises(EvidenceError, match="There are no replies yet"):
        read_replies(tmp_path, drawn)


def test_what_several_processes_wrote_is_joined(tmp_path, requests):
    keys = list(requests)
    for rank in (0, 1):
        store(tmp_path, rank=rank).append(requests, replies(keys[rank::2], str(rank + 1)))
    assert store(tmp_path, rank=0).keys() == set(keys)
    store(tmp_path, rank=0).finish()
    assert [path.name for path in tmp_path.iterdir()] == ["replies.greedy-16.jsonl"]
    assert [text for (text,) in read_replies(tmp_path, GREEDY).select_keys(keys).texts] == ["1", "2"] * 5
    assert len({json.loads(line).get("key") for line in (tmp_path / "replies.greedy-16.jsonl").read_text().splitlines()}) == 11
