#include "plan/placement.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGNMENT 64

/* A stretch of memory wanted from step `first` to step `last`, both included. */
typedef struct region {
    size_t bytes, offset;
    int first, last;
} region;

typedef struct builder {
    const program *program;
    const bool *kept; /* by value */
    region *regions;  /* values first, then one scratch a step */
    int *owner;       /* by value: the region it lives in (its own, or one it took over) */
    int *order;       /* regions, largest first */
    int *placed;      /* regions placed so far, by offset */
    int region_count;
} builder;

/* The steps between which every value must be kept. */
static void find_lifetimes(builder *b)
{
    const program *p = b->program;
    for (int v = 0; v < p->value_count; v++) {
        region *r = &b->regions[v];
        r->bytes = p->values[v].bytes;
        r->first = p->values[v].kind == VALUE_INPUT ? 0 : p->step_count;
        r->last = -1;
        b->owner[v] = v;
    }
    for (int s = 0; s < p->step_count; s++) {
        const program_step *step = &p->steps[s];
        for (unsigned o = 0; o < step->output_count; o++) {
            region *r = &b->regions[step->outputs[o]];
            r->first = s < r->first ? s : r->first; /* several steps may write parts of a value */
            r->last = s > r->last ? s : r->last;
        }
        for (unsigned i = 0; i < step->input_count; i++) {
            region *r = &b->regions[step->inputs[i]];
            r->last = s > r->last ? s : r->last;
        }
        region *scratch = &b->regions[p->value_count + s];
        *scratch = (region){.bytes = step->scratch_bytes, .first = s, .last = s};
    }
    for (int v = 0; v < p->value_count; v++) {
        if (b->kept[v]) {
            b->regions[v].first = 0;
            b->regions[v].last = p->step_count;
        }
    }
}

/* Lets outputs take over the place of inputs that die in the same step. */
static void share_in_place(builder *b)
{
    const program *p = b->program;
    for (int s = 0; s < p->step_count; s++) {
        const program_step *step = &p->steps[s];
        if (step->in_place < 0 || step->output_count == 0) {
            continue;
        }
        int input = b->owner[step->inputs[step->in_place]], output = step->outputs[0];
        region *from = &b->regions[input], *to = &b->regions[output];
        if (from->last == s && to->first == s && b->owner[output] == output &&
            to->bytes <= from->bytes && input != output) {
            from->last = to->last;
            to->bytes = 0; /* lives inside `from` */
            b->owner[output] = input;
        }
    }
}

/* Largest first; the index breaks ties so that the order is the same everywhere. */
static int compare_regions(const void *left, const void *right, void *context)
{
    const region *regions = context;
    int a = *(const int *)left, b = *(const int *)right;
    if (regions[a].bytes != regions[b].bytes) {
        return regions[a].bytes > regions[b].bytes ? -1 : 1;
    }
    return a < b ? -1 : a > b;
}

/* Puts a region into the lowest gap between the placed regions that live at the same time.
 * `placed` is sorted by offset. */
static void place(builder *b, int index, int placed_count)
{
    region *r = &b->regions[index];
    size_t offset = 0;
    for (int i = 0; i < placed_count; i++) {
        const region *other = &b->regions[b->placed[i]];
        if (other->last < r->first || other->first > r->last) {
            continue;
        }
        if (other->offset >= offset + r->bytes) {
            break;
        }
        size_t end = size_round_up(other->offset + other->bytes, ARENA_ALIGNMENT);
        offset = size_maximum(offset, end);
    }
    r->offset = offset;
    int position = placed_count;
    while (position > 0 && b->regions[b->placed[position - 1]].offset > offset) {
        b->placed[position] = b->placed[position - 1];
        position--;
    }
    b->placed[position] = index;
}

onestep_status placement_create(placement *result, const program *p, const bool *kept,
                                onestep_error *error)
{
    memset(result, 0, sizeof *result);
    builder b = {.program = p, .kept = kept, .region_count = p->value_count + p->step_count};
    size_t count = (size_t)b.region_count;
    onestep_status status = ONESTEP_ERROR_MEMORY;
    b.regions = memory_allocate(count, sizeof *b.regions, error);
    b.owner = memory_allocate((size_t)p->value_count, sizeof *b.owner, error);
    b.order = memory_allocate(count, sizeof *b.order, error);
    b.placed = memory_allocate(count, sizeof *b.placed, error);
    result->offsets = memory_allocate((size_t)p->value_count, sizeof *result->offsets, error);
    result->scratch_offsets =
        memory_allocate((size_t)p->step_count, sizeof *result->scratch_offsets, error);
    if (!b.regions || !b.owner || !b.order || !b.placed || !result->offsets ||
        !result->scratch_offsets) {
        goto done;
    }
    find_lifetimes(&b);
    share_in_place(&b);
    for (int i = 0; i < b.region_count; i++) {
        b.order[i] = i;
    }
    qsort_r(b.order, count, sizeof *b.order, compare_regions, b.regions);
    int placed = 0;
    for (int i = 0; i < b.region_count; i++) {
        region *r = &b.regions[b.order[i]];
        if (r->bytes == 0 || r->last < r->first) {
            continue;
        }
        place(&b, b.order[i], placed++);
        size_t end = r->offset + r->bytes;
        if (end < r->offset || end > PTRDIFF_MAX) {
            status = error_set(error, ONESTEP_ERROR_MEMORY, "the picture is too large to plan");
            goto done;
        }
        result->arena_bytes = size_maximum(result->arena_bytes, end);
    }
    for (int v = 0; v < p->value_count; v++) {
        result->offsets[v] = b.regions[b.owner[v]].offset;
    }
    for (int s = 0; s < p->step_count; s++) {
        result->scratch_offsets[s] = b.regions[p->value_count + s].offset;
    }
    status = ONESTEP_OK;
done:
    memory_free(b.regions);
    memory_free(b.owner);
    memory_free(b.order);
    memory_free(b.placed);
    if (status != ONESTEP_OK) {
        placement_free(result);
    }
    return status;
}

void placement_free(placement *result)
{
    memory_free(result->offsets);
    memory_free(result->scratch_offsets);
    memset(result, 0, sizeof *result);
}
