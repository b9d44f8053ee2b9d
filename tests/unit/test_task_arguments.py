"""A task's arguments: written, signed and read back; anything else is rejected."""

import json

import pytest

from pyrmute_tasks.distributed.task_arguments import TaskArguments
from pyrmute_tasks.errors import SignatureError
from pyrmute_tasks.wire.signing import Signer

TASK = "0123abcd-7-1"
ASKED = TaskArguments("0123abcd", "7:12+3", 12, "ab" * 8)
SIGNER = Signer(["a secret that is long enough"])
UNSIGNED = Signer()


@pytest.mark.parametrize("signer", [SIGNER, UNSIGNED], ids=["signed", "unsigned"])
def test_arguments_survive_json(signer: Signer) -> None:
    sent = ASKED.sign(TASK, signer)
    args = json.loads(json.dumps(sent.to_args()))
    assert args[:4] == ["0123abcd", "7:12+3", 12, "ab" * 8]
    assert len(args) == 4 + signer.is_on
    received = TaskArguments.parse(args)
    assert received == sent
    received.check(TASK, signer)


@pytest.mark.parametrize(
    "forged",
    [
        ASKED,
        ASKED.sign("0123abcd-7-2", SIGNER),
        ASKED.sign(TASK, Signer(["another secret, long enough"])),
        TaskArguments("0123abcd", "7:12+3", 13, "ab" * 8, ASKED.sign(TASK, SIGNER).signature),
        TaskArguments("0123abcd", "7:12+3", 12, "ac" * 8, ASKED.sign(TASK, SIGNER).signature),
    ],
    ids=["unsigned", "another task", "another secret", "another start", "another fingerprint"],
)
def test_arguments_with_another_signature_are_rejected(forged: TaskArguments) -> None:
    with pytest.raises(SignatureError):
        forged.check(TASK, SIGNER)


@pytest.mark.parametrize(
    "args",
    [
        None,
        5,
        "0123",
        [],
        ["0123abcd", "7", 12],
        ["0123abcd", "7", 12, "ab", "", ""],
        ["0123abcd", "7", 12, "ab", "zz"],
        ["0123abcd", "7", 12, "ab", "a" * 65],
        ["0123abcd", "7", 12, "ab", 5],
        ["0123ABCD", "7", 12, "ab"],
        ["0123abcd", "7:", 12, "ab"],
        ["0123abcd", "7\n", 12, "ab"],
        ["0123abcd", "\u0663", 12, "ab"],
        ["0123abcd", "7", -1, "ab"],
        ["0123abcd", "7", True, "ab"],
        ["0123abcd", "7", 2**63, "ab"],
        ["0123abcd", "7", 12.0, "ab"],
        ["0123abcd", "7", 12, "another"],
        ["0123abcd", "7", 12, None],
    ],
    ids=lambda args: repr(args)[:40],
)
def test_arguments_that_no_producer_writes_are_rejected(args: object) -> None:
    with pytest.raises(ValueError, match="not the arguments of a task"):
        TaskArguments.parse(args)
