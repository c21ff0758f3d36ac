/* What `onestep translate` writes: names, formats, the official command lines, lists, resume,
 * parameters in pictures, dumps. */
#include "formats/formats.h"
#include "image/image.h"
#include "program.h"
#include "support/check.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define GOLDEN PROJECT_FOLDER "/tests/golden/"
#define BASE   GOLDEN "models/base_a"
#define EDGE   GOLDEN "models/base_a_edge.pkl"
#define SKETCH GOLDEN "models/base_a_sketch.pkl"
#define NIGHT  GOLDEN "models/base_a_day_night.pkl"
#define INPUT  GOLDEN "cases/a_edge_64x64/input.png"
#define OTHER  GOLDEN "cases/a_edge_40x24_cpu/input.png"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    program_folder_make(folder);
    return chdir(folder);
}

static int remove_folder(void **state)
{
    (void)state;
    int result = chdir("/");
    program_folder_remove(folder);
    return result;
}

static program_result last;

static void run_expecting(int exit_code, const char *const *arguments)
{
    program_run(&last, NULL, arguments);
    if (last.exit_code != exit_code) {
        fail_msg("exit %d: %s", last.exit_code, last.error);
    }
}

#define RUN(...) run_expecting(0, (const char *const[]){"translate", __VA_ARGS__, NULL})
#define RUN_EXIT(code, ...)                                                                        \
    run_expecting(code, (const char *const[]){"translate", __VA_ARGS__, NULL})

static void check_files(const char *const *names)
{
    for (; *names; names++) {
        if (access(*names, F_OK) != 0) {
            fail_msg("%s is missing", *names);
        }
    }
}

#define FILES(...) check_files((const char *const[]){__VA_ARGS__, NULL})

static void read_file(const char *path, uint8_t **bytes, size_t *size)
{
    onestep_error error;
    if (file_read(path, 1 << 26, bytes, size, &error) != ONESTEP_OK) {
        fail_msg("%s", error.message);
    }
}

static bool same_pixels(const char *a, const char *b)
{
    onestep_image first, second;
    onestep_error error;
    assert_int_equal(image_load(&first, a, NULL, &error), ONESTEP_OK);
    assert_int_equal(image_load(&second, b, NULL, &error), ONESTEP_OK);
    bool same = first.width == second.width && first.height == second.height &&
                memcmp(first.pixels, second.pixels, first.stride * first.height) == 0;
    image_destroy(&first);
    image_destroy(&second);
    return same;
}

static void copy_file(const char *from, const char *to)
{
    uint8_t *bytes;
    size_t size;
    onestep_error error;
    read_file(from, &bytes, &size);
    assert_int_equal(file_write_atomic(to, bytes, size, &error), ONESTEP_OK);
    memory_free(bytes);
}

/* The golden picture of the official code, by the official command line's own words. */
static void test_official_spelling(void **state)
{
    (void)state;
    copy_file(INPUT, "bird.png");
    RUN("-b", BASE, "--model_path", EDGE, "--control", "canny", "--input_image", "bird.png",
        "--prompt", "a bird", "--output_dir", "outputs", "--low_threshold", "100",
        "--high_threshold", "200", "--seed", "42", "--use_fp16", "--model_name", "");
    FILES("outputs/bird.png");
    RUN("-b", BASE, "-t", "edge_to_image", "--model_path", EDGE, "--input_image", "bird.png",
        "--prompt", "a bird", "--output_dir", "named");
    FILES("named/bird.png", "named/bird_canny.png");
    assert_true(same_pixels("outputs/bird.png", "named/bird.png"));
    RUN("-b", BASE, "--model-path", NIGHT, "--direction", "b2a", "--prompt", "driving in the day",
        "--input_image", "bird.png", "--output_dir", "unpaired", "--image_prep", "no_resize");
    RUN("-b", BASE, "-t", "night_to_day", "-c", NIGHT, "-i", "bird.png", "-o", "unpaired/b.png",
        "--image-prep", "no_resize");
    assert_true(same_pixels("unpaired/bird.png", "unpaired/b.png"));
}

