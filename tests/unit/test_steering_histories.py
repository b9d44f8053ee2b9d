"""Single histories of a job's users and coordinators, step by step, that schedules rarely find."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from pyrmute_tasks.errors import JobError
from pyrmute_tasks.io import discarding, kept_jobs
from pyrmute_tasks.jobs.states import LoggedState, Wish
from pyrmute_tasks.jobs.want import WANT, Want, write_want
from pyrmute_tasks.service import steering
from tests.unit.stepped_jobs import Process, World, replaced_by
from tests.unit.test_job_steering_machine import Coordinator, by_hand, replaced


class Scene(World):
    """A job, a user who publishes it, another one, and coordinators."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.coordinators = [Coordinator(self, number) for number in range(2)]
        self.user, self.other = Process(self, 3), Process(self, 4)
        self.processes += [each.process for each in self.coordinators]
        self.processes += [self.user, self.other]

    @property
    def wish(self) -> str:
        return str(json.loads((self.folder.path / WANT).read_bytes())["wish"])

    def state(self) -> LoggedState:
        return self.folder.view().state

    def coordinate(self, which: int, looks: int = 3) -> None:
        """Let a coordinator look until it has seen a silent driver for long enough."""
        for _ in range(looks):
            self.coordinators[which].begin()
            self.coordinators[which].process.finish()
            self.clock += 100.0

    def ask(self, steer: Callable[..., object]) -> None:
        """Let the other user call something, from beginning to end."""

        def call() -> None:
            steer(self.other.folder)

        self.other.begin(call)
        self.other.finish()

    def go_on(self, process: Process, until: Callable[[], bool]) -> None:
        """Let a process do one call after the other until something is so."""
        for _ in range(1000):
            if until():
                return
            process.step(0)
        raise AssertionError("it never happened")

    def begin_to_publish(self, until: Callable[[], bool]) -> None:
        """Let the user publish the output by hand, as far as that."""

        def publish() -> None:
            with contextlib.suppress(JobError):
                kept_jobs.publish_job(self.user.folder.path)

        self.user.begin(publish)
        self.go_on(self.user, until)


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A job that holds its output, unless a test wants another one."""
    scene = Scene(getattr(request, "param", True))
    with scene.temporary, replaced(replaced_by(scene)), replaced(by_hand(scene)):
        yield scene
        for each in scene.processes:
            each.die()


def test_publish_that_an_epoch_without_it_reads_is_obeyed(scene: Scene) -> None:
    """Its user's process was taken for dead, and then killed before it could log its wish."""
    scene.coordinate(0, 1)
    scene.begin_to_publish(lambda: bool(list(scene.folder.path.glob(f".{WANT}.*"))))
    scene.coordinate(1, 1)
    other = scene.coordinators[1]
    other.begin()
    scene.go_on(other.process, lambda: other.process.epoch is not None)
    assert scene.wish == "run"
    scene.go_on(scene.user, lambda: scene.wish == "publish")
    scene.user.die()
    other.look()
    scene.coordinate(1)
    assert scene.state() is LoggedState.SUCCEEDED


def test_publish_of_who_has_lost_the_job_is_no_wish(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Want] = []

    def make(want: Want, *_: object) -> Want:
        made.append(want)
        return want

    monkeypatch.setattr(Want, "made_by", make)
    scene.coordinate(0, 1)
    scene.begin_to_publish(lambda: bool(made))
    scene.coordinate(1)
    scene.user.finish()
    assert scene.wish == "run"


@pytest.mark.parametrize("is_obeyed", [False, True])
def test_publish_that_was_accepted_is_kept_over_a_pause(scene: Scene, is_obeyed: bool) -> None:
    scene.coordinate(0, 1)
    scene.begin_to_publish(lambda: scene.folder.view().wished.get("wish") == "publish")
    scene.user.die()
    scene.ask(steering.pause)
    if is_obeyed:
        scene.coordinate(1)
        assert scene.folder.view().wished["wish"] == "pause"
    scene.ask(steering.resume)
    assert scene.wish == "publish"
    scene.coordinate(1)
    assert scene.state() is LoggedState.SUCCEEDED


