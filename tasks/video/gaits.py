"""Bodies that move by formula: fourteen activities of people who differ in size, speed and style.

    python -m tasks.video.gaits --output clips            # some clips, a folder per activity

An activity is a function from time to the angles of a body's joints; forward kinematics turns them
into positions, and the lowest foot stands on the floor. `Individual` holds what a person is: the
lengths of the bones, tempo, reach, posture, the preferred side. No two clips are the same.

Angles are radians. Flexion lifts a limb forwards (0: it hangs, pi/2: it points ahead), abduction
lifts it outwards; elbows bend the forearm up, knees the shin back. The body faces +z, its left
is +x.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from common.commands import cli
from common.errors import InputError
from tasks.video import clips, render

import numpy as np

SIDES = ("left", "right")
SIGN = {"left": 1.0, "right": -1.0}


@dataclasses.dataclass(frozen=True)
class Individual:
    """A person: bones in metres, habits as factors and angles."""

    stature: float
    leg: float  # shares of the stature
    arm: float
    torso: float
    shoulders: float
    hips: float
    tempo: float  # factor of every speed
    reach: float  # factor of every movement's size
    lean: float  # forwards, always
    elbow: float  # bent, always
    spread: float  # of the arms, always
    stance: float  # of the legs, always
    bias: float  # how much farther the better side moves
    side: str  # the better one


def individual(number: int) -> Individual:
    """The person of a number, the same wherever it is asked for.

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
        side=str(random.choice(SIDES)),
    )


class Pose:
    """The angles of a body over time, each `<float>[frames]`; starts as standing at ease."""

    def __init__(self, person: Individual, frames: int):
        """Stands at ease."""
        zero = np.zeros(frames)
        self.lean = zero + person.lean  # of the torso, forwards
        self.tilt = zero.copy()  # of the torso, to the left
        self.twist = zero.copy()  # of the shoulders, to the left
        self.yaw = zero.copy()  # of the whole body, to the left
        self.lift = zero.copy()  # metres of the lower foot over the floor
        self.ahead = zero.copy()  # metres that the body has walked
        self.shoulder = {side: zero.copy() for side in SIDES}
        self.spread = {side: zero + person.spread for side in SIDES}
        self.elbow = {side: zero + person.elbow for side in SIDES}
        self.inwards = {side: zero.copy() for side in SIDES}  # of the forearm
        self.hip = {side: zero.copy() for side in SIDES}
        self.stance = {side: zero + person.stance for side in SIDES}
        self.knee = {side: zero + 0.05 for side in SIDES}


@dataclasses.dataclass(frozen=True)
class Moment:
    """What an activity is given: who, when, and what this one time is like."""

    person: Individual
    time: np.ndarray  # <float>[frames], seconds
    seconds: float
    random: np.random.Generator

    def phase(self, frequency: float) -> np.ndarray:
        """A cycle's angle, from anywhere on: `<float>[frames]`."""
        turn = self.random.uniform(0.0, 2.0 * np.pi)
        pace = frequency * self.person.tempo * self.random.uniform(0.93, 1.07)
        return turn + 2.0 * np.pi * pace * self.time

    def progress(self, seconds: float) -> np.ndarray:
        """0 before a single movement, 1 behind it; it lies anywhere in the clip."""
        length = min(seconds / self.person.tempo, 0.95 * self.seconds)
        start = self.random.uniform(0.0, self.seconds - length)
        return ((self.time - start) / length).clip(0.0, 1.0)

    def size(self, value: float) -> float:
        """A movement's size, this time."""
        return value * self.person.reach * self.random.uniform(0.93, 1.07)

    def strong(self) -> tuple[str, str]:
        """The side that does it, and the other one."""
        side = self.person.side
        return side, SIDES[1 - SIDES.index(side)]


