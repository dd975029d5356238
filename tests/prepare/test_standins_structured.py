"""The stand-ins of the specialized and structured tasks: same seed same bytes, every class drawn, labels that the
geometry bears out.
"""

import hashlib
import importlib

import numpy as np
import pytest

from vtabflow.standins import (
    aerial,
    clevr,
    dmlab,
    dsprites,
    eurosat,
    kitti,
    patch_camelyon,
    resisc45,
    retinopathy,
    smallnorb,
    solids,
)

# Module -> channels, and the SHA-256 (first 16 digits) of eight images of 32 x 32 with their labels.
MODULES = {
    "patch_camelyon": (3, "bee1a27593c42086"),
    "eurosat": (3, "d866091da00fbc54"),
    "resisc45": (3, "1dc0fedf0cf810d8"),
    "retinopathy": (3, "eb093a123422341f"),
    "clevr": (3, "162159edcdc0cef6"),
    "dmlab": (3, "4917a78a3e00829b"),
    "kitti": (3, "b4e1a00574bfd030"),
    "dsprites": (1, "acae6eb97a80af1d"),
    "smallnorb": (1, "2d813dacfccd3c5b"),
}
CLASSES = {
    "patch-camelyon-standin": 2,
    "eurosat-standin": 10,
    "resisc45-standin": 45,
    "diabetic-retinopathy-standin": 5,
    "clevr-count-standin": 8,
    "clevr-distance-standin": 6,
    "dmlab-standin": 6,
    "kitti-distance-standin": 4,
    "dsprites-location-standin": 16,
    "dsprites-orientation-standin": 16,
    "smallnorb-azimuth-standin": 18,
    "smallnorb-elevation-standin": 9,
}
# Shares of the classes where they are not even.
SHARES = {
    "diabetic-retinopathy-standin": retinopathy.SHARES,
    "dsprites-orientation-standin": [3 / 40 if k % 2 == 0 else 2 / 40 for k in range(16)],
}


def module(name):
    return importlib.import_module(f"vtabflow.standins.{name}")


def rng(seed):
    return np.random.default_rng(seed)


def test_tasks_and_their_numbers_of_classes():
    assert {task: k for name in MODULES for task, k in module(name).TASKS.items()} == CLASSES


@pytest.mark.parametrize("name", MODULES)
def test_bytes_are_frozen(name):
    draw, found = module(name).draw, hashlib.sha256()
    for seed in range(8):
        image, labels = draw(rng(seed), 32)
        found.update(image.tobytes())
        found.update(repr(sorted((task, int(k)) for task, k in labels.items())).encode())
    assert found.hexdigest()[:16] == MODULES[name][1]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("size", [16, 21, 32, 64, 256])
def test_any_size_gives_a_picture_and_the_same_labels(name, size):
    draw, channels = module(name).draw, MODULES[name][0]
    for seed in range(3 if size < 256 else 1):
        image, labels = draw(rng(seed), size)
        assert image.shape == (size, size, channels) and image.dtype == np.uint8
        assert image.std() > 1
        assert labels.keys() == module(name).TASKS.keys()
        assert all(type(k) is int and 0 <= k < module(name).TASKS[task] for task, k in labels.items())


@pytest.mark.parametrize("name", MODULES)
def test_every_picture_differs_and_classes_have_their_shares(name):
    n = 900 if name == "resisc45" else 450
    drawn = [module(name).draw(rng(10_000 + seed), 16) for seed in range(n)]
    assert len({image.tobytes() for image, _ in drawn}) == n
    for task, classes in module(name).TASKS.items():
        counts = np.bincount([labels[task] for _, labels in drawn], minlength=classes)
        expected = n * np.array(SHARES.get(task, [1 / classes] * classes))
        assert len(counts) == classes and counts.min() > 0
        # Five standard deviations; the bins of the nearest depth are even to a tenth only.
        slack = 0.15 * expected if task == "clevr-distance-standin" else 0
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected) + slack), (task, counts)


