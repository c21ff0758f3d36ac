"""The golden cases: what each one runs. make_golden.py fills in the defaults and writes them as case.json."""

# Input pictures: (pattern, seed, width, height) of generated_image.py, or for the demo's models (name in
# models/demo/inputs, left, top, width, height).
ALL = None  # keep every stage
SMALL = ("tokens", "text", "moments", "posterior_noise", "latent", "eps", "x0")


def case(name, base, checkpoint, task, picture, prompt="", stages=ALL, **options):
    result = {"name": name, "base": base, "checkpoint": checkpoint, "task": task, "picture": picture, "prompt": prompt,
              "seed": 42, "rng": "cuda", "stages": stages, "versions": "pins"}
    return {**result, **options}


def unpaired(name, base, checkpoint, task, picture, stages=ALL, **options):
    return case(name, base, checkpoint, task, picture, stages=stages, **{"image_prep": "no_resize", **options})


def demo(task, checkpoint, picture, prompt="", **options):
    """The trained models of models/demo, on a piece of one of their pictures."""
    return case(f"demo_{task}", DEMO + "base", DEMO + checkpoint, task, picture, prompt,
                stages=("tokens", "moments", "posterior_noise", "latent", "eps", "x0", "decoded"), versions="new",
                **options)


DEMO = "../../../models/demo/"
EDGE, SKETCH = "edge_to_image", "sketch_to_image_stochastic"

