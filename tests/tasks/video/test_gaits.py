from tasks.video import clips, formats, gaits, kinematics, render
from tests.tasks import commands

import numpy as np


def test_help_has_examples_and_defaults(capsys):
    commands.check_help(gaits, capsys)


def test_gaits_writes_a_folder_that_train_reads(tmp_path):
    gaits.main(["--output", str(tmp_path), "--people", "1000", "1001", "--size", "32"])
    found = formats.class_folders(tmp_path)
    assert tuple(found) == tuple(sorted(gaits.ACTIVITIES)) and len(found) == 14
    assert all(len(files) == 2 for files in found.values())
    assert clips.read(found["bowing"][0].path, rate=12.5).shape[1:] == (32, 32, 3)


def test_activities_are_what_they_are_called():
    def path(activity, joint, seed=2):
        joints = gaits.move(activity, seconds=3.0, rate=25.0, seed=seed, person=5)
        return joints[:, render.JOINT_INDEX[joint]], joints

    down, _ = path("sitting down", "pelvis")
    up, _ = path("standing up", "pelvis")
    assert down[0, 1] - down[-1, 1] > 0.2 and up[-1, 1] - up[0, 1] > 0.2
    side = kinematics.individual(5).dominant
    hand, joints = path("waving", f"{side}_hand")
    assert (hand[:, 1] > joints[:, render.JOINT_INDEX["neck"], 1]).all()
    walked, run = (path(name, "pelvis")[0][-1, 2] for name in ("walking", "running"))
    assert 1.5 < walked < run
    height, _ = path("jumping", "left_toe")
    assert height[:, 1].max() > 0.15
    head, _ = path("bowing", "head")
    assert np.ptp(head[:, 1]) > 0.3


def test_individuals_differ_and_repeat():
    people = [kinematics.individual(number) for number in range(30)]
    assert len({person.stature for person in people}) == 30
    assert {person.dominant for person in people} == {"left", "right"}
    one, same, other = (
        gaits.move("walking", seconds=1.0, rate=12.5, seed=seed, person=1) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01
