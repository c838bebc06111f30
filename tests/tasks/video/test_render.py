import dataclasses

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
    def cover(start, end):
        values = (*start, *(end - start), 4.0, 0.0, 3.0, 0.0)
        capsules = render._Capsules(*(np.full((1, 1), value, np.float32) for value in values))
        return render._boxes(capsules, 64).cover

    start, end = np.array([20.3, 30.1]), np.array([44.7, 35.9])
    length = np.hypot(*(end - start))
    assert cover(start, end).sum() == pytest.approx(2 * 4 * length + np.pi * 16, rel=0.01)
    assert not len(cover(start - 500, end - 500))


def reference_cover(start, end, first, last, size):
    """The cover of every pixel by one capsule, and its along, across, down and radius."""
    x = np.arange(size, dtype=np.float32)[None, :] + 0.5
    y = np.arange(size, dtype=np.float32)[:, None] + 0.5
    dx, dy = end - start
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy + 1e-6)
    along = along.clip(0.0, 1.0)
    across, down = x - start[0] - along * dx, y - start[1] - along * dy
    radius = first + along * (last - first)
    cover = (radius - np.sqrt(across * across + down * down) + 0.5).clip(0.0, 1.0)
    return cover, along, across, down, radius


def reference_frame(canvas, joints, camera, view, nearest):
    """Draws shadow and body of one frame, limb by limb, over all pixels."""
    size = len(canvas)

    def limb_ends(points, limb):
        start, end = (points[render.JOINT_INDEX[name]] for name in (limb.start, limb.end))
        start = start + limb.along * (end - start)
        radii = (
            np.float32(view.girth * radius * camera.focal / point[2])
            for radius, point in ((limb.start_radius, start), (limb.end_radius, end))
        )
        return start.astype(np.float32), end.astype(np.float32), *radii

    flat = joints.copy()
    flat[:, [0, 2]] += 0.3 * flat[:, 1:2] * np.array([view.light[0], -view.light[2]])
    flat[:, 1] = 0.0
    projected = camera.project(flat[None])[0]
    dark = np.zeros((size, size), np.float32)
    for limb in render.LIMBS:
        start, end, first, last = limb_ends(projected, limb)
        cover = reference_cover(start[:2], end[:2], first / 2, last / 2, size)[0]
        dark = np.maximum(dark, cover)
    canvas = canvas * (1.0 - 0.45 * dark[..., None])
    projected = camera.project(joints[None])[0]
    depth = np.full((size, size), np.inf, np.float32)
    for limb in render.LIMBS:
        start, end, first, last = limb_ends(projected, limb)
        cover, along, across, down, radius = reference_cover(start[:2], end[:2], first, last, size)
        right, down = across / radius, down / radius
        bulge = np.sqrt((1.0 - right * right - down * down).clip(0.0, 1.0))
        z = start[2] + along * (end[2] - start[2]) - bulge * view.girth * limb.start_radius
        lit = right * view.light[0] - down * view.light[1] + bulge * view.light[2]
        shade = (0.45 + 0.55 * lit.clip(0.0, 1.0)) / (1.0 + 0.35 * (z - nearest).clip(0.0, None))
        cover = np.where(z < depth, cover, 0.0)
        colour = shade[..., None] * np.array(getattr(view, limb.colour), np.float32)
        canvas = canvas + cover[..., None] * (colour - canvas)
        depth = np.where(cover > 0.5, z, depth)
    return canvas


@pytest.mark.parametrize(
    ("activity", "seed"), [("walking", 1), ("jumping jacks", 2), ("bowing", 3)]
)
def test_frames_equal_those_of_a_slow_renderer(activity, seed):
    joints = gaits.move(activity, seconds=1.0, rate=12.5, seed=seed, person=seed)
    joints[..., 1] -= joints[..., 1].min()
    view, size = render.random_view(np.random.default_rng(seed)), 48
    camera = render.place_camera(joints, view, size)
    nearest = camera.project(joints)[..., 2].min()
    background = np.moveaxis(render._background(camera, view, 0.0, size), 0, -1)
    noise = np.random.default_rng([view.seed, 2]).standard_normal((len(joints), size, size, 3), "f")
    rendered = render.render(joints, view, size=size)
    for number, body in enumerate(joints):
        still = camera._replace(moves=camera.moves[number, None])
        canvas = background[number % len(background)]
        canvas = view.gain * reference_frame(canvas, body, still, view, nearest)
        expected = (canvas + view.noise * noise[number]).clip(0.0, 1.0) * 255.0
        difference = np.abs(rendered[number] - expected.round())
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize(
    ("activity", "person", "colours"),
    [
        ("walking", 0, (105.709, 136.685, 60.471)),
        ("running", 24, (80.601, 208.523, 196.768)),
        ("kicking", 40, (190.507, 175.985, 31.263)),
        ("waving", 71, (121.57, 35.094, 112.569)),
    ],
)
def test_clips_are_those_of_the_published_data_set(activity, person, colours):
    """Mean red, green and blue, recorded in version 1.1.0 of `gaits`."""
    frames = gaits.clip(activity, person, 0, rate=12.5, size=64)
    np.testing.assert_allclose(frames.mean(axis=(0, 1, 2)), colours, atol=0.02)


def test_noise_is_a_bilinear_interpolation_of_a_repeated_lattice():
    lattice = np.random.default_rng(0).uniform(size=(4, 4)).astype(np.float32)
    knots = np.arange(-8, 8)
    x, y = np.meshgrid(knots, knots)
    values = render._value_noise(x, y, lattice)
    np.testing.assert_allclose(values, np.tile(lattice, (4, 4)))
    middle = render._value_noise(x[:, :-1] + 0.25, y[:, :-1], lattice)
    np.testing.assert_allclose(middle, 0.75 * values[:, :-1] + 0.25 * values[:, 1:], rtol=1e-5)


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


@pytest.mark.parametrize("seed", range(3))
def test_a_pose_lies_on_the_body_in_the_picture(seed):
    joints = gaits.move("kicking", seconds=2.0, rate=12.5, seed=seed, person=seed)
    white, black = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    colours = dict.fromkeys(("shirt", "trousers", "skin", "shoes"), white)
    colours |= dict.fromkeys(("floor", "sky"), black)
    view = render.random_view(np.random.default_rng(seed))
    view = dataclasses.replace(view, azimuth=60.0 + 100.0 * seed, noise=0.0, gain=1.0, **colours)
    for size in (64, 48):
        body = render.render(joints, view, size=size).max(axis=-1) > 60

        def covered(pose, body=body, size=size):
            column, row = np.moveaxis((size * pose).astype(int), -1, 0)
            return body[np.arange(len(body))[:, None], row, column].mean()

        pose = render.pose(joints, view)
        assert pose.shape == (25, len(render.JOINTS), 2) and pose.dtype == np.float32
        assert covered(pose) > 0.98
        assert covered(1.0 - pose) < 0.8  # most places are not on the body
