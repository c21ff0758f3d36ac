"""The package against the golden models and the program."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import onestep
import PIL.Image
import pytest

GOLDEN = Path(os.environ.get("ONESTEP_GOLDEN", Path(__file__).resolve().parents[3] / "tests" / "golden"))
BASE = GOLDEN / "models" / "base_a"
EDGE = GOLDEN / "models" / "base_a_edge.pkl"
SKETCH = GOLDEN / "models" / "base_a_sketch.pkl"
NIGHT = GOLDEN / "models" / "base_a_day_night.pkl"
INPUT = GOLDEN / "cases" / "a_edge_64x64" / "input.png"


@pytest.fixture(scope="module")
def edge():
    return onestep.Model("edge_to_image", base=BASE, checkpoint=EDGE)


@pytest.fixture(scope="module")
def sketch():
    return onestep.Model(base=BASE, checkpoint=SKETCH)


@pytest.fixture(scope="module")
def picture():
    return np.asarray(PIL.Image.open(INPUT).convert("RGB"))


def test_golden(edge):
    """The official code's own picture, within one level in at most 5 % of the bytes."""
    case = json.loads((INPUT.parent / "case.json").read_text())
    result = edge.run(INPUT, case["prompt"], seed=case["seed"], rng=case["rng"])
    official = np.asarray(PIL.Image.open(INPUT.parent / "output.png").convert("RGB"))
    difference = np.abs(result.array.astype(int) - official.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.05
    assert result.control.shape == official.shape
    assert result.seconds["total"] > 0


@pytest.mark.skipif("ONESTEP_PROGRAM" not in os.environ, reason="no program to compare with")
def test_same_as_program(edge, tmp_path):
    output = tmp_path / "out.png"
    subprocess.run([os.environ["ONESTEP_PROGRAM"], "translate", "-q", "-b", BASE, "-c", EDGE, "-t", "edge_to_image",
                    "-p", "a bird", "-s", "-5", "-i", INPUT, "-o", output], check=True)
    program = np.asarray(PIL.Image.open(output).convert("RGB"))
    assert np.array_equal(edge.translate_array(INPUT, "a bird", seed=-5), program)
    assert np.array_equal(edge.translate_array(INPUT, "a bird", seed=2**64 - 5), program)


def test_kinds_of_pictures(edge, picture):
    expected = edge.translate_array(INPUT, "x")
    assert np.array_equal(edge.translate_array(str(INPUT), "x"), expected)
    assert np.array_equal(edge.translate_array(PIL.Image.fromarray(picture), "x"), expected)
    assert np.array_equal(edge.translate_array(picture, "x"), expected)
    assert np.array_equal(edge.translate_array(picture / 255, "x"), expected)
    assert np.array_equal(edge.translate_array(np.asfortranarray(picture), "x"), expected)
    image = edge.translate(picture, "x")
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), expected)
    assert edge.translate(picture[:, :, 0], "x").size == image.size
    for bad in (picture[None], picture.astype(np.int32), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError):
            edge.translate(bad, "x")


def test_errors(edge, picture, tmp_path):
    with pytest.raises(ValueError, match="expected one of"):
        onestep.Model("edge_to_imag")
    with pytest.raises(ValueError):
        onestep.Model()
    with pytest.raises(OSError, match="onestep models pull day_to_night"):
        onestep.Model("day_to_night", base=BASE, checkpoint=tmp_path / "none.pkl")
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(b"no checkpoint at all")
    with pytest.raises(onestep.FormatError, match="broken.pkl"):
        onestep.Model(base=BASE, checkpoint=broken)
    with pytest.raises(onestep.MismatchError):
        onestep.Model("day_to_night", base=BASE, checkpoint=EDGE)
    with pytest.raises(onestep.OnestepError, match="prompt"):
        edge.translate(picture)
    with pytest.raises(onestep.OnestepError):
        edge.translate(picture, "x", posterior_noise=np.zeros((1, 4, 3, 3)))
    with pytest.raises(ValueError, match="rng"):
        edge.translate(picture, "x", rng="mt")
    assert isinstance(edge.translate(picture, "x"), PIL.Image.Image)  # still in order


