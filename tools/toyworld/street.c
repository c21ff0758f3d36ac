#include "street.h"

#include <math.h>

/* World units are metres: x to the right, y up, z ahead; the eye is at (0, eye_height, 0). */
struct view {
    struct canvas *canvas;
    enum street_weather weather;
    struct point vanishing; /* pixels */
    float focal;            /* pixels */
};

static const float eye_height = 2.6f;
static const float road_half = 4.2f, walk_half = 6.6f, far_away = 70;

static struct point project(const struct view *view, float x, float y, float z)
{
    return (struct point){view->vanishing.x + view->focal * x / z,
                          view->vanishing.y - view->focal * (y - eye_height) / z};
}

/* A surface's colour in this weather, before distance. */
static struct colour weathered(const struct view *view, struct colour colour)
{
    if (view->weather == STREET_NIGHT)
        return colour_mix(colour_scale(colour, 0.46f), colour_rgb(14, 20, 56), 0.42f);
    if (view->weather == STREET_RAIN) {
        float grey = 0.3f * colour.r + 0.59f * colour.g + 0.11f * colour.b;
        struct colour dull = colour_mix(colour, (struct colour){grey, grey, grey * 1.04f}, 0.45f);
        return colour_scale(dull, 0.74f);
    }
    return colour;
}

static struct colour haze(const struct view *view)
{
    if (view->weather == STREET_NIGHT)
        return colour_rgb(36, 40, 84);
    return view->weather == STREET_RAIN ? colour_rgb(158, 164, 172) : colour_rgb(196, 222, 240);
}

/* What is farther takes more of the air's colour. */
static struct colour distant(const struct view *view, struct colour colour, float z)
{
    float thickness = view->weather == STREET_RAIN ? 42 : 75;
    return colour_mix(weathered(view, colour), haze(view), 1 - expf(-z / thickness));
}

static struct paint surface(const struct view *view, struct colour colour, float z)
{
    return paint_flat(distant(view, colour, z));
}

static void quad(const struct view *view, struct paint paint, struct point a, struct point b,
                 struct point c, struct point d)
{
    canvas_polygon(view->canvas, (struct point[]){a, b, c, d}, 4, paint, true);
}

static void ellipse(const struct view *view, struct paint paint, float x, float y, float radius_x,
                    float radius_y)
{
    enum { sides = 28 };
    struct point points[sides];
    for (int i = 0; i < sides; i++) {
        float turn = 6.2831853f * (float)i / sides;
        points[i] = (struct point){x + radius_x * cosf(turn), y + radius_y * sinf(turn)};
    }
    canvas_polygon(view->canvas, points, sides, paint, true);
}