def test_no_single_brightness_gives_the_label_away():
    """The mean grey of an image explains little of the labels that depend on geometry alone."""
    for name in ("clevr", "dsprites", "smallnorb", "dmlab"):
        drawn = [module(name).draw(rng(seed), 16) for seed in range(300)]
        means = np.array([image.mean() for image, _ in drawn])
        for task in module(name).TASKS:
            labels = np.array([found[task] for _, found in drawn], dtype=float)
            assert abs(np.corrcoef(means, labels)[0, 1]) < 0.35, task


# --- dSprites


@pytest.mark.parametrize("shape", dsprites.SHAPES)
def test_sprites_lie_where_their_label_says(shape):
    size, x = 128, (np.arange(128) + 0.5) / 128
    for column, row, angle in [(0, 3, 0), (9, 31, 7), (20, 16, 23), (31, 0, 39)]:
        alpha = dsprites.sprite(shape, 0.16, angle, column, row, size)
        middle = (alpha.sum(axis=0) * x).sum() / alpha.sum(), (alpha.sum(axis=1) * x).sum() / alpha.sum()
        step = (1 - 2 * dsprites.MARGIN) / 31
        assert (np.array(middle) - dsprites.MARGIN) / step == pytest.approx([column, row], abs=0.15)


@pytest.mark.parametrize("shape", dsprites.SHAPES)
def test_a_sprite_looks_different_at_every_angle(shape):
    views = np.array([dsprites.sprite(shape, 0.2, angle, 16, 16, 64) for angle in range(40)])
    apart = np.abs(views[:, None] - views[None]).sum(axis=(2, 3)) / views[0].sum()
    assert apart[~np.eye(40, dtype=bool)].min() > 0.02


def test_sprites_turn_by_fortieths():
    """Ten steps are a quarter turn: clockwise on the screen, as y points down."""
    for shape in dsprites.SHAPES:
        first, quarter = (dsprites.sprite(shape, 0.2, angle, 15.5, 15.5, 64) for angle in (3, 13))
        assert np.allclose(quarter, np.rot90(first, -1), atol=1e-9)


def test_the_foreground_of_drawn_sprites_has_the_location_of_its_class():
    """Independent of `sprite`: the foreground is found in the image by its grey."""
    hits = 0
    for seed in range(60):
        image, labels = dsprites.draw(rng(seed), 64)
        grey = image[..., 0].astype(float)
        edge = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
        front = np.abs(grey - edge) > 0.55 * np.abs(grey - edge).max()
        place = ((np.nonzero(front)[1] + 0.5) / 64).mean()
        column = (place - dsprites.MARGIN) / (1 - 2 * dsprites.MARGIN) * 31
        hits += abs(column - (2 * labels["dsprites-location-standin"] + 0.5)) < 1.5
    assert hits >= 54


def test_orientation_bins_are_unequal_as_in_vtab():
    per_class = np.bincount([int(angle / 2.5) for angle in range(40)])
    assert per_class.tolist() == [3, 2] * 8
    seen = {}
    for seed in range(2500):
        generator = rng(seed)
        labels = dsprites.draw(rng(seed), 16)[1]
        generator.integers(3), generator.integers(6)
        seen.setdefault(labels["dsprites-orientation-standin"], set()).add(int(generator.integers(40)))
    assert [len(seen[k]) for k in range(16)] == [3, 2] * 8


# --- CLEVR


def test_clevr_shows_as_many_objects_as_its_count():
    shown = total = 0
    for seed in range(40):
        what = clevr.scene(rng(seed))
        rendered = clevr.render(what, 128, np.zeros((128, 128)))
        owners = np.unique(rendered.owner[rendered.owner >= 0])
        assert 3 <= what.count() <= 10 and len(owners) <= what.count()
        shown, total = shown + len(owners), total + what.count()
        assert clevr.draw(rng(seed), 16)[1]["clevr-count-standin"] == what.count() - 3
    assert shown > 0.98 * total


