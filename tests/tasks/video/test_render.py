from tasks.video import gaits, kinematics, render
from tasks.video.kinematics import SIDES
from tests.tasks.video.samples import bone_lengths

import numpy as np
import pytest


def test_other_proportions_are_the_same_left_and_right():
    joints = gaits.move("kicking", seconds=1.0, rate=12.5, seed=0)
    new = render.reproportion(joints, np.random.default_rng(0))
    ratio = bone_lengths(new) / bone_lengths(joints)
    assert np.ptp(ratio, axis=0).max() < 1e-9 and 0.86 <= ratio.min() < ratio.max() <= 1.16
    names = [joint for joint, parent in render.PARENTS.items() if joint != parent]
    for joint in ("elbow", "knee"):
        one, other = (ratio[0, names.index(f"{side}_{joint}")] for side in SIDES)
        assert one == pytest.approx(other)
    assert new[..., 1].min() == pytest.approx(joints[..., 1].min())


def test_the_camera_projects_as_a_pinhole():
    camera = render.Camera(
        np.array([0.0, 1.0, 5.0]),
        np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]]),  # looks along -z
        100.0,
        np.array([32.0, 32.0]),
        np.zeros((1, 3)),
    )
    seen = camera.project(np.array([[[0.0, 1, 0], [0.5, 1, 0], [0.5, 1.5, 2.5]]]))[0]
    np.testing.assert_allclose(seen, [[32, 32, 5], [42, 32, 5], [52, 12, 2.5]])


@pytest.mark.parametrize("seed", range(8))
def test_every_view_shows_the_whole_body(seed):
    random = np.random.default_rng(seed)
    activity = list(gaits.ACTIVITIES)[seed]
    joints = gaits.move(activity, seconds=3.0, rate=12.5, seed=seed, person=seed)
    view = render.random_view(random)
    seen = render.place_camera(joints, view, 64).project(joints)
    assert seen[..., :2].min() >= 0 and seen[..., :2].max() <= 64
    assert np.ptp(seen[..., :2], axis=(0, 1)).max() <= 64 * view.fill


def test_azimuth_counts_from_where_the_body_faces():
    joints = gaits.move("waving", seconds=0.5, rate=12.5, seed=0)
    for turn in (0.0, 1.0, 4.0):
        turned = kinematics.turn(joints, np.full(len(joints), turn))
        assert np.isclose(np.angle(np.exp(1j * (render.facing(turned) - turn))), 0, atol=1e-9)
        seen = render.place_camera(turned, render.View(azimuth=0.0), 64).project(turned)
        # From ahead the left hip is on the right of the picture.
        left, right = (seen[0, render.JOINT_INDEX[f"{side}_hip"], 0] for side in SIDES)
        assert left > right


def test_a_capsule_covers_its_area():
    start, end = np.array([[20.3, 30.1]]), np.array([[44.7, 35.9]])
    drawn = render._capsule(start, end, (np.array([4.0]), np.array([4.0])), 64)
    length = np.hypot(*(end - start)[0])
    assert drawn.cover.sum() == pytest.approx(2 * 4 * length + np.pi * 16, rel=0.01)
    assert render._capsule(start - 500, end - 500, (np.ones(1), np.ones(1)), 64) is None


def test_what_is_nearer_hides_what_is_farther():
    """A hand in front of the chest is visible from the front and hidden from the back."""
    joints = gaits.move("punching", seconds=0.5, rate=12.5, seed=0, person=2)[:1]
    hand, chest = (render.JOINT_INDEX[name] for name in ("left_hand", "chest"))
    joints[:, hand] = joints[:, chest] + (0.0, 0.0, 0.4)
    green = {"skin": (0.0, 1.0, 0.0), "noise": 0.0, "elevation": 0.0}
    found = {}
    for azimuth in (0.0, 180.0):
        view = render.View(azimuth=azimuth, **green)
        seen = render.place_camera(joints, view, 64).project(joints)
        column, row = seen[0, hand, :2].astype(int)
        found[azimuth] = render.render(joints, view)[0, row, column]
    assert found[0.0][1] > 2 * max(found[0.0][0], 1) and found[180.0][0] > found[180.0][1]


def test_the_same_view_gives_the_same_pixels():
    joints = gaits.move("walking", seconds=1.0, rate=12.5, seed=0)
    view = render.random_view(np.random.default_rng(4))
    one, same = (render.render(joints, view) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one.dtype == np.uint8 and one.shape == (12, 64, 64, 3)


def test_motion_is_interpolated_at_the_middle_of_frames():
    joints = np.random.default_rng(0).normal(size=(30, 2, 3))
    found = render.resample(joints, 30.0, 12.5)
    times = (np.arange(12) + 0.5) / 12.5
    expected = np.interp(times, (np.arange(30) + 0.5) / 30.0, joints[:, 1, 2])
    np.testing.assert_allclose(found[:, 1, 2], expected)
    np.testing.assert_array_equal(render.resample(joints, 30.0, 30.0), joints)
