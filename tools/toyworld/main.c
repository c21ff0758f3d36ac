/* toyworld: writes data sets of the toy world in the folder layout of img2img-turbo's training
 * scripts. */
#include "canvas.h"
#include "street.h"
#include "things.h"

#include "image/image.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum subject {
    SUBJECT_THINGS,
    SUBJECT_EDGES,
    SUBJECT_SKETCHES,
    SUBJECT_DAY_NIGHT,
    SUBJECT_CLEAR_RAINY,
    SUBJECT_COUNT
};

struct options {
    enum subject subject;
    const char *output;
    long train, test;
    int width, height;
    uint64_t seed;
};

static const char usage[] =
    "usage: toyworld --subject things|edges|sketches|day_night|clear_rainy --output DIR\n"
    "                [--train N] [--test N] [--size N|WxH] [--seed N]\n"
    "\n"
    "Writes DIR/train_A, train_B, test_A, test_B (PNG, equal names), the prompt files and,\n"
    "for things, their poses.\n"
    "  things       B: a coloured thing on a coloured ground; A: the same thing in two other "
    "colours\n"
    "  edges        B: the same; A: the Canny edges of the thing in two other colours, white on "
    "black\n"
    "  sketches     B: the same; A: a hand-drawn black sketch of it\n"
    "  day_night    A: a street by day; B: the same street by night\n"
    "  clear_rainy  A: a street in clear weather; B: the same street in rain\n"
    "Equal seeds give equal pictures. Defaults: 1000 train, 200 test, size 128, seed 1.\n"
    "\n"
    "example: toyworld --subject day_night --output data/day_night --train 4000 --size 128\n";

static bool parse_count(const char *text, long most, long *value)
{
    char *end = NULL;
    errno = 0;
    *value = strtol(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *value >= 0 && *value <= most;
}

static bool parse_size(const char *text, int *width, int *height)
{
    char *end = NULL;
    errno = 0;
    long w = strtol(text, &end, 10), h = w;
    if (end == text || errno)
        return false;
    if (*end == 'x')
        h = strtol(end + 1, &end, 10);
    if (*end != '\0' || errno || w < 32 || h < 32 || w > 4096 || h > 4096)
        return false;
    *width = (int)w;
    *height = (int)h;
    return true;
}

static bool parse_subject(const char *text, enum subject *subject)
{
    static const char *const names[] = {"things", "edges", "sketches", "day_night", "clear_rainy"};
    for (int i = 0; i < SUBJECT_COUNT; i++)
        if (strcmp(text, names[i]) == 0) {
            *subject = (enum subject)i;
            return true;
        }
    return false;
}

/* Returns 0, or the program's exit status plus one. */
static int parse_options(int count, char **arguments, struct options *options)
{
    static const struct option table[] = {
        {"subject", required_argument, NULL, 's'}, {"output", required_argument, NULL, 'o'},
        {"train", required_argument, NULL, 't'},   {"test", required_argument, NULL, 'e'},
        {"size", required_argument, NULL, 'z'},    {"seed", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},          {0}};
    bool subject = false;
    long seed = 1;
    *options = (struct options){.train = 1000, .test = 200, .width = 128, .height = 128};
    for (int letter; (letter = getopt_long(count, arguments, "", table, NULL)) != -1;) {
        bool valid = true;
        if (letter == 's')
            valid = subject = parse_subject(optarg, &options->subject);
        else if (letter == 'o')
            options->output = optarg;
        else if (letter == 't')
            valid = parse_count(optarg, 9999999, &options->train);
        else if (letter == 'e')
            valid = parse_count(optarg, 9999999, &options->test);
        else if (letter == 'z')
            valid = parse_size(optarg, &options->width, &options->height);
        else if (letter == 'r')
            valid = parse_count(optarg, 0x7fffffff, &seed);
        else if (letter == 'h')
            return fputs(usage, stdout) < 0 ? 2 : 1;
        else
            return 3;
        if (!valid) {
            fprintf(stderr, "toyworld: \"%s\" is not a valid value (see --help)\n", optarg);
            return 3;
        }
    }
    options->seed = (uint64_t)seed;
    if (!subject || !options->output || optind != count) {
        fputs(usage, stderr);
        return 3;
    }
    return 0;
}

/* Writes the picture, or its Canny edges as the official edge_to_image sees them. */
static bool write_picture(const char *path, const struct canvas *canvas, bool edges, uint8_t *bytes)
{
    canvas_resolve(canvas, bytes);
    onestep_image picture = {.pixels = bytes,
                             .width = (uint32_t)canvas->width,
                             .height = (uint32_t)canvas->height,
                             .stride = (size_t)canvas->width * 3,
                             .type = ONESTEP_PIXEL_U8};
    onestep_image control = {0};
    onestep_error error;
    onestep_status status = ONESTEP_OK;
    if (edges)
        status = image_canny(&control, &picture, 100, 200, NULL, &error);
    if (status == ONESTEP_OK)
        status = image_save(edges ? &control : &picture, path, 0, NULL, &error);
    if (status != ONESTEP_OK)
        fprintf(stderr, "toyworld: cannot write %s: %s\n", path, error.message);
    image_destroy(&control);
    return status == ONESTEP_OK;
}

/* Draws one side of one pair: A is the input, B the target. */
static void draw(const struct options *options, struct canvas *canvas, char side, uint64_t seed)
{
    struct random random = {seed};
    if (options->subject <= SUBJECT_SKETCHES) {
        struct thing_picture picture = thing_picture_random(&random);
        if (side == 'A' && options->subject != SUBJECT_SKETCHES) {
            struct thing_picture other = thing_picture_random(&random);
            picture.colour = other.colour;
            picture.ground = other.ground;
        }
        canvas->style =
            side == 'A' && options->subject == SUBJECT_SKETCHES ? CANVAS_SKETCH : CANVAS_PAINT;
        thing_picture_draw(canvas, &picture);
    } else if (options->subject == SUBJECT_DAY_NIGHT) {
        street_draw(canvas, seed, side == 'A' ? STREET_DAY : STREET_NIGHT);
    } else {
        street_draw(canvas, seed, side == 'A' ? STREET_CLEAR : STREET_RAIN);
    }
}

static bool make_folder(const char *path)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST)
        return true;
    fprintf(stderr, "toyworld: cannot make the folder %s: %s\n", path, strerror(errno));
    return false;
}

