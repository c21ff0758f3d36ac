#include "things.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const colour_names[COLOUR_COUNT] = {"red",    "orange", "yellow", "green", "blue",
                                                "purple", "pink",   "brown",  "white", "black"};

struct colour colour_of(int index)
{
    static const unsigned char table[COLOUR_COUNT][3] = {
        {206, 32, 38},  {245, 132, 22},  {252, 214, 44}, {52, 158, 66},   {38, 92, 214},
        {124, 52, 178}, {250, 148, 196}, {122, 74, 36},  {244, 244, 244}, {40, 40, 44}};
    return colour_rgb(table[index][0], table[index][1], table[index][2]);
}

/* A thing is drawn in its own square, -1..1 in both directions with y down, placed by the pen. */
struct pen {
    struct canvas *canvas;
    struct random pose;
    struct point centre;
    float size;         /* pixels of one local unit */
    float cosine, sine; /* tilt */
    float flip;         /* 1, or -1 for looking the other way */
    struct colour base, light, dark, accent, eye;
};

enum { SMOOTH_STEPS = 5, MOST_POINTS = 24 };

static struct point place(const struct pen *pen, float x, float y)
{
    x *= pen->flip;
    return (struct point){pen->centre.x + pen->size * (x * pen->cosine - y * pen->sine),
                          pen->centre.y + pen->size * (x * pen->sine + y * pen->cosine)};
}

/* Light from the upper left of the picture, fading to shade at the lower right of the thing. */
static struct paint shade(const struct pen *pen, struct colour colour)
{
    return (struct paint){
        .first = colour_mix(colour, (struct colour){1, 1, 1}, 0.16f),
        .second = colour_scale(colour, 0.80f),
        .from = {pen->centre.x - 0.7f * pen->size, pen->centre.y - 0.7f * pen->size},
        .to = {pen->centre.x + 0.7f * pen->size, pen->centre.y + 0.7f * pen->size},
        .alpha = 1};
}

static void polygon(const struct pen *pen, struct colour colour, size_t count,
                    const struct point *local)
{
    struct point points[MOST_POINTS];
    for (size_t i = 0; i < count; i++)
        points[i] = place(pen, local[i].x, local[i].y);
    canvas_polygon(pen->canvas, points, count, shade(pen, colour), true);
}

/* A point of the Catmull-Rom curve through b and c. */
static struct point curve(struct point a, struct point b, struct point c, struct point d, float t)
{
    float t2 = t * t, t3 = t2 * t;
    float wa = -0.5f * t3 + t2 - 0.5f * t, wb = 1.5f * t3 - 2.5f * t2 + 1;
    float wc = -1.5f * t3 + 2 * t2 + 0.5f * t, wd = 0.5f * t3 - 0.5f * t2;
    return (struct point){wa * a.x + wb * b.x + wc * c.x + wd * d.x,
                          wa * a.y + wb * b.y + wc * c.y + wd * d.y};
}

/* The smooth closed outline through these points. */
static void blob(const struct pen *pen, struct colour colour, size_t count,
                 const struct point *local)
{
    struct point points[MOST_POINTS * SMOOTH_STEPS];
    size_t made = 0;
    for (size_t i = 0; i < count; i++)
        for (int step = 0; step < SMOOTH_STEPS; step++) {
            struct point p = curve(local[(i + count - 1) % count], local[i], local[(i + 1) % count],
                                   local[(i + 2) % count], (float)step / SMOOTH_STEPS);
            points[made++] = place(pen, p.x, p.y);
        }
    canvas_polygon(pen->canvas, points, made, shade(pen, colour), true);
}

static void ellipse(const struct pen *pen, struct colour colour, float x, float y, float radius_x,
                    float radius_y, float tilt)
{
    enum { sides = 32 };
    struct point points[sides];
    for (int i = 0; i < sides; i++) {
        float turn = 6.2831853f * (float)i / sides;
        float u = radius_x * cosf(turn), v = radius_y * sinf(turn);
        points[i] =
            place(pen, x + u * cosf(tilt) - v * sinf(tilt), y + u * sinf(tilt) + v * cosf(tilt));
    }
    canvas_polygon(pen->canvas, points, sides, shade(pen, colour), true);
}

