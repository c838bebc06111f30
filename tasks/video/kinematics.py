"""Forward kinematics: from the joint angles of an individual's body to joint positions.

Angles are radians. Flexion lifts a limb forwards (0 hangs down, pi/2 points ahead), abduction
lifts it outwards. Elbows bend the forearm up, knees bend the shin back. The body faces +z, and its
left is +x.
"""

from __future__ import annotations

import dataclasses

from tasks.video.render import JOINT_INDEX, JOINTS

import numpy as np

SIDES = ("left", "right")
SIGN = {"left": 1.0, "right": -1.0}


@dataclasses.dataclass(frozen=True)
class Individual:
    """A person: proportions, habits, and the dominant side."""

    stature: float  # metres
    leg: float  # lengths and breadths: fractions of the stature
    arm: float
    torso: float
    shoulders: float
    hips: float
    tempo: float  # factor on every frequency and speed
    reach: float  # factor on the amplitude of every movement
    lean: float  # habitual angles: of the torso, forwards
    elbow: float  # of the elbows, bent
    spread: float  # of the arms, outwards
    stance: float  # of the legs, outwards
    bias: float  # extra amplitude of the dominant arm, fraction
    dominant: str  # side


def individual(number: int) -> Individual:
    """Draw an individual by its number; the same number gives the same individual.

    Example:
      >>> individual(3) == individual(3), individual(3) == individual(4)
      (True, False)
    """
    random = np.random.default_rng([number, 20])
    draw = random.uniform
    return Individual(
        stature=draw(1.50, 1.95),
        leg=draw(0.44, 0.50),
        arm=draw(0.36, 0.42),
        torso=draw(0.27, 0.31),
        shoulders=draw(0.20, 0.25),
        hips=draw(0.10, 0.13),
        tempo=draw(0.80, 1.25),
        reach=draw(0.80, 1.20),
        lean=draw(-0.05, 0.12),
        elbow=draw(0.05, 0.45),
        spread=draw(0.05, 0.25),
        stance=draw(0.02, 0.12),
        bias=draw(0.0, 0.15),
        dominant=str(random.choice(SIDES)),
    )


class Pose:
    """The joint angles of a body over time, each `<float>[frames]`. A new pose stands at ease.

    Args:
      person: the habitual angles.
      frames: number of frames.
    """

    def __init__(self, person: Individual, frames: int):
        zero = np.zeros(frames)
        self.lean = zero + person.lean  # of the torso, forwards
        self.tilt = zero.copy()  # of the torso, to the left
        self.twist = zero.copy()  # of the shoulders, to the left
        self.yaw = zero.copy()  # of the whole body, to the left
        self.lift = zero.copy()  # height of the lower foot above the floor, metres
        self.advance = zero.copy()  # distance covered forwards, metres
        self.shoulder = {side: zero.copy() for side in SIDES}  # flexion
        self.spread = {side: zero + person.spread for side in SIDES}  # abduction of the arm
        self.elbow = {side: zero + person.elbow for side in SIDES}  # flexion
        self.inwards = {side: zero.copy() for side in SIDES}  # adduction of the forearm
        self.hip = {side: zero.copy() for side in SIDES}  # flexion
        self.stance = {side: zero + person.stance for side in SIDES}  # abduction of the leg
        self.knee = {side: zero + 0.05 for side in SIDES}  # flexion


def _direction(flexion: np.ndarray, abduction: np.ndarray, side: str) -> np.ndarray:
    """Return the unit vectors along a limb, `<float>[frames, 3]`."""
    flexion, abduction = np.broadcast_arrays(flexion, abduction)
    return np.stack(
        [
            SIGN[side] * np.sin(abduction),
            -np.cos(flexion) * np.cos(abduction),
            np.sin(flexion) * np.cos(abduction),
        ],
        axis=-1,
    )


