"""Bodies that move by formula: fourteen activities of people who differ in size, speed and style.

    python -m tasks.video.gaits --output clips            # writes a folder of clips per activity

An activity is a function from time to the joint angles of a body; `kinematics` turns the angles
into joint positions, `render` turns the positions into frames. The individual, the take and the
view all follow from numbers, so every clip is different, and the same numbers give the same clip.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

from common.commands import cli
from common.errors import InputError
from tasks.video import clips, render
from tasks.video.kinematics import SIDES, SIGN, Individual, Pose, individual, joints_of

import numpy as np


@dataclasses.dataclass(frozen=True)
class Take:
    """One take of an activity: the individual, the time axis, and random variation."""

    person: Individual
    time: np.ndarray  # <float>[frames], seconds
    seconds: float  # length of the clip
    random: np.random.Generator

    def phase(self, frequency: float) -> np.ndarray:
        """Return the angle of a cyclic movement, `<float>[frames]`, from a random start."""
        start = self.random.uniform(0.0, 2.0 * np.pi)
        pace = frequency * self.person.tempo * self.random.uniform(0.93, 1.07)
        return start + 2.0 * np.pi * pace * self.time

    def progress(self, seconds: float) -> np.ndarray:
        """Return the progress of a single movement, `<float>[frames]`.

        It is 0 before the movement and 1 after it. The movement starts at a random time.
        """
        length = min(seconds / self.person.tempo, 0.95 * self.seconds)
        start = self.random.uniform(0.0, self.seconds - length)
        return ((self.time - start) / length).clip(0.0, 1.0)

    def amplitude(self, value: float) -> float:
        """Scale the amplitude of a movement by the individual's reach and a random factor."""
        return value * self.person.reach * self.random.uniform(0.93, 1.07)

    def sides(self) -> tuple[str, str]:
        """Return the dominant side and the other one."""
        side = self.person.dominant
        return side, SIDES[1 - SIDES.index(side)]