static void line(const struct pen *pen, struct colour colour, float width, size_t count,
                 const struct point *local)
{
    struct point points[MOST_POINTS * SMOOTH_STEPS];
    size_t made = 0;
    for (size_t i = 0; i + 1 < count; i++)
        for (int step = 0; step < SMOOTH_STEPS; step++) {
            struct point p =
                curve(local[i > 0 ? i - 1 : 0], local[i], local[i + 1],
                      local[i + 2 < count ? i + 2 : i + 1], (float)step / SMOOTH_STEPS);
            points[made++] = place(pen, p.x, p.y);
        }
    points[made++] = place(pen, local[count - 1].x, local[count - 1].y);
    canvas_line(pen->canvas, points, made, width * pen->size, shade(pen, colour));
}

#define POINTS(...)                                                                                \
    sizeof((struct point[]){__VA_ARGS__}) / sizeof(struct point), (const struct point[])           \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static void eye(const struct pen *pen, float x, float y, float radius)
{
    ellipse(pen, colour_rgb(250, 250, 250), x, y, radius, radius, 0);
    ellipse(pen, pen->eye, x + radius * 0.25f, y, radius * 0.5f, radius * 0.5f, 0);
}

static void draw_bird(struct pen *pen)
{
    float wing = random_between(&pen->pose, -0.25f, 0.25f);
    float tail = random_between(&pen->pose, -0.12f, 0.12f);
    line(pen, pen->accent, 0.07f, POINTS({-0.05f, 0.5f}, {-0.08f, 0.9f}, {0.1f, 0.93f}));
    line(pen, pen->accent, 0.07f, POINTS({0.2f, 0.5f}, {0.17f, 0.9f}, {0.35f, 0.93f}));
    polygon(pen, pen->dark,
            POINTS({-0.5f, 0.0f}, {-1.0f, -0.2f + tail}, {-0.95f, 0.02f + tail},
                   {-1.0f, 0.2f + tail}, {-0.45f, 0.35f}));
    polygon(pen, pen->accent, POINTS({0.72f, -0.5f}, {1.0f, -0.36f}, {0.7f, -0.24f}));
    blob(pen, pen->base,
         POINTS({-0.6f, 0.1f}, {-0.25f, -0.2f}, {0.15f, -0.35f}, {0.3f, -0.65f}, {0.58f, -0.7f},
                {0.78f, -0.45f}, {0.68f, -0.1f}, {0.55f, 0.3f}, {0.2f, 0.58f}, {-0.25f, 0.5f}));
    blob(pen, pen->light, POINTS({0.6f, 0.05f}, {0.45f, 0.34f}, {0.12f, 0.48f}, {0.3f, 0.15f}));
    blob(pen, pen->dark,
         POINTS({0.2f, -0.1f}, {-0.1f, -0.12f}, {-0.62f, -0.25f + wing},
                {-0.4f, 0.1f + wing * 0.5f}, {-0.05f, 0.25f}));
    eye(pen, 0.53f, -0.42f, 0.11f);
}

static void draw_fish(struct pen *pen)
{
    float tail = random_between(&pen->pose, 0.3f, 0.5f);
    float fin = random_between(&pen->pose, 0.5f, 0.75f);
    polygon(pen, pen->dark, POINTS({-0.45f, 0}, {-1.0f, -tail}, {-0.85f, 0}, {-1.0f, tail}));
    blob(pen, pen->dark, POINTS({-0.3f, -0.3f}, {0, -fin}, {0.3f, -fin + 0.08f}, {0.35f, -0.3f}));
    blob(pen, pen->base,
         POINTS({-0.6f, 0}, {-0.2f, -0.38f}, {0.3f, -0.45f}, {0.8f, -0.2f}, {0.95f, 0.05f},
                {0.75f, 0.28f}, {0.3f, 0.45f}, {-0.2f, 0.36f}));
    line(pen, pen->dark, 0.06f, POINTS({0.42f, -0.4f}, {0.3f, 0}, {0.42f, 0.4f}));
    blob(pen, pen->light, POINTS({0.2f, 0.05f}, {-0.15f, 0.0f}, {-0.2f, 0.2f}, {0.1f, 0.2f}));
    line(pen, pen->dark, 0.05f, POINTS({-0.15f, -0.3f}, {-0.22f, -0.12f}, {-0.15f, 0.0f}));
    eye(pen, 0.65f, -0.1f, 0.12f);
}