static void draw_sky(const struct view *view, struct random *random)
{
    static const unsigned char top[3][3] = {{86, 160, 228}, {10, 16, 48}, {116, 122, 132}};
    static const unsigned char low[3][3] = {{206, 230, 246}, {52, 54, 104}, {166, 171, 178}};
    const unsigned char *t = top[view->weather], *l = low[view->weather];
    struct canvas *canvas = view->canvas;
    float width = (float)canvas->width, unit = fminf(width, (float)canvas->height);
    canvas_clear(canvas, (struct paint){.first = colour_rgb(t[0], t[1], t[2]),
                                        .second = colour_rgb(l[0], l[1], l[2]),
                                        .from = {0, 0},
                                        .to = {0, view->vanishing.y},
                                        .alpha = 1});
    float sun_x = view->vanishing.x + unit * random_between(random, -0.16f, 0.16f);
    float sun_y = view->vanishing.y - unit * random_between(random, 0.26f, 0.36f);
    float radius = unit * 0.05f;
    if (view->weather == STREET_DAY) {
        canvas_glow(canvas, (struct point){sun_x, sun_y}, 3.2f * radius, 3.2f * radius,
                    (struct colour){0.5f, 0.42f, 0.2f});
        ellipse(view, paint_flat(colour_rgb(255, 244, 190)), sun_x, sun_y, radius, radius);
    } else if (view->weather == STREET_NIGHT) {
        canvas_glow(canvas, (struct point){sun_x, sun_y}, 3.2f * radius, 3.2f * radius,
                    (struct colour){0.16f, 0.17f, 0.2f});
        ellipse(view, paint_flat(colour_rgb(240, 240, 222)), sun_x, sun_y, radius, radius);
        ellipse(view, paint_flat(colour_rgb(214, 214, 200)), sun_x + 0.3f * radius,
                sun_y + 0.25f * radius, 0.25f * radius, 0.25f * radius);
    } else { /* the sun behind the clouds */
        canvas_glow(canvas, (struct point){sun_x, sun_y}, 2.6f * radius, 2.2f * radius,
                    (struct colour){0.2f, 0.2f, 0.19f});
    }
    int clouds = 1 + random_below(random, 3);
    for (int i = 0; i < clouds; i++) {
        float x = width * random_between(random, 0.05f, 0.95f);
        float y = view->vanishing.y - unit * random_between(random, 0.12f, 0.42f);
        float size = unit * random_between(random, 0.05f, 0.09f);
        struct colour colour = view->weather == STREET_DAY     ? colour_rgb(252, 253, 255)
                               : view->weather == STREET_NIGHT ? colour_rgb(38, 42, 80)
                                                               : colour_rgb(138, 143, 152);
        struct paint paint = paint_flat(colour);
        ellipse(view, paint, x - size, y + size * 0.15f, size * 0.8f, size * 0.42f);
        ellipse(view, paint, x + size, y + size * 0.15f, size * 0.9f, size * 0.40f);
        ellipse(view, paint, x, y - size * 0.1f, size, size * 0.6f);
    }
    int flock = 3 + random_below(random, 6);
    for (int i = 0; i < flock; i++) {
        float x = width * random_between(random, 0.08f, 0.92f);
        float y = view->vanishing.y - unit * random_between(random, 0.18f, 0.5f);
        float span = unit * random_between(random, 0.016f, 0.026f);
        if (view->weather == STREET_NIGHT) {
            canvas_glow(canvas, (struct point){x, y}, span * 0.9f, span * 0.9f,
                        (struct colour){1, 1, 0.95f});
            continue;
        }
        struct paint ink = paint_flat(view->weather == STREET_DAY ? colour_rgb(62, 78, 100)
                                                                  : colour_rgb(84, 88, 98));
        struct point wings[] = {{x - span, y - span * 0.5f}, {x, y}, {x + span, y - span * 0.5f}};
        canvas_line(canvas, wings, 3, unit * 0.009f, ink);
    }
}

static void draw_ground(const struct view *view)
{
    float near_z =
        view->focal * eye_height / ((float)view->canvas->height - view->vanishing.y) * 0.9f;
    static const struct {
        float from, to;
        unsigned char colour[3];
    } strips[] = {{-60, -walk_half, {116, 168, 92}},
                  {walk_half, 60, {116, 168, 92}},
                  {-walk_half, -road_half, {190, 186, 178}},
                  {road_half, walk_half, {190, 186, 178}},
                  {-road_half, road_half, {104, 106, 112}}};
    for (size_t i = 0; i < sizeof strips / sizeof *strips; i++) {
        struct colour colour =
            colour_rgb(strips[i].colour[0], strips[i].colour[1], strips[i].colour[2]);
        struct point a = project(view, strips[i].from, 0, near_z);
        struct point b = project(view, strips[i].to, 0, near_z);
        struct point c = project(view, strips[i].to, 0, far_away);
        struct point d = project(view, strips[i].from, 0, far_away);
        struct paint paint = {
            distant(view, colour, near_z), distant(view, colour, far_away), {0, a.y}, {0, c.y}, 1};
        /* most of the distance lies in the last pixels */
        paint.second = distant(view, colour, 30);
        quad(view, paint, a, b, c, d);
    }
    for (float z = near_z - fmodf(near_z, 4); z < 50; z += 4) {
        float from = fmaxf(z, near_z);
        quad(view, surface(view, colour_rgb(246, 246, 238), z), project(view, -0.12f, 0, from),
             project(view, 0.12f, 0, from), project(view, 0.12f, 0, z + 2),
             project(view, -0.12f, 0, z + 2));
    }
}