CASES = [
    # edge_to_image
    case("a_edge_64x64", "base_a", "base_a_edge", EDGE, (4, 1, 64, 64), "a blue bird on a yellow ground!"),
    case("a_edge_8x8", "base_a", "base_a_edge", EDGE, (4, 2, 8, 8), "wow! tiny!!", seed=7, low_threshold=20, high_threshold=60),
    case("a_edge_8x64", "base_a", "base_a_edge", EDGE, (3, 3, 8, 64), "it's a tall picture, 1234", seed=-5),
    case("a_edge_40x24_cpu", "base_a", "base_a_edge", EDGE, (4, 4, 40, 24), "", rng="cpu", seed=123456789),
    case("a_edge_47x39_floor", "base_a", "base_a_edge", EDGE, (2, 5, 47, 39), "  Odd   SIZES — café  ",
         low_threshold=150, high_threshold=60),
    case("a_edge_8x16_cpu", "base_a", "base_a_edge", EDGE, (3, 6, 8, 16), "a fox", rng="cpu", seed=-1),
    case("b_edge_64x48", "base_b", "base_b_edge", EDGE, (4, 7, 64, 48), "a blue bird on a yellow ground!"),
    case("b_edge_24x56_cpu", "base_b", "base_b_edge", EDGE, (3, 8, 24, 56), "driving in the rain " * 12, rng="cpu", seed=0),
    case("b_edge_8x8", "base_b", "base_b_edge", EDGE, (4, 9, 8, 8), "x", seed=2 ** 40 + 3, low_threshold=10, high_threshold=40),
    # sketch_to_image_stochastic
    case("a_sketch_gamma0.4", "base_a", "base_a_sketch", SKETCH, (4, 11, 48, 40), "an old house", gamma=0.4),
    case("a_sketch_gamma0", "base_a", "base_a_sketch", SKETCH, (4, 11, 48, 40), "an old house", gamma=0.0),
    case("a_sketch_gamma1", "base_a", "base_a_sketch", SKETCH, (4, 11, 48, 40), "an old house", gamma=1.0),
    case("a_sketch_8x8_cpu", "base_a", "base_a_sketch", SKETCH, (0, 12, 8, 8), "noise", gamma=0.7, rng="cpu", seed=3),
    case("a_sketch_40x24_cpu", "base_a", "base_a_sketch", SKETCH, (4, 13, 40, 24), "a cat", gamma=0.4, rng="cpu", seed=-42),
    case("b_sketch_gamma0.4", "base_b", "base_b_sketch", SKETCH, (4, 14, 40, 64), "an old house", gamma=0.4, seed=43),
    case("b_sketch_gamma0", "base_b", "base_b_sketch", SKETCH, (4, 14, 40, 24), "an old house", gamma=0.0),
    case("b_sketch_gamma1", "base_b", "base_b_sketch", SKETCH, (4, 14, 40, 24), "an old house", gamma=1.0),
    # the unpaired tasks
    unpaired("a_day_to_night", "base_a", "base_a_day_night", "day_to_night", (2, 21, 64, 64)),
    unpaired("a_night_to_day", "base_a", "base_a_day_night", "night_to_day", (3, 22, 40, 24)),
    unpaired("a_clear_to_rainy", "base_a", "base_a_rain", "clear_to_rainy", (4, 23, 24, 40), rng="cpu", seed=5, versions="new"),
    unpaired("a_rainy_to_clear", "base_a", "base_a_rain", "rainy_to_clear", (2, 24, 8, 64), versions="new"),
    unpaired("a_day_to_night_8x8", "base_a", "base_a_day_night", "day_to_night", (0, 25, 8, 8), seed=1),
    unpaired("b_day_to_night", "base_b", "base_b_day_night", "day_to_night", (4, 26, 48, 40)),
    unpaired("b_night_to_day", "base_b", "base_b_day_night", "night_to_day", (2, 27, 64, 40), rng="cpu", seed=9),
    unpaired("b_clear_to_rainy", "base_b", "base_b_rain", "clear_to_rainy", (3, 28, 40, 24)),
    unpaired("b_rainy_to_clear", "base_b", "base_b_rain", "rainy_to_clear", (4, 29, 40, 56)),
    unpaired("a_resize_256", "base_a", "base_a_rain", "clear_to_rainy", (4, 30, 61, 45), stages=SMALL, image_prep="resize_256",
             versions="new"),
    unpaired("b_resized_crop_512", "base_b", "base_b_day_night", "day_to_night", (3, 31, 75, 52), stages=SMALL,
             image_prep="resized_crop_512"),
    # own checkpoints: the deterministic path on the picture itself; any prompt and either direction
    case("a_own_paired", "base_a", "base_a_edge", "paired", (2, 41, 40, 48), "<|endoftext|> my own prompt"),
    case("b_own_paired", "base_b", "base_b_edge", "paired", (3, 42, 40, 24), "own", rng="cpu", seed=11),
    unpaired("a_own_unpaired", "base_a", "base_a_day_night", "unpaired", (2, 43, 24, 40), prompt="my own caption", direction="b2a"),
    unpaired("b_own_unpaired", "base_b", "base_b_rain", "unpaired", (4, 44, 40, 24), prompt="", direction="a2b"),
    # the key spelling of the newest peft, run by the newest versions, with the same tensors as the other spelling
    case("a_edge_new_spelling", "base_a", "base_a_edge_new", EDGE, (4, 51, 40, 24), "a red car", versions="new"),
    case("b_sketch_new_spelling", "base_b", "base_b_sketch_new", SKETCH, (4, 52, 24, 40), "a red car", gamma=0.4, versions="new"),
    # the demo's trained models
    demo(EDGE, "edge_to_image_loras", ("edge_to_image_bird.png", 16, 24, 96, 80), "a blue bird on a yellow ground"),
    demo(SKETCH, "sketch_to_image_stochastic_lora", ("sketch_to_image_stochastic_boat.png", 24, 32, 88, 80),
         "a red boat on a yellow ground", gamma=0.7),
    demo("day_to_night", "day2night", ("day_to_night_street_1.png", 16, 24, 80, 64), image_prep="no_resize"),
    demo("night_to_day", "day2night", ("night_to_day_street_2.png", 32, 40, 64, 80), image_prep="no_resize"),
    demo("clear_to_rainy", "clear2rainy", ("clear_to_rainy_street_3.png", 48, 32, 80, 64), image_prep="no_resize"),
    demo("rainy_to_clear", "clear2rainy", ("rainy_to_clear_street_1.png", 0, 48, 80, 64), image_prep="no_resize"),
]