def test_clevr_counts_separate_blobs_of_an_easy_scene():
    """Objects that stand apart are as many connected patches of colour: counted by flood fill in the image itself."""
    what = clevr.scene(rng(1))
    spots = [(-2.5, -2.0), (0.0, -2.0), (2.5, -2.0), (-1.3, 1.5), (1.3, 1.5)]
    red = np.array([0.9, 0.1, 0.1])
    easy = [
        solids.Solid(k, np.array([*at, 0.5]), np.full(3, 0.5), np.eye(3), red)
        for at, k in zip(spots, clevr.KINDS * 2, strict=False)
    ]
    image = clevr.render(clevr.Scene(easy, what.camera, what.light, 0.5, np.ones(3)), 96, np.zeros((96, 96))).image
    assert blobs(image[..., 0] - image[..., 1] > 0.15) == 5


def blobs(mask):
    left, found = {tuple(p) for p in np.argwhere(mask).tolist()}, 0
    while left:
        found += 1
        queue = [left.pop()]
        while queue:
            i, j = queue.pop()
            for neighbour in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if neighbour in left:
                    left.remove(neighbour)
                    queue.append(neighbour)
    return found


def test_clevr_distance_is_the_depth_that_the_picture_has():
    """The nearest surface is in front of the nearest centre by no more than an object's half diagonal."""
    for seed in range(20):
        what = clevr.scene(rng(seed))
        depth = clevr.render(what, 96, np.zeros((96, 96))).depth
        assert 0 < what.nearest() - depth.min() < 1.2
        eye, forward = what.camera.position, what.camera.axes[2]
        depths = [float((solid.centre - eye) @ forward) for solid in what.solids]
        label = int(np.digitize(min(depths), clevr.THRESHOLDS, right=True))
        assert clevr.draw(rng(seed), 16)[1]["clevr-distance-standin"] == label


def test_clevr_objects_do_not_touch():
    for seed in range(20):
        what = clevr.scene(rng(seed))
        for i, a in enumerate(what.solids):
            for b in what.solids[:i]:
                assert np.hypot(*(a.centre - b.centre)[:2]) > a.half[0] + b.half[0] + 0.19


# --- solids: rays against brute force


@pytest.mark.parametrize("kind", ["sphere", "box", "cylinder"])
def test_rays_meet_solids_where_a_fine_march_along_them_does(kind):
    generator = rng(5)
    solid = solids.Solid(kind, np.array([0.2, 3.0, 0.9]), np.array([0.8, 0.5, 0.6]), solids.turn(0.7), np.ones(1))
    camera = solids.look_at(np.array([0.4, -1.0, 2.0]), np.array([0.1, 3.0, 0.8]), (1.1, 1.3))
    rendered = solids.RenderedImage(camera, 24, np.zeros((24, 24, 1)))
    rendered.add(solid, 0, np.array([0.0, 0.0, 1.0]), 0.5)
    rays = rendered.rays(np.eye(3), slice(0, 24), slice(0, 24))
    steps = np.arange(0.5, 7.0, 0.002)
    for i, j in generator.integers(0, 24, (120, 2)):
        points = (camera.position + steps[:, None] * rays[:, i, j] - solid.centre) @ solid.axes.T / solid.half
        square = points**2
        inside = {
            "sphere": square.sum(axis=1) < 1,
            "box": np.abs(points).max(axis=1) < 1,
            "cylinder": (square[:, 0] + square[:, 1] < 1) & (np.abs(points[:, 2]) < 1),
        }[kind]
        if inside.sum() > 3:
            assert rendered.depth[i, j] == pytest.approx(steps[inside.argmax()], abs=0.004)
        elif not inside.any():
            assert rendered.owner[i, j] == -1
    assert 30 < (rendered.owner == 0).sum() < 400


