"""The motion capture of HDM05: its files, its takes and their rendered views.

Nothing here imports TensorFlow: processes import this module to render.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from common.errors import InputError
from tasks.video import clips, render

import numpy as np
import scipy.io

# Of the rendered clips.
SIZE = 64  # side of the frames, pixels
RATE = 12.5  # frames per second

FILE = "hdm05_11_joints_30hz.npz"
SHA256 = "73c50baf754de1deed933cd8107baaaee2a076c09d306992e9d0f04823f65cee"
MOTIONS = {
    "depositFloorR": "depositing on the floor",
    "elbowToKnee1RepsLelbowStart": "elbow to knee",
    "grabHighR": "grabbing high up",
    "hopBothLegs1hops": "hopping",
    "jogLeftCircle4StepsRstart": "jogging in a circle",
    "kickLFront1Reps": "kicking",
    "lieDownFloor": "lying down",
    "rotateArmsBothBackward1Reps": "rotating the arms",
    "sneak2StepsLStart": "sneaking",
    "squat1Reps": "squatting",
    "throwBasketball": "throwing a basketball",
}
ACTORS = {"train": ("bd", "bk", "dg"), "test": ("mm", "tr")}
# Numbers of the views of every take; higher numbers are views of other bodies, for training.
FIXED, RANDOM = 0, range(1, 6)


def set_scene(name: str, joints: np.ndarray, view: int) -> tuple[np.ndarray, render.View]:
    """Return the body and the view that show a take; both follow from its name and the number.

    Args:
      name: `actor_motion_number`.
      joints: `<float>[frames, joints, 3]`, metres, at 30 frames per second.
      view: 0 is the fixed view, 1 to 5 are random views, 6 and more random views of other bodies.

    Returns:
      `<float>[new frames, joints, 3]` at 12.5 frames per second, and the view.
    """
    camera_view = render.FIXED_VIEW
    if view != FIXED:
        seed = int(hashlib.sha1(f"{name} {view}".encode()).hexdigest()[:8], 16)
        random = np.random.default_rng([seed, 23])
        if view not in RANDOM:
            joints = render.reproportion(joints, random)
        camera_view = render.random_view(random)
    return render.resample(joints, CAPTURE_RATE, RATE), camera_view


def render_take(name: str, joints: np.ndarray, view: int) -> np.ndarray:
    """Render a view of a take: `<uint8>[frames, 64, 64, 3]`; for the arguments see `set_scene`."""
    return render.render(*set_scene(name, joints, view), size=SIZE)


def pose_of_view(name: str, joints: np.ndarray, view: int) -> np.ndarray:
    """Return the pose in each frame of `render_take`, as `render.pose` does."""
    return render.pose(*set_scene(name, joints, view))


def encode_view(row: tuple[str, np.ndarray, int]) -> bytes:
    """Render a view of a take as an mp4 file; the row holds the arguments of `render_take`."""
    return clips.encode(render_take(*row), RATE)


# --- files of motion capture ----------------------------------------------------------------------

CAPTURE_RATE = 30.0  # frames per second: every fourth frame of 120
INCH = 0.0254  # metres

# HDM05 names a joint by the bone that ends in it; here is the name of each joint of the renderer.
_JOINTS = {
    "pelvis": "root",
    "chest": "upperback_@_thorax",
    "neck": "thorax_@_lowerneck",
    "head": "upperneck_@_head",
    **{
        f"{side}_{joint}": bone.replace("*", side[0])
        for side in ("left", "right")
        for joint, bone in (
            ("shoulder", "thorax_@_*clavicle"),
            ("elbow", "*clavicle_@_*humerus"),
            ("wrist", "*humerus_@_*radius"),
            ("hand", "*hand_@_*fingers"),
            ("hip", "root_@_*hipjoint"),
            ("knee", "*hipjoint_@_*femur"),
            ("ankle", "*femur_@_*tibia"),
            ("toe", "*foot_@_*toes"),
        )
    },
}
_LEG = (
    "root_@_*hipjoint",
    "*hipjoint_@_*femur",
    "*femur_@_*tibia",
    "*tibia_@_*foot",
    "*foot_@_*toes",
)
_SPINE = (
    "root_@_lowerback",
    "lowerback_@_upperback",
    "upperback_@_thorax",
    "thorax_@_lowerneck",
    "lowerneck_@_upperneck",
    "upperneck_@_head",
)
_ARM = (
    "thorax_@_*clavicle",
    "*clavicle_@_*humerus",
    "*humerus_@_*radius",
    "*radius_@_*wrist",
    "*wrist_@_*hand",
    "*hand_@_*fingers",
    "*wrist_@_*thumb",
)
# The order of the joints in the files of HDM05.
ORDER = (
    "root",
    *(bone.replace("*", side) for side in "lr" for bone in _LEG),
    *_SPINE,
    *(bone.replace("*", side) for side in "lr" for bone in _ARM),
)


def to_joints(positions: np.ndarray) -> np.ndarray:
    """Convert joint positions of HDM05, in inches, to those of the renderer, in metres.

    Args:
      positions: `<float>[frames, 31, 3]` in the order of `ORDER`.

    Returns:
      `<float>[frames, joints, 3]` in the order of `render.JOINTS`, with the lowest joint on the
      floor.

    Example:
      >>> to_joints(np.ones((5, 31, 3)))[0, 0].tolist()
      [0.0254, 0.0, 0.0254]
    """
    order = [ORDER.index(_JOINTS[joint]) for joint in render.JOINTS]
    joints = positions[:, order].astype(np.float64) * INCH
    joints[..., 1] -= joints[..., 1].min()
    return joints


def read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read the derived file.

    Args:
      path: the file.
      sha256: its published checksum.

    Returns:
      `{actor_motion_number: <float>[frames, joints, 3]}`, see `to_joints`.

    Raises:
      InputError: the file is not the published one.
    """
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    if checksum != sha256:
        raise InputError(f"its SHA-256 is {checksum}, expected {sha256}", path)
    with np.load(path, allow_pickle=False) as arrays:
        if tuple(arrays["joint_names"]) != ORDER:
            raise InputError("its joints are not those of HDM05", path)
        columns = (arrays[name].tolist() for name in ("subject", "motion", "take"))
        names = [
            f"{actor}_{motion}_{take:03d}" for actor, motion, take in zip(*columns, strict=True)
        ]
        takes = np.split(arrays["positions"], arrays["offsets"][1:-1])
    return {name: to_joints(take) for name, take in zip(names, takes, strict=True)}