static void draw_cat(struct pen *pen)
{
    float tail = random_between(&pen->pose, -0.2f, 0.2f);
    line(pen, pen->dark, 0.16f,
         POINTS({-0.4f, 0.75f}, {-0.8f, 0.6f}, {-0.85f, 0.1f}, {-0.65f + tail, -0.25f}));
    blob(pen, pen->base,
         POINTS({-0.5f, 0.9f}, {-0.5f, 0.4f}, {-0.25f, 0.0f}, {0.25f, 0.0f}, {0.5f, 0.4f},
                {0.5f, 0.9f}, {0, 0.95f}));
    blob(pen, pen->light, POINTS({-0.2f, 0.8f}, {-0.2f, 0.35f}, {0.2f, 0.35f}, {0.2f, 0.8f}));
    polygon(pen, pen->base, POINTS({-0.5f, -0.45f}, {-0.45f, -1.0f}, {-0.1f, -0.7f}));
    polygon(pen, pen->base, POINTS({0.5f, -0.45f}, {0.45f, -1.0f}, {0.1f, -0.7f}));
    ellipse(pen, pen->base, 0, -0.35f, 0.55f, 0.45f, 0);
    eye(pen, -0.22f, -0.42f, 0.12f);
    eye(pen, 0.2f, -0.42f, 0.12f);
    polygon(pen, pen->accent, POINTS({-0.08f, -0.22f}, {0.08f, -0.22f}, {0, -0.12f}));
    line(pen, pen->dark, 0.04f, POINTS({-0.15f, -0.12f}, {-0.7f, -0.18f}));
    line(pen, pen->dark, 0.04f, POINTS({0.15f, -0.12f}, {0.7f, -0.18f}));
}

static void draw_house(struct pen *pen)
{
    float door = random_between(&pen->pose, -0.35f, -0.05f);
    float roof = random_between(&pen->pose, -1.0f, -0.8f);
    polygon(pen, pen->dark,
            POINTS({0.35f, -0.95f}, {0.58f, -0.95f}, {0.58f, -0.3f}, {0.35f, -0.3f}));
    polygon(pen, pen->base, POINTS({-0.75f, -0.2f}, {0.75f, -0.2f}, {0.75f, 0.9f}, {-0.75f, 0.9f}));
    polygon(pen, pen->dark, POINTS({-0.98f, -0.15f}, {0, roof}, {0.98f, -0.15f}));
    polygon(pen, pen->light,
            POINTS({door - 0.2f, 0.25f}, {door + 0.18f, 0.25f}, {door + 0.18f, 0.9f},
                   {door - 0.2f, 0.9f}));
    ellipse(pen, pen->dark, door + 0.08f, 0.6f, 0.05f, 0.05f, 0);
    polygon(pen, colour_rgb(190, 225, 245),
            POINTS({0.22f, 0.1f}, {0.6f, 0.1f}, {0.6f, 0.5f}, {0.22f, 0.5f}));
    line(pen, pen->dark, 0.05f, POINTS({0.41f, 0.1f}, {0.41f, 0.5f}));
    line(pen, pen->dark, 0.05f, POINTS({0.22f, 0.3f}, {0.6f, 0.3f}));
    ellipse(pen, colour_rgb(190, 225, 245), 0, -0.48f, 0.14f, 0.14f, 0);
}

static void draw_tree(struct pen *pen)
{
    float lean = random_between(&pen->pose, -0.12f, 0.12f);
    float crown = random_between(&pen->pose, 0.9f, 1.08f);
    blob(pen, colour_rgb(120, 84, 56),
         POINTS({-0.22f, 0.95f}, {-0.1f + lean * 0.5f, 0.5f}, {-0.1f + lean, -0.1f},
                {0.1f + lean, -0.1f}, {0.1f + lean * 0.5f, 0.5f}, {0.22f, 0.95f}));
    blob(pen, pen->base,
         POINTS({lean - 0.35f * crown, 0.2f}, {lean - 0.75f * crown, 0.05f},
                {lean - 0.7f * crown, -0.35f}, {lean - 0.4f * crown, -0.55f},
                {lean - 0.25f * crown, -0.88f}, {lean + 0.2f * crown, -0.92f},
                {lean + 0.42f * crown, -0.6f}, {lean + 0.75f * crown, -0.4f},
                {lean + 0.72f * crown, 0.02f}, {lean + 0.35f * crown, 0.2f}, {lean, 0.12f}));
    blob(pen, pen->light,
         POINTS({lean - 0.4f, -0.2f}, {lean - 0.3f, -0.42f}, {lean - 0.08f, -0.38f},
                {lean - 0.15f, -0.15f}));
    ellipse(pen, pen->dark, lean + 0.3f, -0.1f, 0.13f, 0.1f, 0.3f);
    ellipse(pen, pen->dark, lean + 0.15f, -0.62f, 0.12f, 0.09f, -0.3f);
}

