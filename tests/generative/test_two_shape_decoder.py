"""The decoder against known scenes: exact on every kind of real image, close on soft ones; and what it refuses."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from generative.pixel_range import to_float
from generative.two_shape_decoder import DecodedScenes, colour_masks, decode
from generative.two_shapes import Scenes, draw_scenes, render
from tests.generative.metrics.point_clouds import generator
from tests.generative.tiny import default_dtype

SIZES = pytest.mark.parametrize(("image_size", "radius"), [(64, 10), (32, 5)])


def touching(image_size: int, radius: int) -> Scenes:
    """All ways from red to blue at which their squares touch or overlap, with all shapes, each somewhere."""
    centers, shapes = [], []
    random, places = generator(), image_size - 2 * radius
    for dx in range(-2 * radius - 1, 2 * radius + 2):
        for dy in range(-2 * radius - 1, 2 * radius + 2):
            if dx**2 + dy**2 < 4 * radius**2 or max(abs(dx), abs(dy)) >= places:
                continue
            for pair in range(4):
                red = [int(torch.randint(places - abs(d), (), generator=random)) + max(0, -d) for d in (dx, dy)]
                centers.append([[red[0], red[1]], [red[0] + dx, red[1] + dy]])
                shapes.append([pair // 2, pair % 2])
    return Scenes(torch.tensor(centers) + radius, torch.tensor(shapes))


def at_the_border(image_size: int, radius: int) -> Scenes:
    """Every place of red at the border, with blue far away, all shapes."""
    first, last = radius, image_size - radius - 1
    centers = [
        [[x, y], [last if 2 * x < first + last else first, last if 2 * y < first + last else first]]
        for x in range(first, last + 1)
        for y in range(first, last + 1)
        if x in (first, last) or y in (first, last)
    ]
    pairs = [[0, 0], [0, 1], [1, 0], [1, 1]]
    return Scenes(torch.tensor(centers).repeat(4, 1, 1), torch.tensor(pairs).repeat_interleave(len(centers), 0))


def with_blue_in_front(scenes: Scenes, image_size: int, radius: int) -> Tensor:
    return to_float(render(Scenes(scenes.centers.flip(1), scenes.shapes.flip(1)), image_size, radius)).flip(1)


def painted(masks: Tensor) -> Tensor:
    """Images of masks of red and of blue ``(n, 2, H, W)`` in [0, 1], blended over white."""
    red, blue = masks.unbind(1)
    return torch.stack([1 - 2 * blue, 1 - 2 * (red + blue), 1 - 2 * red], 1)


def soft(centers: Tensor, shapes: Tensor, image_size: int, radius: int, fine: int = 8, size: float = 1.0) -> Tensor:
    """Anti-aliased images of centres at fractions of a pixel: each pixel the mean of ``fine * fine``."""
    axis = (torch.arange(image_size * fine) + 0.5) / fine - 0.5
    x = (axis[None, :] - centers[..., 0, None, None]).abs()
    y = (axis[:, None] - centers[..., 1, None, None]).abs()
    half = size * radius + 0.5
    masks = torch.where(shapes[..., None, None] == 1, (x < half) & (y < half), x**2 + y**2 <= (size * radius) ** 2)
    masks[:, 1] &= ~masks[:, 0]
    return painted(torch.nn.functional.avg_pool2d(masks.float(), fine))


def apart(number: int, image_size: int, radius: int) -> tuple[Tensor, Tensor]:
    """Centres in eighths of a pixel and shapes, of objects that touch neither each other nor the border."""
    scenes = draw_scenes(60 * number, image_size, radius, generator())
    gap = 1 + radius // 5
    inside = ((scenes.centers >= radius + gap) & (scenes.centers < image_size - radius - gap)).all(2).all(1)
    free = (scenes.centers[:, 0] - scenes.centers[:, 1]).abs().amax(1) > 2 * radius + 1 + gap
    chosen = (inside & free).nonzero()[:number, 0]
    assert len(chosen) == number
    shift = torch.randint(-4, 4, (number, 2, 2), generator=generator(1)) / 8
    return scenes.centers[chosen] + shift, scenes.shapes[chosen]


def assert_exact(decoded: DecodedScenes, scenes: Scenes, radius: int) -> None:
    assert decoded.valid.all()
    assert decoded.present.all()
    assert torch.equal(decoded.centers, scenes.centers.float())
    assert torch.equal(decoded.shapes, scenes.shapes)
    assert (decoded.sizes == radius).all()


# ------------------------------------------------------------------ real images


@SIZES
def test_drawn_scenes_come_back_exactly(image_size: int, radius: int) -> None:
    scenes = draw_scenes(1000, image_size, radius, generator())
    assert_exact(decode(to_float(render(scenes, image_size, radius)), radius), scenes, radius)


@pytest.mark.parametrize(("image_size", "radius"), [(64, 10), (32, 5), (9, 1)])
def test_every_overlap_and_touch_comes_back_exactly_whichever_is_in_front(image_size: int, radius: int) -> None:
    scenes = touching(image_size, radius)
    distances = (scenes.centers[:, 0] - scenes.centers[:, 1]).double().norm(dim=1)
    assert distances.min() == 2 * radius
    hidden = (scenes.centers[:, 0] - scenes.centers[:, 1]).abs().amax(1) <= 2 * radius
    assert hidden.sum() > 4 * radius, "squares that overlap"
    if image_size == 64:  # a third of them, for the time it takes
        scenes = Scenes(scenes.centers[::3], scenes.shapes[::3])
    assert_exact(decode(to_float(render(scenes, image_size, radius)), radius), scenes, radius)
    assert_exact(decode(with_blue_in_front(scenes, image_size, radius), radius), scenes, radius)


@SIZES
def test_objects_at_the_border_come_back_exactly(image_size: int, radius: int) -> None:
    scenes = at_the_border(image_size, radius)
    assert_exact(decode(to_float(render(scenes, image_size, radius)), radius), scenes, radius)


@SIZES
def test_fuller_disks_are_found_too(image_size: int, radius: int) -> None:
    """Rows as wide as floor(sqrt((radius + 0.5)² - dy²)): of radius 10, 353 pixels in place of 317."""
    scenes = touching(image_size, radius)
    scenes = Scenes(scenes.centers[::4], torch.zeros_like(scenes.shapes[::4]))
    axis = torch.arange(image_size)
    x = (axis[None, :] - scenes.centers[..., 0, None, None]).abs()
    y = (axis[:, None] - scenes.centers[..., 1, None, None]).abs()
    masks = (x <= ((radius + 0.5) ** 2 - y.double() ** 2).clamp(min=0).sqrt().floor()) & (y <= radius)
    masks[:, 1] &= ~masks[:, 0]
    decoded = decode(painted(masks.float()), radius)
    assert decoded.valid.all()
    assert (decoded.shapes == 0).all()
    assert (decoded.centers - scenes.centers).abs().max() < 0.1


# ------------------------------------------------------------------ soft images


@SIZES
def test_centres_between_pixels_are_found(image_size: int, radius: int) -> None:
    centers, shapes = apart(60, image_size, radius)
    images = soft(centers, shapes, image_size, radius)
    for blur in (0.0, 0.1 * radius):
        decoded = decode(gaussian_blur(images, [9, 9], [blur, blur]) if blur else images, radius)
        assert decoded.valid.all()
        assert torch.equal(decoded.shapes, shapes)
        assert (decoded.centers - centers).abs().max() < 0.05
        assert (decoded.sizes - radius).abs().max() < 0.2


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_what_is_found_does_not_depend_on_the_precision_of_networks(kind: torch.dtype) -> None:
    centers, shapes = apart(20, 64, 10)
    images = soft(centers, shapes, 64, 10)
    expected = decode(images, 10)
    with default_dtype(kind):
        found = [decode(images, 10)]
    with torch.autocast("cpu", torch.bfloat16):
        found.append(decode(images, 10))
    for decoded in found:
        for field, value in zip(decoded, expected, strict=True):
            assert torch.equal(field, value)
            assert field.dtype == value.dtype


@SIZES
def test_blurred_images_of_the_data_keep_their_shapes(image_size: int, radius: int) -> None:
    scenes = draw_scenes(150, image_size, radius, generator())
    images = to_float(render(scenes, image_size, radius))
    for blur in (0.05 * radius, 0.1 * radius, 0.2 * radius):
        decoded = decode(gaussian_blur(images, [13, 13], [blur, blur]), radius)
        assert decoded.valid.all()
        assert torch.equal(decoded.shapes, scenes.shapes)
        assert (decoded.centers - scenes.centers).abs().mean() < 0.1


@SIZES
def test_other_colours_sizes_and_noise_are_allowed_within_reason(image_size: int, radius: int) -> None:
    centers, shapes = apart(40, image_size, radius)
    images = soft(centers, shapes, image_size, radius)
    noise = torch.randn(images.shape, generator=generator(2))
    haze = torch.tensor([0.0, -0.15, -0.15])[:, None, None]
    pictures = {
        "paler": 1 + 0.8 * (images - 1),
        "smaller": soft(centers, shapes, image_size, radius, size=0.9),
        "much smaller": soft(centers, shapes, image_size, radius, size=0.8),
        "larger": soft(centers, shapes, image_size, radius, size=1.1),
        "noisy": images + 0.2 * noise,
        "on pink": images + haze,
    }
    for name, picture in pictures.items():
        decoded = decode(picture, radius)
        assert decoded.valid.all(), name
        assert torch.equal(decoded.shapes, shapes), name
        error = (decoded.centers - centers).abs()
        assert error.max() < 0.4, name
        assert error.mean() < 0.1, name


@SIZES
def test_a_blend_of_shapes_counts_as_the_nearer_one(image_size: int, radius: int) -> None:
    centers, _ = apart(20, image_size, radius)
    circles, squares = (soft(centers, torch.full((20, 2), shape), image_size, radius) for shape in (0, 1))
    for share, expected in ((0.2, 0), (0.8, 1)):
        decoded = decode(circles + share * (squares - circles), radius)
        assert decoded.valid.all()
        assert (decoded.shapes == expected).all()


# ------------------------------------------------------------------ what is not an image of the data set


def test_images_of_anything_else_are_invalid() -> None:
    centers, shapes = apart(12, 64, 10)
    images = soft(centers, shapes, 64, 10)
    masks, _ = colour_masks(images)
    red, blue = masks.unbind(1)
    nothing = torch.zeros_like(red)
    nan, inf = images.clone(), images.clone()
    nan[:, 0, 3, 5], inf[:, 2, 60, 60] = float("nan"), float("inf")
    corners = torch.tensor([[[15.0, 15], [48, 48]], [[15, 48], [48, 48]]])
    two, _ = colour_masks(soft(corners, torch.ones(2, 2), 64, 10))
    two = two.amax(0, keepdim=True)
    around = (soft(centers, shapes, 64, 10, size=0.6).amin(1) == 1)[:, None]
    ground = (images.amin(1) == 1)[:, None]
    pictures = {
        "white": torch.ones(3, 3, 64, 64),
        "black": -torch.ones(3, 3, 64, 64),
        "grey": torch.zeros(3, 3, 64, 64),
        "noise": torch.rand(20, 3, 64, 64, generator=generator()) * 2 - 1,
        "black and white noise": torch.randint(2, (20, 3, 64, 64), generator=generator()) * 2.0 - 1,
        "red everywhere": torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 3, 64, 64),
        "red only": painted(torch.stack([red, nothing], 1)),
        "blue only": painted(torch.stack([nothing, blue], 1)),
        "faded": 1 + 0.5 * (images - 1),
        "two red ones": painted(two),
        "half the size": soft(centers, shapes, 64, 10, size=0.5),
        "one and a half times the size": soft(centers, shapes, 64, 10, size=1.5),
        "hollow": torch.where(around, images, 1.0),
        "on black": torch.where(ground, -1.0, images),
        "green as well": torch.where(
            ground & (torch.arange(64) < 6), torch.tensor([-1.0, 1, -1])[:, None, None], images
        ),
        "not a number": nan,
        "infinite": inf,
    }
    for name, picture in pictures.items():
        decoded = decode(picture, 10)
        assert not decoded.valid.any(), name
        assert decoded.centers.isfinite().all(), name
        assert decoded.sizes.isfinite().all(), name
    assert decode(images, 10).valid.all()


def test_present_distinguishes_the_colours() -> None:
    centers, shapes = apart(5, 64, 10)
    masks, _ = colour_masks(soft(centers, shapes, 64, 10))
    for kept in (0, 1):
        one = torch.zeros_like(masks)
        one[:, kept] = masks[:, kept]
        decoded = decode(painted(one), 10)
        assert decoded.present[:, kept].all()
        assert not decoded.present[:, 1 - kept].any()
        assert (decoded.centers[:, kept] - centers[:, kept]).abs().max() < 0.05


def test_a_purple_object_is_neither_red_nor_blue() -> None:
    centers, shapes = apart(5, 64, 10)
    masks, _ = colour_masks(soft(centers, shapes, 64, 10))
    purple = torch.stack([masks[:, 0] / 2, masks[:, 0] / 2 + masks[:, 1]], 1)
    decoded = decode(painted(purple), 10)
    assert decoded.present.tolist() == [[False, True]] * 5
    assert not decoded.valid.any()


@SIZES
def test_soft_objects_that_touch_do_not_push_each_other_away(image_size: int, radius: int) -> None:
    scenes = touching(image_size, radius)
    inside = ((scenes.centers >= radius + 2) & (scenes.centers < image_size - radius - 2)).all(2).all(1)
    chosen = inside.nonzero()[::23, 0]
    shapes = scenes.shapes[chosen]
    centers = scenes.centers[chosen] + torch.randint(-4, 4, (len(chosen), 2, 2), generator=generator()) / 8
    decoded = decode(soft(centers, shapes, image_size, radius), radius)
    assert decoded.valid.all()
    assert torch.equal(decoded.shapes, shapes)
    error = (decoded.centers - centers).abs()
    assert error.max() < 0.2
    assert error.mean() < 0.01


# ------------------------------------------------------------------ the function itself


def test_masks_of_a_blend_are_its_shares() -> None:
    shares = torch.rand(50, 3, generator=generator())
    shares /= shares.sum(1, keepdim=True)  # of white, red and blue
    colours = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, -1, 1]])
    masks, other = colour_masks((shares @ colours)[:, :, None, None])
    torch.testing.assert_close(masks[:, :, 0, 0], shares[:, 1:])
    assert other.max() < 1e-6
    greys = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 1, 1)
    masks, other = colour_masks(greys)
    assert masks.max() == 0
    torch.testing.assert_close(other.flatten(), torch.linspace(1, 0, 5))
    strange = torch.tensor([[-1.0, 1, -1], [1, 1, -1], [-1, 1, 1], [1, -1, 1]])  # green, yellow, cyan, magenta
    masks, other = colour_masks(strange[:, :, None, None])
    assert masks.max() == 0
    assert other.min() == 1


def test_an_image_does_not_depend_on_its_batch() -> None:
    centers, shapes = apart(30, 32, 5)
    images = soft(centers, shapes, 32, 5) + 0.1 * torch.randn(30, 3, 32, 32, generator=generator())
    whole = decode(images, 5)
    for size in (1, 7):
        parts = [decode(part, 5) for part in images.split(size)]
        for name, field in whole._asdict().items():
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), field), (size, name)


def test_fields_have_their_types_also_for_no_images() -> None:
    for number in (0, 2):
        decoded = decode(torch.ones(number, 3, 20, 24, dtype=torch.float16, requires_grad=True), 4)
        expected = {
            "present": ((2,), torch.bool),
            "centers": ((2, 2), torch.float32),
            "shapes": ((2,), torch.int64),
            "sizes": ((2,), torch.float32),
            "valid": ((), torch.bool),
        }
        for name, (shape, dtype) in expected.items():
            field = getattr(decoded, name)
            assert (field.shape, field.dtype, field.requires_grad) == ((number, *shape), dtype, False), name


@pytest.mark.parametrize(
    ("images", "radius", "message"),
    [
        (
            torch.zeros(3, 64, 64),
            10,
            r"images of shape \(3, 64, 64\) and torch.float32: must be floating point \(B, 3, H, W\)",
        ),
        (torch.zeros(2, 1, 64, 64), 10, r"images of shape \(2, 1, 64, 64\)"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), 10, "torch.uint8: must be floating point"),
        (torch.zeros(2, 3, 64, 20), 10, "radius=10: must be at least 1, and below half of the images' 20"),
        (torch.zeros(2, 3, 64, 64), 0, "radius=0: must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(images: Tensor, radius: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(images, radius)