_MATLAB_ERRORS = (
    scipy.io.matlab.MatReadError,
    KeyError,
    TypeError,
    ValueError,
    NotImplementedError,
)


def read_source(folder: Path) -> dict[str, np.ndarray]:
    """Read the source files `{train,test}/CLASS/HDM_ACTOR_MOTION_NUMBER_120.amc.mat`.

    Args:
      folder: holds the folders `train` and `test`.

    Returns:
      `{actor_motion_number: <float>[frames, joints, 3]}`, see `to_joints`.

    Raises:
      InputError: a file has another form, or there are not 288.
    """
    takes = {}
    for path in sorted(folder.glob("t*/*/HDM_*.[aA][mM][cC].mat")):
        match = re.fullmatch(r"HDM_([a-z]{2})_(\w+)_(\d{3})_120\.amc\.mat", path.name, re.I)
        try:
            # A .mat file of this version holds arrays only: loading it runs no code.
            motion = scipy.io.loadmat(path, simplify_cells=True)["mot"]["jointTrajectories"]
            positions = np.stack(list(motion)).transpose(2, 0, 1)[::4]
            if match is None or positions.shape[1:] != (len(ORDER), 3):
                raise ValueError(f"shape {positions.shape}")
        except _MATLAB_ERRORS as error:
            raise InputError(f"not a motion in the form of HDM05: {error}", path) from error
        actor, name, number = match.groups()
        takes[f"{actor}_{name}_{number}"] = to_joints(positions)
    if len(takes) != 288:
        raise InputError(f"{len(takes)} .amc.mat files; expected 288 in train and test", folder)
    return takes