def test_progress(edge, picture):
    seen = []
    edge.run(picture, "x", progress=lambda fraction, stage: seen.append((fraction, stage)))
    assert seen and all(0 <= fraction <= 1 for fraction, _ in seen)
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert {"encode", "unet", "decode"} <= {stage for _, stage in seen}
    with pytest.raises(onestep.Cancelled):
        edge.run(picture, "x", progress=lambda fraction, stage: False)

    def fails(fraction, stage):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        edge.run(picture, "x", progress=fails)
    edge.run(picture, "x")


def test_stochastic(edge, sketch, picture):
    assert sketch.stochastic and not edge.stochastic
    assert sketch.family == edge.family == "paired"
    free, drawn = sketch.translate_array(picture, "x", gamma=0), sketch.translate_array(picture, "x", gamma=1)
    assert not np.array_equal(free, drawn)
    assert np.array_equal(sketch.translate_array(picture, "x", gamma=0), free)
    noise = np.random.default_rng(1).standard_normal((1, 4, 8, 8))
    assert not np.array_equal(sketch.translate_array(picture, "x", gamma=0, noise=noise), free)


def test_threads(edge, picture):
    expected = [edge.translate_array(picture, "x", seed=seed) for seed in range(8)]
    found = [None] * 8

    def work(seed):
        found[seed] = edge.translate_array(picture, "x", seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(a, b) for a, b in zip(expected, found))


def test_lock_is_released(picture):
    """Python goes on while the network runs."""
    slow = onestep.Model(base=BASE, checkpoint=EDGE, backend="reference", threads=1)
    large = np.asarray(PIL.Image.fromarray(picture).resize((192, 192)))
    turns = 0
    worker = threading.Thread(target=lambda: slow.translate(large, "x"))
    worker.start()
    while worker.is_alive():
        turns += 1
        time.sleep(0.001)
    assert turns > 20


def test_fork(edge, picture):
    expected = edge.translate_array(picture, "x")
    child = os.fork()
    if child == 0:
        try:
            good = np.array_equal(edge.translate_array(picture, "x"), expected)
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(edge.translate_array(picture, "x"), expected)


def test_closing(picture):
    with onestep.Model(base=BASE, checkpoint=EDGE) as model:
        model.translate(picture, "x")
    with pytest.raises(ValueError, match="closed"):
        model.translate(picture, "x")
    model.close()


def test_compatibility(picture):
    model = onestep.Pix2Pix_Turbo(pretrained_path=EDGE, base=BASE).cuda().eval()
    control = picture.transpose(2, 0, 1).astype(np.float32)[None] / 255
    output = model(np.concatenate([control, 1 - control]), ["a", "b"])
    assert output.shape == (2, 3, 64, 64) and output.min() >= -1 and output.max() <= 1
    direct = model.model.translate_array(picture, "a", control="image")
    assert np.array_equal(np.round((output[0].transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8), direct)
    with pytest.raises(ValueError, match="2 prompts for 1"):
        model(control, ["a", "b"])
    with pytest.raises(ValueError, match="deterministic"):
        model(control, "a", deterministic=False)
    night = onestep.CycleGAN_Turbo("day_to_night", NIGHT, base=BASE)
    assert night(control * 2 - 1).shape == (1, 3, 64, 64)


DEMO = onestep.demo_folder()


@pytest.mark.skipif(not (DEMO / "day2night.pkl").exists(), reason="the demo models are not in this tree")
def test_demo():
    model = onestep.Model("day_to_night", demo=True)
    inputs = sorted((DEMO / "inputs").glob("day_to_night*.png"))
    assert model.translate(inputs[0], image_prep="no_resize").size == PIL.Image.open(inputs[0]).size


def test_version():
    assert onestep.version() == onestep.__version__
    assert len(onestep.TASKS) == 6