static void draw_flower(struct pen *pen)
{
    int petals = 5 + random_below(&pen->pose, 3);
    float turn = random_between(&pen->pose, 0, 1), bend = random_between(&pen->pose, -0.2f, 0.2f);
    struct colour leaf = colour_rgb(70, 150, 70);
    line(pen, leaf, 0.1f, POINTS({0, -0.3f}, {bend, 0.3f}, {0, 0.97f}));
    blob(pen, leaf, POINTS({bend * 0.6f, 0.6f}, {0.3f, 0.3f}, {0.62f, 0.25f}, {0.45f, 0.55f}));
    blob(pen, leaf, POINTS({bend * 0.4f, 0.75f}, {-0.3f, 0.5f}, {-0.62f, 0.5f}, {-0.4f, 0.75f}));
    for (int i = 0; i < petals; i++) {
        float angle = turn + 6.2831853f * (float)i / (float)petals;
        ellipse(pen, pen->base, 0.36f * cosf(angle), -0.38f + 0.36f * sinf(angle), 0.27f,
                petals > 6 ? 0.17f : 0.21f, angle);
    }
    ellipse(pen, pen->accent, 0, -0.38f, 0.2f, 0.2f, 0);
}

static void wheel(const struct pen *pen, float x, float y, float radius)
{
    ellipse(pen, colour_rgb(52, 52, 58), x, y, radius, radius, 0);
    ellipse(pen, colour_rgb(200, 200, 205), x, y, radius * 0.5f, radius * 0.5f, 0);
}

static void draw_car(struct pen *pen)
{
    float roof = random_between(&pen->pose, -0.6f, -0.42f);
    float back = random_between(&pen->pose, -0.62f, -0.42f);
    polygon(pen, pen->base,
            POINTS({back - 0.15f, -0.02f}, {back, roof}, {0.3f, roof}, {0.6f, -0.02f}));
    blob(pen, pen->base,
         POINTS({-0.96f, 0.3f}, {-0.92f, 0.0f}, {-0.5f, -0.08f}, {0.3f, -0.08f}, {0.75f, 0.0f},
                {0.97f, 0.14f}, {0.97f, 0.42f}, {0.6f, 0.47f}, {-0.6f, 0.47f}, {-0.94f, 0.44f}));
    polygon(
        pen, colour_rgb(190, 225, 245),
        POINTS({back, -0.06f}, {back + 0.08f, roof + 0.1f}, {-0.1f, roof + 0.1f}, {-0.1f, -0.06f}));
    polygon(pen, colour_rgb(190, 225, 245),
            POINTS({0.0f, -0.06f}, {0.0f, roof + 0.1f}, {0.25f, roof + 0.1f}, {0.46f, -0.06f}));
    line(pen, pen->dark, 0.05f, POINTS({-0.05f, 0.0f}, {-0.05f, 0.4f}));
    ellipse(pen, colour_rgb(255, 240, 170), 0.88f, 0.18f, 0.08f, 0.07f, 0);
    wheel(pen, -0.52f, 0.45f, 0.23f);
    wheel(pen, 0.54f, 0.45f, 0.23f);
}