def smooth(x: np.ndarray, start: float = 0.0, end: float = 1.0) -> np.ndarray:
    """Rise from 0 at `start` to 1 at `end` with zero slope at both.

    Example:
      >>> smooth(np.array([0.0, 0.25, 0.5, 1.0]))
      array([0.     , 0.15625, 0.5    , 1.     ])
    """
    u = ((x - start) / (end - start)).clip(0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def positive(x: np.ndarray) -> np.ndarray:
    """Return the positive part."""
    return np.maximum(x, 0.0)


# --- the activities -------------------------------------------------------------------------------


def walking(pose: Pose, take: Take) -> None:
    """Swing legs and arms against each other, with one foot always on the floor."""
    phase = take.phase(0.9)
    step, swing = take.amplitude(0.42), take.amplitude(0.40)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        pose.hip[side] += step * np.sin(phase + shift) + 0.05
        pose.knee[side] += take.amplitude(0.75) * positive(np.cos(phase + shift)) ** 1.5
        pose.shoulder[side] -= swing * np.sin(phase + shift)
    pose.twist += 0.12 * np.sin(phase)
    speed = 0.9 * 4.0 * take.person.tempo * step * take.person.leg * take.person.stature
    pose.advance += speed * take.time


def running(pose: Pose, take: Take) -> None:
    """Step faster, elbows bent and knees high, with both feet off the floor between steps."""
    phase = take.phase(1.4)
    step, swing = take.amplitude(0.75), take.amplitude(0.65)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        pose.hip[side] += step * np.sin(phase + shift) + 0.25
        pose.knee[side] += 0.3 + take.amplitude(1.4) * positive(np.cos(phase + shift - 0.3))
        pose.shoulder[side] -= swing * np.sin(phase + shift)
        pose.elbow[side] += 1.3
    pose.lean += 0.15
    pose.twist += 0.2 * np.sin(phase)
    pose.lift += take.amplitude(0.10) * positive(np.cos(2.0 * phase))
    speed = 1.4 * 4.0 * take.person.tempo * step * take.person.leg * take.person.stature
    pose.advance += speed * take.time


def jumping(pose: Pose, take: Take) -> None:
    """Crouch, swing both arms up and leave the floor, repeatedly."""
    cycle = (take.phase(0.75) / (2.0 * np.pi)) % 1.0
    crouch = np.sin(np.pi * (cycle / 0.5).clip(0.0, 1.0)) ** 2
    flight = ((cycle - 0.5) / 0.38).clip(0.0, 1.0)
    pose.lift += take.amplitude(0.35) * 4.0 * flight * (1.0 - flight)
    landing = 0.4 * np.sin(np.pi * ((cycle - 0.86) / 0.14).clip(0.0, 1.0))
    bend, swing = take.amplitude(0.9) * crouch + landing, take.amplitude(2.2)
    up = smooth(cycle, 0.3, 0.55) * (1.0 - smooth(cycle, 0.7, 0.95))
    for side in SIDES:
        pose.hip[side] += bend
        pose.knee[side] += 1.7 * bend
        pose.shoulder[side] += swing * up - 0.6 * crouch * (1.0 - up)
    pose.lean += 0.5 * bend


def squatting(pose: Pose, take: Take) -> None:
    """Go down with the arms ahead and come up again, repeatedly."""
    depth = take.amplitude(0.9) * (0.5 - 0.5 * np.cos(take.phase(0.5)))
    for side in SIDES:
        pose.hip[side] += 1.9 * depth
        pose.knee[side] += 2.3 * depth
        pose.shoulder[side] += 1.5 * depth.clip(0.0, 1.0)
        pose.stance[side] += 0.12
    pose.lean += 0.45 * depth


def waving(pose: Pose, take: Take) -> None:
    """Raise one arm and swing its forearm from side to side."""
    side, _ = take.sides()
    phase = take.phase(1.8)
    pose.spread[side] = 0.0 * phase + take.random.uniform(1.5, 2.1)
    pose.elbow[side] = 0.0 * phase
    pose.inwards[side] += -take.random.uniform(0.7, 1.0) + take.amplitude(0.5) * np.sin(phase)
    pose.tilt += 0.05 * np.sin(phase)


def clapping(pose: Pose, take: Take) -> None:
    """Bring both hands together ahead of the chest and apart again, quickly."""
    apart = 0.5 - 0.5 * np.cos(take.phase(2.2))
    height = take.random.uniform(0.4, 0.8)
    width = take.amplitude(0.55)
    for side in SIDES:
        pose.shoulder[side] += height
        pose.elbow[side] = 0.0 * apart + take.random.uniform(0.9, 1.2)
        pose.spread[side] = 0.15 + 0.4 * width * apart
        pose.inwards[side] += 0.62 - 0.9 * width * apart


def throwing(pose: Pose, take: Take) -> None:
    """Wind up with one arm over the shoulder, step and hurl."""
    side, other = take.sides()
    done = take.progress(1.4)
    wind = smooth(done, 0.0, 0.45) * (1.0 - smooth(done, 0.5, 0.66))
    hurl = smooth(done, 0.5, 0.66) * (1.0 - smooth(done, 0.8, 1.0))
    pose.shoulder[side] += take.amplitude(2.5) * wind + take.amplitude(1.2) * hurl
    pose.elbow[side] += 1.9 * wind
    pose.shoulder[other] += take.amplitude(1.1) * wind - 0.4 * hurl
    pose.twist -= SIGN[side] * (take.amplitude(0.8) * wind - take.amplitude(0.7) * hurl)
    pose.lean += 0.5 * hurl - 0.2 * wind
    pose.hip[other] += 0.7 * wind + 0.35 * hurl
    pose.knee[other] += 0.8 * wind + 0.2 * hurl
    pose.hip[side] -= 0.35 * hurl


def kicking(pose: Pose, take: Take) -> None:
    """Swing one leg back and shoot it up ahead."""
    side, other = take.sides()
    done = take.progress(1.2)
    back = smooth(done, 0.0, 0.35) * (1.0 - smooth(done, 0.35, 0.55))
    shot = smooth(done, 0.38, 0.58) * (1.0 - smooth(done, 0.68, 1.0))
    pose.hip[side] += take.amplitude(1.45) * shot - take.amplitude(0.5) * back
    pose.knee[side] += 1.2 * back + 0.2 * shot
    pose.hip[other] -= 0.1 * shot
    pose.shoulder[other] += take.amplitude(0.9) * shot - 0.3 * back
    pose.shoulder[side] -= take.amplitude(0.5) * shot
    pose.spread[side] += 0.4 * shot
    pose.lean -= 0.25 * shot - 0.15 * back


def turning(pose: Pose, take: Take) -> None:
    """Turn on the spot with small steps."""
    direction = take.random.choice((-1.0, 1.0))
    pose.yaw += direction * take.amplitude(2.6) * take.person.tempo * take.time
    phase = take.phase(1.5)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        raised = positive(np.sin(phase + shift))
        pose.hip[side] += 0.35 * raised
        pose.knee[side] += 0.7 * raised
        pose.stance[side] += 0.06
    pose.twist += 0.2 * direction


def bowing(pose: Pose, take: Take) -> None:
    """Bend the torso down and up again, with straight legs."""
    done = take.progress(2.0)
    down = smooth(done, 0.0, 0.45) * (1.0 - smooth(done, 0.55, 1.0))
    pose.lean += take.amplitude(1.25) * down
    for side in SIDES:
        pose.shoulder[side] += 0.3 * down
        pose.spread[side] *= 1.0 - 0.5 * down


def _sit(pose: Pose, take: Take, seated: np.ndarray) -> None:
    """Set the pose between standing (0) and sitting on an invisible chair (1)."""
    effort = np.sin(np.pi * seated)
    for side in SIDES:
        pose.hip[side] += take.amplitude(1.5) * seated
        pose.knee[side] += take.amplitude(1.5) * seated
        pose.shoulder[side] += 0.35 * seated + 0.4 * effort
        pose.elbow[side] += 0.4 * seated
    pose.lean += take.amplitude(0.6) * effort


def sitting_down(pose: Pose, take: Take) -> None:
    """Go from standing to sitting."""
    _sit(pose, take, smooth(take.progress(1.5)))


def standing_up(pose: Pose, take: Take) -> None:
    """Go from sitting to standing: `sitting_down` in reverse."""
    _sit(pose, take, 1.0 - smooth(take.progress(1.5)))


def punching(pose: Pose, take: Take) -> None:
    """Strike with each fist in turn from a guard, with one leg ahead."""
    side, other = take.sides()
    phase = take.phase(1.3)
    for arm, shift in (("left", 0.0), ("right", np.pi)):
        out = positive(np.sin(phase + shift)) ** 2
        pose.shoulder[arm] += 0.6 + take.amplitude(0.9) * out
        pose.elbow[arm] = 2.2 - 2.0 * out
        pose.inwards[arm] += 0.3 * (1.0 - out)
        pose.twist -= 0.45 * SIGN[arm] * out
    pose.hip[other] += 0.35
    pose.hip[side] -= 0.25
    for leg in SIDES:
        pose.knee[leg] += 0.25


def jumping_jacks(pose: Pose, take: Take) -> None:
    """Spread legs and arms and bring them together, with a hop."""
    phase = take.phase(1.0)
    out = 0.5 - 0.5 * np.cos(phase)
    for side in SIDES:
        pose.spread[side] += take.amplitude(2.4) * out
        pose.elbow[side] *= 0.5
        pose.stance[side] += take.amplitude(0.4) * out
    pose.lift += take.amplitude(0.08) * np.sin(phase) ** 2


ACTIVITIES: dict[str, Callable[[Pose, Take], None]] = {
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


# --- clips ----------------------------------------------------------------------------------------


def sway(pose: Pose, take: Take) -> None:
    """Add the small involuntary movements of a standing body."""
    angles = [pose.lean, pose.tilt, pose.twist]
    angles += [part[side] for part in (pose.shoulder, pose.elbow, pose.spread) for side in SIDES]
    for angle in angles:
        phase = take.random.uniform(0.0, 2.0 * np.pi)
        pace = take.random.uniform(0.2, 0.7)
        size = take.random.uniform(0.0, 0.06)
        angle += size * np.sin(phase + 2.0 * np.pi * pace * take.time)


def move(activity: str, *, seconds: float, rate: float, seed: int, person: int = 0) -> np.ndarray:
    """Compute the motion of one take of an activity.

    Args:
      activity: one of `ACTIVITIES`.
      seconds: length of the take.
      rate: frames per second.
      seed: number of the take; other numbers give other variations.
      person: number of the individual.

    Returns:
      `<float>[frames, joints, 3]` in metres, in the order of `render.JOINTS`.

    Example:
      >>> move("walking", seconds=2.0, rate=12.5, seed=1).shape
      (25, 20, 3)
    """
    who = individual(person)
    frames = max(1, round(seconds * rate))
    time = (np.arange(frames) + 0.5) / rate
    take = Take(who, time, seconds, np.random.default_rng([person, seed, 21]))
    pose = Pose(who, frames)
    sway(pose, take)
    ACTIVITIES[activity](pose, take)
    pose.shoulder[who.dominant] *= 1.0 + who.bias
    return joints_of(pose, who)


def clip(activity: str, person: int, take: int, *, rate: float, size: int) -> np.ndarray:
    """Render one take of an activity from a random view; the same arguments give the same clip.

    Args:
      activity: one of `ACTIVITIES`.
      person: number of the individual.
      take: number of the take.
      rate: frames per second.
      size: side of the frames, pixels.

    Returns:
      `<uint8>[frames, size, size, 3]`, 2 to 3 seconds long.
    """
    name = f"{activity} {person} {take}"
    seed = int(hashlib.sha1(name.encode()).hexdigest()[:8], 16)
    random = np.random.default_rng([seed, 22])
    joints = move(activity, seconds=random.uniform(2.0, 3.0), rate=rate, seed=seed, person=person)
    return render.render(joints, render.random_view(random), size=size)


def encode_clip(take: tuple[str, int, int], *, rate: float, size: int) -> bytes:
    """Render an activity, an individual and a take as an mp4 file; see `clip`."""
    return clips.encode(clip(*take, rate=rate, size=size), rate)


# --- the command ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaitsFlags:
    """Flags of `gaits`."""

    output: Path
    """folder to write into; each activity has a folder of its own in it"""
    people: tuple[int, ...] = (1000, 1001)
    """numbers of individuals; those from 1000 on are in no data set"""
    takes: int = 1
    """clips per activity and individual"""
    rate: float = 12.5
    """frames per second"""
    size: int = 64
    """side of the frames, pixels"""


def main(argv: list[str]) -> None:
    """Write mp4 files; see the module."""
    flags = cli.parse(GaitsFlags, argv, doc=__doc__)
    if flags.takes < 1 or flags.rate <= 0 or not 16 <= flags.size <= 1024:
        raise InputError("--takes must be 1 or more, --rate positive, --size from 16 to 1024")
    for activity in ACTIVITIES:
        folder = flags.output / activity
        folder.mkdir(parents=True, exist_ok=True)
        for person in flags.people:
            for take in range(flags.takes):
                path = folder / f"{activity.replace(' ', '_')}_g{person}_c{take:02d}.mp4"
                content = encode_clip((activity, person, take), rate=flags.rate, size=flags.size)
                path.write_bytes(content)
        cli.say(f"{folder}: {len(flags.people) * flags.takes} clips")


if __name__ == "__main__":
    cli.run(main)