static void test_names(void **state)
{
    (void)state;
    RUN("-b", BASE, "-c", SKETCH, "-p", "x", "-i", INPUT, "-o", "v/out.png", "--gammas", "0,0.4",
        "-s", "7", "-n", "2", "--grid");
    FILES("v/out_seed7_gamma0.00.png", "v/out_seed7_gamma0.40.png", "v/out_seed8_gamma0.00.png",
          "v/out_seed8_gamma0.40.png", "v/out_grid.png");
    RUN("-b", BASE, "-c", SKETCH, "-p", "x", "-i", INPUT, "-o", "one.png", "--gamma", "0.4", "-s",
        "8");
    assert_true(same_pixels("one.png", "v/out_seed8_gamma0.40.png"));
    assert_false(same_pixels("one.png", "v/out_seed7_gamma0.40.png"));
    RUN("-b", BASE, "-c", EDGE, "-p", "x", "-i", INPUT, "-o", "j", "--format", "jpg", "--quality",
        "80");
    RUN("-b", BASE, "-c", EDGE, "-p", "x", "-i", INPUT, "-o", "w.webp");
    uint8_t *bytes;
    size_t size;
    read_file("j/input.jpg", &bytes, &size);
    assert_int_equal(image_format_of_bytes(bytes, size), IMAGE_FORMAT_JPEG);
    memory_free(bytes);
    read_file("w.webp", &bytes, &size);
    assert_int_equal(image_format_of_bytes(bytes, size), IMAGE_FORMAT_WEBP);
    memory_free(bytes);
}

static void test_parameters(void **state)
{
    (void)state;
    RUN("-b", BASE, "-c", SKETCH, "-p", "a \xc3\xa9t\xc3\xa9 \"bird\"", "-i", INPUT, "-o", "p.png",
        "-s", "-3", "--gamma", "0.7", "--rng", "cpu", "--posterior", "mean");
    run_expecting(0, (const char *const[]){"info", "p.png", NULL});
    check_contains(last.out, "onestep.seed: -3");
    check_contains(last.out, "onestep.rng: cpu");
    check_contains(last.out, "a \xc3\xa9t\xc3\xa9 \"bird\"");
    RUN("--like", "p.png", "-i", INPUT, "-o", "again.png");
    assert_true(same_pixels("p.png", "again.png"));
    RUN("--like", "p.png", "-i", INPUT, "-o", "other.png", "-s", "4");
    assert_false(same_pixels("p.png", "other.png"));
}

static void test_streams(void **state)
{
    (void)state;
    const char *arguments[] = {"translate", "-q", "-b", BASE, "-c", EDGE, "-p",
                               "x",         "-i", "-",  "-o", "-",  NULL};
    program_run(&last, INPUT, arguments);
    assert_int_equal(last.exit_code, 0);
    assert_int_equal(image_format_of_bytes(last.out, last.out_size), IMAGE_FORMAT_PNG);
    onestep_error error;
    assert_int_equal(file_write_atomic("piped.png", last.out, last.out_size, &error), ONESTEP_OK);
    RUN("-b", BASE, "-c", EDGE, "-p", "x", "-i", INPUT, "-o", "direct.png");
    assert_true(same_pixels("piped.png", "direct.png"));
}