static void draw_boat(struct pen *pen)
{
    float sail = random_between(&pen->pose, -1.0f, -0.75f);
    float jib = random_between(&pen->pose, -0.75f, -0.55f);
    line(pen, colour_rgb(120, 84, 56), 0.08f, POINTS({0, 0.4f}, {0, sail - 0.02f}));
    polygon(pen, pen->light, POINTS({0.07f, sail}, {0.75f, 0.25f}, {0.07f, 0.25f}));
    polygon(pen, pen->light, POINTS({-0.07f, sail + 0.12f}, {jib, 0.25f}, {-0.07f, 0.25f}));
    blob(pen, pen->base,
         POINTS({-0.95f, 0.36f}, {-0.3f, 0.42f}, {0.4f, 0.42f}, {0.97f, 0.34f}, {0.7f, 0.78f},
                {0.3f, 0.88f}, {-0.4f, 0.88f}, {-0.75f, 0.74f}));
    line(pen, pen->dark, 0.07f, POINTS({-0.75f, 0.6f}, {0, 0.64f}, {0.78f, 0.58f}));
}

static void draw_butterfly(struct pen *pen)
{
    float open = random_between(&pen->pose, 0.78f, 1.0f);
    float low = random_between(&pen->pose, 0.65f, 0.85f);
    for (int side = -1; side <= 1; side += 2) {
        float s = (float)side * open;
        blob(pen, pen->base,
             POINTS({0.05f * s, -0.1f}, {0.35f * s, -0.7f}, {0.8f * s, -0.8f}, {0.95f * s, -0.4f},
                    {0.6f * s, 0.0f}));
        blob(pen, pen->dark,
             POINTS({0.05f * s, 0.05f}, {0.55f * s, 0.0f}, {0.75f * s, 0.35f}, {0.5f * s, low},
                    {0.2f * s, 0.5f}));
        ellipse(pen, pen->light, 0.62f * s, -0.45f, 0.17f, 0.17f, 0);
        ellipse(pen, pen->light, 0.45f * s, 0.32f, 0.12f, 0.12f, 0);
        line(pen, colour_rgb(60, 50, 50), 0.05f,
             POINTS({0.03f * s, -0.45f}, {0.1f * s, -0.75f}, {0.25f * s, -0.92f}));
    }
    ellipse(pen, colour_rgb(80, 66, 60), 0, 0.05f, 0.1f, 0.55f, 0);
}

static void draw_mushroom(struct pen *pen)
{
    float brim = random_between(&pen->pose, 0.05f, 0.2f),
          stem = random_between(&pen->pose, 0.2f, 0.3f);
    blob(pen, colour_rgb(245, 232, 208),
         POINTS({-stem, 0.0f}, {-stem * 0.9f, 0.5f}, {-stem * 1.4f, 0.9f}, {0, 0.97f},
                {stem * 1.4f, 0.9f}, {stem * 0.9f, 0.5f}, {stem, 0.0f}));
    blob(pen, pen->base,
         POINTS({-0.92f, brim}, {-0.8f, -0.4f}, {-0.35f, -0.82f}, {0.3f, -0.82f}, {0.8f, -0.4f},
                {0.92f, brim}, {0.4f, brim + 0.12f}, {-0.4f, brim + 0.12f}));
    ellipse(pen, pen->light, -0.1f, -0.48f, 0.2f, 0.16f, 0);
    ellipse(pen, pen->light, 0.45f, -0.22f, 0.15f, 0.13f, 0.4f);
    ellipse(pen, pen->light, -0.55f, -0.12f, 0.15f, 0.13f, -0.4f);
}

static void draw_cup(struct pen *pen)
{
    float handle = random_between(&pen->pose, 0.8f, 0.98f);
    float waist = random_between(&pen->pose, 0.35f, 0.5f);
    line(pen, pen->dark, 0.13f,
         POINTS({0.5f, -0.25f}, {handle - 0.1f, -0.3f}, {handle, 0.1f}, {handle - 0.2f, 0.4f},
                {0.42f, 0.4f}));
    blob(pen, pen->base,
         POINTS({-0.62f, -0.4f}, {0, -0.4f}, {0.62f, -0.4f}, {0.58f, 0.2f}, {waist, 0.78f},
                {0, 0.86f}, {-waist, 0.78f}, {-0.58f, 0.2f}));
    ellipse(pen, pen->dark, 0, -0.42f, 0.62f, 0.15f, 0);
    ellipse(pen, colour_rgb(92, 58, 40), 0, -0.39f, 0.5f, 0.1f, 0);
    blob(pen, pen->light, POINTS({-0.2f, 0.1f}, {0, -0.02f}, {0.2f, 0.1f}, {0, 0.42f}));
    line(pen, pen->light, 0.06f, POINTS({-0.15f, -0.62f}, {-0.22f, -0.76f}, {-0.12f, -0.95f}));
    line(pen, pen->light, 0.06f, POINTS({0.18f, -0.62f}, {0.11f, -0.76f}, {0.21f, -0.95f}));
}

