"""A renderer of moving bodies: from joint positions to frames.

The body consists of capsules (limbs with thickness) and stands on a textured floor in front of a
wall. A perspective camera shows it. A depth buffer hides the far surfaces, and limbs are shaded by
a light and by their distance. NumPy renders whole clips: a frame of 64 x 64 pixels takes less than
a millisecond.

Axes: y is up, lengths are metres. The angles of a `View` are degrees.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

# Each joint and its parent; the pelvis is the root. Parents come before their children.
PARENTS = {
    "pelvis": "pelvis",
    "chest": "pelvis",
    "neck": "chest",
    "head": "neck",
    **{
        f"{side}_{joint}": parent if parent in ("chest", "pelvis") else f"{side}_{parent}"
        for side in ("left", "right")
        for joint, parent in (
            ("shoulder", "chest"),
            ("elbow", "shoulder"),
            ("wrist", "elbow"),
            ("hand", "wrist"),
            ("hip", "pelvis"),
            ("knee", "hip"),
            ("ankle", "knee"),
            ("toe", "ankle"),
        )
    },
}
JOINTS = tuple(PARENTS)
JOINT_INDEX = {joint: index for index, joint in enumerate(JOINTS)}
# The joint that each one becomes in a mirror.
_OTHER_SIDE = {"left": "right", "right": "left"}
MIRRORED = tuple(
    JOINT_INDEX["_".join(_OTHER_SIDE.get(part, part) for part in joint.split("_"))]
    for joint in JOINTS
)


class Limb(NamedTuple):
    """A capsule between two joints."""

    start: str
    end: str
    start_radius: float  # metres
    end_radius: float  # metres
    colour: str  # name of a field of `View`
    along: float = 0.0  # where it begins, fraction of the way from start to end


LIMBS = (
    Limb("pelvis", "chest", 0.125, 0.135, "shirt"),
    Limb("left_shoulder", "right_shoulder", 0.08, 0.08, "shirt"),
    Limb("left_shoulder", "left_hip", 0.07, 0.09, "shirt"),
    Limb("right_shoulder", "right_hip", 0.07, 0.09, "shirt"),
    Limb("left_hip", "right_hip", 0.10, 0.10, "trousers"),
    Limb("chest", "neck", 0.07, 0.055, "skin"),
    Limb("neck", "head", 0.09, 0.10, "skin", 0.45),
    *(
        Limb(f"{side}_{start}", f"{side}_{end}", start_radius, end_radius, colour)
        for side in ("left", "right")
        for start, end, start_radius, end_radius, colour in (
            ("shoulder", "elbow", 0.055, 0.045, "shirt"),
            ("elbow", "wrist", 0.045, 0.035, "skin"),
            ("wrist", "hand", 0.04, 0.035, "skin"),
            ("hip", "knee", 0.085, 0.06, "trousers"),
            ("knee", "ankle", 0.06, 0.042, "trousers"),
            ("ankle", "toe", 0.045, 0.04, "shoes"),
        )
    ),
)

Colour = tuple[float, float, float]  # red, green, blue, each 0..1


@dataclasses.dataclass(frozen=True)
class View:
    """Camera, framing, colours and sensor of a clip; by default the fixed view of the benchmark."""

    azimuth: float = 45.0  # of the camera, from where the body first faces; positive to its left
    elevation: float = 10.0  # of the camera, above the middle of the body
    distance: float = 4.5  # metres from the camera to the middle of the body
    roll: float = 0.0  # of the camera
    fill: float = 0.85  # maximum fraction of the frame's side that the joints of the clip cover
    shift: tuple[float, float] = (0.0, 0.0)  # of the body within the free margin, each -1..1
    girth: float = 1.0  # factor on the thickness of the limbs
    shirt: Colour = (0.75, 0.20, 0.20)
    trousers: Colour = (0.15, 0.20, 0.45)
    skin: Colour = (0.85, 0.65, 0.50)
    shoes: Colour = (0.10, 0.10, 0.10)
    floor: Colour = (0.50, 0.50, 0.45)
    sky: Colour = (0.70, 0.78, 0.85)
    texture: float = 0.10  # contrast of floor and wall
    grain: float = 0.6  # metres between the knots of the floor's texture
    light: tuple[float, float, float] = (0.4, 0.6, 0.7)  # direction: right, up, towards the camera
    gain: float = 1.0  # factor on the brightness
    noise: float = 0.01  # standard deviation of the sensor noise
    seed: int = 0  # of texture and noise


FIXED_VIEW = View()


def random_view(random: np.random.Generator) -> View:
    """Draw a viewpoint, a framing, clothes, surroundings and a sensor.

    Example:
      >>> random_view(np.random.default_rng(0)) == random_view(np.random.default_rng(0))
      True
    """

    def colour(low: float = 0.05, high: float = 0.95) -> Colour:
        return tuple(random.uniform(low, high, 3).tolist())

    light = random.normal((0.0, 0.6, 0.7), 0.5)
    return View(
        azimuth=float(random.uniform(0.0, 360.0)),
        elevation=float(random.uniform(-5.0, 35.0)),
        distance=float(random.uniform(3.0, 7.0)),
        roll=float(random.normal(0.0, 3.0)),
        fill=float(random.uniform(0.6, 0.95)),
        shift=tuple(random.uniform(-1.0, 1.0, 2).tolist()),
        girth=float(random.uniform(0.85, 1.2)),
        shirt=colour(),
        trousers=colour(),
        skin=tuple((random.uniform(0.35, 1.0) * np.array([0.95, 0.72, 0.58])).tolist()),
        shoes=colour(0.0, 0.5),
        floor=colour(0.1, 0.9),
        sky=colour(0.1, 0.9),
        texture=float(random.uniform(0.0, 0.25)),
        grain=float(random.uniform(0.2, 1.2)),
        light=tuple((light / np.linalg.norm(light)).tolist()),
        gain=float(random.uniform(0.7, 1.2)),
        noise=float(random.uniform(0.0, 0.04)),
        seed=int(random.integers(2**31)),
    )


# --- motion ---------------------------------------------------------------------------------------


def reproportion(joints: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Change the proportions of a moving body, as if another person did the same.

    Torso, head, breadth, arms and legs each become up to a sixth longer or shorter, left like
    right. Then the body moves vertically until its lowest joint has the same height as before.

    Args:
      joints: `<float>[frames, joints, 3]`.
      random: draws the proportions.

    Returns:
      `<float>[frames, joints, 3]`.
    """
    kinds = {joint: joint.split("_")[-1] for joint in JOINTS}
    groups = {
        **dict.fromkeys(("chest",), "torso"),
        **dict.fromkeys(("neck", "head"), "head"),
        **dict.fromkeys(("shoulder", "hip"), "breadth"),
        **dict.fromkeys(("elbow", "wrist", "hand"), "arms"),
        **dict.fromkeys(("knee", "ankle", "toe"), "legs"),
    }
    factors = {name: random.uniform(0.86, 1.16) for name in sorted(set(groups.values()))}
    new = joints.copy()
    for joint, parent in PARENTS.items():
        if joint != parent:
            child, base = JOINT_INDEX[joint], JOINT_INDEX[parent]
            bone = joints[:, child] - joints[:, base]
            new[:, child] = new[:, base] + factors[groups[kinds[joint]]] * bone
    new[..., 1] += joints[..., 1].min() - new[..., 1].min()
    return new


