"""Each relevant change is noticed and named, and no other one is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrmute_tasks.plans.fingerprint.differences import compare_trees
from pyrmute_tasks.plans.fingerprint.tree import FingerprintTree
from tests.unit.fingerprint_shop import ALTERING, FILES, HARMLESS, Change

PROGRAM = """
import importlib, json, sys
found = []
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    models = importlib.import_module("shop.models")
    versions = models.manager.list_versions("Item")
    tree = models.manager.plan("Item", versions[0], versions[-1]).fingerprint_tree
    nodes = list(models.manager._code._nodes.values())
    unreadable = [node.name for node in nodes if "unreadable" in (node.text or "")]
    found.append({"tree": tree.to_dict(), "unreadable": unreadable})
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]
print(json.dumps(found))
"""


def run(folders: list[str], seed: int, *options: str) -> list[dict[str, Any]]:
    env = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *options, "-c", PROGRAM, *folders],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def write(folder: Path, change: Change | None) -> str:
    package = folder / "shop"
    package.mkdir(parents=True)
    for name, original in FILES.items():
        text = original
        if change is not None and change.file == name:
            assert change.old in original, change.title
            text = original.replace(change.old, change.new)
        (package / f"{name}.py").write_text(text)
    return str(folder)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FingerprintTree]:
    """The trees of the package and of each change to it, by the change's title."""
    top = tmp_path_factory.mktemp("shops")
    changes = [None, *ALTERING, *HARMLESS]
    folders = [write(top / str(at), change) for at, change in enumerate(changes)]
    found = run(folders, 0)
    assert run(folders[:1], 4711)[0] == found[0]
    for option in ("-O", "-OO"):
        assert run(folders[:1], 7, option)[0] == found[0]
    titles = [change.title if change else "" for change in changes]
    assert len(set(titles)) == len(titles)
    assert [item["unreadable"] for item in found] == [[]] * len(found)
    return {
        title: FingerprintTree.from_dict(item["tree"])
        for title, item in zip(titles, found, strict=True)
    }


@pytest.mark.parametrize("change", ALTERING, ids=str)
def test_relevant_change_is_named(trees: dict[str, FingerprintTree], change: Change) -> None:
    mine, theirs = trees[""], trees[change.title]
    assert mine.root != theirs.root
    found = compare_trees(mine, theirs)
    told = [str(difference) for difference in found]
    for name in change.names:
        assert any(name in difference.name for difference in found), told
    if change.names:
        assert len(found) == len(change.names), told
        assert all(difference.place for difference in found), told


@pytest.mark.parametrize("change", HARMLESS, ids=str)
def test_irrelevant_change_keeps_the_fingerprint(
    trees: dict[str, FingerprintTree], change: Change
) -> None:
    found = compare_trees(trees[""], trees[change.title])
    assert [str(difference) for difference in found] == []
    assert trees[""].root == trees[change.title].root


def test_enough_changes_are_tried() -> None:
    assert len(ALTERING) >= 40
    assert len(HARMLESS) >= 15