static void draw_balloon(struct pen *pen)
{
    float low = random_between(&pen->pose, 0.25f, 0.38f);
    struct colour rope = colour_rgb(96, 72, 52);
    line(pen, rope, 0.035f, POINTS({-0.3f, low - 0.1f}, {-0.17f, 0.7f}));
    line(pen, rope, 0.035f, POINTS({0.3f, low - 0.1f}, {0.17f, 0.7f}));
    blob(pen, pen->base,
         POINTS({0, -1.0f}, {0.5f, -0.82f}, {0.72f, -0.38f}, {0.55f, 0.05f}, {0.22f, low},
                {-0.22f, low}, {-0.55f, 0.05f}, {-0.72f, -0.38f}, {-0.5f, -0.82f}));
    blob(pen, pen->light,
         POINTS({0, -0.98f}, {0.22f, -0.8f}, {0.28f, -0.38f}, {0.2f, 0.05f}, {0.08f, low},
                {-0.08f, low}, {-0.2f, 0.05f}, {-0.28f, -0.38f}, {-0.22f, -0.8f}));
    polygon(pen, colour_rgb(168, 116, 66),
            POINTS({-0.22f, 0.68f}, {0.22f, 0.68f}, {0.17f, 0.97f}, {-0.17f, 0.97f}));
}

static void draw_umbrella(struct pen *pen)
{
    float hook = random_between(&pen->pose, 0.15f, 0.28f);
    line(pen, colour_rgb(120, 84, 56), 0.08f,
         POINTS({0, -0.6f}, {0, 0.5f}, {0.02f, 0.82f}, {hook, 0.9f}, {hook * 1.7f, 0.7f}));
    blob(pen, pen->base,
         POINTS({-0.95f, 0.12f}, {-0.8f, -0.38f}, {-0.35f, -0.76f}, {0, -0.85f}, {0.35f, -0.76f},
                {0.8f, -0.38f}, {0.95f, 0.12f}, {0.63f, 0.0f}, {0.32f, 0.14f}, {0, 0.02f},
                {-0.32f, 0.14f}, {-0.63f, 0.0f}));
    blob(pen, pen->light,
         POINTS({-0.3f, 0.1f}, {-0.25f, -0.4f}, {0, -0.83f}, {0.25f, -0.4f}, {0.3f, 0.1f},
                {0, 0.02f}));
    line(pen, pen->dark, 0.06f, POINTS({0, -0.85f}, {0, -0.98f}));
}

static void draw_rocket(struct pen *pen)
{
    float flame = random_between(&pen->pose, 0.8f, 1.0f),
          fin = random_between(&pen->pose, 0.5f, 0.68f);
    blob(pen, colour_rgb(255, 150, 40), POINTS({-0.2f, 0.5f}, {0, flame}, {0.2f, 0.5f}));
    polygon(pen, pen->dark, POINTS({-0.25f, 0.05f}, {-fin, 0.45f}, {-fin, 0.72f}, {-0.2f, 0.5f}));
    polygon(pen, pen->dark, POINTS({0.25f, 0.05f}, {fin, 0.45f}, {fin, 0.72f}, {0.2f, 0.5f}));
    blob(pen, pen->base,
         POINTS({0, -0.98f}, {0.22f, -0.6f}, {0.33f, -0.1f}, {0.25f, 0.52f}, {-0.25f, 0.52f},
                {-0.33f, -0.1f}, {-0.22f, -0.6f}));
    ellipse(pen, pen->light, 0, -0.3f, 0.18f, 0.18f, 0);
    ellipse(pen, colour_rgb(190, 225, 245), 0, -0.3f, 0.11f, 0.11f, 0);
    line(pen, pen->dark, 0.06f, POINTS({-0.27f, 0.28f}, {0.27f, 0.28f}));
}