def test_publish_that_was_paused_while_its_process_lived_is_over(scene: Scene) -> None:
    """It was told so: the output is held, as before."""
    scene.coordinate(0, 1)
    scene.begin_to_publish(lambda: scene.folder.view().wished.get("wish") == "publish")
    scene.ask(steering.pause)
    scene.user.finish()
    assert scene.folder.view().is_held
    with pytest.raises(JobError, match="is held: `pyrmute-tasks publish a1b2c3d4` ends it"):
        steering.resume(scene.folder)


@pytest.mark.parametrize("scene", [False], indirect=True)
@pytest.mark.parametrize("torn", [b"", None])
def test_job_that_is_paused_once_its_output_is_there_ends_when_it_is_resumed(
    scene: Scene, torn: bytes | None
) -> None:
    """Its driver was killed between the output's name and the end; then the wish was torn."""
    driver = scene.coordinators[0]
    driver.begin()
    scene.go_on(driver.process, scene.target.exists)
    driver.process.die()
    written = scene.target.read_bytes()
    scene.ask(steering.pause)
    scene.tear(torn)
    scene.coordinate(1)
    assert scene.state() is LoggedState.PUBLISHING  # nobody knows what is wanted
    scene.ask(steering.pause)
    scene.coordinate(1)
    assert scene.folder.view().stopped == "paused by user4@host4"
    with pytest.raises(JobError, match="cannot be cancelled any more"):
        steering.cancel(scene.folder)
    scene.ask(steering.resume)
    scene.coordinate(1)
    assert scene.state() is LoggedState.SUCCEEDED
    assert scene.target.read_bytes() == written


def cancel_without_a_lock(scene: Scene) -> None:
    """As a user does who has given up waiting for it: the output appears meanwhile."""
    write_want(scene.folder.storage, replace(scene.written[-1].want, wish=Wish.CANCEL, at=2e9))


@pytest.mark.parametrize("scene", [False], indirect=True)
@pytest.mark.parametrize("is_killed", [False, True])
def test_cancel_of_an_output_that_appears_is_not_obeyed(scene: Scene, is_killed: bool) -> None:
    driver = scene.coordinators[0]
    driver.begin()
    scene.go_on(driver.process, lambda: scene.state() is LoggedState.PUBLISHING)
    cancel_without_a_lock(scene)
    driver.look()
    if is_killed:
        driver.process.die()
        scene.coordinate(1)
    driver.process.finish()
    assert scene.state() is LoggedState.SUCCEEDED
    assert scene.target.exists()


@pytest.mark.parametrize("scene", [False], indirect=True)
def test_who_takes_over_to_cancel_finds_an_output_that_has_just_appeared(scene: Scene) -> None:
    driver, other = scene.coordinators
    driver.begin()
    scene.go_on(
        driver.process,
        lambda: bool((epoch := driver.process.epoch) and epoch.lease.view.publishing),
    )
    cancel_without_a_lock(scene)
    scene.coordinate(1, 1)
    other.begin()
    scene.go_on(other.process, lambda: bool(list(scene.folder.path.glob(".lease.*"))))
    scene.go_on(driver.process, scene.target.exists)
    driver.process.die()
    other.process.finish()
    assert scene.state() is LoggedState.SUCCEEDED
    assert scene.target.exists()


@pytest.mark.parametrize("steps", range(20))
def test_failed_job_whose_discarding_was_killed_is_gone_or_as_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """And is not driven again, which would publish what somebody wanted to be gone."""
    monkeypatch.setattr(discarding, "this_process", scene.holder)
    scene.coordinators[0].process.fate = "fail"
    scene.coordinate(0, 1)
    folder = scene.user.folder
    scene.user.begin(lambda: discarding.discard_submitted(folder.path, folder, ""))
    for _ in range(steps):
        scene.user.step(0)
    scene.user.die()
    if scene.folder.path.exists():
        assert steps < 15
        scene.coordinate(1)
        assert scene.state() is LoggedState.FAILED