static void test_folder(void **state)
{
    (void)state;
    mkdir("in", 0777);
    copy_file(INPUT, "in/b.png");
    copy_file(OTHER, "in/a.png");
    copy_file(PROJECT_FOLDER "/LICENSE", "in/readme.txt");
    copy_file(PROJECT_FOLDER "/LICENSE", "in/c.png");
    const char captions[] = "{\"a.png\": \"first\", \"b.png\": \"second\", \"c.png\": \"third\"}";
    onestep_error error;
    assert_int_equal(file_write_atomic("captions.json", captions, strlen(captions), &error),
                     ONESTEP_OK);
    RUN_EXIT(1, "-b", BASE, "-c", EDGE, "--prompts", "captions.json", "-i", "in", "-o", "out",
             "--on-error", "skip", "--json");
    FILES("out/a.png", "out/b.png");
    assert_int_not_equal(access("out/c.png", F_OK), 0);
    check_contains(last.error, "in/c.png");
    check_contains(last.out, "\"input\":\"in/a.png\"");
    RUN("-b", BASE, "-c", EDGE, "-p", "second", "-i", "in/b.png", "-o", "b.png");
    assert_true(same_pixels("b.png", "out/b.png"));
    /* What is there is not made again, what is not is. */
    struct stat before, after;
    assert_int_equal(stat("out/b.png", &before), 0);
    assert_int_equal(unlink("out/a.png"), 0);
    const char list[] = "in/a.png\nin/b.png\r\n";
    assert_int_equal(file_write_atomic("list.txt", list, strlen(list), &error), ONESTEP_OK);
    RUN("-b", BASE, "-c", EDGE, "--prompts", "captions.json", "-i", "@list.txt", "-o", "out",
        "--resume");
    FILES("out/a.png");
    assert_int_equal(stat("out/b.png", &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    RUN_EXIT(1, "-b", BASE, "-c", EDGE, "-p", "x", "-i", "in", "-o", "stop");
    FILES("stop/a.png", "stop/b.png");
}

static void test_dump(void **state)
{
    (void)state;
    RUN("-b", BASE, "-c", SKETCH, "-p", "x", "-i", INPUT, "-o", "d.png", "--dump", "stages",
        "--dump-graph", "graph.dot", "--plan");
    FILES("stages/tokens.npy", "stages/text.npy", "stages/control.npy", "stages/moments.npy",
          "stages/posterior_noise.npy", "stages/latent.npy", "stages/noise.npy",
          "stages/unet_in.npy", "stages/skip0.npy", "stages/skip3.npy", "stages/eps.npy",
          "stages/x0.npy", "stages/decoded.npy", "graph.dot");
    check_contains(last.out, "GFLOP/s");
    RUN("-b", BASE, "-c", SKETCH, "-p", "x", "-i", INPUT, "-o", "e.png", "-s", "99", "--noise",
        "stages/noise.npy", "--posterior-noise", "stages/posterior_noise.npy");
    assert_true(same_pixels("d.png", "e.png"));
    RUN("-b", BASE, "-c", SKETCH, "-p", "x", "-i", INPUT, "-i", "d.png", "-o", "two", "--dump",
        "many");
    FILES("many/input/eps.npy", "many/d/eps.npy");
}

static void test_sizes(void **state)
{
    (void)state;
    onestep_image image, odd;
    onestep_error error;
    assert_int_equal(image_load(&image, INPUT, NULL, &error), ONESTEP_OK);
    assert_int_equal(image_resize(&odd, &image, 53, 37, NULL, &error), ONESTEP_OK);
    assert_int_equal(image_save(&odd, "odd.png", 0, NULL, &error), ONESTEP_OK);
    image_destroy(&image);
    image_destroy(&odd);
    static const struct {
        const char *fit, *extra;
        unsigned width, height;
    } sizes[] = {{"official", NULL, 48, 32}, {"exact", NULL, 53, 37}, {"official", "24", 24, 16}};
    for (size_t i = 0; i < 3; i++) {
        const char *extra = sizes[i].extra;
        RUN("-b", BASE, "-c", EDGE, "-p", "x", "-i", "odd.png", "-o", "sized.png", "--fit",
            sizes[i].fit, extra ? "--max-side" : "-q", extra ? extra : "-q");
        assert_int_equal(image_load(&image, "sized.png", NULL, &error), ONESTEP_OK);
        assert_int_equal(image.width, sizes[i].width);
        assert_int_equal(image.height, sizes[i].height);
        image_destroy(&image);
    }
    RUN("-b", BASE, "-t", "day_to_night", "-c", NIGHT, "-i", "odd.png", "-o", "night.png",
        "--image-prep", "resize_256");
    assert_int_equal(image_load(&image, "night.png", NULL, &error), ONESTEP_OK);
    assert_int_equal(image.width, 53);
    assert_int_equal(image.height, 37);
    image_destroy(&image);
}

/* The built-in models: every picture, the sheet and the page; colours that were asked for. */
static void test_demo(void **state)
{
    (void)state;
    run_expecting(0, (const char *const[]){"demo", "-o", "demo", NULL});
    FILES("demo/index.html", "demo/contact_sheet.png", "demo/edge_to_image_bird.png",
          "demo/gamma_0.4.png", "demo/seeds_47.png", "demo/day_to_night_street_1.png",
          "demo/rainy_to_clear_street_3.png");
    RUN("--demo", "-t", "edge_to_image", "-i", "demo/edge_to_image_bird.png", "-p",
        "a red bird on a green ground", "-o", "red.png");
    onestep_image image;
    onestep_error error;
    assert_int_equal(image_load(&image, "red.png", NULL, &error), ONESTEP_OK);
    const uint8_t *corner = (const uint8_t *)image.pixels + 4 * image.stride + 12;
    assert_true(corner[1] > corner[0] + 20 && corner[1] > corner[2] + 20); /* the ground is green */
    image_destroy(&image);
    assert_false(same_pixels("demo/gamma_0.0.png", "demo/gamma_1.0.png"));
    assert_false(same_pixels("demo/seeds_42.png", "demo/seeds_43.png"));
}

/* Ctrl-C in the middle: the process ends by the signal and leaves no file. */
static void test_interrupt(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        freopen("/dev/null", "w", stderr);
        execl(PROGRAM, "onestep", "translate", "-b", BASE, "-c", EDGE, "-p", "x", "-i", INPUT, "-o",
              "cut/x.png", "-n", "100000", "--backend", "reference", "--threads", "1",
              (char *)NULL);
        _exit(127);
    }
    usleep(400 * 1000);
    assert_int_equal(kill(child, SIGINT), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    int temporary = system("ls -A cut 2>/dev/null | grep -qv '^x_seed[0-9]*[.]png$'");
    assert_int_not_equal(WEXITSTATUS(temporary), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_official_spelling),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_demo),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