static void draw_window(const struct view *view, bool curtained, float z, struct point a,
                        struct point b, struct point c, struct point d)
{
    struct colour glass = colour_rgb(96, 124, 150), curtain = colour_rgb(250, 232, 178);
    if (view->weather == STREET_NIGHT && curtained) {
        quad(view, paint_flat(colour_mix(colour_rgb(255, 206, 96), haze(view), 1 - expf(-z / 120))),
             a, b, c, d);
        struct point centre = {(a.x + c.x) / 2, (a.y + c.y) / 2};
        float radius = fabsf(a.y - d.y) * 1.1f;
        canvas_glow(view->canvas, centre, radius, radius, (struct colour){0.22f, 0.15f, 0.04f});
        return;
    }
    quad(view, surface(view, curtained ? curtain : glass, z), a, b, c, d);
}

/* A house along the street: its wall at x, from z to z + depth, and its near side. */
static void draw_building(const struct view *view, struct random *random, float side, float z,
                          float depth)
{
    static const unsigned char walls[][3] = {{204, 112, 86},  {232, 206, 150}, {150, 170, 196},
                                             {226, 226, 218}, {176, 136, 108}, {188, 196, 160},
                                             {222, 160, 150}};
    const unsigned char *w = walls[random_below(random, 7)];
    struct colour wall = colour_rgb(w[0], w[1], w[2]);
    int storeys = 2 + random_below(random, 4);
    float storey = 3.1f, height = storey * (float)storeys + 0.8f;
    float x = side * (walk_half + 0.3f), outer = side * (walk_half + 9);
    float end = z + depth;
    /* the near side, turned towards the eye */
    quad(view, surface(view, colour_scale(wall, 0.86f), z), project(view, x, 0, z),
         project(view, outer, 0, z), project(view, outer, height, z), project(view, x, height, z));
    quad(view, surface(view, colour_scale(wall, side > 0 ? 1.0f : 0.94f), z + depth / 2),
         project(view, x, 0, z), project(view, x, 0, end), project(view, x, height, end),
         project(view, x, height, z));
    quad(view, surface(view, colour_scale(wall, 0.6f), z), project(view, x, height, z),
         project(view, x, height, end), project(view, x, height + 0.5f, end),
         project(view, x, height + 0.5f, z));
    quad(view, surface(view, colour_scale(wall, 0.55f), z), project(view, x, height, z),
         project(view, outer, height, z), project(view, outer, height + 0.5f, z),
         project(view, x, height + 0.5f, z));
    int columns = (int)(depth / 2.6f);
    for (int row = 0; row < storeys; row++)
        for (int column = 0; column < columns; column++) {
            float start = z + ((float)column + 0.25f) * depth / (float)columns;
            float stop = start + 0.55f * depth / (float)columns;
            float low = (float)row * storey + 1.1f, high = low + 1.6f;
            draw_window(view, random_chance(random, 0.42f), start, project(view, x, low, start),
                        project(view, x, low, stop), project(view, x, high, stop),
                        project(view, x, high, start));
        }
    for (int row = 0; row < storeys; row++)
        for (int column = 0; column < 2; column++) {
            float start = x + side * (1.2f + 3.2f * (float)column), stop = start + side * 1.7f;
            float low = (float)row * storey + 1.1f, high = low + 1.6f;
            draw_window(view, random_chance(random, 0.42f), z, project(view, start, low, z),
                        project(view, stop, low, z), project(view, stop, high, z),
                        project(view, start, high, z));
        }
}