def turn(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Turn vectors `<float>[frames, ..., 3]` to the left about the vertical.

    Args:
      vectors: `<float>[frames, ..., 3]`.
      angle: `<float>[frames]`.

    Example:
      >>> turn(np.array([[0.0, 0.0, 1.0]]), np.array([np.pi / 2])).round(3)
      array([[1., 0., 0.]])
    """
    angle = angle.reshape(-1, *[1] * (vectors.ndim - 2))
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=-1)


def joints_of(pose: Pose, person: Individual) -> np.ndarray:
    """Compute joint positions by forward kinematics; the lower foot stands on the floor.

    Args:
      pose: the angles.
      person: the lengths of the bones.

    Returns:
      `<float>[frames, joints, 3]` in metres, in the order of `render.JOINTS`.
    """
    positions = _torso(pose, person)
    for side in SIDES:
        positions |= _arm(pose, person, side, positions["neck"])
        positions |= _leg(pose, person, side)
    joints = turn(np.stack([positions[name] for name in JOINTS], axis=1), pose.yaw)
    feet = [JOINT_INDEX[f"{side}_{part}"] for side in SIDES for part in ("ankle", "toe")]
    joints[..., 1] += (pose.lift - joints[:, feet, 1].min(axis=1))[:, None]
    joints[..., 2] += pose.advance[:, None]
    return joints


def _torso(pose: Pose, person: Individual) -> dict[str, np.ndarray]:
    """Return the joints of the spine by name, each `<float>[frames, 3]`, from the pelvis."""
    size = person.stature
    up = np.stack(
        [np.sin(pose.tilt), np.cos(pose.lean) * np.cos(pose.tilt), np.sin(pose.lean)], axis=-1
    )
    neck = person.torso * size * up
    return {
        "pelvis": np.zeros_like(up),
        "chest": 0.65 * person.torso * size * up,
        "neck": neck,
        "head": neck + 0.14 * size * up,
    }


def _arm(pose: Pose, person: Individual, side: str, neck: np.ndarray) -> dict[str, np.ndarray]:
    """Return the joints of an arm by name, each `<float>[frames, 3]`, from the pelvis."""
    size = person.stature
    upper, fore, hand = (fraction * person.arm * size for fraction in (0.42, 0.37, 0.18))
    outwards = turn(np.broadcast_to((SIGN[side], 0.0, 0.0), neck.shape), pose.twist)
    flexion, abduction = pose.shoulder[side], pose.spread[side]
    along = turn(_direction(flexion, abduction, side), pose.twist)
    bent = _direction(flexion + pose.elbow[side], abduction - pose.inwards[side], side)
    bent = turn(bent, pose.twist)
    shoulder = 0.93 * neck + 0.5 * person.shoulders * size * outwards
    elbow = shoulder + upper * along
    wrist = elbow + fore * bent
    return {
        f"{side}_shoulder": shoulder,
        f"{side}_elbow": elbow,
        f"{side}_wrist": wrist,
        f"{side}_hand": wrist + hand * bent,
    }


def _leg(pose: Pose, person: Individual, side: str) -> dict[str, np.ndarray]:
    """Return the joints of a leg by name, each `<float>[frames, 3]`, from the pelvis."""
    size, flexion, abduction = person.stature, pose.hip[side], pose.stance[side]
    thigh, shin, foot = (fraction * person.leg * size for fraction in (0.49, 0.47, 0.26))
    hip = np.broadcast_to((SIGN[side] * 0.5 * person.hips * size, 0.0, 0.0), (len(flexion), 3))
    shank = flexion - pose.knee[side]
    knee = hip + thigh * _direction(flexion, abduction, side)
    ankle = knee + shin * _direction(shank, abduction, side)
    # The foot is at a right angle to the shin, but flat if the shin leans only a little.
    toe = shank + np.pi / 2.0 - 0.7 * shank.clip(-0.8, 0.8)
    return {
        f"{side}_hip": hip,
        f"{side}_knee": knee,
        f"{side}_ankle": ankle,
        f"{side}_toe": ankle + foot * _direction(toe, 0.0 * toe, side),
    }