def resample(joints: np.ndarray, source: float, rate: float) -> np.ndarray:
    """Interpolate a motion at the middle of each frame of another frame rate.

    Args:
      joints: `<float>[frames, joints, 3]`.
      source: frames per second of `joints`.
      rate: frames per second of the result.

    Returns:
      `<float>[new frames, joints, 3]`, at least one frame.

    Example:
      >>> motion = np.arange(4.0).reshape(4, 1, 1)
      >>> resample(motion, source=4.0, rate=2.0).ravel()
      array([0.5, 2.5])
    """
    count = max(1, int(np.ceil(len(joints) * rate / source - 0.5)))
    times = ((np.arange(count) + 0.5) * source / rate - 0.5).clip(0.0, len(joints) - 1.0)
    before = times.astype(int)
    after = np.minimum(before + 1, len(joints) - 1)
    fraction = (times - before)[:, None, None]
    return joints[before] * (1.0 - fraction) + joints[after] * fraction


# --- the camera -----------------------------------------------------------------------------------


class Camera(NamedTuple):
    """A pinhole camera that keeps its direction; its position may follow the body."""

    origin: np.ndarray  # <float>[3], without the moves
    axes: np.ndarray  # <float>[3, 3]: right, up, forward
    focal: float  # pixels
    centre: np.ndarray  # <float>[2], pixels
    moves: np.ndarray  # <float>[frames, 3]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points `<float>[frames, n, 3]` to column, row and depth, of the same shape."""
        local = (points - self.moves[:, None] - self.origin) @ self.axes.T
        depth = np.maximum(local[..., 2], 0.1)
        column = self.centre[0] + self.focal * local[..., 0] / depth
        row = self.centre[1] - self.focal * local[..., 1] / depth
        return np.stack([column, row, depth], axis=-1)


