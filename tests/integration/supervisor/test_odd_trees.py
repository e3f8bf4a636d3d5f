# SPDX-License-Identifier: Apache-2.0
"""Trees of outputs as commands leave them: none costs the results beside it, and none is replaced silently."""

from __future__ import annotations

import os

import pytest

from airflow_provider_oscar.supervisor import trees
from tests.support.supervised import SUBMISSION, job

BASE = f"/out/results/{SUBMISSION}/"


def script(text):
    return ["/bin/sh", "-c", f'cd "$TMP_OUTPUT_DIR"; printf ok > good; {text}']


def test_directories_deeper_than_any_path_are_named_and_removed(store, supervise):
    deep = "import os\nfor _ in range(1100): os.mkdir('deep'); os.chdir('deep')\nopen('file', 'w')"
    run = supervise(job(store, script(f'python3 -c "{deep}"')))
    assert (run.code, [each["reason"] for each in run.raw["unstaged"]]) == (73, ["name-too-long"])
    assert [each["key"] for each in run.raw["outputs"]] == ["good"]


def test_links_in_circles_are_named_and_entered_by_nobody(store, supervise):
    run = supervise(job(store, script("ln -s a b; ln -s b a; ln -s . self; mkdir sub; : > sub/x; ln -s .. sub/up")))
    assert [each["key"] for each in run.raw["outputs"]] == ["good", "sub/x"]
    assert [(each["name"], each["reason"]) for each in run.raw["unstaged"]] == [
        ("a", "dangling-link"),
        ("b", "dangling-link"),
    ]


def test_sparse_files_hard_links_and_names_that_differ_in_case_are_files_like_others(store, supervise):
    run = supervise(job(store, script("truncate -s 3M sparse; ln good twin; printf A > Case; printf b > case")))
    assert run.code == 0
    assert {each["key"]: each["size"] for each in run.raw["outputs"]} == {
        "Case": 1, "case": 1, "good": 2, "sparse": 3 << 20, "twin": 2,
    }  # fmt: skip
    assert store.objects[BASE + "sparse"] == bytes(3 << 20)


def test_a_checkpoint_does_not_replace_an_output_of_its_name(store, supervise):
    both = "mkdir checkpoint; printf out > checkpoint/x; printf state > $CHECKPOINT_DIR/x; exit 3"
    run = supervise(job(store, script(both)))
    assert (run.code, store.objects[BASE + "checkpoint/x"]) == (3, b"out")
    assert [each["key"] for each in run.raw["checkpoint"]] == ["checkpoint/x.output"]
    assert store.objects[BASE + "checkpoint/x.output"] == b"state"
    assert [(each["name"], each["reason"]) for each in run.raw["unstaged"]] == [("checkpoint/x", "reserved-name")]


def test_what_of_a_checkpoint_cannot_be_kept_is_named(store, supervise):
    run = supervise(job(store, script("mkfifo $CHECKPOINT_DIR/p; printf s > $CHECKPOINT_DIR/s; exit 3")))
    assert (run.code, [each["key"] for each in run.raw["checkpoint"]]) == (3, ["checkpoint/s"])
    assert [(each["name"], each["reason"]) for each in run.raw["unstaged"]] == [("checkpoint/p", "not-regular")]


def test_a_command_that_removes_our_directories_fails_by_its_own_code(store, supervise):
    run = supervise(job(store, script('rm -rf "$CHECKPOINT_DIR"; exit 3')))
    assert (run.code, run.raw["error"]) == (3, None)
    assert [each["key"] for each in run.raw["outputs"]] == ["good"]


@pytest.mark.parametrize("name", ["manifest.json", "job.log"])
def test_a_directory_with_a_name_of_ours_leaves_it_to_us(store, supervise, name):
    run = supervise(job(store, script(f"mkdir {name}; printf theirs > {name}/x; echo printed"), on_unstaged="warn"))
    assert (run.code, store.objects[BASE + name + ".output/x"]) == (0, b"theirs")
    assert [(each["name"], each["reason"]) for each in run.raw["unstaged"]] == [(f"{name}/x", "reserved-name")]


def test_a_tree_that_may_not_be_entered_is_removed_all_the_same(tmp_path):
    root = tmp_path / "tree"
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "b" / "c" / "file").write_text("x")
    (root / "link").symlink_to(tmp_path)
    os.chmod(root / "a" / "b", 0)
    (tmp_path / "kept").write_text("y")
    trees.remove(str(root))
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