static void draw_tree(const struct view *view, struct random *random, float x, float z)
{
    float height = random_between(random, 2.6f, 3.6f), crown = random_between(random, 1.0f, 1.5f);
    struct point foot = project(view, x, 0, z), top = project(view, x, height, z);
    float metre = view->focal / z;
    struct colour leaves =
        random_chance(random, 0.25f) ? colour_rgb(212, 146, 60) : colour_rgb(72, 142, 66);
    canvas_line(view->canvas, (struct point[]){foot, top}, 2, 0.3f * metre,
                surface(view, colour_rgb(104, 76, 54), z));
    ellipse(view, surface(view, leaves, z), top.x, top.y, crown * metre, crown * 1.15f * metre);
    ellipse(view, surface(view, colour_mix(leaves, (struct colour){1, 1, 0.8f}, 0.25f), z),
            top.x - 0.35f * crown * metre, top.y - 0.35f * crown * metre, 0.42f * crown * metre,
            0.4f * crown * metre);
}

static void draw_lamp(const struct view *view, float side, float z)
{
    float x = side * (road_half + 0.5f), reach = side * (road_half - 0.9f);
    float metre = view->focal / z;
    struct paint post = surface(view, colour_rgb(70, 74, 82), z);
    struct point foot = project(view, x, 0, z), top = project(view, x, 5.4f, z);
    struct point head = project(view, reach, 5.5f, z);
    canvas_line(view->canvas, (struct point[]){foot, top, head}, 3, 0.16f * metre, post);
    if (view->weather != STREET_NIGHT) {
        ellipse(view, surface(view, colour_rgb(236, 236, 226), z), head.x, head.y, 0.42f * metre,
                0.24f * metre);
        return;
    }
    struct point pool = project(view, reach, 0, z);
    canvas_glow(view->canvas, pool, 3.4f * metre, 0.9f * metre,
                (struct colour){0.26f, 0.2f, 0.09f});
    canvas_glow(view->canvas, head, 2.0f * metre, 2.0f * metre, (struct colour){0.5f, 0.4f, 0.2f});
    ellipse(view, paint_flat(colour_rgb(255, 240, 190)), head.x, head.y, 0.42f * metre,
            0.26f * metre);
}