def smooth(x: np.ndarray, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """Rises from 0 at `start` to 1 at `end`, without a jerk."""
    u = ((x - start) / (end - start)).clip(0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def positive(x: np.ndarray) -> np.ndarray:
    """The part above 0."""
    return np.maximum(x, 0.0)


# --- the activities -------------------------------------------------------------------------------


def walking(pose: Pose, now: Moment) -> None:
    """Legs and arms swing against each other, one foot always on the floor."""
    phase = now.phase(0.9)
    step, swing = now.size(0.42), now.size(0.40)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        pose.hip[side] += step * np.sin(phase + shift) + 0.05
        pose.knee[side] += now.size(0.75) * positive(np.cos(phase + shift)) ** 1.5
        pose.shoulder[side] -= swing * np.sin(phase + shift)
    pose.twist += 0.12 * np.sin(phase)
    speed = 0.9 * 4.0 * now.person.tempo * step * now.person.leg * now.person.stature
    pose.ahead += speed * now.time


def running(pose: Pose, now: Moment) -> None:
    """Faster, elbows bent, knees high, both feet off the floor between the steps."""
    phase = now.phase(1.4)
    step, swing = now.size(0.75), now.size(0.65)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        pose.hip[side] += step * np.sin(phase + shift) + 0.25
        pose.knee[side] += 0.3 + now.size(1.4) * positive(np.cos(phase + shift - 0.3))
        pose.shoulder[side] -= swing * np.sin(phase + shift)
        pose.elbow[side] += 1.3
    pose.lean += 0.15
    pose.twist += 0.2 * np.sin(phase)
    pose.lift += now.size(0.10) * positive(np.cos(2.0 * phase))
    speed = 1.4 * 4.0 * now.person.tempo * step * now.person.leg * now.person.stature
    pose.ahead += speed * now.time


def jumping(pose: Pose, now: Moment) -> None:
    """Crouches, swings both arms up and leaves the floor, again and again."""
    cycle = (now.phase(0.75) / (2.0 * np.pi)) % 1.0
    crouch = np.sin(np.pi * (cycle / 0.5).clip(0.0, 1.0)) ** 2
    flight = ((cycle - 0.5) / 0.38).clip(0.0, 1.0)
    pose.lift += now.size(0.35) * 4.0 * flight * (1.0 - flight)
    landing = 0.4 * np.sin(np.pi * ((cycle - 0.86) / 0.14).clip(0.0, 1.0))
    bend, swing = now.size(0.9) * crouch + landing, now.size(2.2)
    up = smooth(cycle, 0.3, 0.55) * (1.0 - smooth(cycle, 0.7, 0.95))
    for side in SIDES:
        pose.hip[side] += bend
        pose.knee[side] += 1.7 * bend
        pose.shoulder[side] += swing * up - 0.6 * crouch * (1.0 - up)
    pose.lean += 0.5 * bend


def squatting(pose: Pose, now: Moment) -> None:
    """Goes down with the arms ahead and comes up again, again and again."""
    depth = now.size(0.9) * (0.5 - 0.5 * np.cos(now.phase(0.5)))
    for side in SIDES:
        pose.hip[side] += 1.9 * depth
        pose.knee[side] += 2.3 * depth
        pose.shoulder[side] += 1.5 * depth.clip(0.0, 1.0)
        pose.stance[side] += 0.12
    pose.lean += 0.45 * depth


def waving(pose: Pose, now: Moment) -> None:
    """One arm is up, its forearm swings from side to side."""
    side, _ = now.strong()
    phase = now.phase(1.8)
    pose.spread[side] = 0.0 * phase + now.random.uniform(1.5, 2.1)
    pose.elbow[side] = 0.0 * phase
    pose.inwards[side] += -now.random.uniform(0.7, 1.0) + now.size(0.5) * np.sin(phase)
    pose.tilt += 0.05 * np.sin(phase)


def clapping(pose: Pose, now: Moment) -> None:
    """Both hands meet ahead of the chest and part again, quickly."""
    apart = 0.5 - 0.5 * np.cos(now.phase(2.2))
    height = now.random.uniform(0.4, 0.8)
    width = now.size(0.55)
    for side in SIDES:
        pose.shoulder[side] += height
        pose.elbow[side] = 0.0 * apart + now.random.uniform(0.9, 1.2)
        pose.spread[side] = 0.15 + 0.4 * width * apart
        pose.inwards[side] += 0.62 - 0.9 * width * apart


def throwing(pose: Pose, now: Moment) -> None:
    """Winds up with one arm behind the head, steps and hurls."""
    side, other = now.strong()
    done = now.progress(1.4)
    wind = smooth(done, 0.0, 0.45) * (1.0 - smooth(done, 0.5, 0.66))
    hurl = smooth(done, 0.5, 0.66) * (1.0 - smooth(done, 0.8, 1.0))
    pose.shoulder[side] += now.size(2.5) * wind + now.size(1.2) * hurl
    pose.elbow[side] += 1.9 * wind
    pose.shoulder[other] += now.size(1.1) * wind - 0.4 * hurl
    pose.twist -= SIGN[side] * (now.size(0.8) * wind - now.size(0.7) * hurl)
    pose.lean += 0.5 * hurl - 0.2 * wind
    pose.hip[other] += 0.7 * wind + 0.35 * hurl
    pose.knee[other] += 0.8 * wind + 0.2 * hurl
    pose.hip[side] -= 0.35 * hurl


def kicking(pose: Pose, now: Moment) -> None:
    """One leg swings back and shoots up ahead."""
    side, other = now.strong()
    done = now.progress(1.2)
    back = smooth(done, 0.0, 0.35) * (1.0 - smooth(done, 0.35, 0.55))
    shot = smooth(done, 0.38, 0.58) * (1.0 - smooth(done, 0.68, 1.0))
    pose.hip[side] += now.size(1.45) * shot - now.size(0.5) * back
    pose.knee[side] += 1.2 * back + 0.2 * shot
    pose.hip[other] -= 0.1 * shot
    pose.shoulder[other] += now.size(0.9) * shot - 0.3 * back
    pose.shoulder[side] -= now.size(0.5) * shot
    pose.spread[side] += 0.4 * shot
    pose.lean -= 0.25 * shot - 0.15 * back


def turning(pose: Pose, now: Moment) -> None:
    """Turns about itself with small steps."""
    direction = now.random.choice((-1.0, 1.0))
    pose.yaw += direction * now.size(2.6) * now.person.tempo * now.time
    phase = now.phase(1.5)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        raised = positive(np.sin(phase + shift))
        pose.hip[side] += 0.35 * raised
        pose.knee[side] += 0.7 * raised
        pose.stance[side] += 0.06
    pose.twist += 0.2 * direction


def bowing(pose: Pose, now: Moment) -> None:
    """The torso goes down and comes up again, the legs stay straight."""
    done = now.progress(2.0)
    down = smooth(done, 0.0, 0.45) * (1.0 - smooth(done, 0.55, 1.0))
    pose.lean += now.size(1.25) * down
    for side in SIDES:
        pose.shoulder[side] += 0.3 * down
        pose.spread[side] *= 1.0 - 0.5 * down


def _seated(pose: Pose, now: Moment, share: np.ndarray) -> None:
    """Between standing (0) and sitting on a chair that one does not see (1)."""
    effort = np.sin(np.pi * share)
    for side in SIDES:
        pose.hip[side] += now.size(1.5) * share
        pose.knee[side] += now.size(1.5) * share
        pose.shoulder[side] += 0.35 * share + 0.4 * effort
        pose.elbow[side] += 0.4 * share
    pose.lean += now.size(0.6) * effort


def sitting_down(pose: Pose, now: Moment) -> None:
    """From standing to sitting."""
    _seated(pose, now, smooth(now.progress(1.5)))


def standing_up(pose: Pose, now: Moment) -> None:
    """From sitting to standing: `sitting_down` seen backwards."""
    _seated(pose, now, 1.0 - smooth(now.progress(1.5)))


def punching(pose: Pose, now: Moment) -> None:
    """The fists shoot out in turn from a guard, one leg ahead."""
    side, other = now.strong()
    phase = now.phase(1.3)
    for arm, shift in (("left", 0.0), ("right", np.pi)):
        out = positive(np.sin(phase + shift)) ** 2
        pose.shoulder[arm] += 0.6 + now.size(0.9) * out
        pose.elbow[arm] = 2.2 - 2.0 * out
        pose.inwards[arm] += 0.3 * (1.0 - out)
        pose.twist -= 0.45 * SIGN[arm] * out
    pose.hip[other] += 0.35
    pose.hip[side] -= 0.25
    for leg in SIDES:
        pose.knee[leg] += 0.25


def jumping_jacks(pose: Pose, now: Moment) -> None:
    """Legs and arms go out and together, with a hop."""
    phase = now.phase(1.0)
    out = 0.5 - 0.5 * np.cos(phase)
    for side in SIDES:
        pose.spread[side] += now.size(2.4) * out
        pose.elbow[side] *= 0.5
        pose.stance[side] += now.size(0.4) * out
    pose.lift += now.size(0.08) * np.sin(phase) ** 2


ACTIVITIES: dict[str, Callable[[Pose, Moment], None]] = {
    "walking": walking,
    "running": running,
    "jumping": jumping,
    "squatting": squatting,
    "waving": waving,
    "clapping": clapping,
    "throwing": throwing,
    "kicking": kicking,
    "turning": turning,
    "bowing": bowing,
    "sitting down": sitting_down,
    "standing up": standing_up,
    "punching": punching,
    "jumping jacks": jumping_jacks,
}


# --- from angles to joints ------------------------------------------------------------------------


def _direction(flexion: np.ndarray, abduction: np.ndarray, side: str) -> np.ndarray:
    """Where a limb points, `<float>[frames, 3]`."""
    flexion, abduction = np.broadcast_arrays(flexion, abduction)
    return np.stack(
        [
            SIGN[side] * np.sin(abduction),
            -np.cos(flexion) * np.cos(abduction),
            np.sin(flexion) * np.cos(abduction),
        ],
        axis=-1,
    )


def _turned(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Vectors `<float>[frames, ..., 3]` turned to the left about the vertical."""
    angle = angle.reshape(-1, *[1] * (vectors.ndim - 2))
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=-1)


def joints_of(pose: Pose, person: Individual) -> np.ndarray:
    """Forward kinematics: `<float>[frames, joints, 3]` in the order of `render.JOINTS`."""
    size = person.stature
    up = np.stack(
        [np.sin(pose.tilt), np.cos(pose.lean) * np.cos(pose.tilt), np.sin(pose.lean)], axis=-1
    )
    at: dict[str, np.ndarray] = {"pelvis": np.zeros_like(up)}
    at["chest"] = 0.65 * person.torso * size * up
    at["neck"] = person.torso * size * up
    at["head"] = at["neck"] + 0.14 * size * up
    thigh, shin, foot = (share * person.leg * size for share in (0.49, 0.47, 0.26))
    upper, fore, hand = (share * person.arm * size for share in (0.42, 0.37, 0.18))
    for side in SIDES:
        outwards = np.broadcast_to((SIGN[side], 0.0, 0.0), up.shape)
        outwards = _turned(outwards, pose.twist)
        shoulder = 0.93 * at["neck"] + 0.5 * person.shoulders * size * outwards
        arm = _turned(_direction(pose.shoulder[side], pose.spread[side], side), pose.twist)
        bent = _direction(
            pose.shoulder[side] + pose.elbow[side], pose.spread[side] - pose.inwards[side], side
        )
        bent = _turned(bent, pose.twist)
        at[f"{side}_shoulder"] = shoulder
        at[f"{side}_elbow"] = shoulder + upper * arm
        at[f"{side}_wrist"] = at[f"{side}_elbow"] + fore * bent
        at[f"{side}_hand"] = at[f"{side}_wrist"] + hand * bent
        hip = np.broadcast_to((SIGN[side] * 0.5 * person.hips * size, 0.0, 0.0), up.shape)
        shank = pose.hip[side] - pose.knee[side]
        at[f"{side}_hip"] = hip
        at[f"{side}_knee"] = hip + thigh * _direction(pose.hip[side], pose.stance[side], side)
        at[f"{side}_ankle"] = at[f"{side}_knee"] + shin * _direction(shank, pose.stance[side], side)
        # The foot is at a right angle to the shin, but flat where the shin leans only a little.
        toe = shank + np.pi / 2.0 - 0.7 * shank.clip(-0.8, 0.8)
        at[f"{side}_toe"] = at[f"{side}_ankle"] + foot * _direction(toe, 0.0 * toe, side)
    joints = _turned(render.stack_joints(at), pose.yaw)
    feet = [render.PLACE[f"{side}_{part}"] for side in SIDES for part in ("ankle", "toe")]
    joints[..., 1] += (pose.lift - joints[:, feet, 1].min(axis=1))[:, None]
    joints[..., 2] += pose.ahead[:, None]
    return joints


def sway(pose: Pose, now: Moment) -> None:
    """The small movements that nobody can suppress."""
    angles = [pose.lean, pose.tilt, pose.twist]
    angles += [part[side] for part in (pose.shoulder, pose.elbow, pose.spread) for side in SIDES]
    for angle in angles:
        phase = now.random.uniform(0.0, 2.0 * np.pi)
        pace = now.random.uniform(0.2, 0.7)
        size = now.random.uniform(0.0, 0.06)
        angle += size * np.sin(phase + 2.0 * np.pi * pace * now.time)


def move(activity: str, *, seconds: float, rate: float, seed: int, person: int = 0) -> np.ndarray:
    """Lets a person do something.

    Args:
      activity: one of `ACTIVITIES`.
      seconds: how long.
      rate: frames a second.
      seed: makes this time different from others.
      person: which individual.

    Returns:
      `<float>[frames, joints, 3]` in metres, in the order of `render.JOINTS`.
    """
    who = individual(person)
    frames = max(1, round(seconds * rate))
    time = (np.arange(frames) + 0.5) / rate
    now = Moment(who, time, seconds, np.random.default_rng([person, seed, 21]))
    pose = Pose(who, frames)
    sway(pose, now)
    ACTIVITIES[activity](pose, now)
    better = who.side
    pose.shoulder[better] *= 1.0 + who.bias
    return joints_of(pose, who)


def clip(activity: str, person: int, take: int, *, rate: float, size: int) -> np.ndarray:
    """Renders one time that somebody does something, seen from anywhere: the same for the same.

    Returns:
      `<uint8>[frames, size, size, 3]`, 2 to 3 seconds long.
    """
    name = f"{activity} {person} {take}"
    seed = int(hashlib.sha1(name.encode()).hexdigest()[:8], 16)
    random = np.random.default_rng([seed, 22])
    joints = move(activity, seconds=random.uniform(2.0, 3.0), rate=rate, seed=seed, person=person)
    return render.render(joints, render.random_view(random), size=size)


# --- clips for people who want to see them --------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaits:
    """Flags of `gaits`."""

    output: Path
    """the folder to write into; each activity gets a folder of its own in it"""
    people: tuple[int, ...] = (1000, 1001)
    """numbers of individuals; those from 1000 on are in no data set"""
    takes: int = 1
    """clips of each activity and individual"""
    rate: float = 12.5
    """frames a second"""
    size: int = 64
    """pixels a side"""


def main(argv: list[str]) -> None:
    """Writes mp4 files; see the module."""
    flags = cli.parse(Gaits, argv, doc=__doc__)
    if flags.takes < 1 or flags.rate <= 0 or not 16 <= flags.size <= 1024:
        raise InputError("--takes must be 1 or more, --rate positive, --size from 16 to 1024")
    for activity in ACTIVITIES:
        folder = flags.output / activity
        folder.mkdir(parents=True, exist_ok=True)
        for person in flags.people:
            for take in range(flags.takes):
                frames = clip(activity, person, take, rate=flags.rate, size=flags.size)
                path = folder / f"{activity.replace(' ', '_')}_g{person}_c{take:02d}.mp4"
                path.write_bytes(clips.encode(frames, flags.rate))
        cli.say(f"{folder}: {len(flags.people) * flags.takes} clips")


if __name__ == "__main__":
    cli.run(main)