MAX_TRAVEL = 2.5  # metres; the camera follows a body that travels farther


def facing(joints: np.ndarray) -> float:
    """Return the direction that a body faces in its first frame, radians about the vertical."""
    across = joints[0, JOINT_INDEX["left_hip"]] - joints[0, JOINT_INDEX["right_hip"]]
    # Left is x where forward is z: forward = across x up.
    return float(np.arctan2(-across[2], across[0]))


def place_camera(joints: np.ndarray, view: View, size: int) -> Camera:
    """Place a camera such that the whole clip is visible in the framing of `view`.

    Args:
      joints: `<float>[frames, joints, 3]`.
      view: direction, distance and framing.
      size: side of the frames, pixels.
    """
    azimuth = facing(joints) + np.radians(view.azimuth)
    elevation, roll = np.radians(view.elevation), np.radians(view.roll)
    root = joints[:, JOINT_INDEX["pelvis"]] * (1.0, 0.0, 1.0)
    extent = float(np.ptp(root[:, [0, 2]], axis=0).max())
    middle = (root.max(axis=0) + root.min(axis=0)) / 2.0
    moves = (root - middle) * max(0.0, 1.0 - MAX_TRAVEL / max(extent, 1e-6))
    still = joints - moves[:, None]
    target = (still.max(axis=(0, 1)) + still.min(axis=(0, 1))) / 2.0
    back = np.array(
        [
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    origin = target + view.distance * back
    origin[1] = max(origin[1], joints[..., 1].min() + 0.2)  # never under the floor
    forward = (target - origin) / np.linalg.norm(target - origin)
    right = np.cross(forward, (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    right, up = (
        np.cos(roll) * right + np.sin(roll) * up,
        np.cos(roll) * up - np.sin(roll) * right,
    )
    camera = Camera(origin, np.stack([right, up, forward]), 1.0, np.zeros(2), moves)
    projected = camera.project(joints)[..., :2]
    low, high = projected.min(axis=(0, 1)), projected.max(axis=(0, 1))
    focal = view.fill * size / max((high - low).max() + 0.15 / view.distance, 1e-6)
    free = (size - focal * (high - low)) / 2.0
    centre = size / 2.0 - focal * (high + low) / 2.0 + 0.6 * free * view.shift
    return camera._replace(focal=focal, centre=centre)


def pose(joints: np.ndarray, view: View) -> np.ndarray:
    """Return where the joints are in the picture.

    Args:
      joints: `<float>[frames, joints, 3]` in the order of `JOINTS`.
      view: camera and framing.

    Returns:
      `<float32>[frames, joints, 2]`: column and row, fractions of the side of the picture.
    """
    return place_camera(joints, view, 1).project(joints)[..., :2].astype(np.float32)


# --- pixels ---------------------------------------------------------------------------------------

CHUNK = 16  # frames that are drawn together


class _Capsules(NamedTuple):
    """The projected limbs, each field `<float32>[limbs, frames]`; lengths are pixels."""

    x: np.ndarray  # column of the start
    y: np.ndarray  # row of the start
    dx: np.ndarray  # from the start to the end
    dy: np.ndarray
    radius: np.ndarray  # at the start
    growth: np.ndarray  # from the radius at the start to that at the end
    depth: np.ndarray  # of the start, metres
    slope: np.ndarray  # from the depth of the start to that of the end, metres


_STARTS = [JOINT_INDEX[limb.start] for limb in LIMBS]
_ENDS = [JOINT_INDEX[limb.end] for limb in LIMBS]
_ALONG = np.array([limb.along for limb in LIMBS])
_START_RADII = np.array([limb.start_radius for limb in LIMBS])
_END_RADII = np.array([limb.end_radius for limb in LIMBS])


def _capsules(projected: np.ndarray, focal: float, girth: float) -> _Capsules:
    """Return the limbs between projected joints.

    Args:
      projected: column, row and depth of the joints, `<float>[frames, joints, 3]`.
      focal: of the camera, pixels.
      girth: factor on the thickness of the limbs.
    """
    start, end = projected[:, _STARTS], projected[:, _ENDS]
    start = start + _ALONG[:, None] * (end - start)
    first = (girth * _START_RADII * focal / start[..., 2]).astype(np.float32).T
    last = (girth * _END_RADII * focal / end[..., 2]).astype(np.float32).T
    x, y, depth = start.astype(np.float32).T
    x1, y1, depth1 = end.astype(np.float32).T
    return _Capsules(x, y, x1 - x, y1 - y, first, last - first, depth, depth1 - depth)


class _Boxes(NamedTuple):
    """The pixels of the boxes around capsules, limb after limb; all but `counts` are `[pixels]`."""

    counts: np.ndarray  # <int>[limbs * frames]: pixels of each box
    place: np.ndarray  # <int>: (frame * size + row) * size + column
    cover: np.ndarray  # <float32>: covered fraction of the pixel, 0..1
    along: np.ndarray  # <float32>: position between start and end, 0..1
    across: np.ndarray  # <float32>: pixels from the axis, to the right
    down: np.ndarray  # <float32>: pixels from the axis, downwards
    radius: np.ndarray  # <float32>: pixels


def _boxes(capsules: _Capsules, size: int) -> _Boxes:
    """Compute the pixels that surround the capsules in frames of `size * size` pixels."""
    radii = capsules.radius, capsules.radius + capsules.growth
    top, height = _limits((capsules.y, capsules.y + capsules.dy), radii, size)
    left, width = _limits((capsules.x, capsules.x + capsules.dx), radii, size)
    counts = height * width
    # A value of a box is repeated for its pixels, a value of a row of a box for the row's pixels.
    row, lengths = _count_up(top, height), np.repeat(width, height)
    limbs, frames = capsules.x.shape
    frame = np.repeat(np.tile(np.arange(frames), limbs), height)
    column = _count_up(np.repeat(left, height), lengths)
    place = np.repeat((frame * size + row) * size, lengths) + column
    middle = np.repeat(row.astype(np.float32) + 0.5, lengths)
    squared = capsules.dx * capsules.dx + capsules.dy * capsules.dy + 1e-6
    x, y, dx, dy, first, growth, squared = (
        np.repeat(value.ravel(), counts) for value in (*capsules[:6], squared)
    )
    across, down = column.astype(np.float32) + 0.5 - x, middle - y
    along = ((across * dx + down * dy) / squared).clip(0.0, 1.0)
    across -= along * dx
    down -= along * dy
    radius = first + along * growth
    cover = (radius - np.sqrt(across * across + down * down) + 0.5).clip(0.0, 1.0)
    return _Boxes(counts, place, cover, along, across, down, radius)


def _limits(
    ends: tuple[np.ndarray, np.ndarray], radii: tuple[np.ndarray, np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first row (or column) of boxes around capsules, and the number of them in a frame.

    Args:
      ends: row (or column) of both ends of the axes, each `<float>[limbs, frames]`.
      radii: at both ends, like `ends`.
      size: side of the frame, pixels; boxes are cut there.

    Returns:
      Two `<int>[limbs * frames]`.
    """
    low = np.minimum(ends[0] - radii[0], ends[1] - radii[1])
    high = np.maximum(ends[0] + radii[0], ends[1] + radii[1])
    # A pixel is covered if its middle is up to half a pixel outside; 0.01 is for rounding errors.
    limits = np.ceil(low - 1.01), np.floor(high + 1.01)
    first, stop = (limit.clip(0, size).astype(int).ravel() for limit in limits)
    return first, stop - first


def _count_up(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Count up from each of several numbers.

    Example:
      >>> _count_up(np.array([5, 9, 2]), np.array([3, 0, 2]))
      array([5, 6, 7, 2, 3])
    """
    before = count.cumsum() - count
    return np.arange(count.sum()) + np.repeat(first - before, count)


def _shadow(joints: np.ndarray, camera: Camera, view: View, size: int) -> np.ndarray:
    """Compute where the limbs block the light on the floor.

    Args:
      joints: `<float>[frames, joints, 3]`.
      camera: with the moves of these frames.
      view: light and girth.
      size: side of the frames, pixels.

    Returns:
      The blocked fraction of each pixel, `<float32>[frames, size, size]`.
    """
    flat = joints.copy()
    floor = joints[..., 1].min()
    height = flat[..., 1] - floor
    flat[..., 1] = floor
    flat[..., [0, 2]] += 0.3 * height[..., None] * np.array([view.light[0], -view.light[2]])
    # A shadow is flat: half as thick.
    capsules = _capsules(camera.project(flat), camera.focal, 0.5 * view.girth)
    boxes = _boxes(capsules, size)
    dark = np.zeros(len(joints) * size * size, np.float32)
    np.maximum.at(dark, boxes.place, boxes.cover)
    return dark.reshape(-1, size, size)


def _draw_body(canvas: np.ndarray, joints: np.ndarray, camera: Camera, view: View) -> None:
    """Draw the limbs; the nearest surface wins.

    Args:
      canvas: `<float32>[3, frames, size, size]`, changed in place.
      joints: `<float>[frames, joints, 3]`.
      camera: with the moves of these frames.
      view: colours, light and girth.
    """
    projected = camera.project(joints)
    nearest = float(projected[..., 2].min())
    capsules = _capsules(projected, camera.focal, view.girth)
    boxes = _boxes(capsules, canvas.shape[-1])
    right, down = boxes.across / boxes.radius, boxes.down / boxes.radius
    bulge = np.sqrt((1.0 - right * right - down * down).clip(0.0, 1.0))
    thickness = np.repeat(_START_RADII.astype(np.float32), len(joints))
    z0, slope, thickness = (
        np.repeat(value.ravel(), boxes.counts)
        for value in (capsules.depth, capsules.slope, thickness)
    )
    z = z0 + boxes.along * slope - bulge * view.girth * thickness
    lit = right * view.light[0] - down * view.light[1] + bulge * view.light[2]
    # The far arm and leg are a little darker than the near ones.
    shade = (0.45 + 0.55 * lit.clip(0.0, 1.0)) / (1.0 + 0.35 * (z - nearest).clip(0.0, None))

    planes = canvas.reshape(3, -1)
    depth = np.full(planes.shape[1], np.inf, np.float32)
    ends = boxes.counts.reshape(len(LIMBS), -1).sum(axis=1).cumsum().tolist()
    colours = np.array([getattr(view, limb.colour) for limb in LIMBS], np.float32)
    for colour, first, last in zip(colours, [0, *ends], ends, strict=False):
        own = slice(first, last)
        nearer = first + np.flatnonzero((z[own] < depth[boxes.place[own]]) & (boxes.cover[own] > 0))
        place, cover = boxes.place[nearer], boxes.cover[nearer]
        under = planes.take(place, axis=1)
        planes[:, place] = under + cover * (shade[nearer] * colour[:, None] - under)
        solid = cover > 0.5
        depth[place[solid]] = z[nearer[solid]]


def _value_noise(x: np.ndarray, y: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Interpolate a lattice of values bilinearly; it repeats in both directions.

    Args:
      x: `<float>[...]`, in units of the lattice.
      y: like `x`.
      lattice: `<float32>[n, n]`, n a power of two.

    Returns:
      `<float32>[...]`.
    """
    n = len(lattice)
    value, rise = lattice.ravel(), (np.roll(lattice, -1, axis=1) - lattice).ravel()
    column, row = np.floor(x), np.floor(y)
    right, down = (x - column).astype(np.float32), (y - row).astype(np.float32)
    knot = (row.astype(int) & (n - 1)) * n + (column.astype(int) & (n - 1))
    top = value[knot] + right * rise[knot]
    knot = (knot + n) & (n * n - 1)
    bottom = value[knot] + right * rise[knot]
    return top + down * (bottom - top)


def _background(camera: Camera, view: View, ground: float, size: int) -> np.ndarray:
    """Render floor and wall.

    Args:
      camera: with the moves of these frames.
      view: colours and texture.
      ground: height of the floor, metres.
      size: side of the frames, pixels.

    Returns:
      `<float32>[3, frames, size, size]`; a single frame if the camera does not move.
    """
    random = np.random.default_rng([view.seed, 1])
    lattice = random.uniform(-1.0, 1.0, (16, 16)).astype(np.float32)
    y, x = (np.indices((size, size)) + 0.5).reshape(2, -1)
    rays = np.stack(
        [
            (x - camera.centre[0]) / camera.focal,
            -(y - camera.centre[1]) / camera.focal,
            np.ones_like(x),
        ],
        axis=-1,
    )
    rays = rays @ camera.axes
    wall = _value_noise(x * (6.0 / size), y * (6.0 / size), lattice) + 0.5 * (0.5 - y / size)
    moves = camera.moves if np.ptp(camera.moves, axis=0).any() else camera.moves[:1]
    pattern = np.repeat(wall[None], len(moves), axis=0)
    # Only rays that fall hit the floor.
    falls = rays[:, 1] < -1e-3
    rays = rays[falls]
    distance = (ground - camera.origin[1]) / rays[:, 1]
    hit_x, hit_z = (
        (camera.origin[axis] + distance * rays[:, axis] + moves[:, axis, None]) / view.grain
        for axis in (0, 2)
    )
    far = np.exp(-0.06 * distance)  # the pattern fades to its mean with distance
    pattern[:, falls] = far * _value_noise(hit_x, hit_z, lattice)
    base = np.where(falls, np.array(view.floor)[:, None], np.array(view.sky)[:, None])
    colours = base[:, None] * (1.0 + view.texture * 2.0 * pattern)
    return colours.astype(np.float32).reshape(3, len(moves), size, size)


def render(joints: np.ndarray, view: View = FIXED_VIEW, *, size: int = 64) -> np.ndarray:
    """Render a moving body.

    Args:
      joints: `<float>[frames, joints, 3]` in the order of `JOINTS`.
      view: camera, framing, colours and sensor. The same view gives the same pixels.
      size: side of the frames, pixels.

    Returns:
      `<uint8>[frames, size, size, 3]`, RGB.

    Example:
      >>> from tasks.video import gaits
      >>> render(gaits.move("walking", seconds=2.0, rate=12.5, seed=1)).shape
      (25, 64, 64, 3)
    """
    camera = place_camera(joints, view, size)
    ground = float(joints[..., 1].min())
    moving = np.ptp(camera.moves, axis=0).any()
    noise = np.random.default_rng([view.seed, 2])
    chunks = []
    for start in range(0, len(joints), CHUNK):
        part = joints[start : start + CHUNK]
        chunk_camera = camera._replace(moves=camera.moves[start : start + CHUNK])
        if moving or start == 0:
            background = _background(chunk_camera, view, ground, size)
        canvas = background * (1.0 - 0.45 * _shadow(part, chunk_camera, view, size))
        _draw_body(canvas, part, chunk_camera, view)
        canvas *= view.gain
        pixels = view.noise * noise.standard_normal((*canvas.shape[1:], 3), np.float32)
        for channel, plane in enumerate(canvas):
            pixels[..., channel] += plane
        np.clip(pixels, 0.0, 1.0, out=pixels)
        pixels *= 255.0
        chunks.append(pixels.round().astype(np.uint8))
    return np.concatenate(chunks)