static const struct {
    const char *name;
    void (*draw)(struct pen *pen);
    float tilt; /* most radians of tilt */
} things[] = {{"bird", draw_bird, 0.25f},
              {"fish", draw_fish, 0.4f},
              {"cat", draw_cat, 0.1f},
              {"house", draw_house, 0.06f},
              {"tree", draw_tree, 0.08f},
              {"flower", draw_flower, 0.2f},
              {"car", draw_car, 0.12f},
              {"boat", draw_boat, 0.15f},
              {"butterfly", draw_butterfly, 0.5f},
              {"mushroom", draw_mushroom, 0.15f},
              {"cup", draw_cup, 0.12f},
              {"balloon", draw_balloon, 0.15f},
              {"umbrella", draw_umbrella, 0.35f},
              {"rocket", draw_rocket, 0.6f}};

int thing_count(void)
{
    return (int)(sizeof things / sizeof *things);
}

struct thing_picture thing_picture_random(struct random *random)
{
    struct thing_picture picture = {.thing = random_below(random, thing_count()),
                                    .colour = random_below(random, COLOUR_COUNT),
                                    .ground = random_below(random, COLOUR_COUNT - 1),
                                    .pose = random_bits(random)};
    if (picture.ground >= picture.colour)
        picture.ground++;
    return picture;
}

/* Leaves in `random` what the thing's details are drawn from. */
static struct thing_pose pose_of(int width, int height, const struct thing_picture *picture,
                                 struct random *random)
{
    *random = (struct random){picture->pose};
    float middle_x = (float)width / 2, middle_y = (float)height / 2;
    float size = 2 * fminf(middle_x, middle_y) * random_between(random, 0.32f, 0.45f);
    float tilt = things[picture->thing].tilt * random_between(random, -1, 1);
    float x = middle_x + (middle_x - size) * random_between(random, -0.8f, 0.8f);
    float y = middle_y + (middle_y - size) * random_between(random, -0.8f, 0.8f);
    return (struct thing_pose){x, y, size, tilt, !random_chance(random, 0.5f)};
}

struct thing_pose thing_picture_pose(int width, int height, const struct thing_picture *picture)
{
    struct random random;
    return pose_of(width, height, picture, &random);
}

void thing_picture_draw(struct canvas *canvas, const struct thing_picture *picture)
{
    struct random random;
    struct thing_pose pose = pose_of(canvas->width, canvas->height, picture, &random);
    float side = fminf((float)canvas->width, (float)canvas->height), size = pose.size;
    struct pen pen = {.canvas = canvas,
                      .centre = {pose.x, pose.y},
                      .size = size,
                      .cosine = cosf(pose.tilt),
                      .sine = sinf(pose.tilt),
                      .flip = pose.mirrored ? -1 : 1,
                      .base = colour_of(picture->colour)};
    struct colour white = {1, 1, 1}, darkness = {0.05f, 0.05f, 0.07f};
    pen.pose = random;
    pen.light = colour_mix(pen.base, white, 0.5f);
    pen.dark = colour_mix(pen.base, darkness, 0.35f);
    pen.eye = colour_rgb(30, 30, 34);
    pen.accent = picture->colour == 1 || picture->colour == 2 ? colour_rgb(206, 70, 40)
                                                              : colour_rgb(250, 172, 40);
    if (picture->colour == 8) /* white has no lighter shade */
        pen.light = colour_rgb(214, 216, 222);
    if (picture->colour == 9)
        pen.dark = colour_rgb(92, 92, 100);
    struct colour ground = colour_of(picture->ground);
    canvas->stroke = fmaxf(1.3f, side / 80);
    canvas->wobble = side / 220;
    canvas->hand = picture->pose;
    canvas_clear(canvas, (struct paint){.first = colour_mix(ground, white, 0.12f),
                                        .second = colour_scale(ground, 0.86f),
                                        .from = {0, 0},
                                        .to = {0, (float)canvas->height},
                                        .alpha = 1});
    canvas_shadow(canvas, (struct point){pen.centre.x, pen.centre.y + size * 0.98f}, size * 0.95f,
                  size * 0.16f, 0.35f);
    things[picture->thing].draw(&pen);
}

int thing_picture_caption(const struct thing_picture *picture, char *text, size_t size)
{
    const char *colour = colour_names[picture->colour];
    return snprintf(text, size, "%s %s %s on %s %s ground", strchr("aeiou", *colour) ? "an" : "a",
                    colour, things[picture->thing].name,
                    strchr("aeiou", *colour_names[picture->ground]) ? "an" : "a",
                    colour_names[picture->ground]);
}