static bool write_side(const struct options *options, const char *split, char side, long count,
                       uint64_t first_seed, uint8_t *bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s_%c", options->output, split, side);
    if (!make_folder(path))
        return false;
    for (long i = 0; i < count; i++) {
        struct canvas canvas;
        if (!canvas_create(&canvas, options->width, options->height, CANVAS_PAINT)) {
            fputs("toyworld: out of memory\n", stderr);
            return false;
        }
        draw(options, &canvas, side, first_seed + (uint64_t)i);
        snprintf(path, sizeof path, "%s/%s_%c/%06ld.png", options->output, split, side, i);
        bool edges = options->subject == SUBJECT_EDGES && side == 'A';
        bool written = !canvas.failed && write_picture(path, &canvas, edges, bytes);
        if (canvas.failed)
            fputs("toyworld: out of memory\n", stderr);
        canvas_destroy(&canvas);
        if (!written)
            return false;
    }
    return true;
}

/* One entry of a table: the caption, or the pose as [x, y, size, tilt, mirrored]. */
static void write_entry(FILE *file, const struct options *options, uint64_t seed, bool pose_wanted)
{
    struct random random = {seed};
    struct thing_picture picture = thing_picture_random(&random);
    if (pose_wanted) {
        struct thing_pose pose = thing_picture_pose(options->width, options->height, &picture);
        fprintf(file, "[%.2f, %.2f, %.2f, %.3f, %d]", (double)pose.x, (double)pose.y,
                (double)pose.size, (double)pose.tilt, pose.mirrored);
    } else {
        char caption[128];
        thing_picture_caption(&picture, caption, sizeof caption);
        fprintf(file, "\"%s\"", caption);
    }
}

/* SPLIT_prompts.json or SPLIT_poses.json: file name -> entry. */
static bool write_table(const struct options *options, const char *split, const char *name,
                        long count, uint64_t first_seed)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s_%s.json", options->output, split, name);
    FILE *file = fopen(path, "w");
    if (!file) {
        fprintf(stderr, "toyworld: cannot write %s: %s\n", path, strerror(errno));
        return false;
    }
    fputs("{", file);
    for (long i = 0; i < count; i++) {
        fprintf(file, "%s\n\"%06ld.png\": ", i > 0 ? "," : "", i);
        write_entry(file, options, first_seed + (uint64_t)i, strcmp(name, "poses") == 0);
    }
    fputs("\n}\n", file);
    bool failed = ferror(file);
    if (fclose(file) != 0 || failed) {
        fprintf(stderr, "toyworld: cannot write %s\n", path);
        return false;
    }
    return true;
}

static bool write_text(const struct options *options, const char *name, const char *text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", options->output, name);
    FILE *file = fopen(path, "w");
    bool written = file && fputs(text, file) >= 0;
    if (file && fclose(file) != 0)
        written = false;
    if (!written)
        fprintf(stderr, "toyworld: cannot write %s\n", path);
    return written;
}

int main(int count, char **arguments)
{
    struct options options;
    int stop = parse_options(count, arguments, &options);
    if (stop)
        return stop - 1;
    uint8_t *bytes = malloc((size_t)options.width * (size_t)options.height * 3);
    bool done = bytes && make_folder(options.output);
    for (int test = 0; done && test < 2; test++) {
        const char *split = test ? "test" : "train";
        long pictures = test ? options.test : options.train;
        uint64_t first_seed = (options.seed << 32) + (test ? 0x80000000u : 0);
        done = write_side(&options, split, 'A', pictures, first_seed, bytes) &&
               write_side(&options, split, 'B', pictures, first_seed, bytes);
        if (done && options.subject <= SUBJECT_SKETCHES)
            done = write_table(&options, split, "prompts", pictures, first_seed) &&
                   write_table(&options, split, "poses", pictures, first_seed);
    }
    if (done && options.subject >= SUBJECT_DAY_NIGHT)
        done = write_text(&options, "fixed_prompt_a.txt", "driving in the day\n") &&
               write_text(&options, "fixed_prompt_b.txt",
                          options.subject == SUBJECT_DAY_NIGHT ? "driving in the night\n"
                                                               : "driving in heavy rain\n");
    free(bytes);
    return done ? 0 : 1;
}