/* A car from behind (on the right) or from the front (coming, on the left). */
static void draw_car(const struct view *view, struct random *random, float x, float z, bool coming)
{
    static const unsigned char bodies[][3] = {{206, 44, 44},   {44, 96, 190},  {240, 240, 240},
                                              {60, 62, 70},    {244, 186, 44}, {64, 150, 96},
                                              {156, 160, 168}, {150, 70, 150}};
    const unsigned char *b = bodies[random_below(random, 8)];
    struct colour body = colour_rgb(b[0], b[1], b[2]);
    float metre = view->focal / z;
    struct point foot = project(view, x, 0, z);
    float left = foot.x - 0.95f * metre, right = foot.x + 0.95f * metre, ground = foot.y;
    struct canvas *canvas = view->canvas;
    bool lights = view->weather != STREET_DAY;
    struct colour lamp = coming ? colour_rgb(255, 250, 220) : colour_rgb(255, 44, 34);
    struct colour glow =
        coming ? (struct colour){0.55f, 0.5f, 0.36f} : (struct colour){0.5f, 0.05f, 0.03f};
    if (view->weather == STREET_RAIN)
        glow = colour_scale(glow, 0.5f);
    canvas_shadow(canvas, foot, 1.25f * metre, 0.28f * metre, 0.55f);
    if (lights) /* light on the road before or behind it, long and mirrored when wet */
        for (int i = -1; i <= 1; i += 2)
            canvas_glow(
                canvas,
                (struct point){foot.x + (float)i * 0.68f * metre,
                               ground + (view->weather == STREET_RAIN ? 0.75f : 0.3f) * metre},
                0.38f * metre, (view->weather == STREET_RAIN ? 0.95f : 0.5f) * metre, glow);
    struct paint tyre = surface(view, colour_rgb(34, 34, 38), z);
    for (int i = -1; i <= 1; i += 2) {
        float middle = foot.x + (float)i * 0.68f * metre;
        quad(view, tyre, (struct point){middle - 0.17f * metre, ground},
             (struct point){middle + 0.17f * metre, ground},
             (struct point){middle + 0.17f * metre, ground - 0.45f * metre},
             (struct point){middle - 0.17f * metre, ground - 0.45f * metre});
    }
    struct point cabin[] = {{left + 0.12f * metre, ground - 0.95f * metre},
                            {left + 0.34f * metre, ground - 1.55f * metre},
                            {right - 0.34f * metre, ground - 1.55f * metre},
                            {right - 0.12f * metre, ground - 0.95f * metre}};
    canvas_polygon(canvas, cabin, 4, surface(view, colour_scale(body, 0.85f), z), true);
    struct point glass[] = {{left + 0.26f * metre, ground - 0.95f * metre},
                            {left + 0.43f * metre, ground - 1.45f * metre},
                            {right - 0.43f * metre, ground - 1.45f * metre},
                            {right - 0.26f * metre, ground - 0.95f * metre}};
    canvas_polygon(canvas, glass, 4,
                   surface(view, coming ? colour_rgb(150, 190, 214) : colour_rgb(92, 114, 138), z),
                   true);
    quad(view, surface(view, body, z), (struct point){left, ground - 0.25f * metre},
         (struct point){right, ground - 0.25f * metre},
         (struct point){right, ground - 0.98f * metre},
         (struct point){left, ground - 0.98f * metre});
    quad(view, surface(view, colour_scale(body, 0.6f), z),
         (struct point){left, ground - 0.22f * metre},
         (struct point){right, ground - 0.22f * metre},
         (struct point){right, ground - 0.42f * metre},
         (struct point){left, ground - 0.42f * metre});
    for (int i = -1; i <= 1; i += 2) {
        float middle = foot.x + (float)i * 0.7f * metre, height = ground - 0.7f * metre;
        struct paint off =
            surface(view, coming ? colour_rgb(236, 236, 220) : colour_rgb(166, 26, 26), z);
        if (lights)
            canvas_glow(canvas, (struct point){middle, height}, 0.75f * metre, 0.65f * metre, glow);
        ellipse(view, lights ? paint_flat(lamp) : off, middle, height, 0.2f * metre, 0.15f * metre);
    }
}

/* Each pixel of wet ground takes a share of what stands mirrored above the horizon. */
static void wet_reflections(const struct view *view)
{
    struct canvas *canvas = view->canvas;
    int horizon = (int)(view->vanishing.y * CANVAS_SAMPLES);
    for (int row = canvas->rows - 1; row > horizon; row--)
        for (int column = 0; column < canvas->columns; column++) {
            float depth = (float)(row - horizon) / (float)CANVAS_SAMPLES;
            float z = view->focal * eye_height / depth;
            float x = ((float)column / CANVAS_SAMPLES - view->vanishing.x) * z / view->focal;
            if (fabsf(x) > walk_half)
                continue;
            int mirrored = 2 * horizon - row;
            if (mirrored < 0)
                mirrored = 0;
            float share = fabsf(x) < road_half ? 0.40f : 0.25f;
            size_t columns = (size_t)canvas->columns, at = (size_t)row * columns + (size_t)column;
            const float *from = canvas->samples + ((size_t)mirrored * columns + (size_t)column) * 3;
            for (int channel = 0; channel < 3; channel++) {
                float *to = canvas->samples + at * 3 + channel;
                *to += (from[channel] - *to) * share;
            }
        }
}

/* Fine scratches of the pane that one looks through: hardly seen when dry, bright streaks in rain.
 */
