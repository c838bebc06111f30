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


# --- pixels ---------------------------------------------------------------------------------------

CHUNK = 16  # frames that are drawn together


class _Capsule(NamedTuple):
    """A projected limb on the pixels of a box, all `<float>[frames, rows, columns]`."""

    box: tuple[slice, slice]  # rows, columns
    cover: np.ndarray  # covered fraction of the pixel
    along: np.ndarray  # position between start and end, 0..1
    across: np.ndarray  # pixels from the axis, to the right
    down: np.ndarray  # pixels from the axis, downwards
    radius: np.ndarray  # pixels


def _capsule(
    start: np.ndarray, end: np.ndarray, radii: tuple[np.ndarray, np.ndarray], size: int
) -> _Capsule | None:
    """Compute the pixels that surround a projected limb; None if it is out of the frame.

    Args:
      start: `<float>[frames, 2]`, column and row.
      end: `<float>[frames, 2]`, column and row.
      radii: at the start and at the end, each `<float>[frames]`, pixels.
      size: side of the frame, pixels.
    """
    reach = max(radii[0].max(), radii[1].max()) + 1.0
    low = np.floor(np.minimum(start, end).min(axis=0) - reach).clip(0, size).astype(int)
    high = np.ceil(np.maximum(start, end).max(axis=0) + reach).clip(0, size).astype(int)
    if (high <= low).any():
        return None
    x = np.arange(low[0], high[0], dtype=np.float32)[None, None, :] + 0.5
    y = np.arange(low[1], high[1], dtype=np.float32)[None, :, None] + 0.5
    x0, y0 = (start[:, axis, None, None] for axis in (0, 1))
    dx, dy = ((end - start)[:, axis, None, None] for axis in (0, 1))
    along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-6)
    along = along.clip(0.0, 1.0)
    across, down = x - x0 - along * dx, y - y0 - along * dy
    first, last = (radius[:, None, None] for radius in radii)
    radius = first + along * (last - first)
    cover = (radius - np.sqrt(across * across + down * down) + 0.5).clip(0.0, 1.0)
    box = (slice(low[1], high[1]), slice(low[0], high[0]))
    return _Capsule(box, cover, along, across, down, radius)