@pytest.mark.parametrize("kind", ["sphere", "box", "cylinder"])
def test_surfaces_are_lit_by_the_cosine_to_the_light(kind):
    """Against normals found by differences of each solid's own inequality, at the points that the image's depth
    gives.
    """
    solid = solids.Solid(kind, np.array([0.1, 2.0, 0.7]), np.array([0.7, 0.5, 0.6]), solids.turn(0.5), np.ones(1))
    camera = solids.look_at(np.array([0.4, -1.5, 2.2]), np.array([0.1, 2.0, 0.7]), (1.2, 1.2))
    light, ambient = solids.unit(np.array([0.5, -0.8, 0.9])), 0.3
    rendered = solids.RenderedImage(camera, 48, np.zeros((48, 48, 1)))
    rendered.add(solid, 0, light, ambient)

    def level(points):
        a, b, c = np.abs((points - solid.centre) @ solid.axes.T / solid.half).T
        return {"sphere": np.sqrt(a * a + b * b + c * c), "box": np.maximum(np.maximum(a, b), c)}.get(
            kind, np.maximum(np.hypot(a, b), c)
        )

    i, j = np.nonzero(rendered.owner == 0)
    rays = rendered.rays(np.eye(3), slice(0, 48), slice(0, 48))[:, i, j].T
    points = camera.position + rendered.depth[i, j, None] * rays
    assert np.allclose(level(points), 1)
    normal = np.stack([level(points + step) - level(points - step) for step in 1e-6 * np.eye(3)], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    expected = ambient * (0.75 + 0.25 * normal[:, 2]) + (1 - ambient) * np.maximum(normal @ light, 0)
    # Points within the step of an edge have no one normal.
    assert np.mean(np.isclose(rendered.image[i, j, 0], expected, atol=1e-4)) > 0.99


def test_projection_and_rays_are_each_others_inverse():
    camera = solids.look_at(np.array([1.0, -4.0, 3.0]), np.array([0.0, 0.5, 0.2]), (1.2, 1.5))
    rendered = solids.RenderedImage(camera, 32, np.zeros((32, 32, 1)))
    x, y, depth = rendered.ground()
    points = np.stack([x, y, np.zeros_like(x)], axis=-1)
    across, down, far = camera.project(points)
    below = np.isfinite(depth)
    centres = (np.arange(32) + 0.5) / 32
    assert np.allclose(across[below], np.broadcast_to(centres, (32, 32))[below])
    assert np.allclose(down[below], np.broadcast_to(centres[:, None], (32, 32))[below])
    assert np.allclose(far[below], depth[below])


def test_light_falls_on_the_side_that_faces_it_and_shadow_on_the_other():
    camera = solids.look_at(np.array([0.0, -6.0, 3.0]), np.array([0.0, 0.0, 0.4]), (1.4, 1.4))
    rendered = solids.RenderedImage(camera, 64, np.full((64, 64, 1), 0.6))
    ball = solids.Solid("sphere", np.array([0.0, 0.0, 0.8]), np.full(3, 0.8), np.eye(3), np.ones(1))
    light = solids.unit(np.array([1.0, 0.0, 1.0]))
    rendered.shadow([ball], light, 0.5)
    x, y, _ = rendered.ground()
    dark = rendered.image[..., 0] < 0.5
    # The shadow's axis meets the ground 0.8 to the left of the ball's foot.
    assert x[dark].mean() == pytest.approx(-0.8, abs=0.15) and abs(y[dark].mean()) < 0.1
    rendered.add(ball, 0, light, 0.3)
    ys, xs = np.nonzero(rendered.owner == 0)
    grey = rendered.image[ys, xs, 0]
    assert grey[xs > 34].mean() > grey[xs < 30].mean() + 0.2


# --- KITTI


def test_kitti_label_is_the_bin_of_the_nearest_vehicle():
    seen = set()
    for seed in range(200):
        vehicles = kitti.scene(rng(seed))
        depths = [vehicle.ahead for vehicle in vehicles] + [1000.0]
        label = kitti.draw(rng(seed), 16)[1]["kitti-distance-standin"]
        assert label == int(np.digitize(min(depths), [8.0, 20.0, 999.0], right=True))
        assert (label == 3) == (not vehicles)
        seen.add(label)
    assert seen == {0, 1, 2, 3}


def test_the_nearest_vehicle_is_the_largest_of_its_kind_and_in_view():
    compared = 0
    for seed in range(150):
        vehicles = kitti.scene(rng(seed))
        camera = solids.Camera(np.array([0.0, 0.0, 1.7]), np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), kitti.FOCAL)
        tall = []
        for vehicle in vehicles:
            body = vehicle.solids()[0]
            _, down, _ = camera.project(np.array([body.centre * [1, 1, 0], body.centre * [1, 1, 0] + [0, 0, 1.0]]))
            tall.append(down[0] - down[1])
        if tall:
            assert tall[0] == max(tall)
            compared += len(tall) > 1
            rendered = solids.RenderedImage(camera, 64, np.zeros((64, 64, 3)))
            for number, vehicle in enumerate(vehicles):
                for part in vehicle.solids():
                    rendered.add(part, number, np.array([0.0, 0.0, 1.0]), 0.5)
            assert (rendered.owner == 0).any()
    assert compared > 30


