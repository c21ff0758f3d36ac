#include "serve/job.h"

#include <string.h>

job *job_create(onestep_error *error)
{
    job *j = memory_allocate(1, sizeof *j, error);
    if (j) {
        j->references = 1;
        j->socket = -1;
        j->count = 1;
    }
    return j;
}

void job_release(job *j, const serve_fields *fields)
{
    if (!j || --j->references > 0) {
        return;
    }
    form_free(&j->form);
    if (j->fields) {
        fields->destroy(j->fields);
    }
    text_buffer_free(&j->events);
    text_buffer_free(&j->body);
    memory_free(j->picture);
    memory_free(j);
}

/* ---- the queue ---------------------------------------------------------------------------------
 */

static size_t waiting_of(const job_queue *queue, const char *client, job **newest)
{
    size_t count = 0;
    for (job *j = queue->first; j; j = j->next) {
        if (strcmp(j->client, client) == 0) {
            count++;
            if (newest && (!*newest || j->sequence > (*newest)->sequence)) {
                *newest = j;
            }
        }
    }
    return count;
}

/* The newest job of the client that has most waiting, if that is two more than `own`. */
static job *find_evictable(const job_queue *queue, size_t own)
{
    job *result = NULL;
    size_t most = own + 1;
    for (job *j = queue->first; j; j = j->next) {
        job *newest = NULL;
        size_t count = waiting_of(queue, j->client, &newest);
        if (count > most) {
            most = count;
            result = newest;
        }
    }
    return result;
}

bool job_queue_admits(const job_queue *queue, const char *client)
{
    return queue->count < queue->most ||
           find_evictable(queue, waiting_of(queue, client, NULL)) != NULL;
}

bool job_queue_push(job_queue *queue, job *j, job *const *running, size_t running_count,
                    job **evicted)
{
    *evicted = NULL;
    if (queue->count >= queue->most) {
        *evicted = find_evictable(queue, waiting_of(queue, j->client, NULL));
        if (!*evicted || !job_queue_remove(queue, *evicted)) {
            return false;
        }
    }
    /* The round after the client's latest job, but not before the one that is served now. */
    uint64_t round = queue->round;
    for (const job *other = queue->first; other; other = other->next) {
        if (strcmp(other->client, j->client) == 0 && other->round >= round) {
            round = other->round + 1;
        }
    }
    for (size_t i = 0; i < running_count; i++) {
        if (running[i] && strcmp(running[i]->client, j->client) == 0 &&
            running[i]->round >= round) {
            round = running[i]->round + 1;
        }
    }
    j->round = round;
    j->sequence = queue->sequence++;
    j->next = NULL;
    job **place = &queue->first;
    while (*place && (*place)->round <= round) {
        place = &(*place)->next;
    }
    j->next = *place;
    *place = j;
    queue->count++;
    return true;
}

job *job_queue_pop(job_queue *queue)
{
    job *j = queue->first;
    if (j) {
        queue->first = j->next;
        queue->count--;
        queue->round = j->round;
        j->next = NULL;
    }
    return j;
}

bool job_queue_remove(job_queue *queue, job *j)
{
    for (job **place = &queue->first; *place; place = &(*place)->next) {
        if (*place == j) {
            *place = j->next;
            j->next = NULL;
            queue->count--;
            return true;
        }
    }
    return false;
}