static void draw_streaks(const struct view *view, struct random *random, float alpha)
{
    struct canvas *canvas = view->canvas;
    float width = (float)canvas->width, height = (float)canvas->height, unit = fminf(width, height);
    struct paint paint = paint_flat(colour_rgb(226, 232, 240));
    paint.alpha = alpha;
    int count = (int)(80 * width * height / (unit * unit));
    for (int i = 0; i < count; i++) {
        float x = random_between(random, -0.05f, 1.05f) * width;
        float y = random_between(random, -0.05f, 1) * height;
        float length = random_between(random, 0.045f, 0.085f) * unit;
        struct point ends[] = {{x, y}, {x - 0.3f * length, y + length}};
        canvas_line(canvas, ends, 2, 0.0075f * unit, paint);
    }
}

void street_draw(struct canvas *canvas, uint64_t seed, enum street_weather weather)
{
    bool pane = weather == STREET_CLEAR || weather == STREET_RAIN;
    if (weather == STREET_CLEAR)
        weather = STREET_DAY;
    struct random random = {seed ^ 0x5741f00du};
    float width = (float)canvas->width, height = (float)canvas->height;
    struct view view = {.canvas = canvas,
                        .weather = weather,
                        .vanishing = {width * random_between(&random, 0.38f, 0.62f),
                                      height * random_between(&random, 0.50f, 0.58f)},
                        .focal = fminf(width, height) * random_between(&random, 0.62f, 0.8f)};
    draw_sky(&view, &random);
    /* the far end of the street */
    for (int i = 0; i < 7; i++) {
        float x = -30 + 10 * (float)i, tall = random_between(&random, 4, 15);
        quad(&view, surface(&view, colour_rgb(128, 142, 160), 48), project(&view, x - 5.2f, 0, 66),
             project(&view, x + 5.2f, 0, 66), project(&view, x + 5.2f, tall, 66),
             project(&view, x - 5.2f, tall, 66));
    }
    draw_ground(&view);
    float starts[2] = {34, 34};
    for (int row = 0; row < 3; row++)
        for (int side = 0; side < 2; side++) {
            float depth = random_between(&random, 6.5f, 9.0f);
            float gap = random_between(&random, 1.0f, 3.0f);
            starts[side] -= depth + gap;
            draw_building(&view, &random, side ? 1 : -1, starts[side], depth);
        }
    float lamp_z = random_between(&random, 7.5f, 9.5f);
    float car_z[2] = {random_between(&random, 5.0f, 9.0f), random_between(&random, 7.0f, 14.0f)};
    bool coming[2] = {random_chance(&random, 0.85f), random_chance(&random, 0.85f)};
    if (random_chance(&random, 0.7f))
        draw_tree(&view, &random, -5.6f, random_between(&random, 15, 20));
    if (random_chance(&random, 0.7f))
        draw_tree(&view, &random, 5.6f, random_between(&random, 15, 20));
    for (int i = 2; i >= 0; i--) {
        draw_lamp(&view, -1, lamp_z + 9 * (float)i);
        draw_lamp(&view, 1, lamp_z + 4.5f + 9 * (float)i);
    }
    if (random_chance(&random, 0.5f))
        draw_car(&view, &random, 2.1f, car_z[0] + random_between(&random, 7, 12), false);
    if (coming[1])
        draw_car(&view, &random, -2.1f, car_z[1], true);
    if (coming[0])
        draw_car(&view, &random, 2.1f, car_z[0], false);
    if (random_chance(&random, 0.5f))
        draw_tree(&view, &random, random_chance(&random, 0.5f) ? -5.6f : 5.6f,
                  random_between(&random, 6, 9));
    if (weather == STREET_RAIN)
        wet_reflections(&view);
    if (pane)
        draw_streaks(&view, &random, weather == STREET_RAIN ? 0.5f : 0.12f);
}