# --- DMLab


def test_dmlab_sees_its_object_at_its_distance():
    for seed in range(150):
        what = dmlab.scene(rng(seed))
        label = dmlab.draw(rng(seed), 16)[1]["dmlab-standin"]
        near = int(np.digitize(np.hypot(*(what.place - what.eye)), [1.8, 3.6], right=True))
        assert label == 3 * (what.kind >= 3) + near
        # No wall stands between eye and object, by a march through the map.
        for share in np.linspace(0, 1, 200):
            i, j = (what.eye + share * (what.place - what.eye)).astype(int)
            assert not what.walls[i, j]


def test_maze_rays_stop_where_a_march_through_the_map_does():
    what = dmlab.scene(rng(3))
    angles = np.linspace(0, 2 * np.pi, 40) + 0.013
    directions = np.stack([np.cos(angles), np.sin(angles)])
    depth, along, _ = dmlab.hits(what.walls, what.eye, directions)
    steps = np.arange(0, 25, 0.001)
    for k in range(40):
        cells = np.clip((what.eye[:, None] + directions[:, k : k + 1] * steps).astype(int), 0, dmlab.CELLS - 1)
        assert depth[k] == pytest.approx(steps[what.walls[cells[0], cells[1]].argmax()], abs=0.003)
    assert np.all((along >= 0) & (along < 1))


def test_the_objects_colour_is_in_the_picture():
    """With and without its object a scene differs exactly about where the object is, and more when it is close."""
    changed = {0: [], 1: [], 2: []}
    for seed in range(120):
        what = dmlab.scene(rng(seed))
        image, labels = dmlab.draw(rng(seed), 32)
        hue = dmlab.hsv(*dmlab.OBJECTS[what.kind][:3])
        away = image / 255 / np.maximum((image / 255).sum(axis=-1, keepdims=True), 1e-9) - hue / hue.sum()
        changed[labels["dmlab-standin"] % 3].append((np.abs(away).sum(axis=-1) < 0.25).mean())
    close, far, very_far = (np.median(changed[k]) for k in range(3))
    assert close > far > very_far


# --- smallNORB


def test_each_toy_looks_different_from_every_azimuth():
    light = solids.unit(np.array([0.3, -0.5, 1.0]))
    for category in smallnorb.CATEGORIES:
        views = []
        for azimuth in range(18):
            parts = category(np.full(3, 0.5))
            rendered = solids.RenderedImage(
                solids.look_at(np.array([0.0, -3.2, 3.6]), np.array([0, 0, 0.4]), (1.75, 1.75)),
                48,
                np.full((48, 48, 1), 0.7),
            )
            for number, solid in enumerate(smallnorb.toy(parts, np.deg2rad(20 * azimuth), 1.0, np.zeros(2), 0.7)):
                rendered.add(solid, number, light, 0.4)
            views.append(rendered.image[..., 0])
        apart = np.abs(np.array(views)[:, None] - np.array(views)[None]).mean(axis=(2, 3))
        assert apart[~np.eye(18, dtype=bool)].min() > 0.004, category.__name__


