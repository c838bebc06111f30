from tasks.video import gaits, kinematics, render
from tests.tasks.video.samples import bone_lengths

import numpy as np
import pytest


@pytest.mark.parametrize("activity", gaits.ACTIVITIES)
def test_bodies_have_bones_and_stand_on_the_floor(activity):
    for person in (0, 7):
        joints = gaits.move(activity, seconds=3.0, rate=25.0, seed=1, person=person)
        # Shoulders and hips turn against the spine; the bones of the limbs never change.
        limbs = [
            number
            for number, joint in enumerate(j for j, p in render.PARENTS.items() if j != p)
            if joint.split("_")[-1] in ("elbow", "wrist", "hand", "knee", "ankle", "toe")
        ]
        assert np.ptp(bone_lengths(joints)[:, limbs], axis=0).max() < 1e-9
        lowest = joints[..., 1].min(axis=1)
        assert lowest.min() >= -0.3  # a bowing hand may pass the toes, not the ground by far
        if activity not in ("running", "jumping", "jumping jacks"):
            names = (f"{side}_{part}" for side in kinematics.SIDES for part in ("ankle", "toe"))
            feet = [render.JOINT_INDEX[name] for name in names]
            np.testing.assert_allclose(joints[:, feet, 1].min(axis=1), 0.0, atol=1e-9)