def _limb_ends(
    projected: np.ndarray, limb: Limb, camera: Camera, girth: float
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the projected ends of a limb, `<float32>[frames, 3]`, and its radii, `[frames]`."""

    def to_pixels(radius: float, point: np.ndarray) -> np.ndarray:
        return (girth * radius * camera.focal / point[:, 2]).astype(np.float32)

    start, end = projected[:, JOINT_INDEX[limb.start]], projected[:, JOINT_INDEX[limb.end]]
    start = start + limb.along * (end - start)
    radii = to_pixels(limb.start_radius, start), to_pixels(limb.end_radius, end)
    return start.astype(np.float32), end.astype(np.float32), radii


def _draw_shadow(canvas: np.ndarray, joints: np.ndarray, camera: Camera, view: View) -> None:
    """Darken the floor where the limbs block the light.

    Args:
      canvas: `<float32>[frames, size, size, 3]`, changed in place.
      joints: `<float>[frames, joints, 3]`.
      camera: with the moves of these frames.
      view: light and girth.
    """
    flat = joints.copy()
    floor = joints[..., 1].min()
    height = flat[..., 1] - floor
    flat[..., 1] = floor
    flat[..., [0, 2]] += 0.3 * height[..., None] * np.array([view.light[0], -view.light[2]])
    projected = camera.project(flat)
    size = canvas.shape[1]
    dark = np.zeros(canvas.shape[:3], np.float32)
    for limb in LIMBS:
        start, end, (first, last) = _limb_ends(projected, limb, camera, view.girth)
        # A shadow is flat: half as thick.
        capsule = _capsule(start[:, :2], end[:, :2], (0.5 * first, 0.5 * last), size)
        if capsule is not None:
            part = dark[:, *capsule.box]
            np.maximum(part, capsule.cover, out=part)
    canvas *= 1.0 - 0.45 * dark[..., None]


def _draw_body(canvas: np.ndarray, joints: np.ndarray, camera: Camera, view: View) -> None:
    """Draw the limbs; the nearest surface wins. The arguments are those of `_draw_shadow`."""
    projected = camera.project(joints)
    size = canvas.shape[1]
    depth = np.full(canvas.shape[:3], np.inf, np.float32)
    nearest = float(projected[..., 2].min())
    for limb in LIMBS:
        start, end, radii = _limb_ends(projected, limb, camera, view.girth)
        capsule = _capsule(start[:, :2], end[:, :2], radii, size)
        if capsule is None:
            continue
        right, down = capsule.across / capsule.radius, capsule.down / capsule.radius
        bulge = np.sqrt((1.0 - right * right - down * down).clip(0.0, 1.0))
        z0, z1 = start[:, 2, None, None], end[:, 2, None, None]
        z = z0 + capsule.along * (z1 - z0) - bulge * view.girth * limb.start_radius
        drawn_depth = depth[:, *capsule.box]
        cover = np.where(z < drawn_depth, capsule.cover, 0.0)
        lit = right * view.light[0] - down * view.light[1] + bulge * view.light[2]
        # The far arm and leg are a little darker than the near ones.
        shade = (0.45 + 0.55 * lit.clip(0.0, 1.0)) / (1.0 + 0.35 * (z - nearest).clip(0.0, None))
        colour = shade[..., None] * np.array(getattr(view, limb.colour), np.float32)
        part = canvas[:, *capsule.box]
        part += cover[..., None] * (colour - part)
        drawn_depth[cover > 0.5] = z[cover > 0.5]


def _value_noise(points: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Interpolate a lattice of values bilinearly; it repeats in both directions.

    Args:
      points: `<float>[..., 2]`, in units of the lattice.
      lattice: `<float>[n, n]`.

    Returns:
      `<float>[...]`.
    """
    knot = np.floor(points).astype(int)
    right, down = np.moveaxis((points - knot).astype(np.float32), -1, 0)
    n = len(lattice)
    x, y = knot[..., 0] % n, knot[..., 1] % n
    x1, y1 = (x + 1) % n, (y + 1) % n
    top = lattice[y, x] + right * (lattice[y, x1] - lattice[y, x])
    bottom = lattice[y1, x] + right * (lattice[y1, x1] - lattice[y1, x])
    return top + down * (bottom - top)


def _background(camera: Camera, view: View, ground: float, size: int) -> np.ndarray:
    """Render floor and wall.

    Args:
      camera: with the moves of the whole clip.
      view: colours and texture.
      ground: height of the floor, metres.
      size: side of the frames, pixels.

    Returns:
      `<float32>[frames, size, size, 3]`; a single frame if the camera does not move.
    """
    random = np.random.default_rng([view.seed, 1])
    lattice = random.uniform(-1.0, 1.0, (16, 16)).astype(np.float32)
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    rays = np.stack(
        [
            (x - camera.centre[0]) / camera.focal,
            -(y - camera.centre[1]) / camera.focal,
            np.ones_like(x),
        ],
        axis=-1,
    )
    rays = rays @ camera.axes
    falls = rays[..., 1] < -1e-3
    distance = np.where(falls, (ground - camera.origin[1]) / np.where(falls, rays[..., 1], -1.0), 0)
    hits = camera.origin[[0, 2]] + distance[..., None] * rays[..., [0, 2]]
    moves = camera.moves if np.ptp(camera.moves, axis=0).any() else camera.moves[:1]
    hits = hits[None] + moves[:, None, None, [0, 2]]
    wall = _value_noise(np.stack([x, y], axis=-1) * (6.0 / size), lattice)
    wall = wall + 0.5 * (0.5 - y / size)
    far = np.exp(-0.06 * distance)  # the pattern fades to its mean with distance
    pattern = np.where(falls, far * _value_noise(hits / view.grain, lattice), wall)
    base = np.where(falls[..., None], np.array(view.floor), np.array(view.sky))
    return (base * (1.0 + view.texture * 2.0 * pattern[..., None])).astype(np.float32)


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
    background = _background(camera, view, float(joints[..., 1].min()), size)
    noise = np.random.default_rng([view.seed, 2])
    chunks = []
    for start in range(0, len(joints), CHUNK):
        part = joints[start : start + CHUNK]
        chunk_camera = camera._replace(moves=camera.moves[start : start + CHUNK])
        if len(background) == 1:
            canvas = np.repeat(background, len(part), axis=0)
        else:
            canvas = background[start : start + CHUNK].copy()
        _draw_shadow(canvas, part, chunk_camera, view)
        _draw_body(canvas, part, chunk_camera, view)
        canvas *= view.gain
        canvas += view.noise * noise.standard_normal(canvas.shape, np.float32)
        chunks.append((canvas.clip(0.0, 1.0) * 255.0).round().astype(np.uint8))
    return np.concatenate(chunks)