def test_toys_turn_as_a_whole():
    """The distances between a toy's parts do not depend on its azimuth, and a quarter turn takes x to y."""
    parts = smallnorb.truck(np.array([0.2, 0.5, 0.8]))
    still = np.array([solid.centre for solid in smallnorb.toy(parts, 0.0, 1.0, np.zeros(2), 0.7)])
    rotated = np.array([solid.centre for solid in smallnorb.toy(parts, np.pi / 2, 1.0, np.zeros(2), 0.7)])
    assert np.allclose(rotated, still @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]))


# --- specialized


def test_only_the_centre_decides_in_patch_camelyon(monkeypatch):
    """The last but one layer of nuclei, the tumour: present in the central third if and only if the class is 1; often
    present outside in both.
    """
    layers = []
    original = patch_camelyon.nuclei

    def spy(*arguments):
        layers.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(patch_camelyon, "nuclei", spy)
    outside = {0: [], 1: []}
    for seed in range(200):
        layers.clear()
        label = patch_camelyon.draw(rng(seed), 16)[1]["patch-camelyon-standin"]
        present = layers[-2][2][..., 6] > 0
        n = len(present)
        centre = np.abs((np.arange(n) + 0.5) / n - 0.5) < patch_camelyon.CENTRE
        inside = centre[:, None] & centre[None]
        assert present[inside].any() == bool(label)
        outside[label].append(present[~inside].any())
    for label in (0, 1):
        assert 0.35 < np.mean(outside[label]) < 0.65


def test_retinopathy_lesions_grow_with_the_grade():
    """Deviation of the image from its own smooth version, inside the disc: more for higher grades on average."""
    roughness = {k: [] for k in range(5)}
    for seed in range(250):
        image, labels = retinopathy.draw(rng(seed), 32)
        green = image[6:26, 6:26, 1].astype(float)
        sharp = np.abs(4 * green[1:-1, 1:-1] - green[:-2, 1:-1] - green[2:, 1:-1] - green[1:-1, :-2] - green[1:-1, 2:])
        roughness[labels["diabetic-retinopathy-standin"]].append(sharp.mean() / green.mean())
    means = [np.mean(roughness[k]) for k in range(5)]
    assert means[0] < means[1] < means[2] < means[3]
    assert means[4] > means[1]


def test_eurosat_kinds_and_resisc45_scenes_are_complete():
    assert len(eurosat.KINDS) == 10 and len(resisc45.SCENES) == 45 == len(set(resisc45.SCENES))
    names = [scene.__name__.strip("_") for scene in resisc45.SCENES]
    assert names[:4] == ["airplane", "airport", "baseball_diamond", "basketball_court"] and names[-1] == "wetland"


def test_sea_is_bluer_than_land_and_forest_darker_than_pasture():
    mean = {
        kind: np.mean([eurosat_of(kind, seed).mean(axis=(0, 1)) for seed in range(30)], axis=0) for kind in (1, 5, 9)
    }
    assert mean[9][2] > mean[9][0] + 20 and mean[5][1] > mean[5][2] + 10
    assert mean[1].sum() < mean[5].sum() - 60


def eurosat_of(kind, seed):
    image = aerial.AerialImage(rng(seed), 32)
    eurosat.KINDS[kind](image)
    return image.finish()


def test_views_from_above_have_no_preferred_direction():
    """Horizontal and vertical edges are equally strong over many images: layouts are turned by any angle."""
    images = [resisc45.draw(rng(seed), 32)[0].mean(axis=-1) for seed in range(400)]
    across = np.mean([np.abs(np.diff(image, axis=1)).mean() for image in images])
    down = np.mean([np.abs(np.diff(image, axis=0)).mean() for image in images])
    assert across == pytest.approx(down, rel=0.06)
